package restore

import (
	"encoding/json"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/backstay/backstay/api/v1alpha1"
)

// Bounds of one object. The API server takes no more than 1.5 MB.
const (
	maxObject = 3 << 20 // bytes as JSON
	maxDepth  = 9000    // of maps and lists in each other; JSON is read to a depth of 10000
)

// assignedMetadata is what the server writes into metadata.
var assignedMetadata = []string{
	"uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink",
	"generateName",
}

// assignedAnnotations are those that controllers of Kubernetes itself write.
var assignedAnnotations = []string{
	"deployment.kubernetes.io/revision", "deployment.kubernetes.io/desired-replicas", "deployment.kubernetes.io/max-replicas",
	"deprecated.daemonset.template.generation", "control-plane.alpha.kubernetes.io/leader", "endpoints.kubernetes.io/last-change-trigger-time",
	"batch.kubernetes.io/job-tracking", "pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller",
	"volume.kubernetes.io/selected-node", "volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner",
	v1alpha1.AnnotationScaled,
}

// assignedFinalizers are added by Kubernetes itself where they belong.
var assignedFinalizers = []string{
	"kubernetes.io/pvc-protection", "kubernetes.io/pv-protection", "foregroundDeletion", "orphan", "batch.kubernetes.io/job-tracking",
	"service.kubernetes.io/load-balancer-cleanup", "customresourcecleanup.apiextensions.k8s.io",
}

// copyOf is a copy that shares nothing with u, made of JSON's own types. Why says what is wrong with u where there is none.
func copyOf(u *unstructured.Unstructured) (c *unstructured.Unstructured, why string) {
	if tooDeep(u.Object, maxDepth) {
		return nil, "it is nested too deep"
	}
	text, err := json.Marshal(u.Object)
	if err != nil {
		return nil, "it is no JSON"
	}
	if len(text) > maxObject {
		return nil, "it is larger than a cluster takes"
	}
	c = &unstructured.Unstructured{}
	if err := c.UnmarshalJSON(text); err != nil {
		return nil, "it is no object of Kubernetes"
	}
	return c, ""
}

func tooDeep(v any, left int) bool {
	if left == 0 {
		return true
	}
	switch v := v.(type) {
	case map[string]any:
		for _, inner := range v {
			if tooDeep(inner, left-1) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, func(inner any) bool { return tooDeep(inner, left-1) })
	}
	return false
}

// strip takes out of u what the server and its controllers assign, so that what is left can be created, and compared.
func strip(u *unstructured.Unstructured) {
	o := u.Object
	delete(o, "status")
	for _, field := range assignedMetadata {
		unstructured.RemoveNestedField(o, "metadata", field)
	}
	for _, key := range assignedAnnotations {
		unstructured.RemoveNestedField(o, "metadata", "annotations", key)
	}
	unstructured.RemoveNestedField(o, "metadata", "labels", v1alpha1.LabelOwner)
	u.SetFinalizers(slices.DeleteFunc(u.GetFinalizers(), func(f string) bool { return slices.Contains(assignedFinalizers, f) }))
	stripKind(u)
	dropEmpty(o, "metadata", "annotations")
	dropEmpty(o, "metadata", "labels")
	dropEmpty(o, "metadata", "finalizers")
	dropEmpty(o, "metadata", "ownerReferences")
}

func stripKind(u *unstructured.Unstructured) {
	o := u.Object
	switch kindName(u.GroupVersionKind().GroupKind()) {
	case "namespace":
		delete(o, "spec")
		unstructured.RemoveNestedField(o, "metadata", "labels", "kubernetes.io/metadata.name")
	case "service":
		if ip, _, _ := unstructured.NestedString(o, "spec", "clusterIP"); ip != "None" {
			unstructured.RemoveNestedField(o, "spec", "clusterIP")
			unstructured.RemoveNestedField(o, "spec", "clusterIPs")
		}
		unstructured.RemoveNestedField(o, "spec", "healthCheckNodePort")
	case "persistentvolumeclaim":
		unstructured.RemoveNestedField(o, "spec", "volumeName")
	case "serviceaccount":
		stripTokens(u)
	case "job.batch":
		stripJob(o)
	case "pod":
		stripPod(o)
	case "customresourcedefinition." + groupExtensions:
		stripAcceptedNames(o)
	}
}

// stripAcceptedNames removes what the server fills in where it is what the server would fill in anyway.
func stripAcceptedNames(o map[string]any) {
	if strategy, _, _ := unstructured.NestedString(o, "spec", "conversion", "strategy"); strategy == "None" {
		unstructured.RemoveNestedField(o, "spec", "conversion")
	}
}

// stripTokens removes the secrets that a service account was given by the cluster.
func stripTokens(u *unstructured.Unstructured) {
	secrets, found, _ := unstructured.NestedSlice(u.Object, "secrets")
	if !found {
		return
	}
	own := slices.DeleteFunc(secrets, func(s any) bool {
		ref, _ := s.(map[string]any)
		name, _ := ref["name"].(string)
		return strings.HasPrefix(name, u.GetName()+"-token-") || strings.HasPrefix(name, u.GetName()+"-dockercfg-")
	})
	u.Object["secrets"] = own
	dropEmpty(u.Object, "secrets")
}

// stripJob removes the selector and the labels that the server gives a job, unless the job has a selector of its own.
func stripJob(o map[string]any) {
	if manual, _, _ := unstructured.NestedBool(o, "spec", "manualSelector"); manual {
		return
	}
	unstructured.RemoveNestedField(o, "spec", "selector")
	for _, labels := range [][]string{{"metadata", "labels"}, {"spec", "template", "metadata", "labels"}} {
		for _, key := range []string{
			"controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name",
		} {
			unstructured.RemoveNestedField(o, append(slices.Clone(labels), key)...)
		}
		dropEmpty(o, labels...)
	}
}

// stripPod removes from a pod where it ran, and the token that it was given.
func stripPod(o map[string]any) {
	for _, field := range []string{"nodeName", "priority", "preemptionPolicy", "ephemeralContainers"} {
		unstructured.RemoveNestedField(o, "spec", field)
	}
	const token = "kube-api-access-"
	drop := func(list any, key, prefix string) any {
		all, ok := list.([]any)
		if !ok {
			return list
		}
		return slices.DeleteFunc(all, func(v any) bool {
			m, _ := v.(map[string]any)
			name, _ := m[key].(string)
			return strings.HasPrefix(name, prefix)
		})
	}
	spec, _ := o["spec"].(map[string]any)
	if spec == nil {
		return
	}
	if volumes, found := spec["volumes"]; found {
		spec["volumes"] = drop(volumes, "name", token)
		dropEmpty(spec, "volumes")
	}
	for _, field := range []string{"containers", "initContainers"} {
		containers, _ := spec[field].([]any)
		for _, c := range containers {
			if container, ok := c.(map[string]any); ok && container["volumeMounts"] != nil {
				container["volumeMounts"] = drop(container["volumeMounts"], "name", token)
				dropEmpty(container, "volumeMounts")
			}
		}
	}
}

// dropEmpty removes a map or list that holds nothing.
func dropEmpty(o map[string]any, path ...string) {
	v, found, err := unstructured.NestedFieldNoCopy(o, path...)
	if err != nil || !found {
		return
	}
	switch v := v.(type) {
	case nil:
	case map[string]any:
		if len(v) > 0 {
			return
		}
	case []any:
		if len(v) > 0 {
			return
		}
	default:
		return
	}
	unstructured.RemoveNestedField(o, path...)
}
