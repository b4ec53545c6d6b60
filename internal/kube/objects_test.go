package kube_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/kubetest"
	"github.com/backstay/backstay/internal/point"
)

func TestObjectsAreThoseOfTheMoment(t *testing.T) {
	c := connect(t)
	ns := kubetest.Namespace(t, c.Config)
	before := create(t, c, ns, `{apiVersion: v1, kind: ConfigMap, metadata: {name: changed}, data: {colour: blue}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: deleted}, data: {colour: blue}}
---
{apiVersion: v1, kind: Secret, metadata: {name: kept}, stringData: {password: hunter2}}`)
	at := moment(t, c)
	update(t, c, before[0], "red", "data", "colour")
	if err := c.Client.Delete(t.Context(), before[1]); err != nil {
		t.Fatal(err)
	}
	create(t, c, ns, `{apiVersion: v1, kind: ConfigMap, metadata: {name: later}}`)

	got := capture(t, c, whole(ns), at)

	objects := got.objects["kubernetes/"+ns]
	want := []string{"configmap/changed", "configmap/deleted", "namespace/" + ns, "secret/kept"}
	if found := names(objects); !slices.Equal(found, want) {
		t.Errorf("got %q, want %q", found, want)
	}
	changed := find(t, objects, "configmap/changed")
	if colour := changed.Object["data"].(map[string]any)["colour"]; colour != "blue" {
		t.Errorf("the value is %v, which it became after the moment", colour)
	}
	if changed.GetManagedFields() != nil || changed.GetUID() == "" {
		t.Errorf("metadata %v: managedFields go, all else stays", changed.Object["metadata"])
	}
	if got.state != point.Complete {
		t.Errorf("the point is %s: %+v", got.state, got.parts)
	}
	if first, last := got.source.Skew(); !first.Equal(at.At) || !last.Equal(at.At) {
		t.Errorf("skew from %v to %v, although all was listed as it was at %v", first, last, at.At)
	}
	part := got.parts["kubernetes/"+ns]
	if part.Mark != at.Mark || part.Revision != at.ResourceVersion || len(part.Counts) != 1 || part.Counts[0].Stored != 4 {
		t.Errorf("part %+v", part)
	}
}

func TestWhatControllersMakeIsLeftOut(t *testing.T) {
	c := connect(t)
	ns := kubetest.Namespace(t, c.Config)
	create(t, c, ns, `{apiVersion: v1, kind: Event, metadata: {name: happened}, involvedObject: {kind: Pod, name: web, namespace: `+ns+`}}
---
{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: leader}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: kube-root-ca.crt}}
---
{apiVersion: v1, kind: Endpoints, metadata: {name: made, annotations: {endpoints.kubernetes.io/last-change-trigger-time: "2026-01-01T00:00:00Z"}}}
---
{apiVersion: v1, kind: Endpoints, metadata: {name: own}, subsets: [{addresses: [{ip: 192.0.2.1}], ports: [{port: 80}]}]}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, endpoints: [],
 metadata: {name: made-1, labels: {endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io}}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: web-cache, ownerReferences: [{apiVersion: v1, kind: Pod, name: web, uid: u, controller: true}]},
 spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
---
{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {name: ours, labels: {backstay.io/owner: uid}}, spec: {source: {persistentVolumeClaimName: data}}}
---
{apiVersion: backstay.io/v1alpha1, kind: Backup, metadata: {name: run}, spec: {policy: nightly, application: {namespaces: [`+ns+`]}}}`)
	a := whole(ns)
	a.Capture.ExcludeKinds = []string{"*.discovery.k8s.io"}

	got := capture(t, c, a, moment(t, c))

	want := []string{"endpoints/own", "namespace/" + ns, "persistentvolumeclaim/data"}
	if found := names(got.objects["kubernetes/"+ns]); !slices.Equal(found, want) {
		t.Errorf("got %q, want %q", found, want)
	}
	part := got.parts["kubernetes/"+ns]
	if got.state != point.Complete || part.Counts[0].Excluded != 4 {
		t.Errorf("point %s, part %+v: what is left out by rule is counted", got.state, part)
	}
	wantNotes := []string{
		"left out by rule, certificates of the cluster: 1",
		"left out by rule, claims that end with their pod: 1",
		"left out by rule, endpoints made of a service: 1",
		"left out by rule, snapshots of backups: 1",
		"left out by the policy, kind endpointslices.discovery.k8s.io: 1",
	}
	if !slices.Equal(part.Notes, wantNotes) {
		t.Errorf("notes %q, want %q", part.Notes, wantNotes)
	}
	claims, err := c.Claims(t.Context(), a)
	if err != nil || len(claims) != 1 || claims[0].Name != "data" {
		t.Errorf("claims %v, error %v: a claim that ends with its pod is none", claims, err)
	}
}

// gadgets defines a kind that has objects in another version than the one it is listed in.
const gadgets = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.capture.example.com}
spec:
  group: capture.example.com
  names: {kind: Gadget, plural: gadgets}
  scope: Namespaced
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
  - {name: v2, served: true, storage: false, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`

// deadConversion makes gadgets that were created in one version unreadable in the other.
const deadConversion = `
  conversion: {strategy: Webhook, webhook: {conversionReviewVersions: [v1], clientConfig: {service: {namespace: default, name: none}}}}
`

// define creates definitions of the cluster, waits until they are served, and removes them after the test.
func define(t *testing.T, c *kube.Cluster, document, serves string) *unstructured.Unstructured {
	t.Helper()
	crd := create(t, c, "", document)[0]
	t.Cleanup(func() {
		update(t, c, crd, map[string]any{"strategy": "None"}, "spec", "conversion") // else it is never gone
		if err := c.Client.Delete(context.Background(), crd); err != nil {
			t.Error(err)
		}
		eventually(t, "the definition is gone", func() bool { return !served(c, serves) })
	})
	eventually(t, serves+" is served", func() bool { return served(c, serves) })
	return crd
}

func served(c *kube.Cluster, groupVersion string) bool {
	c.Discovery.Invalidate()
	list, err := c.Discovery.ServerResourcesForGroupVersion(groupVersion)
	return err == nil && len(list.APIResources) > 0
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	const limit = 2 * time.Minute // it only ends a hang
	for end := time.Now().Add(limit); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

func TestCustomResourcesComeWithTheirDefinition(t *testing.T) {
	c := connect(t)
	define(t, c, gadgets, "capture.example.com/v2")
	ns := kubetest.Namespace(t, c.Config)
	create(t, c, ns, `{apiVersion: capture.example.com/v1, kind: Gadget, metadata: {name: first}, spec: {size: 3}}`)
	hostile(t, c, ns)

	got := capture(t, c, whole(ns), moment(t, c))

	want := []string{"configmap/ending", "configmap/large", "gadget/deep", "gadget/first", "namespace/" + ns, "secret/bytes"}
	if found := names(got.objects["kubernetes/"+ns]); !slices.Equal(found, want) {
		t.Errorf("got %q, want %q", found, want)
	}
	want = []string{"customresourcedefinition/gadgets.capture.example.com"}
	if found := names(got.objects["kubernetes/_cluster"]); !slices.Equal(found, want) {
		t.Errorf("of the cluster: got %q, want %q", found, want)
	}
	if got.state != point.Complete {
		t.Errorf("the point is %s: %+v", got.state, got.parts)
	}
}

// hostile makes objects that are at the limits of what an API server takes.
func hostile(t *testing.T, c *kube.Cluster, namespace string) {
	t.Helper()
	deep := any("bottom")
	for range 4000 {
		deep = map[string]any{"a": deep}
	}
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: namespace} }
	ending := &corev1.ConfigMap{ObjectMeta: meta("ending")}
	ending.Finalizers = []string{"example.com/stuck"}
	loop := metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "large", UID: "large"}
	for _, o := range []client.Object{
		&unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "capture.example.com/v1", "kind": "Gadget", "metadata": map[string]any{"name": "deep", "namespace": namespace}, "spec": deep,
		}},
		&corev1.ConfigMap{ObjectMeta: meta("large"), Data: map[string]string{"text": strings.Repeat("x\n", 500_000)}},
		&corev1.Secret{ObjectMeta: meta("bytes"), Data: map[string][]byte{"key": {0xff, 0xfe, 0, '\n'}}},
		ending,
	} {
		if o.GetName() == "large" {
			o.SetOwnerReferences([]metav1.OwnerReference{loop})
		}
		if err := c.Client.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Client.Delete(t.Context(), ending); err != nil {
		t.Fatal(err)
	}
}

func TestAKindThatCannotBeListedIsNamed(t *testing.T) {
	c := connect(t)
	define(t, c, gadgets+deadConversion, "capture.example.com/v2")
	ns := kubetest.Namespace(t, c.Config)
	create(t, c, ns, `{apiVersion: capture.example.com/v1, kind: Gadget, metadata: {name: first}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}}`)
	got := capture(t, c, whole(ns), moment(t, c))

	part := got.parts["kubernetes/"+ns]
	if got.state != point.Incomplete || part.State != point.Stored {
		t.Fatalf("point %s, part %+v: want the part, and the point incomplete", got.state, part)
	}
	want := []point.Count{{Of: "objects", Expected: 2, Stored: 2}, {Of: "lists of gadgets.capture.example.com", Expected: 1}}
	if !slices.EqualFunc(part.Counts, want, func(a, b point.Count) bool { return a.Of == b.Of && a.Expected == b.Expected && a.Stored == b.Stored }) {
		t.Errorf("counts %+v, want %+v", part.Counts, want)
	}
	if len(part.Notes) != 1 || !strings.HasPrefix(part.Notes[0], "missing: lists of gadgets.capture.example.com: list gadgets.capture.example.com: ") {
		t.Errorf("notes %q do not say why", part.Notes)
	}
	find(t, got.objects["kubernetes/"+ns], "configmap/settings")

	a := whole(ns)
	a.Capture.ExcludeKinds = []string{"gadgets.capture.example.com"}
	if got := capture(t, c, a, moment(t, c)); got.state != point.Complete {
		t.Errorf("the point without the kind is %s: %+v", got.state, got.parts)
	}
}

func TestAGroupThatDoesNotTellItsKindsIsNamed(t *testing.T) {
	c := connect(t)
	ns := kubetest.Namespace(t, c.Config)
	create(t, c, ns, `{apiVersion: v1, kind: Service, metadata: {name: dead}, spec: {clusterIP: None, ports: [{port: 443}]}}`)
	service := create(t, c, "", `
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.dead.example.com}
spec: {group: dead.example.com, version: v1, groupPriorityMinimum: 1, versionPriority: 1, insecureSkipTLSVerify: true, service: {namespace: `+ns+`, name: dead}}`)[0]
	t.Cleanup(func() {
		if err := c.Client.Delete(context.Background(), service); err != nil {
			t.Error(err)
		}
		eventually(t, "the group is gone", func() bool { return !inGroups(t, c, "dead.example.com") })
	})
	eventually(t, "the group is listed", func() bool { return inGroups(t, c, "dead.example.com") })

	got := capture(t, c, whole(ns), moment(t, c))

	part := got.parts["kubernetes/"+ns]
	if got.state != point.Incomplete || len(part.Counts) != 2 || part.Counts[1].Of != "kinds of dead.example.com/v1" {
		t.Errorf("point %s, part %+v", got.state, part)
	}
	want := []string{"apiservice/v1.dead.example.com"}
	if found := names(got.objects["kubernetes/_cluster"]); !slices.Equal(found, want) {
		t.Errorf("of the cluster: got %q, want %q", found, want)
	}

	a := whole(ns)
	a.Capture.ExcludeKinds = []string{"*.dead.example.com"}
	if got := capture(t, c, a, moment(t, c)); got.state != point.Complete {
		t.Errorf("the point without the group is %s: %+v", got.state, got.parts)
	}
}

func inGroups(t *testing.T, c *kube.Cluster, name string) bool {
	t.Helper()
	c.Discovery.Invalidate()
	groups, err := c.Discovery.ServerGroups()
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(groups.Groups, func(g metav1.APIGroup) bool { return g.Name == name })
}
