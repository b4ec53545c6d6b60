package restore

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/backstay/backstay/api/v1alpha1"
)

// Names of API groups.
const (
	groupRBAC       = "rbac.authorization.k8s.io"
	bootstrapping   = "kubernetes.io/bootstrapping" // is on what API servers make themselves
	groupStorage    = "storage.k8s.io"
	groupExtensions = "apiextensions.k8s.io"
	groupAdmission  = "admissionregistration.k8s.io"
	groupAPIs       = "apiregistration.k8s.io"
	groupNetworking = "networking.k8s.io"
	groupScheduling = "scheduling.k8s.io"
	groupDiscovery  = "discovery.k8s.io"
)

// Ranks: what is applied before what. Kinds of one rank follow each other by name.
const (
	rankDefinitions = iota
	rankNamespaces
	rankCluster
	rankConfig // what others read when they start, and the rights to read it
	rankBindings
	rankClaims
	rankServices
	rankWorkloads
	rankOthers // custom resources among them: their operator may be a workload of the same application
	rankScalers
	rankGates // what may refuse the others
)

// ranks are those of kinds that are not found in rankOthers or rankCluster.
func ranks(gk schema.GroupKind) (int, bool) {
	switch kindName(gk) {
	case "customresourcedefinition." + groupExtensions:
		return rankDefinitions, true
	case "namespace":
		return rankNamespaces, true
	case "serviceaccount", "secret", "configmap", "limitrange", "resourcequota", "role." + groupRBAC, "clusterrole." + groupRBAC:
		return rankConfig, true
	case "rolebinding." + groupRBAC, "clusterrolebinding." + groupRBAC:
		return rankBindings, true
	case "persistentvolumeclaim":
		return rankClaims, true
	case "service", "endpoints", "endpointslice." + groupDiscovery, "networkpolicy." + groupNetworking:
		return rankServices, true
	case "deployment.apps", "statefulset.apps", "daemonset.apps", "replicaset.apps", "replicationcontroller", "pod", "job.batch", "cronjob.batch":
		return rankWorkloads, true
	case "horizontalpodautoscaler.autoscaling", "poddisruptionbudget.policy":
		return rankScalers, true
	}
	if gk.Group == groupAdmission || gk.Group == groupAPIs {
		return rankGates, true
	}
	return 0, false
}

// rankOf is the rank of a kind.
func rankOf(gk schema.GroupKind, cluster bool) int {
	if r, known := ranks(gk); known {
		return r
	}
	if cluster && strings.HasSuffix(gk.Group, ".k8s.io") {
		return rankCluster
	}
	return rankOthers
}

// neverBack says why an object does not come back, whatever the Restore asks for; empty where it may.
func neverBack(u *unstructured.Unstructured) string {
	switch gk := u.GroupVersionKind().GroupKind(); kindName(gk) {
	case "event", "event.events.k8s.io":
		return "events tell of the past"
	case "lease.coordination.k8s.io":
		return "leases are taken anew by who holds them"
	case "persistentvolume":
		return "volumes come back with their claims"
	case "node", "csinode." + groupStorage, "volumeattachment." + groupStorage, "csistoragecapacity." + groupStorage:
		return "it belongs to the cluster's machines"
	case "componentstatus":
		return "it is not stored"
	case "restorepoint.backstay.io", "backup.backstay.io", "restore.backstay.io", "drill.backstay.io":
		return "it would run again"
	default:
		if strings.HasPrefix(gk.Group, "snapshot.storage.") || strings.HasPrefix(gk.Group, "groupsnapshot.storage.") {
			if !strings.HasSuffix(gk.Kind, "Class") {
				return "snapshots of volumes that were"
			}
		}
		if strings.HasSuffix(gk.Group, "metrics.k8s.io") {
			return "it is measured, not stored"
		}
	}
	if u.GetLabels()[v1alpha1.LabelOwner] != "" && u.GetAnnotations()[v1alpha1.AnnotationScaled] == "" {
		return "made by a backup or restore on its way"
	}
	return madeByCluster(u)
}

// madeByCluster says which part of Kubernetes makes an object by itself; empty for none.
func madeByCluster(u *unstructured.Unstructured) string {
	gk, name := u.GroupVersionKind().GroupKind(), u.GetName()
	if u.GetLabels()["provider"] == "kubernetes" && u.GetLabels()["component"] == "apiserver" {
		return "the cluster's own address"
	}
	switch kindName(gk) {
	case "secret":
		if kind, _, _ := unstructured.NestedString(u.Object, "type"); kind == string(corev1.SecretTypeServiceAccountToken) {
			return "tokens of service accounts are made anew"
		}
	case "configmap":
		if name == "kube-root-ca.crt" || name == "openshift-service-ca.crt" {
			return "every namespace has its own"
		}
	case "serviceaccount":
		if name == "default" && plainAccount(u) {
			return "every namespace has its own"
		}
	case "pod":
		if u.GetAnnotations()[corev1.MirrorPodAnnotationKey] != "" {
			return "its node makes it"
		}
		if phase, _, _ := unstructured.NestedString(u.Object, "status", "phase"); phase == "Succeeded" || phase == "Failed" {
			return "it ran to its end"
		}
	case "job.batch":
		if condition(u, "Complete") == metav1.ConditionTrue || condition(u, "Failed") == metav1.ConditionTrue {
			return "it ran to its end, and would run again"
		}
	case "endpoints":
		_, timed := u.GetAnnotations()["endpoints.kubernetes.io/last-change-trigger-time"]
		if timed || u.GetLabels()["endpoints.kubernetes.io/managed-by"] != "" {
			return "its Service makes it"
		}
	case "endpointslice." + groupDiscovery:
		if by := u.GetLabels()["endpointslice.kubernetes.io/managed-by"]; strings.HasSuffix(by, ".k8s.io") {
			return "its Service makes it"
		}
	case "apiservice." + groupAPIs:
		if u.GetLabels()["kube-aggregator.kubernetes.io/automanaged"] != "" {
			return "the cluster makes it"
		}
	case "priorityclass." + groupScheduling, "clusterrole." + groupRBAC, "clusterrolebinding." + groupRBAC:
		if strings.HasPrefix(name, "system:") || strings.HasPrefix(name, "system-") || u.GetLabels()[bootstrapping] != "" {
			return "names that begin with system are the cluster's own"
		}
	case "role." + groupRBAC, "rolebinding." + groupRBAC:
		if u.GetLabels()[bootstrapping] != "" { // one of a namespace is its users', whatever they call it
			return "the cluster has its own"
		}
	}
	return ""
}

// plainAccount reports whether a service account holds nothing but what the cluster gives it.
func plainAccount(u *unstructured.Unstructured) bool {
	pull, _, _ := unstructured.NestedSlice(u.Object, "imagePullSecrets")
	_, mounts := u.Object["automountServiceAccountToken"]
	return len(pull) == 0 && !mounts && len(u.GetLabels()) == 0 && len(u.GetAnnotations()) == 0
}

// condition is the status of one of an object's conditions; empty where it has none.
func condition(u *unstructured.Unstructured, kind string) metav1.ConditionStatus {
	status, _, _ := conditionOf(u, kind)
	return status
}

func conditionOf(u *unstructured.Unstructured, kind string) (status metav1.ConditionStatus, reason, message string) {
	all, _, _ := unstructured.NestedFieldNoCopy(u.Object, "status", "conditions")
	list, _ := all.([]any)
	for _, one := range list {
		c, _ := one.(map[string]any)
		if c["type"] != kind {
			continue
		}
		s, _ := c["status"].(string)
		reason, _ = c["reason"].(string)
		message, _ = c["message"].(string)
		return metav1.ConditionStatus(s), reason, message
	}
	return "", "", ""
}

// madeByOwner reports whether objects of a kind are made anew by an owner that controls them.
func madeByOwner(gk schema.GroupKind, owner metav1.OwnerReference) bool {
	switch kindName(gk) {
	case "pod", "controllerrevision.apps", "endpointslice." + groupDiscovery, "endpoints":
		return true
	case "replicaset.apps":
		return owner.Kind == "Deployment"
	case "job.batch":
		return owner.Kind == "CronJob"
	}
	return false
}

// ownNamespace reports whether a namespace is the cluster's own.
func ownNamespace(name string) bool { return strings.HasPrefix(name, "kube-") }

// controller is the reference to the owner that controls an object; nil where there is none.
func controller(u *unstructured.Unstructured) *metav1.OwnerReference {
	for _, ref := range u.GetOwnerReferences() {
		if ref.Controller != nil && *ref.Controller {
			return &ref
		}
	}
	return nil
}

func isKind(u *unstructured.Unstructured, name string) bool {
	return kindName(u.GroupVersionKind().GroupKind()) == name
}
