#!/bin/sh
# Inside the node: loads images that changed, installs what a cluster has before anything is put on it, and waits for it.
#
#	ready.sh IMAGES
set -eu
scripts=$(cd "$(dirname "$0")" && pwd) images=$1
PATH=/run/node/programs:/usr/local/go/bin:$PATH
export KUBECONFIG=/run/node/kubeconfig/admin

seconds=240
until_true() { # COMMAND...
	until "$@" >/dev/null 2>&1; do
		[ $seconds -gt 0 ] || { echo "ready.sh: gave up waiting for: $*" >&2; exit 1; }
		sleep 0.5
		seconds=$((seconds - 1))
	done
}

until_true test -S /run/containerd/containerd.sock
until_true ctr version
for archive in "$images"/*.tar; do
	mark=/run/node/containerd/$(basename "$archive").loaded
	sum=$(stat -c '%n %s %Y' "$archive")
	if [ "$(cat "$mark" 2>/dev/null)" != "$sum" ]; then
		ctr -n k8s.io images import "$archive" >/dev/null
		echo "$sum" >"$mark"
	fi
done

[ ! -e /run/node/ready ] || exit 0
until_true test -e /run/node/serving
until_true kubectl get --raw /readyz
kubectl apply --server-side --force-conflicts -f /run/node/programs/crds -f "$scripts/manifests/coredns.yaml" >/dev/null
kubectl wait --for=condition=Established --timeout=60s crd --all >/dev/null
kubectl apply --server-side --force-conflicts -f "$scripts/manifests/csi.yaml" >/dev/null
until_true sh -c 'kubectl get csinode node1 -o jsonpath="{.spec.drivers[*].name}" | grep -w hostpath.csi.k8s.io | grep -qw plain.csi.backstay.io'
kubectl wait --for=condition=Ready --timeout=120s node/node1 >/dev/null
kubectl -n kube-system rollout status --timeout=120s deployment/coredns >/dev/null
touch /run/node/ready
