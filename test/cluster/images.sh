#!/bin/sh
# Makes the images of the test clusters, without a registry and without a container engine: those whose sources changed.
#
#	pause, coredns     programs of the build
#	databases          Debian with MariaDB and PostgreSQL, under the names lab.local/mariadb:10.11 and lab.local/postgresql:15
#	stores             Debian with Redis and etcd, lab.local/redis:7.0 and lab.local/etcd:3.4
#	counter            writes counters to volumes; ./counter
#	backstay, toolbox  bin/backstay in the layouts of deploy/image; the toolbox trusts the tests' authority, authority.crt
set -eu
. "$(dirname "$0")/where.sh"
root=$here/../..
programs=$BACKSTAY_TEST_KUBERNETES
mkdir -p "$images/layers"
scratch=$(mktemp -d "$images/layers/new.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# changed FILE WHAT...: says whether a file is to be made anew, as what it is made of is not as it was.
changed() {
	file=$1
	shift
	sum=$(cat "$@" "$here/images.sh" | sha256sum)
	[ ! -e "$file" ] || [ "$(cat "$file.sum" 2>/dev/null)" != "$sum" ] || return 1
	rm -f "$file.sum"
}

# made FILE: what changed asked for is there.
made() { echo "$sum" >"$1.sum"; }

# archive FILE NAMES CONFIG LAYER...: one file that container engines load; names as JSON.
archive() {
	file=$1 names=$2 config=$3
	shift 3
	rm -rf "$scratch/image"
	mkdir "$scratch/image"
	ids='' layers=''
	for layer in "$@"; do
		id=$(sha256sum "$layer" | cut -d' ' -f1)
		ln "$layer" "$scratch/image/$id.tar"
		ids="$ids${ids:+,}\"sha256:$id\""
		layers="$layers${layers:+,}\"$id.tar\""
	done
	echo "{\"architecture\":\"$(dpkg --print-architecture)\",\"os\":\"linux\",\"config\":$config,\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[$ids]}}" \
		>"$scratch/image/config.json"
	echo "[{\"Config\":\"config.json\",\"RepoTags\":$names,\"Layers\":[$layers]}]" >"$scratch/image/manifest.json"
	tar -C "$scratch/image" -cf "$scratch/archive" .
	mv "$scratch/archive" "$file"
}

# layer DIRECTORY FILE: a tar archive that depends on what the files are, not on who made them or when.
layer() { tar -C "$1" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$2" .; }

# program NAME BINARY: an image of nothing but one static program.
program() {
	changed "$images/$1.tar" "$2" || return 0
	mkdir -p "$scratch/$1"
	cp "$2" "$scratch/$1/$1"
	layer "$scratch/$1" "$scratch/$1.layer"
	archive "$images/$1.tar" "[\"lab.local/$1:1\"]" "{\"Entrypoint\":[\"/$1\"]}" "$scratch/$1.layer"
	made "$images/$1.tar"
}
program pause "$programs/pause"
program coredns "$programs/coredns"
(cd "$root" && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$scratch/counter.program" ./test/cluster/counter)
program counter "$scratch/counter.program"

# debian FILE PACKAGES: Debian with some packages, as a layer.
debian() {
	echo "making an image of Debian with $2, once; it takes a minute or two" >&2
	# shellcheck disable=SC2016
	mmdebstrap --quiet --variant=minbase --include="$2" \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/usr/lib/postgresql/15/lib/bitcode/*' --aptopt='Apt::Install-Recommends "false"' \
		--customize-hook='rm -rf "$1"/var/lib/mysql "$1"/var/lib/postgresql "$1"/var/lib/apt/lists "$1"/var/cache/apt' \
		bookworm "$1" "$(ls /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -1)" >&2
}

if changed "$images/databases.tar"; then
	debian "$scratch/databases-layer.tar" mariadb-server,mariadb-client,postgresql-15,attr,acl
	archive "$images/databases.tar" '["lab.local/mariadb:10.11","lab.local/postgresql:15"]' \
		'{"Env":["PATH=/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["bash"]}' "$scratch/databases-layer.tar"
	made "$images/databases.tar"
fi
if changed "$images/stores.tar"; then
	debian "$scratch/stores-layer.tar" redis-server,redis-tools,etcd-server,etcd-client
	archive "$images/stores.tar" '["lab.local/redis:7.0","lab.local/etcd:3.4"]' \
		'{"Env":["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["bash"]}' "$scratch/stores-layer.tar"
	made "$images/stores.tar"
fi
if changed "$images/layers/toolbox"; then
	debian "$scratch/toolbox.tar" git,openssh-client,ca-certificates,restic
	mv "$scratch/toolbox.tar" "$images/layers/toolbox"
	made "$images/layers/toolbox"
fi
[ -e "$images/authority.crt" ] || {
	openssl ecparam -name prime256v1 -genkey -noout -out "$images/authority.key"
	openssl req -x509 -new -sha256 -key "$images/authority.key" -days 3650 -subj '/CN=authority of the tests' -out "$images/authority.crt"
}

if changed "$images/layers/rootfs" "$root/deploy/image/rootfs.sh"; then
	"$root/deploy/image/rootfs.sh" "$scratch/rootfs"
	tar -C "$scratch/rootfs" --sort=name --numeric-owner -cf "$scratch/rootfs.tar" .
	mv "$scratch/rootfs.tar" "$images/layers/rootfs"
	made "$images/layers/rootfs"
fi
binary=$root/bin/backstay
if [ -e "$binary" ] && changed "$images/backstay.tar" "$binary" "$images/layers/rootfs.sum"; then
	mkdir -p "$scratch/backstay/usr/bin"
	cp "$binary" "$scratch/backstay/usr/bin/backstay"
	layer "$scratch/backstay" "$scratch/backstay.layer"
	archive "$images/backstay.tar" '["lab.local/backstay:dev"]' \
		'{"User":"65532:65532","Env":["PATH=/usr/bin:/bin","HOME=/home/nonroot"],"Entrypoint":["/usr/bin/backstay"]}' \
		"$images/layers/rootfs" "$scratch/backstay.layer"
	made "$images/backstay.tar"
fi
if [ -e "$binary" ] && changed "$images/toolbox.tar" "$binary" "$images/layers/toolbox.sum" "$images/authority.crt"; then
	mkdir -p "$scratch/tools/usr/bin" "$scratch/tools/etc/ssl/certs"
	cp "$binary" "$scratch/tools/usr/bin/backstay"
	ln -s backstay "$scratch/tools/usr/bin/kando"
	ln -s backstay "$scratch/tools/usr/bin/gickup"
	cp "$images/authority.crt" "$scratch/tools/etc/ssl/certs/tests.pem"
	layer "$scratch/tools" "$scratch/tools.layer"
	archive "$images/toolbox.tar" '["lab.local/backstay-toolbox:dev"]' \
		'{"Env":["PATH=/usr/sbin:/usr/bin:/sbin:/bin","HOME=/tmp"],"Cmd":["bash","-c","trap exit TERM; sleep infinity & wait"]}' \
		"$images/layers/toolbox" "$scratch/tools.layer"
	made "$images/toolbox.tar"
fi
