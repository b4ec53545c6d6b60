package volume_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/kubetest"
)

// template is a pod's, of an application that uses the claim data.
const template = `
    metadata: {labels: {app: NAME}}
    spec:
      containers: [{name: c, image: none}]
      volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]
`

var workloads = map[string]string{
	"web": `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}, annotations: {note: "kept"}}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:` + template,
	"agent": `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:` + template,
	"nightly": `
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "0 0 * * *"
  jobTemplate:
    spec:
      template:
        metadata: {labels: {app: nightly}}
        spec:
          restartPolicy: Never
          containers: [{name: c, image: none}]
          volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]
`,
	"once": `
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  template:
    metadata: {labels: {app: once}}
    spec:
      restartPolicy: Never
      containers: [{name: c, image: none}]
      volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]
`,
	"db": `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  persistentVolumeClaimRetentionPolicy: {whenScaled: Delete, whenDeleted: Retain}
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: none}]}
  volumeClaimTemplates:
  - metadata: {name: files}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}
`,
	"idle": `
apiVersion: apps/v1
kind: Deployment
metadata: {name: idle}
spec:
  replicas: 0
  selector: {matchLabels: {app: idle}}
  template:` + template,
	"other": `
apiVersion: apps/v1
kind: Deployment
metadata: {name: other}
spec:
  replicas: 1
  selector: {matchLabels: {app: other}}
  template:
    metadata: {labels: {app: other}}
    spec: {containers: [{name: c, image: none}]}
`,
}

// stage is an application's namespace with workloads, whose pods end when they are stopped.
type stage struct {
	*scene
	before map[string]*unstructured.Unstructured
}

func newStage(t *testing.T, names ...string) *stage {
	t.Helper()
	s := &stage{scene: &scene{T: t, config: kubetest.Start(t)}, before: map[string]*unstructured.Unstructured{}}
	s.ns = kubetest.Namespace(t, s.config)
	var err error
	s.cluster, err = kube.New(s.config)
	s.ok(err)
	for _, name := range names {
		o := &unstructured.Unstructured{}
		s.ok(yaml.Unmarshal([]byte(strings.ReplaceAll(workloads[name], "NAME", name)), o))
		o.SetNamespace(s.ns)
		s.ok(s.cluster.Client.Create(t.Context(), o))
		s.before[name] = o
		if name != "idle" && name != "other" && name != "nightly" {
			s.pod(name+"-1", o)
		}
	}
	return s
}

// pod makes a pod of a workload, or of none.
func (s *stage) pod(name string, of *unstructured.Unstructured) *corev1.Pod {
	s.Helper()
	p := podOf(s.ns, name, "data")
	if of != nil {
		p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(of, of.GroupVersionKind())}
		if of.GetKind() == "StatefulSet" {
			p.Spec.Volumes[0].PersistentVolumeClaim.ClaimName = "files-db-0"
		}
	}
	s.ok(s.cluster.Client.Create(s.Context(), p))
	return p
}

// controllers end the pods of workloads that are stopped, until the test is over.
func (s *stage) controllers() {
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.Context())) // they are to run during cleanups
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			for name, o := range s.before {
				if live := s.live(ctx, o); live != nil && !runs(live) {
					_ = s.cluster.Client.Delete(ctx, podOf(s.ns, name+"-1", "data"))
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	s.Cleanup(func() { cancel(); <-done })
}

func (s *stage) live(ctx context.Context, o *unstructured.Unstructured) *unstructured.Unstructured {
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(o.GroupVersionKind())
	if s.cluster.Client.Get(ctx, client.ObjectKeyFromObject(o), live) != nil {
		return nil
	}
	return live
}

func runs(o *unstructured.Unstructured) bool {
	replicas, found, _ := unstructured.NestedInt64(o.Object, "spec", "replicas")
	suspended, _, _ := unstructured.NestedBool(o.Object, "spec", "suspend")
	selector, _, _ := unstructured.NestedMap(o.Object, "spec", "template", "spec", "nodeSelector")
	return (!found || replicas > 0) && !suspended && len(selector) == 0
}

func (s *stage) claims() []types.NamespacedName {
	return []types.NamespacedName{{Namespace: s.ns, Name: "data"}, {Namespace: s.ns, Name: "files-db-0"}}
}

// wantAsBefore checks that no workload differs from what it was in anything that somebody wrote.
func (s *stage) wantAsBefore() {
	s.Helper()
	const counter = "deprecated.daemonset.template.generation" // the server's own
	for name, before := range s.before {
		live, before := s.live(s.Context(), before), before.DeepCopy() // controllers look at it, too
		for _, o := range []*unstructured.Unstructured{live, before} {
			unstructured.RemoveNestedField(o.Object, "metadata", "annotations", counter)
		}
		if len(live.GetAnnotations()) == 0 {
			unstructured.RemoveNestedField(live.Object, "metadata", "annotations")
		}
		if len(before.GetAnnotations()) == 0 {
			unstructured.RemoveNestedField(before.Object, "metadata", "annotations")
		}
		if !reflect.DeepEqual(live.Object["spec"], before.Object["spec"]) ||
			!reflect.DeepEqual(live.GetLabels(), before.GetLabels()) || !reflect.DeepEqual(live.GetAnnotations(), before.GetAnnotations()) {
			s.Errorf("%s is now\n%v\nand was\n%v", name, live.Object, before.Object)
		}
	}
}

func (s *stage) pods() (names []string) {
	s.Helper()
	var list corev1.PodList
	s.ok(s.cluster.Client.List(s.Context(), &list, client.InNamespace(s.ns)))
	for _, p := range list.Items {
		names = append(names, p.Name)
	}
	return names
}

func TestStopAndStart(t *testing.T) {
	s := newStage(t, "web", "agent", "nightly", "once", "db", "idle", "other")
	s.pod("bare", nil)
	over := s.pod("over", nil)
	over.Status.Phase = corev1.PodSucceeded
	s.ok(s.cluster.Client.Status().Update(t.Context(), over))
	s.controllers()
	r := s.restorer("first", s.cluster)
	stopped, err := r.Stop(t.Context(), s.claims())
	s.ok(err)
	var want []string
	for _, name := range []string{"CronJob NS/nightly", "DaemonSet NS/agent", "Deployment NS/web", "Job NS/once", "Pod NS/bare", "StatefulSet NS/db"} {
		want = append(want, strings.ReplaceAll(name, "NS", s.ns))
	}
	if !slices.Equal(stopped, want) {
		t.Errorf("Stop stopped %v, want %v", stopped, want)
	}
	if left := s.pods(); len(left) > 0 {
		t.Errorf("pods that are left: %v", left)
	}
	if policy, _, _ := unstructured.NestedString(s.live(t.Context(), s.before["db"]).Object,
		"spec", "persistentVolumeClaimRetentionPolicy", "whenScaled"); policy != "Retain" {
		t.Errorf("the StatefulSet's claims would go with its pods: %s", policy)
	}
	again, err := r.Stop(t.Context(), s.claims())
	s.ok(err)
	if !slices.Equal(again, want) {
		t.Errorf("Stop, again, stopped %v, want %v", again, want)
	}
	if _, err := s.restorer("second", s.cluster).Stop(t.Context(), s.claims()); !errors.Is(err, fault.ErrBusy) {
		t.Errorf("Stop of what another Restore holds: %v", err)
	}
	s.ok(r.Start(t.Context()))
	s.wantAsBefore()
	if left := s.pods(); !slices.Equal(left, []string{"bare"}) {
		t.Errorf("pods that are back: %v, want bare alone", left)
	}
	s.ok(r.Start(t.Context()))
	s.wantAsBefore()
}

// Whenever a Restore is killed while it stops or starts workloads: they are as they were after the next tidying up.
func TestStopAndStartKilled(t *testing.T) {
	kubetest.Start(t) // or skip all
	for writes := range 16 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			s := newStage(t, "web", "agent", "nightly", "once", "db")
			s.pod("bare", nil)
			s.controllers()
			r := s.restorer("first", dying(t, s.config, writes))
			_, err := r.Stop(t.Context(), s.claims())
			if err == nil {
				err = r.Start(t.Context())
			}
			if err != nil && !strings.Contains(err.Error(), errKilled.Error()) {
				t.Fatalf("killed after %d writes, it says: %v", writes, err)
			}
			s.ok(s.restorer("", s.cluster).StartAll(t.Context(), s.others))
			s.wantAsBefore()
			if !slices.Contains(s.pods(), "bare") {
				t.Error("the pod that nothing makes again is gone")
			}
			var secrets corev1.SecretList
			s.ok(s.cluster.Client.List(t.Context(), &secrets, client.InNamespace(s.ns)))
			if len(secrets.Items) > 0 {
				t.Errorf("%d secrets are left", len(secrets.Items))
			}
		})
	}
}

func TestStopAgainstSelfHeal(t *testing.T) {
	s := newStage(t, "web")
	ctx, cancel := context.WithCancel(t.Context())
	healed := make(chan struct{})
	go func() {
		defer close(healed)
		for ctx.Err() == nil {
			_ = s.cluster.Client.Patch(ctx, s.before["web"].DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":3}}`)))
			time.Sleep(5 * time.Millisecond)
		}
	}()
	_, err := s.restorer("first", s.cluster).Stop(t.Context(), s.claims())
	if !errors.Is(err, fault.ErrRefused) || !strings.Contains(err.Error(), "Deployment "+s.ns+"/web") || len(fault.Hints(err)) == 0 {
		t.Errorf("Stop of what somebody starts each time: %v, hints %v", err, fault.Hints(err))
	}
	cancel()
	<-healed
	s.ok(s.restorer("first", s.cluster).Start(t.Context()))
	s.wantAsBefore()
}

func TestStartLeavesWhatSomebodyStarted(t *testing.T) {
	s := newStage(t, "web")
	s.controllers()
	r := s.restorer("first", s.cluster)
	_, err := r.Stop(t.Context(), s.claims())
	s.ok(err)
	web := s.before["web"]
	s.ok(s.cluster.Client.Patch(t.Context(), web.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":5}}`))))
	s.ok(r.Start(t.Context()))
	s.ok(unstructured.SetNestedField(web.Object, int64(5), "spec", "replicas"))
	s.wantAsBefore()
}

func TestStopRefusesPodsOfUnknownControllers(t *testing.T) {
	s := newStage(t)
	strange := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: "strange"}}
	s.ok(s.cluster.Client.Create(t.Context(), strange))
	o := &unstructured.Unstructured{}
	o.SetAPIVersion("v1")
	o.SetKind("ConfigMap")
	o.SetName(strange.Name)
	o.SetUID(strange.UID)
	s.pod("strange-1", o)
	_, err := s.restorer("first", s.cluster).Stop(t.Context(), s.claims())
	if !errors.Is(err, fault.ErrUnsupported) || !strings.Contains(err.Error(), "ConfigMap "+s.ns+"/strange") {
		t.Errorf("Stop: %v", err)
	}
}

const shops = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: shops.volumes.test}
spec:
  group: volumes.test
  scope: Namespaced
  names: {plural: shops, singular: shop, kind: Shop}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
    subresources: {scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
`

// A kind that Backstay does not know, and that has the subresource scale, is stopped by it, and what it owns is left alone.
func TestStopByScale(t *testing.T) {
	s := newStage(t)
	definition := &unstructured.Unstructured{}
	s.ok(yaml.Unmarshal([]byte(shops), definition))
	s.ok(s.cluster.Client.Create(t.Context(), definition))
	shop := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "volumes.test/v1", "kind": "Shop", "metadata": map[string]any{"name": "shop", "namespace": s.ns},
		"spec": map[string]any{"size": int64(2), "colour": "blue"},
	}}
	s.eventually("the kind is served", func() bool { return s.cluster.Client.Create(t.Context(), shop) == nil })
	s.before["shop"] = shop
	s.eventually("that it has a scale is told", func() bool { // a moment later
		s.cluster.Discovery.Invalidate()
		list, err := s.cluster.Discovery.ServerResourcesForGroupVersion("volumes.test/v1")
		return err == nil && slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == "shops/scale" })
	})

	web := &unstructured.Unstructured{}
	s.ok(yaml.Unmarshal([]byte(strings.ReplaceAll(workloads["web"], "NAME", "web")), web))
	web.SetNamespace(s.ns)
	web.SetOwnerReferences([]metav1.OwnerReference{*metav1.NewControllerRef(shop, shop.GroupVersionKind())})
	s.ok(s.cluster.Client.Create(t.Context(), web))
	s.before["web"] = web

	r := s.restorer("first", s.cluster)
	stopped, err := r.Stop(t.Context(), s.claims())
	s.ok(err)
	if !slices.Equal(stopped, []string{"Shop " + s.ns + "/shop"}) {
		t.Errorf("Stop stopped %v, want the Shop alone", stopped)
	}
	live := s.live(t.Context(), shop)
	if size, _, _ := unstructured.NestedInt64(live.Object, "spec", "size"); size != 0 || live.GetLabels()[v1alpha1.LabelOwner] == "" {
		t.Errorf("the Shop is %v", live.Object)
	}
	s.ok(r.Start(t.Context()))
	s.wantAsBefore()
}
