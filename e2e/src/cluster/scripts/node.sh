#!/bin/bash
# Process 1 of a node. Killing it cuts the node's power: its pods die with it, its disk stays.
#   node.sh CLUSTER_DIR NODE CGROUP
# PATH has the programs; NODE_DIR/*.yaml and containerd.toml their settings.
set -euo pipefail
cluster=$1
node=$2
cgroup=$3
dir=$cluster/$node
socket=$dir/containerd.sock

read -r pid _ </proc/self/stat
echo "$pid" >"$cluster/run/$node.init.new"
mv "$cluster/run/$node.init.new" "$cluster/run/$node.init"
mount -t proc proc /proc
hostname "$node"
echo 1 >/proc/sys/net/ipv4/ip_forward

# A disk of its own, so that a hostPath volume is the node's and goes with the cluster. The cluster's folder is
# below /var itself and has to stay in sight.
mkdir -p "$dir/var/lib/volumes"/{1,2,3,4} "$dir/var"/{log,cache,tmp} "$dir$cluster"
mount --bind "$cluster" "$dir$cluster"
mount --rbind "$dir/var" /var
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
# Volumes that ask for mount propagation need shared mounts; these are shared with this node's pods only.
mount --make-rshared /

# The kubelet's cgroup root, in every hierarchy: version 1's, or the one of version 2.
hierarchies=(/sys/fs/cgroup/*/)
version2=
if [[ -e /sys/fs/cgroup/cgroup.procs ]]; then
    hierarchies=(/sys/fs/cgroup/)
    version2=yes
fi
IFS=/ read -ra names <<<"${cgroup#/}"
for below in "${hierarchies[@]}"; do
    [[ -e $below/cgroup.procs ]] || continue
    for name in "${names[@]}"; do
        # Version 2 hands a controller down only where it is told to.
        if [[ $version2 ]]; then
            for controller in $(<"$below/cgroup.controllers"); do
                echo "+$controller" >"$below/cgroup.subtree_control" || true
            done
        fi
        mkdir -p "$below/$name"
        # Version 1 makes a cpuset without processors, which takes no process.
        for file in cpuset.cpus cpuset.mems; do
            [[ $version2 || ! -e $below/$file || -n $(<"$below/$name/$file") ]] ||
                cat "$below/$file" >"$below/$name/$file"
        done
        below=$below/$name
    done
done

keep() {
    local name=$1
    shift
    setsid bash "$cluster/keep.sh" "$cluster" "$node.$name" "$@" </dev/null >/dev/null 2>&1 &
}

rm -f "$socket"
keep containerd containerd --config "$dir/containerd.toml"
(
    until [[ -S $socket ]] && ctr --address "$socket" version >/dev/null 2>&1; do sleep 0.1; done
    # Power may have been off when an image was loaded.
    for image in "$cluster"/images/*.tar; do
        seen=$dir/images-seen/${image##*/}
        [[ $seen -nt $image ]] && continue
        ctr --address "$socket" --namespace k8s.io images import "$image" && touch "$seen"
    done
    keep kubelet kubelet --config "$dir/kubelet.yaml" --kubeconfig "$cluster/pki/$node.kubeconfig" \
        --hostname-override "$node" --node-ip "$NODE_ADDRESS"
    keep kube-proxy kube-proxy --config "$dir/kube-proxy.yaml"
) </dev/null >>"$cluster/logs/$node.start.log" 2>&1 &
exec init
