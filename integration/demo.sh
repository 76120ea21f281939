#!/bin/sh
# demo.sh WSBOX BUNDLE: runs a bundle in all eight layers, shows what the kernel has in force, and tries to get out.
set -eu
wsbox=$1 bundle=$2 id=demo-$$
root=$(mktemp -d /tmp/wsbox-demo.XXXXXX)
trap '"$wsbox" --root "$root" delete --force "$id"; rm -rf "$root"' EXIT
config=$bundle/config.json
sed 's/^\( *\)"sh"$/\1"sleep", "60"/' "$config" >"$root/config.json"
ln -s "$(realpath "$bundle")/rootfs" "$root/rootfs"
echo "\$ wsbox run --detach $bundle/ --id $id"
"$wsbox" --root "$root" run --detach --bundle "$root" "$id"
echo "\$ wsbox inspect $id"
"$wsbox" --root "$root" inspect "$id"
echo "\$ wsbox exec $id sh"
"$wsbox" --root "$root" exec "$id" sh -c '
	try() { echo "+ $*"; "$@" 2>&1 | sed "s/^/  /"; }
	try id
	try touch /etc
	try mount -t tmpfs none /mnt
	try ping -c 1 -w 1 192.0.2.1
	try ls /dev
	echo "a program of a real root file system ran in all eight layers"
'
"$wsbox" --root "$root" inspect --format json "$id" | grep -q '"inForce": false' && { echo "a layer is missing"; exit 1; }
exit 0
