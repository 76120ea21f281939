#!/bin/sh
# A folder with one program becomes a bundle in all eight layers.
set -eu
mkdir -p root/bin
cp /bin/busybox root/bin/busybox
for name in sh id touch grep ls; do ln -s busybox "root/bin/$name"; done

wsbox bundle create ./root ./box --store "${WSBOX_STORE:-/var/lib/wsbox}" --user 1001:1001 -- sh -c '
    id
    grep -E "^(CapEff|NoNewPrivs|Seccomp):" /proc/self/status
    ls /sys/class/net
    touch /file || echo "the root is read-only"' >/dev/null
wsbox run ./box 2>/dev/null
