#!/bin/sh
# A server as a user without rights. It may write its log, which is in memory; its password is a file that only it can read, named by
# PASSWORD_FILE as images of databases and servers have it, and stands neither in config.json nor in the environment. The shipped
# filter knows no TCP, so it has Docker's.
set -eu
mkdir -p root/bin root/www root/var/log/web
cp /bin/busybox root/bin/busybox
for name in sh httpd wget cat stat touch sleep; do ln -s busybox "root/bin/$name"; done
echo "It works" >root/www/index.html
echo "correct horse" >password.txt

wsbox bundle create ./root ./web --store "${WSBOX_STORE:-/var/lib/wsbox}" \
    --user 33:33 --tmpfs /var/log/web:size=1m --memory 64m --pids-limit 16 \
    --security-opt seccomp=docker-default --secret id=password,src=password.txt --env PASSWORD_FILE=/run/secrets/password \
    -- sh -c 'touch /var/log/web/access; exec httpd -f -p 127.0.0.1:8080 -h /www' >/dev/null 2>&1

wsbox run --detach ./web --id web
trap 'wsbox delete --force web' EXIT
wsbox exec web sh -c 'until wget -qO- http://127.0.0.1:8080/ 2>/dev/null; do sleep 0.1; done'
wsbox exec web sh -c 'stat -c "%a %u" $PASSWORD_FILE; cat $PASSWORD_FILE'
grep -c horse web/config.json || true
