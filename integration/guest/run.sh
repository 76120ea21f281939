#!/bin/bash
# run.sh IMAGE DIR COMMAND...: runs a shell command line as root in a throw-away guest with pure cgroup v2, systemd and Docker.
# IMAGE is what image.sh prints; DIR is /share in the guest, writable, and the working directory (no spaces or commas in its path);
# guests may share it.
# Prints the output and exits with the exit status; 125: the guest did not finish.
#   GUEST=uml|qemu  GUEST_MEM=2048 (MiB)  GUEST_TIMEOUT=900 (s)  GUEST_CPU=0 (which CPU a user-mode Linux runs on)
set -euo pipefail

need() { # COMMAND PACKAGE
	[ -x "$1" ] || command -v "$1" >/dev/null || { echo "guest: $1 is missing: apt-get install $2, or make guest" >&2; exit 125; }
}

run_uml() { # one CPU: its threads hand over to each other at every fault and call
	LD_PRELOAD=$image/xstate.so exec taskset -c "${GUEST_CPU:-0}" /usr/bin/linux.uml mem="${mem}M" ubd0="$tmp/cow,$image/disk" \
		root=/dev/ubda rw hostshare="$share" guest-session="$session" con=null con0=null,fd:1 quiet
}

run_qemu() {
	local root
	root=$("$(dirname "$0")/qemu.sh")
	mount --bind "$image" "$root/image"
	mount --bind "$share" "$root/share"
	mount --bind "$tmp" "$root/tmp"
	mount --rbind /dev "$root/dev"
	mount --rbind /proc "$root/proc"
	chroot "$root" /usr/lib/qemu/virtiofsd --socket-path=/tmp/fs -o source=/share -o sandbox=chroot 2>/dev/null &
	until [ -S "$tmp/fs" ]; do sleep 0.1; done
	exec chroot "$root" qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m "$mem" \
		-nodefaults -no-user-config -no-reboot -display none -serial stdio -kernel /image/vmlinuz -initrd /image/initrd.gz \
		-append 'console=ttyS0 panic=-1 quiet mitigations=off nokaslr apparmor=0 guest-session='"$session" \
		-drive file=/image/disk,format=raw,if=none,id=disk,snapshot=on,cache=unsafe -device virtio-blk-pci,drive=disk \
		-object memory-backend-memfd,id=mem,size="${mem}M",share=on -numa node,memdev=mem \
		-chardev socket,id=fs,path=/tmp/fs -device vhost-user-fs-pci,chardev=fs,tag=share
}

engine=${GUEST:-uml} mem=${GUEST_MEM:-2048}
if [ "${1-}" = --engine ]; then # again, in a PID namespace, below
	image=$2 share=$3 session=$4 tmp=$5
	"run_$engine"
fi
[ $# -ge 3 ] || { echo "usage: run.sh IMAGE DIR COMMAND..." >&2; exit 2; }
case $engine in
uml) need /usr/bin/linux.uml user-mode-linux ;;
qemu) "$(dirname "$0")/qemu.sh" >/dev/null || exit 125 ;;
*) echo "guest: GUEST is uml or qemu, not $engine" >&2 && exit 2 ;;
esac
image=$(realpath "$1") share=$(realpath "$2")
shift 2
tmp=$(mktemp -d) control=$(mktemp -d "$share/.session.XXXXXX")
trap 'rm -rf "$tmp" "$control"' EXIT
echo "$*" >"$control/command"
: >"$control/output"
# The PID namespace takes along the processes that both engines would leave behind.
TMPDIR=/dev/shm timeout -s KILL "${GUEST_TIMEOUT:-900}" unshare --pid --fork --kill-child --mount-proc \
	"$0" --engine "$image" "$share" "${control##*/}" "$tmp" </dev/null >"$tmp/console" 2>&1 &
tail -n +1 -s 0.2 -f --pid=$! "$control/output"
if [ -s "$control/status" ]; then
	exit "$(cat "$control/status")"
fi
echo "guest: it did not finish; the end of its console:" >&2
tail -n 20 "$tmp/console" >&2
exit 125
