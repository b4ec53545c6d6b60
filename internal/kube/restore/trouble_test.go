package restore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/kubetest"
	"github.com/backstay/backstay/internal/kube/restore"
)

func TestWhatIsInTheWay(t *testing.T) {
	c := connect(t)
	tests := []struct {
		name    string
		prepare func(t *testing.T, namespace string, object *unstructured.Unstructured)
		why     string
	}{
		{"it is being deleted", func(t *testing.T, _ string, u *unstructured.Unstructured) {
			now := get(t, c, "v1", "ConfigMap", u.GetNamespace(), u.GetName())
			now.SetFinalizers([]string{"example.com/stuck"})
			if err := errors.Join(c.Client.Update(t.Context(), now), c.Client.Delete(t.Context(), now)); err != nil {
				t.Fatal(err)
			}
		}, "it is being deleted on the cluster, which waits for example.com/stuck"},
		{"somebody else's", func(t *testing.T, namespace string, u *unstructured.Unstructured) {
			other := put(t, c, within(t, namespace, `{apiVersion: v1, kind: Secret, metadata: {name: master}}`))
			now := get(t, c, "v1", "ConfigMap", u.GetNamespace(), u.GetName())
			own(now, other[0])
			now.Object["data"] = map[string]any{"color": "red"}
			if err := c.Client.Update(t.Context(), now); err != nil {
				t.Fatal(err)
			}
		}, "on the cluster it belongs to secret/master"},
		{"the namespace is being deleted", func(t *testing.T, namespace string, _ *unstructured.Unstructured) {
			ns := &corev1.Namespace{}
			ns.Name = namespace
			if err := c.Client.Delete(t.Context(), ns); err != nil { // there is no controller to end it
				t.Fatal(err)
			}
		}, "is being deleted"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			namespace, objects := shop(t, c, `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {color: blue}}`)
			test.prepare(t, namespace, &objects[0])
			p := build(t, restore.Options{
				Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects}, Spec: v1alpha1.RestoreSpec{Existing: v1alpha1.ExistingReplace},
			})
			if i := p.Items[0]; i.Action != restore.Conflict || !strings.Contains(i.Why, test.why) {
				t.Errorf("planned %s: %s", i.Action, i.Why)
			}
			if got := apply(t, p); len(got.Failed) != 1 {
				t.Errorf("outcome %+v", got)
			}
		})
	}
}

func TestNothingIsTouchedWhereOneObjectWouldBeRefused(t *testing.T) {
	c := connect(t)
	namespace := kubetest.Namespace(t, c.Config)
	objects := within(t, namespace, `
apiVersion: v1
kind: ConfigMap
metadata: {name: good}
---
apiVersion: v1
kind: Service
metadata: {name: bad}
spec: {ports: [{port: 99999999}]}`)
	o := restore.Options{Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects}, Spec: v1alpha1.RestoreSpec{Existing: v1alpha1.ExistingFail}}
	p := build(t, o)
	if i := item(t, p, namespace+"/service/bad"); i.Action != restore.Conflict || !strings.Contains(i.Why, "spec.ports[0].port") {
		t.Errorf("planned %s: %s", i.Action, i.Why)
	}
	if _, err := p.Apply(t.Context(), patience); !errors.Is(err, fault.ErrExists) {
		t.Errorf("err %v", err)
	}
	if get(t, c, "v1", "ConfigMap", namespace, "good") != nil {
		t.Error("the good one was created all the same")
	}
	o.Begun = true // another process took it up
	if got := apply(t, build(t, o)); got.Created != 1 || len(got.Failed) != 1 {
		t.Errorf("outcome %+v", got)
	}
}

func TestARestoreThatWasKilledGoesOn(t *testing.T) {
	c := connect(t)
	namespace, objects := shop(t, c, `
apiVersion: v1
kind: Secret
metadata: {name: made}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: a}]}}}`)
	own(&objects[0], objects[1])
	remove(t, c, clone(objects))
	o := restore.Options{Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects}}
	half := within(t, namespace, `{apiVersion: v1, kind: Secret, metadata: {name: made}}`) // killed before the secret got its owner
	half[0].Object["type"] = "Opaque"
	put(t, c, half)
	o.Begun = true
	if got := apply(t, build(t, o)); got.Created != 1 || got.Replaced != 1 || len(got.Failed)+len(got.Notes) > 0 {
		t.Fatalf("outcome %+v", got)
	}
	if refs := get(t, c, "v1", "Secret", namespace, "made").GetOwnerReferences(); len(refs) != 1 || refs[0].UID != get(t, c, "apps/v1", "Deployment", namespace, "web").GetUID() {
		t.Errorf("owned by %v", refs)
	}

	// And one that comes late: something made an object between plan and work.
	remove(t, c, []unstructured.Unstructured{*get(t, c, "v1", "Secret", namespace, "made")})
	p := build(t, o)
	late := within(t, namespace, `{apiVersion: v1, kind: Secret, metadata: {name: made}, stringData: {password: another}}`)
	put(t, c, late)
	if got := apply(t, p); got.Created != 0 || len(got.Failed) > 0 || len(got.Notes) != 1 {
		t.Errorf("outcome %+v", got)
	}
}

func TestHostileObjectsAreNamedAndHoldUpNothing(t *testing.T) {
	c := connect(t)
	namespace := kubetest.Namespace(t, c.Config)
	deep := any("x")
	for range 20_000 {
		deep = []any{deep}
	}
	odd := func(change func(u *unstructured.Unstructured)) unstructured.Unstructured {
		u := within(t, namespace, `{apiVersion: v1, kind: ConfigMap, metadata: {name: odd}}`)[0]
		change(&u)
		return u
	}
	large := odd(func(u *unstructured.Unstructured) {
		u.SetName("large")
		u.Object["data"] = map[string]any{"a": strings.Repeat("x", 1_500_000)}
	})
	huge := odd(func(u *unstructured.Unstructured) {
		u.SetName("huge")
		u.Object["data"] = map[string]any{"a": strings.Repeat("x", 4<<20)}
	})
	hostile := []unstructured.Unstructured{
		{},
		{Object: map[string]any{"metadata": "x"}},
		odd(func(u *unstructured.Unstructured) { u.Object["data"] = deep }),
		odd(func(u *unstructured.Unstructured) { u.SetName("../../secrets/a") }),
		odd(func(u *unstructured.Unstructured) { u.SetName("..") }),
		odd(func(u *unstructured.Unstructured) { u.SetName(strings.Repeat("a", 300)) }),
		odd(func(u *unstructured.Unstructured) { u.SetName("a\x1b[2Jb") }),
		odd(func(u *unstructured.Unstructured) { u.SetKind("Status") }),
		odd(func(u *unstructured.Unstructured) { u.SetAPIVersion("a/b/c") }),
		odd(func(u *unstructured.Unstructured) { u.SetAPIVersion("v1/../..") }),
		odd(func(u *unstructured.Unstructured) { u.SetNamespace("kube-system") }),
		odd(func(u *unstructured.Unstructured) { u.SetName("bad-data"); u.Object["data"] = []any{1.5, nil} }),
		odd(func(u *unstructured.Unstructured) {
			u.SetName("bytes")
			u.Object["data"] = map[string]any{"a": "\xff\xfe"}
		}),
		large, huge,
	}
	refs := odd(func(u *unstructured.Unstructured) { u.SetName("refs"); u.SetUID("me") })
	var owners []any
	for n := range 1000 {
		owners = append(owners, map[string]any{"apiVersion": "v1", "kind": "Secret", "name": fmt.Sprint(n), "uid": fmt.Sprint(n)})
	}
	_ = unstructured.SetNestedSlice(refs.Object, owners, "metadata", "ownerReferences")
	good := odd(func(u *unstructured.Unstructured) { u.SetName("good") })
	hostile = append(hostile, refs, good, good)

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	p, err := restore.Build(ctx, restore.Options{Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: hostile}})
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(p.Lines(), "\n")
	if strings.Contains(text, "\x1b") || len(text) > 20_000 {
		t.Errorf("the table carries it on: %d bytes", len(text))
	}
	got, err := p.Apply(ctx, patience)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"good", "refs", "bytes"} {
		if get(t, c, "v1", "ConfigMap", namespace, name) == nil {
			t.Errorf("%s did not come back", name)
		}
	}
	if got.Created != 3 || len(got.Failed) != len(hostile)-3 {
		t.Errorf("%d created, %d of %d failed: %+v", got.Created, len(got.Failed), len(hostile), got.Failed)
	}
	if get(t, c, "v1", "ConfigMap", "kube-system", "odd") != nil {
		t.Error("it reached kube-system")
	}
}

func TestReadySaysWhatDoesNotRun(t *testing.T) {
	c := connect(t)
	namespace, objects := shop(t, c, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: good}
spec: {selector: {matchLabels: {a: good}}, template: {metadata: {labels: {a: good}}, spec: {containers: [{name: a, image: a}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: bad}
spec: {selector: {matchLabels: {a: bad}}, template: {metadata: {labels: {a: bad}}, spec: {containers: [{name: a, image: a}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: never}
spec: {selector: {matchLabels: {a: never}}, template: {metadata: {labels: {a: never}}, spec: {containers: [{name: a, image: a}]}}}`)
	run := func(n, have int64) {
		statusOf(t, c, &objects[n], map[string]any{"observedGeneration": int64(1), "replicas": int64(1), "updatedReplicas": have, "availableReplicas": have, "readyReplicas": have})
	}
	run(0, 1)
	run(1, 0)
	run(2, 0)
	objects[2].Object["status"] = map[string]any{"observedGeneration": int64(1), "replicas": int64(1)}
	objects[1].Object["status"] = map[string]any{"observedGeneration": int64(1), "replicas": int64(1), "updatedReplicas": int64(1), "availableReplicas": int64(1)}
	pod := put(t, c, within(t, namespace, `{apiVersion: v1, kind: Pod, metadata: {name: bad-1, labels: {a: bad}}, spec: {containers: [{name: a, image: a}]}}`))
	statusOf(t, c, &pod[0], map[string]any{"phase": "Pending", "containerStatuses": []any{map[string]any{
		"name": "a", "image": "a", "imageID": "", "ready": false, "restartCount": int64(0),
		"state": map[string]any{"waiting": map[string]any{"reason": "ImagePullBackOff", "message": "no such image"}},
	}}})
	for _, only := range []string{"", v1alpha1.OnlyData} {
		p := build(t, restore.Options{Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects}, Spec: v1alpha1.RestoreSpec{Only: only}})
		got, err := p.Ready(t.Context(), 10*time.Millisecond)
		if err != nil || len(got) != 2 {
			t.Fatalf("%+v, %v", got, err)
		}
		if want := (restore.NotReady{Object: namespace + "/deployment.apps/bad", Why: "0 of 1 pods are ready; pod bad-1: container a: ImagePullBackOff: no such image"}); got[0] != want {
			t.Errorf("%+v", got[0])
		}
		if got[1].Object != namespace+"/deployment.apps/never" || !got[1].Before {
			t.Errorf("%+v", got[1])
		}
	}
	run(1, 1)
	p := build(t, restore.Options{Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects}})
	begun := time.Now()
	if got, err := p.Ready(t.Context(), time.Minute); err != nil || len(got) != 1 || time.Since(begun) > 30*time.Second {
		t.Errorf("%+v, %v after %s", got, err, time.Since(begun))
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	run(1, 0)
	if _, err := p.Ready(canceled, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("err %v", err)
	}
}

func TestPortsOfNodesAreKeptWhereTheyAreFree(t *testing.T) {
	c := connect(t)
	const service = `{apiVersion: v1, kind: Service, metadata: {name: NAME}, spec: {type: NodePort, selector: {a: b}, ports: [{port: 80}]}}`
	namespace, objects := shop(t, c, strings.Replace(service, "NAME", "a", 1)+"\n---\n"+strings.Replace(service, "NAME", "b", 1))
	port := func(u *unstructured.Unstructured) int64 {
		ports, _, _ := unstructured.NestedSlice(u.Object, "spec", "ports")
		return ports[0].(map[string]any)["nodePort"].(int64)
	}
	remove(t, c, objects)
	thief := within(t, namespace, strings.Replace(service, "NAME", "thief", 1))
	ports := []any{map[string]any{"port": int64(80), "nodePort": port(&objects[1])}}
	if err := unstructured.SetNestedSlice(thief[0].Object, ports, "spec", "ports"); err != nil {
		t.Fatal(err)
	}
	put(t, c, thief)
	got := apply(t, build(t, restore.Options{Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects}}))
	if got.Created != 2 || len(got.Failed) > 0 || len(got.Notes) != 1 || !strings.Contains(got.Notes[0], "node ports are taken") {
		t.Fatalf("outcome %+v", got)
	}
	if a := get(t, c, "v1", "Service", namespace, "a"); port(a) != port(&objects[0]) {
		t.Errorf("its port was %d, and is %d", port(&objects[0]), port(a))
	}
}

func TestLeftToGit(t *testing.T) {
	c := connect(t)
	namespace, objects := shop(t, c, `
apiVersion: v1
kind: ConfigMap
metadata: {name: a, annotations: {argocd.argoproj.io/tracking-id: "shop:/ConfigMap:NAMESPACE/a"}}
data: {color: blue}`)
	set(t, c, &objects[0], "red", "data", "color")
	o := restore.Options{Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects}}
	if i := build(t, o).Items[0]; i.Action != restore.Keep || i.Why != "left to git: Argo CD application shop" {
		t.Errorf("%s %q", i.Action, i.Why)
	}
	o.Spec.Existing = v1alpha1.ExistingReplace
	if i := build(t, o).Items[0]; i.Action != restore.Replace || i.Why != "Argo CD application shop brings it back to what git says" {
		t.Errorf("%s %q", i.Action, i.Why)
	}
	apply(t, build(t, o))
	if get(t, c, "v1", "ConfigMap", namespace, "a").GetAnnotations()["argocd.argoproj.io/tracking-id"] == "" {
		t.Error("the tracking id is gone")
	}
	o.Spec.Namespaces = map[string]string{namespace: namespace + "-copy"}
	apply(t, build(t, o))
	if made := get(t, c, "v1", "ConfigMap", namespace+"-copy", "a"); len(made.GetAnnotations()) > 0 {
		t.Errorf("the copy is tracked: %v", made.GetAnnotations())
	}
}

func TestAClusterThatDoesNotAnswer(t *testing.T) {
	c := connect(t)
	config := *c.Config
	config.Host = "https://127.0.0.1:1"
	other, err := kube.New(&config)
	if err != nil {
		return // it is asked at once, which is as well
	}
	_, err = restore.Build(t.Context(), restore.Options{Cluster: other, Objects: map[string][]unstructured.Unstructured{
		"a": within(t, "a", `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}`),
	}})
	if !errors.Is(err, fault.ErrUnavailable) {
		t.Errorf("err %v", err)
	}
}
