#!/bin/bash
# suites.sh uml|qemu: in the guest, runs the test binaries of /share that no other guest has taken yet. uml: all tests but those that
# `elsewhere` names; qemu: those that it names for qemu. What each said is left in /share/results.
set -uo pipefail
lane=$1 workspace=$(cat workspace-path)

# The tests look for their data where they were built.
mkdir -p "$workspace" /opt/wsbox
mount --bind -o ro /share/workspace "$workspace"
cp bin/* /opt/wsbox/
# Each test waits for processes most of the time.
export WSBOX=/opt/wsbox/wsbox RUST_TEST_THREADS=4

named() { # SUITE WHERE: prefixes of its tests
	awk -v suite="$1" -v where="$2" '$1 ~ where && $2 == suite { gsub(",", "\n", $3); print $3 }' elsewhere
}

# Filters of libtest for a suite; fails if none of it runs in this lane.
filters() { # SUITE
	if [ "$lane" = qemu ]; then
		named "$1" '^qemu$' | grep . || return
	else
		! named "$1" '^(qemu|host)$' | grep -qx '\*' && named "$1" '^(qemu|host)$' | sed 's/^/--skip=/'
	fi
}

failed=0
for suite in $(cat order); do
	chosen=$(filters "$suite") || { echo elsewhere >"results/$suite" && continue; }
	mkdir "taken/$suite" 2>/dev/null || continue
	cp "tests/$suite" /opt/wsbox/suite
	start=$SECONDS
	(cd "$workspace/integration" && timeout -k 10 400 /opt/wsbox/suite --include-ignored ${chosen/#\*/}) >/tmp/said 2>&1 </dev/null
	status=$?
	{
		echo "     Running $suite in the guest ($((SECONDS - start)) s)"
		if [ $status = 0 ]; then grep '^test result' /tmp/said; else cat /tmp/said && echo "$suite: exit status $status"; fi
	} >/tmp/report
	cat /tmp/report
	cp /tmp/said "results/$suite.said"
	echo $status >"results/$suite"
	[ $status = 0 ] || failed=1
done
exit $failed
