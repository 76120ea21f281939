#!/bin/sh
# packages.sh SUDO PACKAGE...: installs the Debian packages that are missing.
set -eu
sudo=$1
shift
missing=
for package in "$@"; do
	dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
echo "installing:$missing"
$sudo apt-get update -q >/dev/null
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends $missing >/dev/null
