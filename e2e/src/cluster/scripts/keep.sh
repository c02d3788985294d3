#!/bin/bash
# Runs a daemon again whenever it ends, as an init system would, and notes each end.
#   keep.sh CLUSTER_DIR NAME COMMAND...
dir=$1
name=$2
shift 2
echo $$ >"$dir/run/$name.pid"
while :; do
    "$@" </dev/null >>"$dir/logs/$name.log" 2>&1
    echo "$(date +%T) ended with status $?" >>"$dir/run/$name.ends"
    sleep 0.5
done
