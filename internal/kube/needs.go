package kube

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
)

// need is an object that another one does not work without. Namespace is empty for objects of the cluster.
type need struct {
	kind      schema.GroupResource
	namespace string
	name      string
}

// needs collects what the objects of an application need. Safe for concurrent use.
type needs struct {
	mu  sync.Mutex
	set map[need]bool
}

func (n *needs) add(group, resource, namespace, name string) {
	if name == "" {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.set == nil {
		n.set = map[need]bool{}
	}
	n.set[need{schema.GroupResource{Group: group, Resource: resource}, namespace, name}] = true
}

func (n *needs) has(r schema.GroupResource, namespace, name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.set[need{r, namespace, name}] {
		return true
	}
	anyOrdinal := strings.TrimRight(name, "0123456789") + ordinal
	return n.set[need{r, namespace, anyOrdinal}]
}

// ordinal stands for the number of a replica in the name of a need. No name has it.
const ordinal = "#"

// names lists the needed objects of a kind of the cluster, sorted.
func (n *needs) names(r schema.GroupResource) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	found := map[string]bool{}
	for k := range n.set {
		if k.kind == r && k.namespace == "" {
			found[k.name] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// of adds what an object needs.
func (n *needs) of(k kind, u *unstructured.Unstructured) {
	namespace := u.GetNamespace()
	if k.stored && !clientscheme.Scheme.IsGroupRegistered(k.Group) {
		n.add("apiextensions.k8s.io", "customresourcedefinitions", "", k.String())
	}
	for _, pod := range podSpecs(u) {
		n.ofPod(pod, namespace)
	}
	switch k.String() {
	case "persistentvolumeclaims":
		n.ofClaim(u.Object)
		n.add("", "persistentvolumes", "", text(u.Object, "spec", "volumeName"))
	case "statefulsets.apps":
		for _, template := range items(u.Object, "spec", "volumeClaimTemplates") {
			n.ofClaim(template)
			n.add("", "persistentvolumeclaims", namespace, text(template, "metadata", "name")+"-"+u.GetName()+"-"+ordinal)
		}
	case "serviceaccounts":
		for _, field := range []string{"secrets", "imagePullSecrets"} {
			for _, secret := range items(u.Object, field) {
				n.add("", "secrets", namespace, text(secret, "name"))
			}
		}
	case "rolebindings.rbac.authorization.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io":
		if text(u.Object, "roleRef", "kind") == "ClusterRole" {
			n.add(rbacGroup, "clusterroles", "", text(u.Object, "roleRef", "name"))
		} else {
			n.add(rbacGroup, "roles", namespace, text(u.Object, "roleRef", "name"))
		}
	case "ingresses.networking.k8s.io":
		n.add("networking.k8s.io", "ingressclasses", "", text(u.Object, "spec", "ingressClassName"))
	case "gateways.gateway.networking.k8s.io":
		n.add("gateway.networking.k8s.io", "gatewayclasses", "", text(u.Object, "spec", "gatewayClassName"))
	case "volumesnapshots.snapshot.storage.k8s.io":
		n.add("snapshot.storage.k8s.io", "volumesnapshotclasses", "", text(u.Object, "spec", "volumeSnapshotClassName"))
	}
}

const rbacGroup = "rbac.authorization.k8s.io"

func (n *needs) ofClaim(claim map[string]any) {
	n.add("storage.k8s.io", "storageclasses", "", text(claim, "spec", "storageClassName"))
	n.add("storage.k8s.io", "volumeattributesclasses", "", text(claim, "spec", "volumeAttributesClassName"))
}

func (n *needs) ofPod(spec map[string]any, namespace string) {
	n.add("scheduling.k8s.io", "priorityclasses", "", text(spec, "priorityClassName"))
	n.add("node.k8s.io", "runtimeclasses", "", text(spec, "runtimeClassName"))
	account := text(spec, "serviceAccountName")
	if account == "" {
		account = "default"
	}
	n.add("", "serviceaccounts", namespace, account)
	for _, secret := range items(spec, "imagePullSecrets") {
		n.add("", "secrets", namespace, text(secret, "name"))
	}
	for _, v := range items(spec, "volumes") {
		n.add("", "persistentvolumeclaims", namespace, text(v, "persistentVolumeClaim", "claimName"))
		n.add("", "configmaps", namespace, text(v, "configMap", "name"))
		n.add("", "secrets", namespace, text(v, "secret", "secretName"))
		n.add("storage.k8s.io", "storageclasses", "", text(v, "ephemeral", "volumeClaimTemplate", "spec", "storageClassName"))
		for _, source := range items(v, "projected", "sources") {
			n.add("", "configmaps", namespace, text(source, "configMap", "name"))
			n.add("", "secrets", namespace, text(source, "secret", "name"))
		}
	}
	for _, field := range []string{"containers", "initContainers"} {
		for _, container := range items(spec, field) {
			n.ofEnvironment(container, namespace)
		}
	}
}

func (n *needs) ofEnvironment(container map[string]any, namespace string) {
	for _, from := range items(container, "envFrom") {
		n.add("", "configmaps", namespace, text(from, "configMapRef", "name"))
		n.add("", "secrets", namespace, text(from, "secretRef", "name"))
	}
	for _, variable := range items(container, "env") {
		n.add("", "configmaps", namespace, text(variable, "valueFrom", "configMapKeyRef", "name"))
		n.add("", "secrets", namespace, text(variable, "valueFrom", "secretKeyRef", "name"))
	}
}

// podSpecs finds the specifications of pods in an object, of any kind that has them where Kubernetes' own have them.
func podSpecs(u *unstructured.Unstructured) []map[string]any {
	var specs []map[string]any
	for _, at := range [][]string{
		{"spec"},
		{"template", "spec"},
		{"spec", "template", "spec"},
		{"spec", "jobTemplate", "spec", "template", "spec"},
	} {
		spec, _ := field(u.Object, at...).(map[string]any)
		if len(items(spec, "containers")) > 0 {
			specs = append(specs, spec)
		}
	}
	return specs
}

// field reads what is below fields, nil for nothing. It copies nothing.
func field(object map[string]any, fields ...string) any {
	v, _, _ := unstructured.NestedFieldNoCopy(object, fields...)
	return v
}

// text reads a string, "" for none.
func text(object map[string]any, fields ...string) string {
	s, _ := field(object, fields...).(string)
	return s
}

// items reads the objects of a list, none for no list.
func items(object map[string]any, fields ...string) []map[string]any {
	all, _ := field(object, fields...).([]any)
	var found []map[string]any
	for _, item := range all {
		if m, ok := item.(map[string]any); ok {
			found = append(found, m)
		}
	}
	return found
}

// accountsOf lists the service accounts of the namespaces that a binding is of, as NAMESPACE/NAME; NAME is * for all of a namespace.
func accountsOf(binding *unstructured.Unstructured) []string {
	var accounts []string
	for _, s := range items(binding.Object, "subjects") {
		namespace, all := strings.CutPrefix(text(s, "name"), "system:serviceaccounts:")
		switch {
		case text(s, "kind") == "ServiceAccount":
			accounts = append(accounts, text(s, "namespace")+"/"+text(s, "name"))
		case text(s, "kind") == "Group" && all:
			accounts = append(accounts, namespace+"/*")
		}
	}
	return accounts
}
