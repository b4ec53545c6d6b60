#!/bin/sh
# Installs the Debian packages that the tests need where their programs are missing: as root, or else says what to install.
#
#	debian.sh [cluster]        with cluster: those of the cluster too
set -eu

missing=
need() { # PROGRAM PACKAGE...
	program=$1
	shift
	PATH=$PATH:/usr/sbin:/usr/lib/git-core command -v "$program" >/dev/null 2>&1 || missing="$missing $*"
}
need git git
need gcc gcc libc6-dev # the race detector and the SQLite in Gitea are C
need git-lfs git-lfs
need git-http-backend git
need git-daemon git
need ssh openssh-client
need sshd openssh-server
need restic restic
need mariadb-dump mariadb-client # databases, and servers to dump
need mariadbd mariadb-server
need pg_dump postgresql-client
need redis-cli redis-tools
need redis-server redis-server
command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
need npm npm # fetches what forges' clients are tested against
if [ "${1:-}" = cluster ]; then
	need containerd containerd
	need runc runc
	need /usr/lib/cni/bridge containernetworking-plugins
	need nft nftables # kube-proxy
	need iptables iptables # port mappings
	need conntrack conntrack
	need ip iproute2
	need mkfs.btrfs btrfs-progs
	need mmdebstrap mmdebstrap # images
	need openssl openssl
	need pgrep procps
fi

[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "missing for the tests, please install:$missing" >&2
	exit 1
fi
echo "installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
[ -n "$(ls /var/lib/apt/lists/*_Packages* 2>/dev/null)" ] || apt-get update -qq
# openssh-server must not take the port 22 of a machine that only wants to test.
mkdir -p /usr/sbin
policy=/usr/sbin/policy-rc.d
[ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; trap 'rm -f $policy' EXIT; }
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null
