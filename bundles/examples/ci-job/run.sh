#!/bin/sh
# A job on a checkout: the folder's owner is the job's user and nobody else is anybody, so what comes out of it belongs to who gave the
# folder. The job's exit code is the command's.
set -eu
mkdir -p root/bin checkout
cp /bin/busybox root/bin/busybox
for name in sh sort cat ls; do ln -s busybox "root/bin/$name"; done
printf 'b\na\n' >checkout/input
chown -R 1001:1001 checkout

wsbox bundle create ./root ./job --store "${WSBOX_STORE:-/var/lib/wsbox}" \
    --user 1001:1001 --workdir /src --volume "$PWD/checkout:/src" --memory 256m --cpus 2 --pids-limit 128 \
    -- sh -c 'sort input >output; cat output; exit 3' >/dev/null
code=0
wsbox run ./job || code=$?
echo "exit code $code"
stat -c %u checkout/output
