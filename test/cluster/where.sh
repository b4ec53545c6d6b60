# Where things of the test cluster are, for the scripts beside this one, which set name first. Sourced, not run.
# shellcheck shell=sh
here=$(cd "$(dirname "$0")" && pwd)
name=${name:-backstay}
case $name in *[!a-z0-9-]* | -*) echo "a cluster's name has small letters, digits and dashes: $name" >&2; exit 2 ;; esac
clusters=${BACKSTAY_TEST_CLUSTER:-${XDG_CACHE_HOME:-$HOME/.cache}/backstay/cluster}
images=$clusters/.images
dir=$clusters/$name
PATH=$PATH:/usr/sbin:/sbin

# running says whether the cluster runs, and leaves the process that is its node in pid.
running() {
	pid=$(cat "$dir/node.pid" 2>/dev/null) && kill -0 "$pid" 2>/dev/null &&
		tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF "node.sh $name "
}
