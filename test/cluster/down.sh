#!/bin/sh
# Ends a cluster: down.sh [NAME]. Images stay, for the next.
set -eu
name=${1:-}
. "$(dirname "$0")/where.sh"

if running; then
	# The kubelet has loop devices of its own over those of block volumes, and they outlive it.
	nsenter -t "$pid" -m losetup --list --noheadings --output NAME,BACK-FILE | while read -r device file; do
		case $file in /run/node/kubelet/*) nsenter -t "$pid" -m losetup --detach "$device" ;; esac
	done
	kill -9 "$pid" # all in its process namespace go with it
	while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
fi
for group in /sys/fs/cgroup/backstay-"$name" /sys/fs/cgroup/*/backstay-"$name"; do
	[ ! -d "$group" ] || for _ in 1 2 3 4 5; do
		find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
		sleep 0.2 # what was killed is still leaving
	done
done
for entry in "$dir"/*; do
	case $entry in */containerd | "$dir/*") ;; *) rm -rf "$entry" ;; esac
done
