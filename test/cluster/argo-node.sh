#!/bin/sh
# Inside the node: starts redis and Argo CD's programs, unless they run, and waits until they answer.
set -eu
scripts=$(cd "$(dirname "$0")" && pwd)
cd /run/node/argo
PATH=/run/node/argo/programs:/run/node/programs:/usr/sbin:/usr/bin:/sbin:/bin
export KUBECONFIG=/run/node/argo/kubeconfig

seconds=120
answers() { # URL
	until curl -s -o /dev/null -m 1 "$1"; do
		[ $seconds -gt 0 ] || { echo "argo-node.sh: $1 does not answer" >&2; exit 1; }
		sleep 0.5
		seconds=$((seconds - 1))
	done
}

if [ ! -f pids/controller ] || ! kill -0 "$(cat pids/controller)" 2>/dev/null; then
	rm -rf pids && mkdir -p pids tls ssh gpg/keys home tmp
	: >ssh/ssh_known_hosts
	sed 's/\(user: admin\)}/\1, namespace: argocd}/' /run/node/kubeconfig/admin >kubeconfig
	kubectl apply --server-side --force-conflicts -f programs/crds >/dev/null
	until kubectl wait --for=condition=Established --timeout=30s crd/applications.argoproj.io crd/appprojects.argoproj.io \
		crd/applicationsets.argoproj.io >/dev/null 2>&1; do sleep 0.5; done
	kubectl create namespace argocd >/dev/null 2>&1 || :
	kubectl apply --server-side --force-conflicts -f "$scripts/manifests/argocd.yaml" >/dev/null

	export HOME=/run/node/argo/home TMPDIR=/run/node/argo/tmp REDIS_PASSWORD= ARGOCD_FAKE_IN_CLUSTER=true ARGOCD_GPG_ENABLED=false
	export ARGOCD_TLS_DATA_PATH=/run/node/argo/tls ARGOCD_SSH_DATA_PATH=/run/node/argo/ssh ARGOCD_GNUPGHOME=/run/node/argo/gpg/keys
	export ARGOCD_ASK_PASS_SOCK=/run/node/argo/askpass # by default it is in /tmp, which nodes share
	export GIT_COMMITTER_NAME=argocd GIT_COMMITTER_EMAIL=argocd@lab.local # git would look the node's name up, for six seconds
	export ARGOCD_RECONCILIATION_TIMEOUT=5s ARGOCD_RECONCILIATION_JITTER=0 ARGOCD_SYNC_WAVE_DELAY="${ARGOCD_SYNC_WAVE_DELAY:-2}"
	run() { # NAME PROGRAM ARGUMENT...; an Argo CD program is what ARGOCD_BINARY_NAME says
		of=$1
		shift
		setsid "$@" >"/run/node/logs/argo-$of" 2>&1 </dev/null &
		echo $! >"pids/$of"
	}
	redis=127.0.0.1:6379 repositories=127.0.0.1:8081
	run redis redis-server --bind 127.0.0.1 --port 6379 --dir /run/node/argo --save '' --appendonly no
	ARGOCD_BINARY_NAME=argocd-repo-server run repo-server argocd --address 127.0.0.1 --port 8081 --metrics-address 127.0.0.1 --metrics-port 8084 \
		--disable-tls --redis $redis --parallelismlimit 2
	ARGOCD_BINARY_NAME=argocd-application-controller run controller argocd --kubeconfig "$KUBECONFIG" --namespace argocd --redis $redis \
		--repo-server $repositories --repo-server-plaintext --metrics-port 8082 --status-processors 4 --operation-processors 2
	ARGOCD_BINARY_NAME=argocd-applicationset-controller run applicationset argocd --kubeconfig "$KUBECONFIG" --namespace argocd \
		--argocd-repo-server $repositories --repo-server-plaintext --metrics-addr 127.0.0.1:8085 --probe-addr 127.0.0.1:8086 --webhook-addr 127.0.0.1:7000
	ARGOCD_BINARY_NAME=argocd-server run server argocd --kubeconfig "$KUBECONFIG" --namespace argocd --address 10.77.0.1 --port 8080 \
		--metrics-address 127.0.0.1 --metrics-port 8083 --insecure --disable-auth --redis $redis --repo-server $repositories --repo-server-plaintext \
		--dex-server http://127.0.0.1:5556
fi
answers http://127.0.0.1:8084/healthz
answers http://127.0.0.1:8082/healthz
answers http://127.0.0.1:8086/healthz
answers http://10.77.0.1:8080/healthz
