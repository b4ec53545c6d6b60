package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/kube"
)

// play is an ActionSet "set" of a Blueprint with the phases one and two and a deferPhase, whose function Say counts its calls.
type play struct {
	*lab
	namespace string
	do        func(ctx context.Context, c blueprint.Call) error // in Say; nil for nothing

	mu     sync.Mutex
	called map[string]int // by what they say
	rights []string       // users that functions were to act as
}

func newPlay(t *testing.T, namespace func(l *lab) string) *play {
	t.Helper()
	l := newLab(t)
	p := &play{lab: l, namespace: namespace(l), called: map[string]int{}}
	p.make(`{apiVersion: cr.kanister.io/v1alpha1, kind: Blueprint, metadata: {name: b}, actions: {backup: {
  outputArtifacts: {a: {keyValue: {said: "{{ .Phases.one.Output.said }}"}}},
  phases: [{func: Say, name: one, args: {text: one}}, {func: Say, name: two, args: {text: two}}],
  deferPhase: {func: Say, name: last, args: {text: last}}}}}`)
	p.make(`{apiVersion: cr.kanister.io/v1alpha1, kind: ActionSet, metadata: {name: set}, spec: {actions: [
  {name: backup, blueprint: b, object: {kind: namespace, name: ` + p.namespace + `}, unknown: kept}]}}`)
	return p
}

func inSystem(l *lab) string { return l.system }

func (p *play) make(text string) {
	p.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		p.Fatal(err)
	}
	u.SetNamespace(p.namespace)
	p.create(u)
}

// cast gives a worker the function.
func (p *play) cast(w *Worker) *Worker {
	w.Functions = func(c *kube.Cluster) []blueprint.Function {
		p.mu.Lock()
		p.rights = append(p.rights, c.Config.Impersonate.UserName)
		p.mu.Unlock()
		return []blueprint.Function{{
			Name: "Say", Required: []string{"text"}, Interrupted: blueprint.Attaches,
			Run: func(ctx context.Context, c blueprint.Call) (map[string]any, error) {
				p.mu.Lock()
				p.called[fmt.Sprint(c.Args["text"])]++
				p.mu.Unlock()
				if p.do != nil {
					if err := p.do(ctx, c); err != nil {
						return nil, err
					}
				}
				return map[string]any{"said": c.Args["text"]}, nil
			},
		}}
	}
	return w
}

func (p *play) act(ctx context.Context, w *Worker) error {
	return p.cast(w).Actions(ctx, p.namespace, "set")
}

// set is the ActionSet now.
func (p *play) set() (*unstructured.Unstructured, *blueprint.ActionSetStatus) {
	p.Helper()
	o := kanister("ActionSet")
	if err := p.cluster.Client.Get(context.Background(), client.ObjectKey{Namespace: p.namespace, Name: "set"}, o); err != nil {
		p.Fatal(err)
	}
	text, err := json.Marshal(o.Object["status"])
	if err != nil {
		p.Fatal(err)
	}
	var status blueprint.ActionSetStatus
	if err := json.Unmarshal(text, &status); err != nil {
		p.Fatal(err)
	}
	return o, &status
}

func TestActionsRun(t *testing.T) {
	p := newPlay(t, inSystem)
	p.pod("left", p.uid()) // by a process that was killed
	if err := p.act(t.Context(), p.worker()); err != nil {
		t.Fatal(err)
	}
	o, status := p.set()
	if status.State != blueprint.StateComplete || status.Actions[0].Artifacts["a"].KeyValue["said"] != "one" {
		t.Errorf("%+v", status)
	}
	actions, _, _ := unstructured.NestedSlice(o.Object, "spec", "actions")
	if actions[0].(map[string]any)["unknown"] != "kept" {
		t.Errorf("what another wrote is gone: %v", actions)
	}
	if n := p.pods(); n != 0 {
		t.Errorf("%d pods of phases are left", n)
	}
	if err := p.act(t.Context(), p.worker()); err != nil || p.called["one"] != 1 || p.called["last"] != 1 {
		t.Errorf("run again: %v, %v", err, p.called)
	}
}

func (p *play) uid() string {
	o, _ := p.set()
	return string(o.GetUID())
}

func (p *play) pod(name, actionSet string) {
	p.Helper()
	p.create(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: name, Labels: map[string]string{blueprint.LabelActionSet: actionSet}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	})
}

// pods is how many of phases are there.
func (p *play) pods() int {
	p.Helper()
	var all corev1.PodList
	if err := p.cluster.Client.List(p.Context(), &all, client.InNamespace(p.namespace), client.HasLabels{blueprint.LabelActionSet}); err != nil {
		p.Fatal(err)
	}
	return len(all.Items)
}

func TestActionsKilledAtEveryWrite(t *testing.T) {
	for n := int64(1); ; n += step() {
		p := newPlay(t, inSystem)
		dead := p.killedAfter(n, p.act)
		if err := p.act(t.Context(), p.worker()); err != nil {
			t.Fatal(err)
		}
		_, status := p.set()
		if status.State != blueprint.StateComplete || p.called["last"] != 1 || status.Actions[0].Artifacts["a"].KeyValue["said"] != "one" {
			t.Errorf("killed after %d writes: %s, called %v: %s", n, status.State, p.called, status.Error.Message)
		}
		if !dead {
			if n < 8 {
				t.Errorf("only %d writes", n)
			}
			return
		}
	}
}

// TestActionsAreOfOneProcess: a process that lives on beside the one that took its place does no more.
func TestActionsAreOfOneProcess(t *testing.T) {
	p := newPlay(t, inSystem)
	p.do = func(ctx context.Context, _ blueprint.Call) error {
		p.do = nil
		return p.act(ctx, p.worker()) // all of it, while the first is in phase one
	}
	err := p.act(t.Context(), p.worker())
	if err != nil && !errors.Is(err, errReplaced) {
		t.Errorf("error %v", err)
	}
	_, status := p.set()
	if status.State != blueprint.StateComplete || p.called["two"] != 1 || p.called["last"] != 1 {
		t.Errorf("%s, called %v", status.State, p.called)
	}

	p = newPlay(t, inSystem)
	p.do = func(ctx context.Context, c blueprint.Call) error {
		if c.Args["text"] == "one" {
			a := &actions{Worker: p.worker(), id: "another", object: kanister("ActionSet")}
			a.object.SetNamespace(p.namespace)
			a.object.SetName("set")
			return errors.Join(a.refresh(ctx), a.claim(ctx))
		}
		return nil
	}
	if err := p.act(t.Context(), p.worker()); !errors.Is(err, errReplaced) || p.called["two"]+p.called["last"] > 0 {
		t.Errorf("error %v, called %v", err, p.called)
	}
}

func TestActionsThatAreDeleted(t *testing.T) {
	p := newPlay(t, inSystem)
	o, _ := p.set()
	o.SetFinalizers([]string{"backstay.io/running"})
	if err := p.cluster.Client.Update(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	p.Cleanup(func() {
		_ = p.cluster.Client.Patch(context.Background(), o, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`)))
	})
	p.do = func(ctx context.Context, c blueprint.Call) error {
		if c.Args["text"] != "one" {
			return nil
		}
		if err := p.cluster.Client.Delete(ctx, o); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}
	if err := p.act(t.Context(), p.worker()); err != nil {
		t.Fatal(err)
	}
	_, status := p.set()
	if status.State != blueprint.StateFailed || !strings.Contains(status.Error.Message, "canceled") || p.called["two"] != 0 || p.called["last"] != 1 {
		t.Errorf("%s: %s, called %v", status.State, status.Error.Message, p.called)
	}
}

func TestActionsOfATenantHaveItsRights(t *testing.T) {
	p := newPlay(t, func(l *lab) string { return l.application() })
	if err := p.act(t.Context(), p.worker()); err != nil {
		t.Fatal(err)
	}
	if got, want := p.rights[0], "system:serviceaccount:"+p.namespace+":backstay"; got != want {
		t.Errorf("they act as %q, want %q", got, want)
	}
	_, status := p.set()
	if status.State != blueprint.StateFailed || !strings.Contains(status.Error.Message, "forbidden") { // to read its object: it has no rights
		t.Errorf("%s: %s", status.State, status.Error.Message)
	}
}

func TestActionsWhoseBlueprintIsGone(t *testing.T) {
	p := newPlay(t, inSystem)
	b := kanister("Blueprint")
	b.SetNamespace(p.namespace)
	b.SetName("b")
	if err := p.cluster.Client.Delete(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := p.act(t.Context(), p.worker()); err != nil {
		t.Fatal(err)
	}
	if _, status := p.set(); status.State != blueprint.StateFailed || !strings.Contains(status.Error.Message, "read Blueprint b") {
		t.Errorf("%+v", status)
	}
}

// TestProfilesMadeFromALocation come by file, and make points of the action's object.
func TestProfilesMadeFromALocation(t *testing.T) {
	p := newPlay(t, inSystem)
	p.make(`{apiVersion: cr.kanister.io/v1alpha1, kind: Profile, metadata: {name: main, annotations: {backstay.io/location: main}},
  location: {type: kopia}, credential: {type: kopia}}`)
	o, _ := p.set()
	if err := unstructured.SetNestedMap(o.Object, map[string]any{"actions": []any{map[string]any{
		"name": "backup", "blueprint": "b", "object": map[string]any{"kind": "namespace", "name": p.namespace},
		"profile": map[string]any{"name": "main", "namespace": p.namespace},
	}}}, "spec"); err != nil {
		t.Fatal(err)
	}
	if err := p.cluster.Client.Update(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	var seen []byte
	p.do = func(_ context.Context, c blueprint.Call) error {
		seen = c.Params.ProfileFile.Content
		return nil
	}
	if err := p.act(t.Context(), p.worker()); err != nil {
		t.Fatal(err)
	}
	var document blueprint.ProfileDocument
	if err := json.Unmarshal(seen, &document); err != nil {
		t.Fatal(err)
	}
	v := document.Vault
	if v == nil || v.URL != "s3://bucket/vault" || v.Password != "secret" || v.Subject != (blueprint.VaultSubject{Kind: "artifact", Name: p.namespace}) {
		t.Errorf("vault %+v", v)
	}
	if o, _ := p.set(); strings.Contains(fmt.Sprint(o.Object), "secret") {
		t.Errorf("the password is in the object: %v", o.Object)
	}
}

func TestPodsOfPhasesAreTidied(t *testing.T) {
	p := newPlay(t, inSystem)
	p.pod("of-nobody", "gone")
	p.pod("of-set", p.uid())
	if err := p.worker().clearPhases(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := p.pods(); n != 1 {
		t.Errorf("%d pods, want that of the ActionSet which has not ended", n)
	}
	if err := p.act(t.Context(), p.worker()); err != nil {
		t.Fatal(err)
	}
}
