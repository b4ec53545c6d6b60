package restore_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/kubetest"
	"github.com/backstay/backstay/internal/kube/restore"
)

func TestImmutableFields(t *testing.T) {
	c := connect(t)
	tests := []struct {
		name, object string
		change       any
		path         []string
		again        bool // the object must be deleted first to change back
		action       restore.Action
		why          string
	}{
		{
			"a binding to another role", `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: x}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: a}`,
			"b",
			[]string{"roleRef", "name"},
			true, restore.Replace, "deleted and made again",
		},
		{
			"a map that became immutable", `
apiVersion: v1
kind: ConfigMap
metadata: {name: x}
data: {a: b}`,
			true,
			[]string{"immutable"},
			false, restore.Replace, "deleted and made again",
		},
		{
			"a set with other claims", `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: x}
spec:
  serviceName: x
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: b}}
  template: {metadata: {labels: {app: b}}, spec: {containers: [{name: a, image: a}]}}`,
			"OrderedReady",
			[]string{"spec", "podManagementPolicy"},
			true, restore.Replace, "its pods stay",
		},
		{
			"a set under another service", `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: x}
spec:
  serviceName: x
  selector: {matchLabels: {app: b}}
  template: {metadata: {labels: {app: b}}, spec: {containers: [{name: a, image: a}]}}`,
			"y",
			[]string{"spec", "serviceName"},
			true, restore.Conflict, "cannot be changed",
		},
		{
			"a deployment of other pods", `
apiVersion: apps/v1
kind: Deployment
metadata: {name: x}
spec:
  selector: {matchLabels: {app: b}}
  template: {metadata: {labels: {app: b, tier: c}}, spec: {containers: [{name: a, image: a}]}}`,
			map[string]any{"tier": "c"},
			[]string{"spec", "selector", "matchLabels"},
			true, restore.Conflict, "spec.selector field is immutable",
		},
		{
			"a job with another image", `
apiVersion: batch/v1
kind: Job
metadata: {name: x}
spec: {suspend: true, completions: 2, template: {spec: {restartPolicy: Never, containers: [{name: a, image: a}]}}}`,
			int64(3),
			[]string{"spec", "completions"},
			true, restore.Conflict, "cannot be changed",
		},
		{
			"a claim of another size", `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: x}
spec: {accessModes: [ReadWriteOnce], storageClassName: manual, resources: {requests: {storage: 1Gi}}}`,
			"2Gi",
			[]string{"spec", "resources", "requests", "storage"},
			true, restore.Conflict, "cannot be changed",
		},
		{
			"a service that is headless now", `
apiVersion: v1
kind: Service
metadata: {name: x}
spec: {selector: {app: a}, ports: [{port: 80}]}`,
			"None",
			[]string{"spec", "clusterIP"},
			true, restore.Replace, "deleted and made again",
		},
		{
			"the same in other words", `
apiVersion: v1
kind: LimitRange
metadata: {name: x}
spec: {limits: [{type: Pod, max: {cpu: "1"}}]}`,
			"1000m",
			[]string{"spec", "limits"},
			false, restore.Same, "",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			namespace, objects := shop(t, c, test.object)
			live := objects[0].DeepCopy()
			if test.action == restore.Same {
				objects[0].Object["spec"] = map[string]any{"limits": []any{map[string]any{"type": "Pod", "max": map[string]any{"cpu": test.change}}}}
			} else if err := unstructured.SetNestedField(live.Object, test.change, test.path...); err != nil {
				t.Fatal(err)
			}
			if test.again {
				remove(t, c, objects)
				strip := live.DeepCopy()
				for _, f := range []string{"uid", "resourceVersion", "creationTimestamp"} {
					unstructured.RemoveNestedField(strip.Object, "metadata", f)
				}
				unstructured.RemoveNestedField(strip.Object, "spec", "clusterIPs")
				if kind := strip.GetKind(); kind == "Job" {
					unstructured.RemoveNestedField(strip.Object, "spec", "selector")
					unstructured.RemoveNestedField(strip.Object, "spec", "template", "metadata", "labels")
				}
				put(t, c, []unstructured.Unstructured{*strip})
			} else if err := c.Client.Update(t.Context(), live); err != nil {
				t.Fatal(err)
			}
			p := build(t, restore.Options{
				Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects},
				Spec: v1alpha1.RestoreSpec{Existing: v1alpha1.ExistingReplace},
			})
			i := p.Items[0]
			if i.Action != test.action || !strings.Contains(i.Why, test.why) {
				t.Fatalf("planned %s: %s %v", i.Action, i.Why, i.Fields)
			}
			stop := orphans(t, c)
			got := apply(t, p)
			stop()
			wantFailed, wantReplaced := 0, 0
			switch test.action {
			case restore.Conflict:
				wantFailed = 1
			case restore.Replace:
				wantReplaced = 1
			}
			if len(got.Failed) != wantFailed || got.Replaced != wantReplaced || got.Created != 0 {
				t.Errorf("outcome %+v", got)
			}
		})
	}
}

// orphans plays the garbage collector, which lets go of what is deleted as an orphaner. The function it returns ends it.
func orphans(t *testing.T, c *kube.Cluster) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			for _, gvk := range [][2]string{
				{"v1", "ConfigMap"}, {"v1", "Service"}, {"apps/v1", "StatefulSet"}, {"rbac.authorization.k8s.io/v1", "RoleBinding"}, {"v1", "Secret"},
			} {
				list := &unstructured.UnstructuredList{}
				list.SetAPIVersion(gvk[0])
				list.SetKind(gvk[1] + "List")
				if c.Client.List(ctx, list) != nil {
					continue
				}
				for _, u := range list.Items {
					if u.GetDeletionTimestamp() != nil && slices.Equal(u.GetFinalizers(), []string{"orphan"}) {
						u.SetFinalizers(nil)
						_ = c.Client.Update(ctx, &u)
					}
				}
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	return func() { cancel(); <-done }
}

const family = `
apiVersion: OWNERS/v1
kind: Gadget
metadata: {name: parent}
spec: {a: b}
---
apiVersion: v1
kind: Secret
metadata: {name: made}
---
apiVersion: v1
kind: Service
metadata: {name: made}
spec: {selector: {app: a}, ports: [{port: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: stray}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: hen}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: egg}`

func own(u *unstructured.Unstructured, owners ...unstructured.Unstructured) {
	var refs []metav1.OwnerReference
	for _, o := range owners {
		controls := true
		refs = append(refs, metav1.OwnerReference{APIVersion: o.GetAPIVersion(), Kind: o.GetKind(), Name: o.GetName(), UID: o.GetUID(), Controller: &controls})
	}
	u.SetOwnerReferences(refs)
}

func TestOwnersAreFoundAgain(t *testing.T) {
	c := connect(t)
	const group = "owners.example.com"
	put(t, c, []unstructured.Unstructured{define(t, group, "Gadget", "Namespaced")})
	eventually(t, "definition", func() bool { return served(t, c, group, "Gadget") })
	namespace, objects := shop(t, c, strings.ReplaceAll(family, "OWNERS", group))
	parent, hen, egg := objects[0], objects[4], objects[5]
	own(&objects[1], parent)
	own(&objects[2], parent)
	gone := unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "gone", "uid": "1"}}}
	own(&objects[3], gone)
	own(&objects[4], egg)
	own(&objects[5], hen)
	for _, existing := range []string{"afresh", "elsewhere"} {
		t.Run(existing, func(t *testing.T) {
			target := namespace
			if existing == "elsewhere" {
				target = namespace + "-copy"
			} else {
				remove(t, c, objects)
			}
			p := build(t, restore.Options{
				Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects},
				Spec: v1alpha1.RestoreSpec{Namespaces: map[string]string{namespace: target}},
			})
			if why := item(t, p, target+"/configmap/stray").Why; !strings.Contains(why, "without its owner, which does not come back: configmap/gone") {
				t.Errorf("why %q", why)
			}
			if got := apply(t, p); len(got.Failed)+len(got.Notes) > 0 {
				t.Errorf("outcome %+v", got)
			}
			uid := func(kind, name string) types.UID { return get(t, c, "v1", kind, target, name).GetUID() }
			owners := func(kind, name string) []types.UID {
				var uids []types.UID
				for _, ref := range get(t, c, "v1", kind, target, name).GetOwnerReferences() {
					uids = append(uids, ref.UID)
				}
				slices.Sort(uids)
				return uids
			}
			made := get(t, c, group+"/v1", "Gadget", target, "parent").GetUID()
			for _, kind := range []string{"Secret", "Service"} {
				if got := owners(kind, "made"); !slices.Equal(got, []types.UID{made}) {
					t.Errorf("%s is owned by %v, not %s", kind, got, made)
				}
			}
			if got := owners("ConfigMap", "stray"); len(got) > 0 {
				t.Errorf("the stray is owned by %v", got)
			}
			if got, want := owners("ConfigMap", "hen"), uid("ConfigMap", "egg"); !slices.Equal(got, []types.UID{want}) {
				t.Errorf("the hen is owned by %v, not %s", got, want)
			}
			if got, want := owners("ConfigMap", "egg"), uid("ConfigMap", "hen"); !slices.Equal(got, []types.UID{want}) {
				t.Errorf("the egg is owned by %v, not %s", got, want)
			}
			again := build(t, restore.Options{
				Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects},
				Spec: v1alpha1.RestoreSpec{Namespaces: map[string]string{namespace: target}},
			})
			if s := again.Status(); s.Same < len(objects) || s.Keep > 1 {
				t.Errorf("a second plan finds differences: %s", strings.Join(again.Lines(), "\n"))
			}
		})
	}
}

func TestWhatControllersMakeIsLeftToThem(t *testing.T) {
	c := connect(t)
	namespace := kubetest.Namespace(t, c.Config)
	objects := within(t, namespace, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, uid: d}
spec: {selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: a, image: a}]}}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: web-1, uid: r, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: d, controller: true}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1-1, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-1, uid: r, controller: true}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly, uid: c}
spec: {schedule: 0 3 * * *, jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: a}]}}}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: nightly-1, ownerReferences: [{apiVersion: batch/v1, kind: CronJob, name: nightly, uid: c, controller: true}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: migrate}
status: {conditions: [{type: Complete, status: "True"}]}
---
apiVersion: v1
kind: Secret
metadata: {name: token}
type: kubernetes.io/service-account-token
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kube-root-ca.crt}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default}
---
apiVersion: v1
kind: Event
metadata: {name: e}
---
apiVersion: backstay.io/v1alpha1
kind: Restore
metadata: {name: again}
---
apiVersion: v1
kind: Endpoints
metadata: {name: web, annotations: {endpoints.kubernetes.io/last-change-trigger-time: now}}
---
apiVersion: v1
kind: Service
metadata: {name: kubernetes, labels: {component: apiserver, provider: kubernetes}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-x, labels: {endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: "system:of-the-cluster", labels: {kubernetes.io/bootstrapping: rbac-defaults}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: "system:of-a-user"}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]`)
	cluster := parse(t, `
apiVersion: v1
kind: PersistentVolume
metadata: {name: pv}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "system:masters-of-mine"}`)
	p := build(t, restore.Options{Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects}, ClusterObjects: cluster})
	created := 0
	for _, i := range p.Items {
		switch {
		case i.Action == restore.Create:
			created++
		case i.Action != restore.Skip || i.Why == "":
			t.Errorf("%s: %s %q", i, i.Action, i.Why)
		}
	}
	if created != 3 {
		t.Errorf("%d are created, not the Deployment, the CronJob and the user's Role\n%s", created, strings.Join(p.Lines(), "\n"))
	}
}

// tenant is the cluster with the rights of a namespace's administrator.
func tenant(t *testing.T, c *kube.Cluster, namespace string) *kube.Cluster {
	t.Helper()
	put(t, c, within(t, namespace, strings.ReplaceAll(`
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: tenant}
rules: [{apiGroups: ["*"], resources: ["*"], verbs: [get, list, create, update, patch, delete]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tenant}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: tenant}
subjects: [{kind: ServiceAccount, name: backstay, namespace: NAMESPACE}]`, "NAMESPACE", namespace)))
	as, err := c.As(namespace, "backstay")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the tenant's rights", func() bool { // the server takes a moment to know them
		config := &unstructured.UnstructuredList{}
		config.SetAPIVersion("v1")
		config.SetKind("ConfigMapList")
		return as.Client.List(t.Context(), config, client.InNamespace(namespace)) == nil
	})
	return as
}

func TestTenantsReachTheirNamespaceOnly(t *testing.T) {
	c := connect(t)
	mine, other := kubetest.Namespace(t, c.Config), kubetest.Namespace(t, c.Config)
	as := tenant(t, c, mine)
	config := within(t, mine, `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}`)
	role := parse(t, `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: everything}}`)
	move := v1alpha1.Transform{Objects: "configmap", Patch: []v1alpha1.PatchOperation{{Op: "replace", Path: "/metadata/namespace", Value: `"` + other + `"`}}}
	tests := []struct {
		name    string
		objects map[string][]unstructured.Unstructured
		spec    v1alpha1.RestoreSpec
		denied  bool
		action  restore.Action
	}{
		{"its own", map[string][]unstructured.Unstructured{mine: config}, v1alpha1.RestoreSpec{}, false, restore.Create},
		{"another in the point", map[string][]unstructured.Unstructured{other: within(t, other, `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}`)}, v1alpha1.RestoreSpec{}, true, ""},
		{"mapped out", map[string][]unstructured.Unstructured{mine: config}, v1alpha1.RestoreSpec{Namespaces: map[string]string{mine: other}}, true, ""},
		{"transformed out", map[string][]unstructured.Unstructured{mine: config}, v1alpha1.RestoreSpec{Transforms: []v1alpha1.Transform{move}}, false, restore.Conflict},
		{"said to be of another", map[string][]unstructured.Unstructured{mine: within(t, other, `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}`)}, v1alpha1.RestoreSpec{}, false, restore.Conflict},
		{"an object of the cluster among them", map[string][]unstructured.Unstructured{mine: within(t, mine, `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: a}}`)}, v1alpha1.RestoreSpec{}, false, restore.Conflict},
		{"more rights than it has", map[string][]unstructured.Unstructured{mine: within(t, mine, `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: up}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: a, namespace: x}]`)}, v1alpha1.RestoreSpec{}, false, restore.Create},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p, err := restore.Build(t.Context(), restore.Options{Cluster: as, Tenant: mine, Spec: test.spec, Objects: test.objects, ClusterObjects: role})
			if denied := errors.Is(err, fault.ErrDenied); denied != test.denied {
				t.Fatalf("err %v", err)
			}
			if test.denied {
				return
			}
			var namespaced *restore.Item
			for _, i := range p.Items {
				if i.Name == "everything" && i.Action != restore.Skip {
					t.Errorf("an object of the cluster: %s", i.Action)
				} else if i.Name != "everything" {
					namespaced = i
				}
			}
			if namespaced.Action != test.action {
				t.Errorf("planned %s: %s", namespaced.Action, namespaced.Why)
			}
			got := apply(t, p)
			if test.name == "more rights than it has" && (len(got.Failed) != 1 || !strings.Contains(got.Failed[0].Why, "forbidden")) {
				t.Errorf("outcome %+v", got)
			}
			if get(t, c, "v1", "ConfigMap", other, "a") != nil {
				t.Error("it reached the other namespace")
			}
		})
	}
}

func TestNamespacesOfTheClusterAreNoTargets(t *testing.T) {
	c := connect(t)
	for _, namespace := range []string{"kube-system", "kube-public", "backstay-system"} {
		objects := map[string][]unstructured.Unstructured{namespace: within(t, namespace, `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}`)}
		o := restore.Options{Cluster: c, System: "backstay-system", Objects: objects}
		if _, err := restore.Build(t.Context(), o); !errors.Is(err, fault.ErrRefused) {
			t.Errorf("%s: %v", namespace, err)
		}
		o.Spec.Namespaces = map[string]string{namespace: namespace}
		if _, err := restore.Build(t.Context(), o); err != nil {
			t.Errorf("%s, though it is named: %v", namespace, err)
		}
	}
}

func TestOneThatIsRefusedHoldsUpNoOther(t *testing.T) {
	c := connect(t)
	namespace, objects := shop(t, c, `
apiVersion: v1
kind: ConfigMap
metadata: {name: a, labels: {forbidden: "yes"}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: b}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
---
apiVersion: v1
kind: Service
metadata: {name: d}
spec: {selector: {app: a}, ports: [{port: 80}]}`)
	remove(t, c, objects)
	var asked atomic.Int64
	hook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Request struct {
				UID    string
				Object struct{ Metadata metav1.ObjectMeta }
			}
		}
		if json.NewDecoder(r.Body).Decode(&review) != nil || asked.Add(1) <= 2 {
			http.Error(w, "still starting", http.StatusServiceUnavailable)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": map[string]any{
				"uid": review.Request.UID, "allowed": review.Request.Object.Metadata.Labels["forbidden"] == "",
				"status": map[string]any{"message": "not on my watch"},
			},
		})
	}))
	t.Cleanup(hook.Close)
	gate := webhook(t, namespace, hook)
	put(t, c, gate)
	t.Cleanup(func() { _ = c.Client.Delete(context.WithoutCancel(t.Context()), &gate[0]) })
	quota := put(t, c, within(t, namespace, `{apiVersion: v1, kind: ResourceQuota, metadata: {name: q}, spec: {hard: {services: "0"}}}`))
	set(t, c, &quota[0], map[string]any{"hard": map[string]any{"services": "0"}, "used": map[string]any{"services": "0"}}, "status")
	statusOf(t, c, &quota[0], map[string]any{"hard": map[string]any{"services": "0"}, "used": map[string]any{"services": "0"}})
	eventually(t, "the quota", func() bool { // the server takes a moment to know it, too
		tried := within(t, namespace, `{apiVersion: v1, kind: Service, metadata: {name: probe}, spec: {ports: [{port: 80}]}}`)
		err := c.Client.Create(t.Context(), &tried[0], client.DryRunAll)
		return err != nil && strings.Contains(err.Error(), "exceeded quota")
	})

	var got restore.Outcome
	eventually(t, "the webhook", func() bool { // the server takes a moment to know it
		p := build(t, restore.Options{Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects}})
		if asked.Load() == 0 {
			tried := within(t, namespace, `{apiVersion: v1, kind: ConfigMap, metadata: {name: probe}}`)
			if c.Client.Create(t.Context(), &tried[0], client.DryRunAll) == nil {
				return false
			}
		}
		got = apply(t, p)
		return true
	})
	if got.Created != 2 || len(got.Failed) != 2 {
		t.Fatalf("outcome %+v", got)
	}
	if f := got.Failed[0]; f.Object != namespace+"/configmap/a" || !strings.Contains(f.Why, "not on my watch") {
		t.Errorf("failed %+v", f)
	}
	if f := got.Failed[1]; f.Object != namespace+"/service/d" || !strings.Contains(f.Why, "exceeded quota") {
		t.Errorf("failed %+v", f)
	}
}

// statusOf writes the status that a controller would.
func statusOf(t *testing.T, c *kube.Cluster, u *unstructured.Unstructured, status map[string]any) {
	t.Helper()
	now := get(t, c, u.GetAPIVersion(), u.GetKind(), u.GetNamespace(), u.GetName())
	now.Object["status"] = status
	if err := c.Client.Status().Update(t.Context(), now); err != nil {
		t.Fatal(err)
	}
}

// webhook sends what is made of ConfigMaps in a namespace to a server.
func webhook(t *testing.T, namespace string, server *httptest.Server) []unstructured.Unstructured {
	t.Helper()
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return parse(t, strings.NewReplacer("NAMESPACE", namespace, "URL", server.URL, "CA", base64.StdEncoding.EncodeToString(authority)).Replace(`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: NAMESPACE}
webhooks:
- name: gate.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {url: "URL", caBundle: "CA"}
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NAMESPACE}}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]`))
}
