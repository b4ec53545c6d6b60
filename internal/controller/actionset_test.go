package controller_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/internal/controller"
)

// actionSet makes the Blueprint "db", with an action "backup", and an ActionSet that runs it; change may do something to it before.
func (w *world) actionSet(namespace, name string, change ...func(map[string]any)) *unstructured.Unstructured {
	w.Helper()
	blueprint := w.parse(`{apiVersion: cr.kanister.io/v1alpha1, kind: Blueprint, metadata: {name: db}, actions: {
		backup: {phases: [{func: KubeTask, name: dump, args: {image: i, command: [c]}}], deferPhase: {func: KubeTask, name: unlock, args: {}}}}}`)
	blueprint.SetNamespace(namespace)
	if err := w.admin.Create(w.Context(), blueprint); err != nil && !apierrors.IsAlreadyExists(err) {
		w.Fatal(err)
	}
	set := w.parse(`{apiVersion: cr.kanister.io/v1alpha1, kind: ActionSet, metadata: {}, spec: {actions: [
		{name: backup, blueprint: db, object: {kind: namespace, name: shop}, unknown: kept}]}}`)
	set.SetNamespace(namespace)
	set.SetName(name)
	for _, c := range change {
		c(set.Object)
	}
	w.create(set)
	w.Cleanup(func() { // the next test's controller would find it
		_ = w.admin.Patch(context.Background(), set, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`)))
		_ = w.admin.Delete(context.Background(), set)
	})
	return set
}

func (w *world) parse(text string) *unstructured.Unstructured {
	w.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(text, "\t", " ")), &u.Object); err != nil {
		w.Fatal(err)
	}
	return u
}

// says waits for the state and the message of an ActionSet.
func (w *world) says(set *unstructured.Unstructured, state, message string) {
	w.Helper()
	w.eventually(set.GetName()+" "+state, func() string {
		if err := w.get(set); err != nil {
			return err.Error()
		}
		is, _, _ := unstructured.NestedString(set.Object, "status", "state")
		says, _, _ := unstructured.NestedString(set.Object, "status", "error", "message")
		if is != state || !strings.Contains(says, message) {
			return "it is " + is + ": " + says
		}
		return ""
	})
}

// work writes the status as the worker does.
func (w *world) work(set *unstructured.Unstructured, status string) {
	w.Helper()
	w.eventually("write status", func() string {
		if err := w.get(set); err != nil {
			return err.Error()
		}
		set.Object["status"] = w.parse(status).Object
		if err := w.admin.Update(w.Context(), set); err != nil {
			return err.Error()
		}
		return ""
	})
}

const runs = `{state: running, actions: [{name: backup, phases: [{name: dump, state: running}], deferPhase: {name: unlock, state: pending}}]}`

func TestActionSetHasAJob(t *testing.T) {
	address := "127.0.0.1:" + freePort(t)
	w := newWorld(t, func(o *controller.Options) { o.Metrics = address })
	w.start()
	app := w.namespace()
	set := w.actionSet(app, "one")
	j := w.job("actions")
	if got, want := j.Spec.Template.Spec.Containers[0].Args[:3], []string{"worker", "actions", app + "/one"}; !slices.Equal(got, want) {
		t.Errorf("arguments %q, want %q", got, want)
	}
	if got := *j.Spec.ActiveDeadlineSeconds; got != 2*24*3600+600 {
		t.Errorf("deadline %d s, want two phases' and ten minutes", got)
	}
	w.says(set, "pending", "")
	if j.Name != set.GetAnnotations()["backstay.io/job"] || len(set.GetFinalizers()) != 1 {
		t.Errorf("metadata %v", set.Object["metadata"])
	}
	w.work(set, `{state: complete, actions: [{name: backup, artifacts: {db: {keyValue: {path: p}}}}]}`)
	w.succeed(j)
	w.letGo(set)
	w.event(app, "Started")
	w.event(app, "Complete")
	actions, _, _ := unstructured.NestedSlice(set.Object, "spec", "actions")
	if actions[0].(map[string]any)["unknown"] != "kept" { //nolint:forcetypeassert // it is of this test
		t.Errorf("what another wrote is gone: %v", actions)
	}
	w.eventually("count of actions", func() string {
		if text := w.fetch("http://" + address + "/metrics"); !strings.Contains(text, `backstay_action_duration_seconds_count{action="backup",result="complete"} 1`) {
			return "there is no such line"
		}
		return ""
	})
}

func TestActionSetsThatCannotRunFailAtOnce(t *testing.T) {
	w := newWorld(t)
	w.start()
	app := w.namespace()
	action := func(change map[string]any) func(map[string]any) {
		return func(o map[string]any) {
			a := map[string]any{"name": "backup", "blueprint": "db", "object": map[string]any{"kind": "namespace", "name": "shop"}}
			for key, value := range change {
				a[key] = value
			}
			o["spec"] = map[string]any{"actions": []any{a}}
		}
	}
	for name, test := range map[string]struct {
		change func(map[string]any)
		says   string
	}{
		"blueprint": {action(map[string]any{"blueprint": "none"}), "there is no Blueprint none in namespace " + app},
		"action":    {action(map[string]any{"name": "restore"}), `Blueprint db has no action "restore"; it has backup`},
		"unnamed":   {action(map[string]any{"blueprint": ""}), "names no Blueprint"},
		"empty":     {func(o map[string]any) { o["spec"] = map[string]any{"actions": []any{}} }, "no actions"},
		"none":      {func(o map[string]any) { delete(o, "spec") }, "no actions"},
		"malformed": {func(o map[string]any) {
			o["status"] = map[string]any{"actions": []any{map[string]any{"phases": []any{map[string]any{"progress": "much"}}}}}
		}, "it cannot be read"},
	} {
		w.says(w.actionSet(app, name, test.change), "failed", test.says)
	}
	w.event(app, "NotFound")
	if n := len(w.jobs("actions")); n > 0 {
		t.Errorf("%d jobs", n)
	}
	w.actionSet(app, "well") // not stopped by those
	w.job("actions")
}

func TestActionSetsOfOthersAreLeftAlone(t *testing.T) {
	const foreign = "theirs"
	w := newWorld(t, func(o *controller.Options) { o.ForeignActionSets = []string{foreign} })
	app := w.namespace()
	w.create(w.object(foreign))
	w.actionSet(foreign, "foreign")
	w.actionSet(app, "worker-s", func(o map[string]any) {
		o["metadata"].(map[string]any)["labels"] = map[string]any{"backstay.io/owner": "uid"} //nolint:forcetypeassert // it is of this test
	})
	begun := w.actionSet(app, "begun", func(o map[string]any) { o["status"] = map[string]any{"state": "running"} })
	w.start()
	w.actionSet(app, "ours")
	if j := w.job("actions"); j.Annotations["backstay.io/for"] != app+"/ours" {
		t.Errorf("a job for %s", j.Annotations["backstay.io/for"])
	}
	w.says(begun, "running", "")
	if begun.GetFinalizers() != nil {
		t.Error("it was taken in")
	}
}

func TestActionSetFailsWithItsJob(t *testing.T) {
	w := newWorld(t)
	w.start()
	set := w.actionSet(w.namespace(), "one")
	j := w.job("actions")
	w.work(set, runs)
	w.fail(j, "BackoffLimitExceeded", "")
	w.says(set, "failed", "failed again and again")
	phases, _, _ := unstructured.NestedSlice(set.Object, "status", "actions")
	phase := phases[0].(map[string]any)["phases"].([]any)[0].(map[string]any) //nolint:forcetypeassert // the API server has its type
	if phase["state"] != "failed" {
		t.Errorf("the phase that ran is %v", phase["state"])
	}
	w.letGo(set)
	w.event(set.GetNamespace(), "Failed")
}

func TestJobOfAnActionSetIsMadeAgain(t *testing.T) {
	w := newWorld(t)
	w.start()
	set := w.actionSet(w.namespace(), "one")
	j := w.job("actions")
	w.work(set, runs)
	if err := w.admin.Delete(t.Context(), j, client.PropagationPolicy("Foreground")); err != nil {
		t.Fatal(err)
	}
	w.gone(j)
	if again := w.job("actions"); again.UID == j.UID {
		t.Error("it is the same")
	}
	w.says(set, "running", "")
}

func TestDeletedActionSets(t *testing.T) {
	w := newWorld(t)
	w.start()
	app := w.namespace()
	waits := w.actionSet(app, "waits")
	j := w.job("actions")
	w.remove(waits)
	w.gone(j)
	w.letGo(waits)

	runsOn := w.actionSet(app, "runs")
	j = w.job("actions")
	w.work(runsOn, runs)
	w.remove(runsOn)
	w.says(runsOn, "running", "") // its worker runs the deferPhase
	w.work(runsOn, `{state: failed, error: {message: canceled}}`)
	w.letGo(runsOn)
	w.succeed(j)

	stuck := w.actionSet(app, "stuck")
	j = w.job("actions")
	w.work(stuck, runs)
	w.clock.forward(21 * 60 * 1e9)
	w.remove(stuck)
	w.letGo(stuck)
	w.gone(j)
}

func TestActionSetsAreLetGoWithBackstay(t *testing.T) {
	w := newWorld(t)
	w.start()
	set := w.actionSet(w.namespace(), "one")
	w.job("actions")
	w.work(set, runs)
	if err := w.admin.Delete(t.Context(), w.object(w.system)); err != nil {
		t.Fatal(err)
	}
	w.letGo(set)
}

func TestActionSetsAreWorkedOnOnceTheyAreDefined(t *testing.T) {
	w := newWorld(t)
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "kanister", "crds.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	kinds := []string{}
	serve := func(yes bool) { // to delete a definition takes the API server as long as it likes
		kinds = kinds[:0]
		for document := range strings.SplitSeq(string(text), "\n---\n") {
			crd := w.parse(document)
			w.eventually("definition "+crd.GetName(), func() string {
				if err := w.get(crd); err != nil {
					return err.Error()
				}
				versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
				for _, v := range versions {
					v.(map[string]any)["served"] = yes //nolint:forcetypeassert // the API server has its type
				}
				if err := unstructured.SetNestedSlice(crd.Object, versions, "spec", "versions"); err != nil {
					t.Fatal(err)
				}
				if err := w.admin.Update(t.Context(), crd); err != nil {
					return err.Error()
				}
				return ""
			})
			kind, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "kind")
			kinds = append(kinds, kind)
		}
	}
	serve(false)
	for _, kind := range kinds {
		w.eventually(kind+" is not served", func() string {
			list := &unstructured.UnstructuredList{}
			list.SetAPIVersion("cr.kanister.io/v1alpha1")
			list.SetKind(kind + "List")
			if err := w.admin.List(t.Context(), list); !apierrors.IsNotFound(err) && !meta.IsNoMatchError(err) {
				return "it is answered " + said(err)
			}
			return ""
		})
	}
	w.start()
	w.location(w.system) // the rest works without
	w.job("location")
	serve(true)
	w.served("cr.kanister.io", "v1alpha1", kinds...)
	w.actionSet(w.namespace(), "late")
	w.job("actions")
}
