#!/bin/sh
# Starts a Kubernetes of one node: up.sh [NAME]. One that runs gets the images that changed, no more. Everything is new at each start
# but the images. It needs root, and leaves nothing outside its directory that down.sh does not remove, but a limit of the kernel's that it
# raises. README.md has the rest.
set -eu
name=${1:-}
. "$(dirname "$0")/where.sh"
[ "$(id -u)" = 0 ] || { echo "up.sh: a cluster has namespaces, mounts and devices of its own, so this needs root" >&2; exit 1; }

"$here/../debian.sh" cluster
[ -n "${BACKSTAY_TEST_KUBERNETES:-}" ] || eval "$("$here/../servers/build.sh" kubernetes)"
export BACKSTAY_TEST_KUBERNETES
# Kubelets and container engines watch files. By default the kernel has a user do so 128 times at once: too few for several clusters.
watchers=/proc/sys/fs/inotify/max_user_instances
[ "$(cat $watchers)" -ge 1024 ] || { echo 1024 >$watchers; } 2>/dev/null ||
	echo "up.sh: $watchers stays $(cat $watchers): another cluster may not start beside this one" >&2
mkdir -p "$images"
flock "$images" "$here/images.sh" # for all clusters
if ! running; then
	"$here/down.sh" "$name" # what one left that was killed
	mkdir -p "$dir/logs"
	ln -sfn "$BACKSTAY_TEST_KUBERNETES" "$dir/programs"
	"$here/pki.sh" "$dir"
	setsid unshare --net --mount --pid --fork --kill-child --mount-proc --uts \
		sh "$here/node.sh" "$name" "$here" "$dir" >"$dir/logs/node" 2>&1 </dev/null &
	parent=$!
	until pgrep -P $parent >"$dir/node.pid"; do
		kill -0 $parent 2>/dev/null || { cat "$dir/logs/node" >&2; exit 1; }
		sleep 0.1
	done
	running
fi
nsenter -t "$pid" -m -n -p -u sh "$here/ready.sh" "$images" || { echo "up.sh: $name is not ready; see $dir/logs" >&2; exit 1; }
cat <<END
cluster $name is up:
	CLUSTER=$name test/cluster/k get pods -A     # kubectl, with all rights
	export KUBECONFIG=$dir/kubeconfig/admin      # for programs run with: nsenter -n -t $pid
	test/cluster/down.sh $name
END
