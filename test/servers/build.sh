#!/bin/sh
# Builds the real servers that tests run against, each from its pinned module beside this script, and prints shell lines that
# tell the tests where they are:
#
#	eval "$(test/servers/build.sh kopia versitygw gitea)"
#
# Binaries are kept outside the tree, under a key made of the module's files and this script, so that only the first run is slow.
# They are built one after another: the linker takes more than a gigabyte for the big ones.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/backstay/servers
[ $# -gt 0 ] || set -- kopia versitygw gitea

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
	*)
		echo "build.sh: no server named $1" >&2
		return 2 ;;
	esac
}

for name in "$@"; do
	[ -d "$here/$name" ] || { echo "build.sh: no server named $name" >&2; exit 2; }
	key=$(cat "$here/build.sh" "$here/$name/go.mod" "$here/$name/go.sum" | sha256sum | cut -c1-16)
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
