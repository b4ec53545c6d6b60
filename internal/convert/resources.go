package convert

import (
	"slices"
	"strings"
)

// resource is a kind of Kubernetes' own.
type resource struct{ plural, kind, group, short string }

// resources are kinds that other tools name without their group: they ask the API server for it.
func resources() []resource {
	return []resource{
		{"configmaps", "configmap", "", "cm"},
		{"secrets", "secret", "", ""},
		{"services", "service", "", "svc"},
		{"serviceaccounts", "serviceaccount", "", "sa"},
		{"pods", "pod", "", "po"},
		{"endpoints", "endpoints", "", "ep"},
		{"persistentvolumeclaims", "persistentvolumeclaim", "", "pvc"},
		{"persistentvolumes", "persistentvolume", "", "pv"},
		{"replicationcontrollers", "replicationcontroller", "", "rc"},
		{"resourcequotas", "resourcequota", "", "quota"},
		{"limitranges", "limitrange", "", "limits"},
		{"podtemplates", "podtemplate", "", ""},
		{"events", "event", "", "ev"},
		{"namespaces", "namespace", "", "ns"},
		{"nodes", "node", "", "no"},
		{"deployments", "deployment", "apps", "deploy"},
		{"statefulsets", "statefulset", "apps", "sts"},
		{"daemonsets", "daemonset", "apps", "ds"},
		{"replicasets", "replicaset", "apps", "rs"},
		{"controllerrevisions", "controllerrevision", "apps", ""},
		{"jobs", "job", "batch", ""},
		{"cronjobs", "cronjob", "batch", "cj"},
		{"ingresses", "ingress", "networking.k8s.io", "ing"},
		{"networkpolicies", "networkpolicy", "networking.k8s.io", "netpol"},
		{"horizontalpodautoscalers", "horizontalpodautoscaler", "autoscaling", "hpa"},
		{"poddisruptionbudgets", "poddisruptionbudget", "policy", "pdb"},
		{"roles", "role", "rbac.authorization.k8s.io", ""},
		{"rolebindings", "rolebinding", "rbac.authorization.k8s.io", ""},
		{"clusterroles", "clusterrole", "rbac.authorization.k8s.io", ""},
		{"clusterrolebindings", "clusterrolebinding", "rbac.authorization.k8s.io", ""},
		{"storageclasses", "storageclass", "storage.k8s.io", "sc"},
		{"endpointslices", "endpointslice", "discovery.k8s.io", ""},
		{"leases", "lease", "coordination.k8s.io", ""},
		{"customresourcedefinitions", "customresourcedefinition", "apiextensions.k8s.io", "crd"},
		{"volumesnapshots", "volumesnapshot", "snapshot.storage.k8s.io", "vs"},
	}
}

// known finds one of resources by the name that a user may give it.
func known(name, group string) (resource, bool) {
	all := resources()
	i := slices.IndexFunc(all, func(r resource) bool {
		return (group == "" || group == r.group) && (name == r.plural || name == r.kind || name == r.short && r.short != "")
	})
	if i < 0 {
		return resource{}, false
	}
	return all[i], true
}

// String is PLURAL.GROUP.
func (r resource) String() string { return dotted(r.plural, r.group) }

// single is KIND.GROUP.
func (r resource) single() string { return dotted(r.kind, r.group) }

func dotted(name, group string) string {
	if group == "" {
		return name
	}
	return name + "." + group
}

// plural returns a kind as PLURAL.GROUP. Where no group is said, only Kubernetes' own kinds are known.
func plural(text string) (string, bool) {
	name, group, grouped := strings.Cut(strings.ToLower(text), ".")
	if r, found := known(name, group); found {
		return r.String(), true
	}
	return dotted(name, group), grouped && name != "" && group != ""
}

// single returns a kind as KIND.GROUP. Of others than Kubernetes' own the word is not known.
func single(text string) (string, bool) {
	name, group, _ := strings.Cut(strings.ToLower(text), ".")
	r, found := known(name, group)
	return r.single(), found
}
