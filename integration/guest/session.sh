#!/bin/sh
# In the guest: mounts the shared folder, runs the command that is in it, and leaves its output and exit status there.
host=$(sed -n 's/.*hostshare=\([^ ]*\).*/\1/p' /proc/cmdline)
session=$(sed -n 's/.*guest-session=\([^ ]*\).*/\1/p' /proc/cmdline)
mkdir -p /share
if [ -n "$host" ]; then mount -t hostfs -o "$host" none /share; else mount -t virtiofs share /share; fi || exit
# hostfs is written back late; the host is to see the output as it comes.
echo 50 | tee /proc/sys/vm/dirty_writeback_centisecs >/proc/sys/vm/dirty_expire_centisecs
cd /share || exit
bash "$session"/command >"$session"/output 2>&1 </dev/null
echo $? >"$session"/status
