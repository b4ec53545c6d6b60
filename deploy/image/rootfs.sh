#!/bin/sh
# Lays out the files of Backstay's container image but Backstay itself: rootfs.sh DIRECTORY
#
# git, ssh, restic, the clients of MariaDB, PostgreSQL and Redis, and the certificates of authorities, with the libraries they need, out of
# Debian's packages: no shell but the one that git starts ssh with, and phases of Blueprints restic; no package manager. Used by Containerfile and by the tests' cluster, on a Debian machine with apt; it needs no container and no namespaces.
set -eu
mkdir -p "$1"
root=$(cd "$1" && pwd)
state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
[ -n "$(ls /var/lib/apt/lists/*_Packages* 2>/dev/null)" ] || apt-get update -qq

# As if nothing were installed, so that all that is needed is fetched.
: >"$state/status"
mkdir -p "$state/archives/partial"
apt-get -qq -y --no-install-recommends --download-only -o Dir::State::status="$state/status" -o Dir::Cache::archives="$state/archives" \
	-o APT::Sandbox::User=root install git openssh-client ca-certificates dash restic mariadb-client postgresql-client-15 redis-tools >/dev/null

mkdir -p "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib" "$root/usr/lib64" "$root/etc/ssl/certs" "$root/home/nonroot" "$root/tmp" "$root/var/tmp"
for link in bin sbin lib lib64; do
	ln -s "usr/$link" "$root/$link"
done
for package in "$state"/archives/*.deb; do
	case ${package##*/} in
	perl* | libperl* | liberror-perl_* | libgdbm* | libdb5* | git-man_*) continue ;; # for commands of git that Backstay does not run
	lib*-perl_* | postgresql-client-common_*) continue ;; # for scripts around the clients of databases
	debconf_* | openssl_* | debianutils_*) continue ;;                               # for installing
	esac
	dpkg-deb --fsys-tarfile "$package" | tar -x -C "$root" --keep-directory-symlink \
		--exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' --exclude='./usr/share/lintian/*' \
		--exclude='./usr/share/bash-completion/*' --exclude='./etc/cron*' --exclude='./etc/init.d/*'
done
find "$root/usr/bin" -name 'mariadb*' -o -name 'mysql*' -o -name msql2mysql -o -name 'redis-*' | while read -r program; do
	case ${program##*/} in
	mariadb | mariadb-dump | redis-cli) ;;
	*) rm "$program" ;; # scripts, and what is for who runs a server
	esac
done
ln -s ../lib/postgresql/15/bin/pg_dump ../lib/postgresql/15/bin/pg_dumpall ../lib/postgresql/15/bin/pg_restore \
	../lib/postgresql/15/bin/psql "$root/usr/bin"
[ -e "$root/bin/sh" ] || ln -s dash "$root/bin/sh"
find "$root/usr/share/ca-certificates" -name '*.crt' | LC_ALL=C sort | xargs cat >"$root/etc/ssl/certs/ca-certificates.crt"
printf 'root:x:0:0:root:/root:/bin/sh\nnonroot:x:65532:65532:nonroot:/home/nonroot:/bin/sh\n' >"$root/etc/passwd" # ssh asks who it is
printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
chmod 1777 "$root/tmp" "$root/var/tmp"
chown 65532:65532 "$root/home/nonroot"
