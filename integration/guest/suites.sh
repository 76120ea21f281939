#!/bin/bash
# suites.sh LANE: in the guest, runs the test binaries of /share/tests that no other guest has taken yet. LANE uml: all tests but those of
# /share/elsewhere; qemu: those that name it there. What each said is left in /share/results.
set -uo pipefail
lane=$1 here=$(sed -n 's/.*guest-session=\.session\.\([^ ]*\).*/\1/p' /proc/cmdline)

# Where the tests expect their data.
workspace=$(cat workspace-path)
mkdir -p "$workspace" /opt/wsbox
mount --bind -o ro /share/workspace "$workspace"
cp bin/* /opt/wsbox/
# Each waits for processes most of the time.
export WSBOX=/opt/wsbox/wsbox RUST_TEST_THREADS=${RUST_TEST_THREADS:-4} RUST_BACKTRACE=0

named() { # SUITE LANE: its tests that run there, in place of here
	awk -v suite="$1" -v lane="$2" '$1 ~ lane && $2 == suite { print $3 }' elsewhere
}

failed=0
for suite in $(cat order); do
	mkdir "taken/$suite" 2>/dev/null || continue
	if [ "$lane" = qemu ]; then
		chosen=$(named "$suite" qemu)
		[ -n "$chosen" ] || continue
		chosen="--exact $chosen"
	else
		chosen=$(named "$suite" . | sed 's/^/--skip /')
		chosen=${chosen:+--exact $chosen}
	fi
	cp "tests/$suite" /opt/wsbox/suite
	start=$SECONDS
	(cd "$workspace/integration" && timeout 600 /opt/wsbox/suite $chosen) >/tmp/said 2>&1 </dev/null
	status=$?
	rm /opt/wsbox/suite
	{
		echo "     Running $suite in the guest ($((SECONDS - start)) s, $here)"
		if [ $status = 0 ]; then grep '^test result' /tmp/said; else cat /tmp/said && echo "$suite: exit status $status"; fi
	} >/tmp/report
	cat /tmp/report
	cp /tmp/said "results/$suite.said"
	echo $status >"results/$suite"
	[ $status = 0 ] || failed=1
done
exit $failed
