package restore

import (
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// mapping takes objects of the point to where they go: other namespaces, other storage classes.
type mapping struct {
	namespaces map[string]string
	classes    map[string]string
	argo       bool // Argo CD is on the cluster, and may track objects by label
}

// to is the namespace on the cluster for one in the point.
func (m mapping) to(namespace string) string {
	if target, mapped := m.namespaces[namespace]; mapped {
		return target
	}
	return namespace
}

func (m mapping) class(name string) string {
	if target, mapped := m.classes[name]; mapped {
		return target
	}
	return name
}

// Labels and annotations of those who bring objects to what git says.
const (
	argoTracking     = "argocd.argoproj.io/tracking-id"
	argoInstallation = "argocd.argoproj.io/installation-id"
	instanceLabel    = "app.kubernetes.io/instance"
	fluxKustomize    = "kustomize.toolkit.fluxcd.io/"
	fluxHelm         = "helm.toolkit.fluxcd.io/"
	lastApplied      = "kubectl.kubernetes.io/last-applied-configuration"
)

// apply moves u, an object of the namespace from, to where it goes.
func (m mapping) apply(u *unstructured.Unstructured, from string, cluster bool) {
	if !isKind(u, "configmap") && !isKind(u, "secret") { // what these hold is the application's, whatever it looks like
		for key, v := range u.Object {
			if key != "metadata" && key != "kind" && key != "apiVersion" {
				m.walk(v)
			}
		}
	}
	m.annotations(u)
	if cluster || m.to(from) == from {
		return
	}
	u.SetNamespace(m.to(from))
	forget(u, m.argo)
}

// walk changes references within v: {name, namespace} of mapped namespaces, users and groups that are service accounts of them, and
// storage classes.
func (m mapping) walk(v any) {
	switch v := v.(type) {
	case []any:
		for _, inner := range v {
			m.walk(inner)
		}
	case map[string]any:
		namespace, isRef := v["namespace"].(string)
		name, named := v["name"].(string)
		if isRef && named {
			v["namespace"] = m.to(namespace)
		}
		if kind := v["kind"]; named && (kind == "User" || kind == "Group") {
			v["name"] = m.account(name)
		}
		if class, ok := v["storageClassName"].(string); ok {
			v["storageClassName"] = m.class(class)
		}
		m.namespaceLabel(v)
		for _, inner := range v {
			m.walk(inner)
		}
	}
}

// namespaceLabel changes namespaceSelector: matchLabels: {kubernetes.io/metadata.name: NAMESPACE}.
func (m mapping) namespaceLabel(v map[string]any) {
	const label = "kubernetes.io/metadata.name"
	labels, _, _ := unstructured.NestedFieldNoCopy(v, "namespaceSelector", "matchLabels")
	if l, ok := labels.(map[string]any); ok {
		if name, ok := l[label].(string); ok {
			l[label] = m.to(name)
		}
	}
}

// account maps the names by which RBAC knows service accounts as users and groups.
func (m mapping) account(name string) string {
	if rest, ok := strings.CutPrefix(name, "system:serviceaccount:"); ok {
		if namespace, account, found := strings.Cut(rest, ":"); found {
			return "system:serviceaccount:" + m.to(namespace) + ":" + account
		}
	}
	if namespace, ok := strings.CutPrefix(name, "system:serviceaccounts:"); ok {
		return "system:serviceaccounts:" + m.to(namespace)
	}
	return name
}

// annotations maps the few well-known ones that name a namespace or a storage class.
func (m mapping) annotations(u *unstructured.Unstructured) {
	all := u.GetAnnotations()
	changed := false
	set := func(key, value string) {
		if all[key] != value {
			all[key], changed = value, true
		}
	}
	for _, key := range []string{"cert-manager.io/inject-ca-from", "cert-manager.io/inject-ca-from-secret"} {
		if namespace, name, found := strings.Cut(all[key], "/"); found {
			set(key, m.to(namespace)+"/"+name)
		}
	}
	if v, found := all["meta.helm.sh/release-namespace"]; found {
		set("meta.helm.sh/release-namespace", m.to(v))
	}
	if v, found := all["volume.beta.kubernetes.io/storage-class"]; found {
		set("volume.beta.kubernetes.io/storage-class", m.class(v))
	}
	if changed {
		u.SetAnnotations(all)
	}
}

// forget takes from a copy in another namespace what says that the object belongs to git: it is no part of what git describes, and
// Argo CD would delete it where it tracks by label. A node port can be had once only.
func forget(u *unstructured.Unstructured, argo bool) {
	annotations, labels := u.GetAnnotations(), u.GetLabels()
	if argo && annotations[argoTracking] == "" && !isKind(u, "pod") {
		delete(labels, instanceLabel)
	}
	delete(annotations, argoTracking)
	delete(annotations, argoInstallation)
	delete(annotations, lastApplied) // it names the other namespace
	for key := range labels {
		if strings.HasPrefix(key, fluxKustomize) || strings.HasPrefix(key, fluxHelm) {
			delete(labels, key)
		}
	}
	u.SetAnnotations(annotations)
	u.SetLabels(labels)
	dropEmpty(u.Object, "metadata", "annotations")
	dropEmpty(u.Object, "metadata", "labels")
	if isKind(u, "service") {
		dropNodePorts(u)
	}
}

// dropNodePorts lets the cluster choose ports on its nodes anew. It reports whether there were any.
func dropNodePorts(u *unstructured.Unstructured) bool {
	ports, _, _ := unstructured.NestedFieldNoCopy(u.Object, "spec", "ports")
	list, _ := ports.([]any)
	dropped := false
	for _, p := range list {
		if port, ok := p.(map[string]any); ok && port["nodePort"] != nil {
			delete(port, "nodePort")
			dropped = true
		}
	}
	return dropped
}

// gitOwner names who brings an object to what git says; empty for nobody that says so.
func gitOwner(u *unstructured.Unstructured) string {
	const limit = 100
	if id := u.GetAnnotations()[argoTracking]; id != "" {
		app, _, _ := strings.Cut(id, ":")
		return "Argo CD application " + plain(app, limit)
	}
	labels := u.GetLabels()
	if name := labels[fluxKustomize+"name"]; name != "" {
		return "Flux kustomization " + plain(name, limit)
	}
	if name := labels[fluxHelm+"name"]; name != "" {
		return "Flux release " + plain(name, limit)
	}
	return ""
}
