#!/bin/sh
# Flux's kustomize-controller on a cluster that runs: flux.sh up|down [NAME]. It is a process of the node, as Kubernetes' own programs are,
# and looks at what waits for something else every two seconds. Who looks at git is for the test to say. down ends it; what it made on the
# cluster stays, and down.sh takes all of it.
set -eu
what=${1:-}
name=${2:-}
. "$(dirname "$0")/where.sh"
running || { echo "flux.sh: cluster $name does not run" >&2; exit 1; }
inside() { nsenter -t "$pid" -m -n -p -u "$@"; }

case $what in
up)
	[ -n "${BACKSTAY_TEST_FLUX:-}" ] || eval "$("$here/../servers/flux/build.sh")"
	mkdir -p "$dir/flux"
	ln -sfn "$BACKSTAY_TEST_FLUX" "$dir/flux/programs"
	inside sh "$here/flux-node.sh" || { echo "flux.sh: Flux is not ready; see $dir/logs/flux" >&2; exit 1; } ;;
down)
	file=$dir/flux/pid
	[ ! -f "$file" ] || inside kill "$(cat "$file")" 2>/dev/null || :
	rm -f "$file" ;;
*)
	echo "flux.sh: up or down" >&2
	exit 2 ;;
esac
