#!/bin/bash
# Joins a node to the cluster's bridge.
#   node-net.sh NODE ADDRESS GATEWAY POD_CIDR
set -euo pipefail
node=$1
ip netns delete "$node" 2>/dev/null || true
ip netns add "$node"
ip -n control-plane link delete "$node" 2>/dev/null || true
ip -n control-plane link add "$node" type veth peer name eth0 netns "$node"
ip -n control-plane link set "$node" master br0 up
ip -n "$node" link set lo up
ip -n "$node" address add "$2/24" dev eth0
ip -n "$node" link set eth0 up
ip -n "$node" route add default via "$3"
ip -n control-plane route replace "$4" via "$2"
