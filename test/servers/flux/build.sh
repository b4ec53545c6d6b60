#!/bin/sh
# Builds Flux's kustomize-controller from its pinned module, takes the definitions of Flux's kinds out of the modules, and prints the shell
# line that tells the tests where they are, as ../build.sh does for what all tests need:
#
#	eval "$(test/servers/flux/build.sh)"
#
# Not the others: parts of source-controller and helm-controller are in no module that can be had. Two minutes on two cores.
set -eu
cd "$(dirname "$0")"
export GOFLAGS=-mod=readonly CGO_ENABLED=0
key=$(cat build.sh go.mod go.sum crds.mod crds.sum | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/backstay/servers
dir=$cache/$key
if [ ! -x "$dir/flux/kustomize-controller" ]; then
	echo "building flux, once; it goes to $dir" >&2
	mkdir -p "$cache"
	scratch=$(mktemp -d "$cache/new.XXXXXX")
	trap 'rm -rf "$scratch"' EXIT
	mkdir -p "$scratch/flux/crds"
	go build -trimpath -ldflags '-s -w' -o "$scratch/flux/kustomize-controller" github.com/fluxcd/kustomize-controller
	go mod download -modfile=crds.mod github.com/fluxcd/source-controller
	cp "$(go list -m -f '{{.Dir}}' github.com/fluxcd/kustomize-controller)"/config/crd/bases/*.yaml \
		"$(go list -modfile=crds.mod -m -f '{{.Dir}}' github.com/fluxcd/source-controller)"/config/crd/bases/*.yaml "$scratch/flux/crds/"
	chmod -R u+w "$scratch/flux/crds"
	mv -T "$scratch" "$dir" 2>/dev/null || [ -x "$dir/flux/kustomize-controller" ] # another run may have been first
fi
printf 'export BACKSTAY_TEST_FLUX=%s\n' "'$dir/flux'"
