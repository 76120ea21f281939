#!/bin/sh
# packages.sh SUDO PACKAGE...: installs the Debian packages that are missing; removes none, and starts no service.
set -eu
sudo=$1
shift
missing=
for package in "$@"; do
	dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
echo "installing:$missing"
# The tests start their own engines: Debian's are not to run because they were installed (invoke-rc.d(8)).
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap '$sudo rm -f $policy' EXIT
	printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
	$sudo chmod 755 $policy
fi
$sudo apt-get update -q >/dev/null
# Docker's own packages conflict with Debian's docker.io.
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-remove --no-install-recommends $missing >/dev/null
