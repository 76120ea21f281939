#!/bin/sh
# check.sh WSBOX: Debian's minimal root as a folder, saved by docker and by skopeo, and from a registry on loopback: what `wsbox bundle
# check` says of each. README shows it. Takes root, debootstrap, docker.io, docker-registry and skopeo; leaves nothing.
set -eu
wsbox=$(realpath "$1")
work=$(mktemp -d /tmp/wsbox-checks.XXXXXX)
pids=
# dockerd ends its containerd with itself.
trap 'for pid in $pids; do kill "$pid" && wait "$pid" || true; done; rm -rf "$work"' EXIT
cd "$work"

until_there() {
	for _ in $(seq 300); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	echo "$*: not within 30 s" >&2
	return 1
}
shown() {
	echo "\$ wsbox bundle check $*"
	"$wsbox" bundle check "$@" || true
}

debootstrap --variant=minbase bookworm root >log 2>&1 || { tail -n 5 log >&2; exit 1; }
"$wsbox" bundle create ./root ./debian --copy --store "$work/store" --user 1001:1001 >/dev/null 2>&1
shown ./debian --fail-on note

dockerd --host "unix://$work/socket" --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" \
	--bridge none --iptables=false --ip6tables=false </dev/null >dockerd.log 2>&1 &
pids=$!
export DOCKER_HOST="unix://$work/socket" DOCKER_CONFIG="$work/config"
until_there docker version
tar -C root --exclude=./dev/* -c . | docker import --change 'USER 1001:1001' - debian:latest >/dev/null
docker save --output saved.tar debian:latest
shown saved.tar | tail -n 1
skopeo --insecure-policy copy --quiet docker-archive:saved.tar oci:layout:debian-12
shown oci:layout:debian-12 | tail -n 1

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])' 2>/dev/null || echo 35013)
cat >registry.yml <<END
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: '127.0.0.1:$port'}
END
docker-registry serve registry.yml </dev/null >registry.log 2>&1 &
pids="$pids $!"
until_there skopeo --insecure-policy copy --quiet --dest-tls-verify=false oci:layout:debian-12 "docker://127.0.0.1:$port/debian:12"
shown "docker://127.0.0.1:$port/debian:12" | tail -n 1
