#!/bin/sh
# Makes the certificates of a cluster, and a kubeconfig for each of its programs and the administrator: pki.sh DIRECTORY
set -eu
mkdir -p "$1/pki" "$1/kubeconfig"
cd "$1/pki"
address=10.77.0.1

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }

authority() { # NAME SUBJECT
	key "$1"
	openssl req -x509 -new -sha256 -key "$1.key" -days 30 -subj "/CN=$2" -out "$1.crt" \
		-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,digitalSignature
}

certificate() { # AUTHORITY NAME SUBJECT USE [ALTERNATIVE-NAMES]
	key "$2"
	printf 'keyUsage=critical,digitalSignature,keyEncipherment\nextendedKeyUsage=%s\n%s\n' "$4" "${5:+subjectAltName=$5}" >"$2.ext"
	openssl req -new -key "$2.key" -subj "$3" |
		openssl x509 -req -CA "$1.crt" -CAkey "$1.key" -CAcreateserial -days 30 -sha256 -extfile "$2.ext" -out "$2.crt" 2>/dev/null
	rm "$2.ext"
}

authority ca kubernetes-ca
authority front-proxy-ca front-proxy-ca
service=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:10.96.0.1
certificate ca apiserver /CN=kube-apiserver serverAuth "$service,DNS:localhost,IP:$address,IP:127.0.0.1"
certificate ca apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
certificate front-proxy-ca front-proxy-client /CN=front-proxy-client clientAuth
certificate ca kubelet-server /O=system:nodes/CN=system:node:node1 serverAuth "DNS:node1,IP:$address,IP:127.0.0.1"
certificate ca kubelet /O=system:nodes/CN=system:node:node1 clientAuth
certificate ca admin /O=system:masters/CN=admin clientAuth
for program in controller-manager scheduler proxy; do
	certificate ca kube-$program /CN=system:kube-$program clientAuth
done
openssl genrsa -out sa.key 2048 2>/dev/null
openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null

for user in admin kubelet kube-controller-manager kube-scheduler kube-proxy; do
	cat >"../kubeconfig/$user" <<END
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://$address:6443", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: $user, user: {client-certificate-data: $(base64 -w0 $user.crt), client-key-data: $(base64 -w0 $user.key)}}]
contexts: [{name: test, context: {cluster: test, user: $user}}]
current-context: test
END
done
chmod -R go= . ../kubeconfig
