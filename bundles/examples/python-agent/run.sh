#!/bin/sh
# Python for code that nobody has read. The root is Debian's packages, unpacked once in the store; each agent is a small folder with a
# config.json, and starts in milliseconds.
set -eu
mmdebstrap --quiet --variant=minbase --include=python3-minimal bookworm root.tar

cat >agent.py <<'END'
import os, socket

open("/work/result", "w").write("done")
print("wrote", os.listdir("/work"))
try:
    open("/usr/bin/evil", "w")
except OSError as error:
    print("the root:", error.strerror)
try:
    socket.create_connection(("192.0.2.1", 80), 1)
except OSError as error:
    print("the network:", error.strerror)
try:
    chunks = [bytearray(16 << 20) for _ in range(100)]
except MemoryError:
    print("memory: refused")
END

wsbox bundle create root.tar ./agent --store "${WSBOX_STORE:-/var/lib/wsbox}" \
    --user 1001:1001 --workdir /work --tmpfs /work:size=64m --memory 256m --cpus 1 --pids-limit 64 --ulimit as=201326592 \
    --volume "$PWD/agent.py:/agent.py:ro" -- python3 /agent.py >/dev/null 2>&1
chmod 644 agent.py
wsbox run ./agent
