#!/bin/bash
# Process 1 of a cluster: a PID namespace and a mount namespace that everything else of it lives in, so that
# one kill ends the cluster and leaves no process, mount, link or network namespace behind.
#   top.sh CLUSTER_DIR INIT [-]
set -euo pipefail
dir=$1
init=$2
# /proc is still the machine's, so this is the process id as the machine sees it.
read -r pid _ </proc/self/stat
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p "$dir/run" "$dir/logs"
rm -f "$dir"/run/*

ip netns add control-plane
# shellcheck disable=SC2016  # the inner shell expands it
nsenter --net=/run/netns/control-plane bash -euc '
    ip link set lo up
    ip link add br0 type bridge
    ip address add "$1" dev br0
    ip link set br0 up
    echo 1 >/proc/sys/net/ipv4/ip_forward
    # Pods reach other nodes by way of the bridge; they need not be told of a shorter way.
    echo 0 >/proc/sys/net/ipv4/conf/all/send_redirects
    echo 0 >/proc/sys/net/ipv4/conf/br0/send_redirects
' bash "$CONTROL_PLANE/24"

echo "$pid" >"$dir/run/init.pid.new"
mv "$dir/run/init.pid.new" "$dir/run/init.pid"
exec "$init" "${@:3}"
