#!/bin/sh
# Builds the real servers that tests run against, each from its pinned module beside this script, and prints shell lines that
# tell the tests where they are:
#
#	eval "$(test/servers/build.sh kopia versitygw gitea kubernetes)"
#
# What is named is the program, or for kubernetes the directory of its programs. They are kept outside the tree, under a key made of the
# module's files and this script, so that only the first run is slow: five minutes for most, ten for kubernetes on two cores.
# They are built one after another: the linker takes more than a gigabyte for the big ones.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/backstay/servers
[ $# -gt 0 ] || set -- kopia versitygw gitea kubernetes

# build NAME DESTINATION: leaves the program, and what it needs at run time, in DESTINATION.
build() {
	cd "$here/$1"
	export GOFLAGS=-mod=readonly
	case $1 in
	kopia) # the stock command: points must restore without Backstay
		go build -tags nohtmlui -ldflags '-s -w' -o "$2/kopia" github.com/kopia/kopia ;;
	versitygw) # S3 with complete object lock
		go build -ldflags '-s -w' -o "$2/versitygw" github.com/versity/versitygw/cmd/versitygw ;;
	gitea) # a forge with git over http and ssh, and LFS; without the version it answers 500 to migrations
		go build -tags 'sqlite sqlite_unlock_notify' -ldflags '-s -w -X main.Version=1.26.0' -o "$2/gitea" code.gitea.io/gitea
		root=$(go list -m -f '{{.Dir}}' code.gitea.io/gitea)
		mkdir "$2/static"
		cp -R "$root/options" "$root/templates" "$root/public" "$2/static/"
		chmod -R u+w "$2/static" ;;
	kubernetes) # all of a cluster; test/cluster starts it
		mkdir "$2/kubernetes"
		snapshotter=github.com/kubernetes-csi/external-snapshotter/v8/cmd
		version=v1.34.4
		flags='-s -w'
		for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
			flags="$flags -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=34"
		done
		export CGO_ENABLED=0
		go build -trimpath -ldflags "$flags" -o "$2/kubernetes/" \
			./hyper ./coredns ./csihost ./pause $snapshotter/csi-snapshotter $snapshotter/snapshot-controller
		# It wants an older csi-translation-lib than the others.
		go build -modfile=provisioner.mod -trimpath -ldflags '-s -w' -o "$2/kubernetes/" \
			github.com/kubernetes-csi/external-provisioner/v5/cmd/csi-provisioner
		for name in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
			ln -s hyper "$2/kubernetes/$name"
		done
		mkdir "$2/kubernetes/crds"
		cp "$(go list -m -f '{{.Dir}}' github.com/kubernetes-csi/external-snapshotter/client/v8)"/config/crd/*_*.yaml "$2/kubernetes/crds/"
		chmod u+w "$2/kubernetes/crds/"* ;;
	argocd) # all of Argo CD in one program, the kustomize that it calls, and its custom resources
		mkdir "$2/argocd"
		module=github.com/argoproj/argo-cd/v3
		version=$(go list -m -f '{{.Version}}' $module)
		go build -ldflags "-s -w -X $module/common.version=${version#v}" -o "$2/argocd/argocd" $module/cmd
		(cd kustomize && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$2/argocd/kustomize" sigs.k8s.io/kustomize/kustomize/v5)
		mkdir "$2/argocd/crds"
		cp "$(go list -m -f '{{.Dir}}' $module)"/manifests/crds/*-crd.yaml "$2/argocd/crds/"
		chmod u+w "$2/argocd/crds/"* ;;
	*)
		echo "build.sh: no server named $1" >&2
		return 2 ;;
	esac
}

for name in "$@"; do
	[ -d "$here/$name" ] || { echo "build.sh: no server named $name" >&2; exit 2; }
	key=$({ cat "$here/build.sh"; find "$here/$name" -type f | LC_ALL=C sort | xargs cat; } | sha256sum | cut -c1-16)
	dir=$cache/$key
	if [ ! -x "$dir/$name" ]; then
		echo "building $name, once; it goes to $dir" >&2
		mkdir -p "$cache"
		scratch=$(mktemp -d "$cache/new.XXXXXX")
		trap 'rm -rf "$scratch"' EXIT
		(build "$name" "$scratch")
		mv -T "$scratch" "$dir" 2>/dev/null || [ -x "$dir/$name" ] # another run may have been first
		rm -rf "$scratch"
		trap - EXIT
	fi
	printf 'export BACKSTAY_TEST_%s=%s\n' "$(echo "$name" | tr a-z A-Z)" "'$dir/$name'"
done
