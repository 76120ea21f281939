#!/bin/bash
# image.sh PACKAGE...: prints the folder of the guest's image, with these Debian packages in it; built if there is none of just this content.
# Needs root and the packages of GUEST_PACKAGES (Makefile). WSBOX_GUEST_CACHE: where images are kept.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
cache=${WSBOX_GUEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/wsbox-guest}

need() { # COMMAND PACKAGE
	[ -e "$1" ] || command -v "$1" >/dev/null || { echo "guest: $1 is missing: apt-get install $2, or make guest" >&2; exit 1; }
}

# The systemd of the guest: no hardware to wait for, and engines start when a test starts them.
settle() { # ROOT
	local root=$1 unit
	rm -f "$root"/etc/apt/sources.list.d/* "$root"/etc/systemd/system/timers.target.wants/*
	cp -a /usr/lib/uml/modules/. "$root/usr/lib/modules/"
	echo guest >"$root/etc/hostname"
	: >"$root/etc/resolv.conf"
	: >"$root/etc/machine-id"
	chroot "$root" useradd -m -u 1000 -s /bin/bash tester
	# User-mode Linux has no nf_tables families.
	for unit in iptables ip6tables; do chroot "$root" update-alternatives --quiet --set $unit /usr/sbin/$unit-legacy; done
	chroot "$root" systemctl --quiet disable docker.service containerd.service
	chroot "$root" systemctl --quiet mask podman.service podman.socket podman-auto-update.service podman-restart.service
	for unit in getty.target systemd-{udevd,udev-trigger,pstore,timesyncd,update-utmp,update-utmp-runlevel,sysusers,binfmt}.service \
		systemd-{journal-flush,random-seed}.service e2scrub_reap.service systemd-udevd-{control,kernel}.socket \
		proc-sys-fs-binfmt_misc.automount modprobe@{configfs,dm_mod,drm,efi_pstore,fuse,loop}.service \
		sys-kernel-{config,debug,tracing}.mount sys-fs-fuse-connections.mount dev-hugepages.mount; do
		ln -sf /dev/null "$root/etc/systemd/system/$unit"
	done
	ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
	install -m 0755 "$here/session.sh" "$root/usr/local/sbin/guest-session"
	install -m 0644 "$here/guest.service" "$root/etc/systemd/system/guest.service"
	chroot "$root" systemctl --quiet enable guest.service
}

# For qemu: the kernel, and an initrd with just the driver of the disk.
boot_files() { # ROOT TO
	local root=$1 to=$2 initrd=$1.initrd version modules module
	version=$(basename "$root"/boot/vmlinuz-*) version=${version#vmlinuz-}
	cp "$root/boot/vmlinuz-$version" "$to/vmlinuz"
	modules=$(for module in virtio_pci virtio_blk; do
		chroot "$root" modprobe -S "$version" --show-depends $module
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }')
	mkdir "$initrd" "$initrd"/{dev,root}
	cp "$root/bin/busybox" "$initrd/"
	{
		printf '#!/busybox sh\n/busybox mount -t devtmpfs dev /dev\n'
		for module in $modules; do
			cp "$root$module" "$initrd/"
			echo "/busybox insmod /${module##*/}"
		done
		echo '/busybox mount -t ext4 -o rw,noatime /dev/vda /root && exec /busybox switch_root /root /sbin/init'
	} >"$initrd/init"
	chmod +x "$initrd/init"
	(cd "$initrd" && find . | cpio -o -H newc --quiet | gzip) >"$to/initrd.gz"
	rm -rf "${root:?}"/boot/*
}

build() { # TO PACKAGE...
	local to=$1
	shift
	need mmdebstrap mmdebstrap
	need mke2fs e2fsprogs
	need cpio cpio
	need gcc gcc
	rm -rf --one-file-system "$to.new"
	mkdir "$to.new"
	mmdebstrap --quiet --variant=minbase --include="$(IFS=, && echo "$*")" --dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		bookworm "$to.new/root" "${APT_SOURCES:-/etc/apt/sources.list.d/debian.sources}"
	settle "$to.new/root"
	boot_files "$to.new/root" "$to.new"
	gcc -O2 -shared -fPIC -o "$to.new/xstate.so" "$here/xstate.c"
	mke2fs -q -F -t ext4 -O ^has_journal -d "$to.new/root" "$to.new/disk" 8G
	rm -rf --one-file-system "$to.new"/root{,.initrd}
	mv "$to.new" "$to"
}

[ $# -gt 0 ] || { echo "usage: image.sh PACKAGE..." >&2; exit 2; }
need /usr/lib/uml/modules user-mode-linux
key=$(cd "$here" && { cat image.sh session.sh guest.service xstate.c; dpkg-query -W user-mode-linux; echo "$@"; } | sha256sum | cut -c -16)
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ ! -e "$cache/$key" ]; then
	echo "guest: building the image $cache/$key" >&2
	build "$cache/$key" "$@" >&2
	# Images that nobody has used for a week.
	find "$cache" -mindepth 1 -maxdepth 1 -type d -mtime +7 -regextype posix-extended \
		-regex '.*/([0-9a-f]{16}|qemu-bookworm)(\.new)?' -exec rm -rf --one-file-system {} +
fi
touch "$cache/$key"
echo "$cache/$key"
