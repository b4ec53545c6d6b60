#!/bin/sh
# Kills one program of a cluster's node, which starts again: kill.sh NAME PROGRAM, as kube-apiserver, kubelet or csihost.
set -eu
name=$1
. "$(dirname "$0")/where.sh"
running || { echo "kill.sh: no cluster $name runs" >&2; exit 1; }
exec nsenter -t "$pid" -m -p sh -c 'kill -9 "$(cat "/run/node/pids/$0")"' "$2"
