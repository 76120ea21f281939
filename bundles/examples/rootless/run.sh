#!/bin/sh
# Without root: `systemd-run --user --scope -p Delegate=yes ./run.sh`, which gives the containers a cgroup that they may be in. Root inside
# is the user outside, and the other ids are those of /etc/subuid and /etc/subgid.
set -eu
mkdir -p root/bin work
cp /bin/busybox root/bin/busybox
for name in sh id grep ls touch wc cat chown; do ln -s busybox "root/bin/$name"; done

wsbox bundle create ./root ./box --store "${WSBOX_STORE:-$HOME/.local/share/wsbox}" --volume "$PWD/work:/work" --workdir /work -- sh -c '
    id -u
    grep -E "^(CapEff|NoNewPrivs|Seccomp):" /proc/self/status
    wc -l </proc/self/uid_map
    ls /sys/class/net
    touch /file || echo "the root is read-only"
    echo done >result' >/dev/null 2>&1
wsbox run ./box 2>/dev/null
cat work/result
[ -O work/result ] && echo "and it is the user's"
