#!/bin/sh
# Argo CD on a cluster that runs: argo.sh up|down [NAME]. Its programs are processes of the node, as Kubernetes' own are; it looks at
# repositories every five seconds. down ends them; what they made on the cluster stays, and down.sh takes all of it.
set -eu
what=${1:-}
name=${2:-}
. "$(dirname "$0")/where.sh"
running || { echo "argo.sh: cluster $name does not run" >&2; exit 1; }
inside() { nsenter -t "$pid" -m -n -p -u "$@"; }

case $what in
up)
	[ -n "${BACKSTAY_TEST_ARGOCD:-}" ] || eval "$("$here/../servers/build.sh" argocd)"
	mkdir -p "$dir/argo"
	ln -sfn "$BACKSTAY_TEST_ARGOCD" "$dir/argo/programs"
	inside sh "$here/argo-node.sh" || { echo "argo.sh: Argo CD is not ready; see $dir/logs/argo-*" >&2; exit 1; } ;;
down)
	# shellcheck disable=SC2016
	cat "$dir"/argo/pids/* 2>/dev/null | inside xargs -r sh -c '
		kill "$@" 2>/dev/null
		for process; do
			for _ in $(seq 100); do kill -0 "$process" 2>/dev/null || break; sleep 0.1; done
			kill -9 "$process" 2>/dev/null
		done
		:' sh
	rm -rf "$dir/argo/pids" ;;
*)
	echo "argo.sh: up or down" >&2
	exit 2 ;;
esac
