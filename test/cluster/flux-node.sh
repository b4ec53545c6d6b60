#!/bin/sh
# Inside the node: starts Flux's kustomize-controller, unless it runs, and waits until it answers.
set -eu
cd /run/node/flux
PATH=/run/node/flux/programs:/run/node/programs:/usr/sbin:/usr/bin:/sbin:/bin
export KUBECONFIG=/run/node/kubeconfig/admin

if [ ! -f pid ] || ! kill -0 "$(cat pid)" 2>/dev/null; then
	mkdir -p tmp
	kubectl apply --server-side --force-conflicts -f programs/crds >/dev/null
	until kubectl wait --for=condition=Established --timeout=30s crd/kustomizations.kustomize.toolkit.fluxcd.io \
		crd/gitrepositories.source.toolkit.fluxcd.io crd/ocirepositories.source.toolkit.fluxcd.io >/dev/null 2>&1; do sleep 0.5; done
	kubectl create namespace flux-system >/dev/null 2>&1 || :
	RUNTIME_NAMESPACE=flux-system TMPDIR=/run/node/flux/tmp setsid kustomize-controller --metrics-addr 127.0.0.1:8090 --health-addr 127.0.0.1:9440 \
		--requeue-dependency 2s --log-encoding console >/run/node/logs/flux 2>&1 </dev/null &
	echo $! >pid
fi
seconds=60
until curl -s -o /dev/null -m 1 http://127.0.0.1:9440/readyz; do
	[ $seconds -gt 0 ] || { echo "flux-node.sh: the controller does not answer" >&2; exit 1; }
	sleep 0.5
	seconds=$((seconds - 1))
done
