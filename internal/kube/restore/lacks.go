package restore

import (
	"context"
	"fmt"
	"maps"
	"slices"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// need is a class of the cluster that objects refer to by name.
type need struct {
	group, kind, name string
}

// lacks finds what the objects need and the cluster does not have, and what may refuse them. What may not be read is not reported.
func (b *builder) lacks(ctx context.Context) {
	first := map[need]string{}
	note := func(group, kind, name, by string) {
		n := need{group, kind, name}
		if _, known := first[n]; name != "" && !known {
			first[n] = by
		}
	}
	for _, i := range b.all {
		if i.object != nil && (i.Action == Create || i.Action == Replace) {
			needs(i.object, func(group, kind, name string) { note(group, kind, name, i.String()) })
		}
	}
	for _, v := range b.plan.Volumes {
		if v.Action == Create || v.Action == Exchange {
			note(groupStorage, "StorageClass", v.Class, v.Namespace+"/persistentvolumeclaim/"+v.Claim)
		}
	}
	for _, n := range slices.SortedFunc(maps.Keys(first), func(x, y need) int { return compareNeeds(x, y) }) {
		if b.lacksOne(ctx, n) {
			b.lack(Lack{Kind: n.kind, Name: plain(n.name, maxName), Why: "the cluster does not have it", NeededBy: first[n]})
			b.refuseVolumes(n)
		}
	}
	b.gates(ctx)
}

func compareNeeds(x, y need) int {
	return slices.Compare([]string{x.kind, x.name}, []string{y.kind, y.name})
}

// lacksOne reports whether the cluster certainly does not have a class, and the plan does not make it.
func (b *builder) lacksOne(ctx context.Context, n need) bool {
	if i, planned := b.places[Ref{Group: n.group, Kind: n.kind, Name: n.name}]; planned && i.Action == Create {
		return false
	}
	if badIdentityName(n.name) {
		return true
	}
	object := map[string]client.Object{
		"StorageClass": &storagev1.StorageClass{}, "PriorityClass": &schedulingv1.PriorityClass{},
		"IngressClass": &networkingv1.IngressClass{}, "RuntimeClass": &nodev1.RuntimeClass{},
	}[n.kind]
	return apierrors.IsNotFound(b.Cluster.Client.Get(ctx, client.ObjectKey{Name: n.name}, object))
}

func badIdentityName(name string) bool {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "Name"})
	u.SetName(name)
	return badIdentity(u) != ""
}

// refuseVolumes turns volumes of a class that is not there into conflicts.
func (b *builder) refuseVolumes(n need) {
	for k, v := range b.plan.Volumes {
		if n.kind == "StorageClass" && v.Class == n.name && v.Action != Conflict {
			b.plan.Volumes[k] = v.conflict("the cluster has no StorageClass " + n.name + "; map it by storageClasses")
		}
	}
}

// needs calls note for every class of the cluster that an object names.
func needs(u *unstructured.Unstructured, note func(group, kind, name string)) {
	text := func(o map[string]any, path ...string) string {
		s, _, _ := unstructured.NestedString(o, path...)
		return s
	}
	switch kindName(u.GroupVersionKind().GroupKind()) {
	case "persistentvolumeclaim":
		note(groupStorage, "StorageClass", text(u.Object, "spec", "storageClassName"))
	case "ingress." + groupNetworking:
		note(groupNetworking, "IngressClass", text(u.Object, "spec", "ingressClassName"))
	case "statefulset.apps":
		templates, _, _ := unstructured.NestedFieldNoCopy(u.Object, "spec", "volumeClaimTemplates")
		list, _ := templates.([]any)
		for _, t := range list {
			if m, ok := t.(map[string]any); ok {
				note(groupStorage, "StorageClass", text(m, "spec", "storageClassName"))
			}
		}
	}
	pod := podSpec(u)
	note(groupScheduling, "PriorityClass", text(pod, "priorityClassName"))
	note("node.k8s.io", "RuntimeClass", text(pod, "runtimeClassName"))
}

// podSpec is the pod's specification in a workload; nil for other objects.
func podSpec(u *unstructured.Unstructured) map[string]any {
	path := []string{"spec", "template", "spec"}
	switch kindName(u.GroupVersionKind().GroupKind()) {
	case "pod":
		path = []string{"spec"}
	case "cronjob.batch":
		path = []string{"spec", "jobTemplate", "spec", "template", "spec"}
	case "deployment.apps", "statefulset.apps", "daemonset.apps", "replicaset.apps", "replicationcontroller", "job.batch":
	default:
		return nil
	}
	v, _, _ := unstructured.NestedFieldNoCopy(u.Object, path...)
	spec, _ := v.(map[string]any)
	return spec
}

// gates warns of admission webhooks that refuse objects until what serves them, which comes back itself, runs.
func (b *builder) gates(ctx context.Context) {
	var validating admissionv1.ValidatingWebhookConfigurationList
	var mutating admissionv1.MutatingWebhookConfigurationList
	if b.Cluster.Client.List(ctx, &validating) == nil {
		for _, c := range validating.Items {
			for _, w := range c.Webhooks {
				b.gate(c.Name, w.Name, w.ClientConfig, w.FailurePolicy)
			}
		}
	}
	if b.Cluster.Client.List(ctx, &mutating) == nil {
		for _, c := range mutating.Items {
			for _, w := range c.Webhooks {
				b.gate(c.Name, w.Name, w.ClientConfig, w.FailurePolicy)
			}
		}
	}
}

func (b *builder) gate(configuration, name string, c admissionv1.WebhookClientConfig, policy *admissionv1.FailurePolicyType) {
	if c.Service == nil || policy != nil && *policy == admissionv1.Ignore {
		return
	}
	if _, ours := b.live[c.Service.Namespace]; !ours {
		return
	}
	b.plan.Warnings = append(b.plan.Warnings, fmt.Sprintf(
		"webhook %s of %s is served by service %s/%s, which is restored: what it refuses while that does not run is tried again",
		name, configuration, c.Service.Namespace, c.Service.Name))
}
