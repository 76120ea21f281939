#!/bin/bash
# qemu.sh: prints a root folder with Debian 12's qemu in it, unpacked beside the guest's images if it is not there yet. It is never installed: its
# packages conflict with those of other releases that a host may have. Needs root, and mmdebstrap.
set -euo pipefail
cache=${WSBOX_GUEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/wsbox-guest}
root=$cache/qemu-bookworm

command -v mmdebstrap >/dev/null || { echo "guest: mmdebstrap is missing: apt-get install mmdebstrap, or make guest" >&2; exit 1; }
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ ! -e "$root" ]; then
	echo "guest: unpacking qemu into $root" >&2
	rm -rf --one-file-system "$root.new"
	mmdebstrap --quiet --variant=extract --include=qemu-system-x86,qemu-system-common --dpkgopt='path-exclude=/usr/share/doc/*' \
		bookworm "$root.new" "${APT_SOURCES:-/etc/apt/sources.list.d/debian.sources}" >&2
	mkdir -p "$root.new"/{dev,proc,image,share}
	mv "$root.new" "$root"
fi
touch "$root"
echo "$root"
