#!/bin/sh
# The node: process 1 of namespaces of its own for processes, mounts, network and host name. No uplink: nothing can leave the machine.
#
#	node.sh NAME SCRIPTS DIRECTORY
#
# Whatever the cluster's directory is, inside it is /run/node, so that files of configuration are the same for all, and paths of sockets
# short. What ends is started again, as a real node would.
set -eu
name=$1 scripts=$2 dir=$3

mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/node /run/conf /run/lock /run/netns /run/fake
mount --bind "$dir" /run/node
mount --bind "$scripts/conf" /run/conf
mount --make-rshared / # what the kubelet mounts shows in pods
cd /run/node
mkdir -p pids logs log etcd containerd kubelet volume-plugins csi
mount --bind log /var/log
PATH=/run/node/programs:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# Volumes are on a sparse file with btrfs, whose snapshots are atomic.
truncate -s 16G csi.img
mkfs.btrfs -q csi.img
mount -o loop,noatime csi.img csi

# The kubelet insists on these. It gets files that look like them, so that those of the machine stay as they are.
while read -r setting value; do
	echo "$value" >"/run/fake/$(basename "$setting")"
	mount --bind "/run/fake/$(basename "$setting")" "/proc/sys/$setting"
done <<END
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
END

hostname node1
address=10.77.0.1
ip link set lo up
ip link add node0 type veth peer name node0p
ip link set node0 up
ip link set node0p up
ip addr add $address/24 dev node0
ip route add default dev node0 src $address # processes of the node may call services; kube-proxy turns the calls
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables

# Pods have control groups below one of the cluster's: a kubelet removes those of pods that it does not know.
group=/backstay-$name
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
	mkdir -p /sys/fs/cgroup$group
	for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
		echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
	done
else
	for hierarchy in /sys/fs/cgroup/*/; do
		mkdir -p "$hierarchy$group"
	done
	for file in cpuset.cpus cpuset.mems; do
		cat /sys/fs/cgroup/cpuset/$file >/sys/fs/cgroup/cpuset$group/$file
	done
fi

as='' # the name of the next program's log, where that is not the program's
keep() { # PROGRAM ARGUMENT...
	(
		as=${as:-$1}
		while :; do
			"$@" &
			echo $! >"pids/$as"
			wait $! || :
			sleep 0.5
			echo "== $as ended, and starts again"
		done >>"logs/$as" 2>&1
	) &
}

keep etcd --name node1 --data-dir etcd --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
	--listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
	--initial-cluster node1=http://127.0.0.1:2380 --unsafe-no-fsync --log-level warn
keep containerd --config /run/conf/containerd.toml
keep kube-apiserver --advertise-address=$address --bind-address=0.0.0.0 --secure-port=6443 --cert-dir=pki/apiserver \
	--etcd-servers=http://127.0.0.1:2379 --service-cluster-ip-range=10.96.0.0/16 --allow-privileged=true \
	--authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
	--client-ca-file=pki/ca.crt --tls-cert-file=pki/apiserver.crt --tls-private-key-file=pki/apiserver.key \
	--kubelet-client-certificate=pki/apiserver-kubelet-client.crt --kubelet-client-key=pki/apiserver-kubelet-client.key \
	--kubelet-certificate-authority=pki/ca.crt --kubelet-preferred-address-types=InternalIP \
	--service-account-key-file=pki/sa.pub --service-account-signing-key-file=pki/sa.key \
	--service-account-issuer=https://kubernetes.default.svc.cluster.local \
	--requestheader-client-ca-file=pki/front-proxy-ca.crt --requestheader-allowed-names=front-proxy-client \
	--requestheader-extra-headers-prefix=X-Remote-Extra- --requestheader-group-headers=X-Remote-Group \
	--requestheader-username-headers=X-Remote-User \
	--proxy-client-cert-file=pki/front-proxy-client.crt --proxy-client-key-file=pki/front-proxy-client.key
export KUBECONFIG=/run/node/kubeconfig/admin
until kubectl get --raw /readyz >/dev/null 2>&1; do sleep 0.3; done
touch serving

keep kube-controller-manager --kubeconfig=kubeconfig/kube-controller-manager --bind-address=127.0.0.1 --leader-elect=false \
	--authentication-kubeconfig=kubeconfig/kube-controller-manager --authorization-kubeconfig=kubeconfig/kube-controller-manager \
	--use-service-account-credentials=true --service-account-private-key-file=pki/sa.key --root-ca-file=pki/ca.crt \
	--cluster-signing-cert-file=pki/ca.crt --cluster-signing-key-file=pki/ca.key --client-ca-file=pki/ca.crt \
	--requestheader-client-ca-file=pki/front-proxy-ca.crt --cert-dir=pki/kube-controller-manager
# The scheduler may overlook the binding of a claim while it tries a pod, and looks again after five minutes, if it is not told otherwise.
keep kube-scheduler --pod-max-in-unschedulable-pods-duration=20s --kubeconfig=kubeconfig/kube-scheduler --authentication-kubeconfig=kubeconfig/kube-scheduler \
	--authorization-kubeconfig=kubeconfig/kube-scheduler --bind-address=127.0.0.1 --leader-elect=false --cert-dir=pki/kube-scheduler
keep kubelet --config=/run/conf/kubelet.yaml --kubeconfig=kubeconfig/kubelet --hostname-override=node1 --node-ip=$address \
	--root-dir=/run/node/kubelet --cert-dir=pki/kubelet --cgroup-root="$group"
keep kube-proxy --config=/run/conf/kube-proxy.yaml

fast='--kube-api-qps=100 --kube-api-burst=200' # of themselves they make five requests a second

# Two drivers for volumes: one has snapshots, of groups too, the other has none.
drive() { # DRIVER SNAPSHOTS
	socket=/run/node/kubelet/plugins/$1/csi.sock
	mkdir -p "csi/$1"
	as=csihost-$1
	keep csihost -name "$1" -node node1 -data "csi/$1" -endpoint "$socket" -registrations kubelet/plugins_registry \
		-snapshots="$2" -faults faults
	as=csi-provisioner-$1
	keep csi-provisioner --kubeconfig="$KUBECONFIG" --csi-address="$socket" --extra-create-metadata $fast --v=2
	as=''
}
drive plain.csi.backstay.io false
drive hostpath.csi.k8s.io true
keep csi-snapshotter --kubeconfig="$KUBECONFIG" --csi-address="$socket" --feature-gates=CSIVolumeGroupSnapshot=true $fast --v=2
keep snapshot-controller --kubeconfig="$KUBECONFIG" --feature-gates=CSIVolumeGroupSnapshot=true $fast --v=2
while :; do
	wait || sleep 1 # collects those that lost their parents
done
