#!/bin/bash
# test.sh uml|qemu PACKAGE...: builds the test binaries of the workspace, and runs them in the guest whose image has these packages: every one but what
# elsewhere names. SUITES="layers update" runs just these. Fails when a test fails, or when a guest does not finish.
set -euo pipefail
lane=$1
shift
here=$(dirname "$(realpath "$0")") workspace=$(realpath "$(dirname "$0")/../..")
cd "$workspace"
share=$workspace/target/guest sudo=$([ "$(id -u)" = 0 ] || echo sudo)
build=(--profile quick --target "$TARGET" --workspace --features wsbox-integration/guest)

image=$($sudo "$here/image.sh" "$@")
cargo build "${build[@]}" --bins
# SUITE FILE: a test of integration/tests by its name, the tests inside of a crate by the crate's.
binaries=$(cargo test "${build[@]}" --no-run --message-format=json-render-diagnostics | jq -r 'select(.executable and .profile.test) |
	.target.name + (if .target.kind == ["bin"] then "-bin" else "" end) + " " + .executable')

$sudo rm -rf "$share"
mkdir -p "$share"/{bin,tests,taken,results,workspace/{integration,runtime}}
ln "target/$TARGET/quick/"{wsbox,probe} "$share/bin/"
cp -r deployment "$share/workspace/"
cp "$here"/{suites.sh,elsewhere} "$share/"
echo "$workspace" >"$share/workspace-path"
# The longest first, that two guests end at the same time.
first="docker podman install_docker attacks_files attacks_process engines commands"
while read -r suite file; do
	[[ " ${SUITES:-$suite} " != *" $suite "* ]] || { ln "$file" "$share/tests/$suite" && echo "$suite"; }
done <<<"$binaries" >"$share/suites"
{ for suite in $first; do grep -x "$suite" "$share/suites" || true; done && grep -vxF "$(tr ' ' '\n' <<<"$first")" "$share/suites" || true; } >"$share/order"

# A line that names no test hides nothing, and says that somebody renamed one.
grep -v '^#' "$here/elsewhere" | while read -r _ suite prefixes _; do
	[ -e "$share/tests/$suite" ] || continue
	IFS=, read -ra prefixes <<<"$prefixes"
	tests=$("$share/tests/$suite" --list 2>/dev/null)
	for prefix in "${prefixes[@]}"; do
		[[ $tests == *"${prefix/#\*/}"* ]] || { echo "elsewhere: $suite has no test $prefix" >&2 && exit 1; }
	done
done

failed=0
guests=()
for cpu in $([ "$lane" = uml ] && seq 0 $(($(nproc) > 1)) || echo 0); do
	$sudo env GUEST="$lane" GUEST_CPU="$cpu" GUEST_TIMEOUT="${GUEST_TIMEOUT:-900}" "$here/run.sh" "$image" "$share" bash suites.sh "$lane" &
	guests+=($!)
done
for guest in "${guests[@]}"; do wait "$guest" || failed=1; done
for suite in $(cat "$share/order"); do
	[ -s "$share/results/$suite" ] || { echo "guest: $suite did not finish" && failed=1; }
done
exit $failed
