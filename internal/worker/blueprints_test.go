package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

// kandoOf plays the functions of a Blueprint, and kando in them: Push stores text in the vault, Pull reads it back, Drop removes.
type kandoOf struct {
	*lab
	mu             sync.Mutex
	pulled, drops  []string
	lose, stubborn bool // what is pushed; at dropping
}

func (k *kandoOf) functions() []blueprint.Function {
	take := func(name, argument string, run func(ctx context.Context, c blueprint.Call, argument string) (map[string]any, error)) blueprint.Function {
		return blueprint.Function{
			Name: name, Required: []string{argument}, Interrupted: blueprint.Repeats,
			Run: func(ctx context.Context, c blueprint.Call) (map[string]any, error) {
				return run(ctx, c, fmt.Sprint(c.Args[argument]))
			},
		}
	}
	return []blueprint.Function{take("Push", "text", k.push), take("Pull", "snapshot", k.pull), take("Drop", "name", k.drop)}
}

func vaultIn(c blueprint.Call) (*blueprint.VaultDocument, error) {
	var d blueprint.ProfileDocument
	if c.Params.ProfileFile == nil {
		return nil, errors.New("no profile by file")
	}
	err := json.Unmarshal(c.Params.ProfileFile.Content, &d)
	return d.Vault, err
}

func (k *kandoOf) push(ctx context.Context, c blueprint.Call, text string) (map[string]any, error) {
	v, err := vaultIn(c)
	if err != nil {
		return nil, err
	}
	name := v.Part + "/dump"
	if !k.lose {
		_, err = protect.WriteShard(ctx, k.store, stream{point.Subject{Kind: v.Subject.Kind, Name: v.Subject.Name}, name, v.Mark + " " + name, text}, v.Policy)
	}
	return map[string]any{"kopiaOutput": fmt.Sprintf(`{"id":%q}`, name)}, err
}

func (k *kandoOf) pull(ctx context.Context, c blueprint.Call, snapshot string) (map[string]any, error) {
	v, err := vaultIn(c)
	if err != nil {
		return nil, err
	}
	var s struct{ ID string }
	if err := json.Unmarshal([]byte(snapshot), &s); err != nil {
		return nil, err
	}
	_, tree, err := k.store.Open(ctx, v.Point)
	if err != nil {
		return nil, err
	}
	f, err := tree.Open(ctx, s.ID+"/data")
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(f)
	k.mu.Lock()
	k.pulled = append(k.pulled, string(content))
	k.mu.Unlock()
	return nil, errors.Join(err, f.Close())
}

func (k *kandoOf) drop(_ context.Context, _ blueprint.Call, name string) (map[string]any, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stubborn {
		return nil, errors.New("the store is locked")
	}
	k.drops = append(k.drops, name)
	return nil, nil
}

// stream is the source of one part with one file.
type stream struct {
	subject          point.Subject
	part, mark, text string
}

func (s stream) Subject() point.Subject { return s.subject }

func (s stream) Capture(ctx context.Context, to point.Sink) error {
	w, err := to.Part(ctx, s.part, "stream")
	if err != nil {
		return err
	}
	if _, err := w.Put(ctx, point.Entry{Name: "data"}, strings.NewReader(s.text), point.Text); err != nil {
		return err
	}
	return w.Store(ctx, point.Part{Mark: s.mark})
}

// bound has a Blueprint named dump that captures the ConfigMaps of applications.
func bound(t *testing.T) (*kandoOf, func(*v1alpha1.Backup)) {
	t.Helper()
	k := &kandoOf{lab: newLab(t)}
	k.lab.functions = k.functions()
	action := func(function, argument, text string) *blueprint.Action {
		return &blueprint.Action{Phases: []blueprint.Phase{{Func: function, Name: "only", Args: map[string]any{argument: text}}}}
	}
	backup := action("Push", "text", "{{ .Object.data.colour }}")
	backup.OutputArtifacts = map[string]blueprint.Artifact{"dump": {
		KeyValue: map[string]string{"name": "{{ .Object.metadata.name }}"}, KopiaSnapshot: "{{ .Phases.only.Output.kopiaOutput }}",
	}}
	restore := action("Pull", "snapshot", "{{ .ArtifactsIn.dump.KopiaSnapshot }}")
	restore.InputArtifactNames = []string{"dump"}
	k.create(&blueprint.Blueprint{ObjectMeta: k.named("dump"), Actions: map[string]*blueprint.Action{
		actionBackup: backup, actionRestore: restore, actionDelete: action("Drop", "name", "{{ .ArtifactsIn.dump.KeyValue.name }}"),
	}})
	return k, func(b *v1alpha1.Backup) {
		b.Spec.Application.Blueprints = []v1alpha1.BlueprintBinding{{Name: "dump", Kind: "configmaps"}}
	}
}

func TestBlueprintsTakePart(t *testing.T) {
	k, binds := bound(t)
	app := k.application()
	made := k.backedUp("backup", app, binds)
	if made.Phase != v1alpha1.PhaseComplete || len(made.Actions) != 1 || !made.Actions[0].Done {
		t.Fatalf("status %+v", made)
	}
	record, _, err := k.store.Open(t.Context(), made.Point)
	if err != nil {
		t.Fatal(err)
	}
	prefix := "blueprints/" + app + "/configmaps/settings/"
	for _, name := range []string{prefix + "artifacts", prefix + "data/dump", "kubernetes/" + app} {
		if !slices.ContainsFunc(record.Point.Parts, func(p point.Part) bool { return p.Name == name && p.State == point.Stored }) {
			t.Errorf("part %s is not stored: %+v", name, record.Point.Parts)
		}
	}

	k.loses(app)
	planned := k.restored("plan", v1alpha1.RestoreSpec{RestorePoint: made.RestorePoint, PlanOnly: true})
	var plan corev1.ConfigMap
	k.get(planned.PlanName, &plan)
	if text := plan.Data[v1alpha1.PlanText]; !strings.Contains(text, "Blueprint dump restores ConfigMap "+app+"/settings") || len(k.pulled) > 0 {
		t.Errorf("plan %s", text)
	}
	s := k.restored("restore", v1alpha1.RestoreSpec{Latest: latest(app)})
	if s.Phase != v1alpha1.PhaseComplete || len(s.Actions) != 1 || !s.Actions[0].Done || !slices.Equal(k.pulled, []string{"blue"}) {
		t.Errorf("status %+v, pulled %q", s, k.pulled)
	}
	k.restored("config", v1alpha1.RestoreSpec{Latest: latest(app), Only: v1alpha1.OnlyConfig})
	if len(k.pulled) != 1 {
		t.Errorf("a restore of configuration pulled %q", k.pulled)
	}

	// Without the Blueprint on the cluster, the point's own does.
	if err := k.cluster.Client.Delete(t.Context(), &blueprint.Blueprint{ObjectMeta: k.named("dump")}); err != nil {
		t.Fatal(err)
	}
	s = k.restored("without", v1alpha1.RestoreSpec{Latest: latest(app), Only: v1alpha1.OnlyData})
	if s.Phase != v1alpha1.PhaseComplete || len(k.pulled) != 2 {
		t.Errorf("status %+v, pulled %q", s, k.pulled)
	}

	k.stubborn = true
	k.deletePoint(made.RestorePoint, true)
	p := k.restorePoints()[made.Point]
	if len(k.points()) != 1 || !strings.Contains(fmt.Sprint(p.Status.Conditions), "the store is locked") {
		t.Errorf("after a delete that failed: %d points, %+v", len(k.points()), p.Status.Conditions)
	}
	k.stubborn = false
	k.deletePoint(made.RestorePoint, false)
	if len(k.points()) != 0 || !slices.Equal(k.drops, []string{"settings"}) {
		t.Errorf("left %d points, dropped %q", len(k.points()), k.drops)
	}
	if err := k.worker().Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left blueprint.ActionSetList
	if err := k.cluster.Client.List(t.Context(), &left, client.InNamespace(k.system)); err != nil || len(left.Items) > 0 {
		t.Errorf("left %d ActionSets, %v", len(left.Items), err)
	}
}

// deletePoint deletes the object of a point, and has the location brought in line.
func (k *kandoOf) deletePoint(name string, fails bool) {
	k.Helper()
	p := &v1alpha1.RestorePoint{ObjectMeta: k.named(name)}
	if err := k.cluster.Client.Delete(k.Context(), p); err != nil {
		k.Fatal(err)
	}
	if err := k.worker().Location(k.Context(), k.system, "main"); err != nil && !fails {
		k.Fatal(err)
	}
}

func TestBlueprintThatFailsLeavesThePointIncomplete(t *testing.T) {
	k, binds := bound(t)
	unknown := func(b *v1alpha1.Backup) {
		b.Spec.Application.Blueprints = []v1alpha1.BlueprintBinding{{Name: "gone", Kind: "configmaps"}}
	}
	s := k.backedUp("unknown", k.application(), unknown)
	if s.Phase != v1alpha1.PhaseIncomplete || !strings.Contains(strings.Join(s.Problems, " "), "there is no Blueprint "+k.system+"/gone") {
		t.Errorf("without the Blueprint: %+v", s)
	}
	k.lose = true
	s = k.backedUp("lost", k.application(), binds)
	if s.Phase != v1alpha1.PhaseIncomplete || !strings.Contains(strings.Join(s.Problems, " "), "its data is not in the vault") {
		t.Errorf("with data that is not there: %+v", s)
	}
}

// TestBlueprintsOfManyObjects run side by side, each while what became of others is written down.
func TestBlueprintsOfManyObjects(t *testing.T) {
	k, binds := bound(t)
	app := k.application()
	for n := range 2 * volumesAtOnce {
		k.create(&corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: app, Name: fmt.Sprint("more-", n)}, Data: map[string]string{"colour": fmt.Sprint("green-", n)},
		})
	}
	s := k.backedUp("many", app, binds)
	undone := slices.ContainsFunc(s.Actions, func(a v1alpha1.ActionStatus) bool { return !a.Done || a.Started == nil || a.ActionSet == "" })
	if s.Phase != v1alpha1.PhaseComplete || len(s.Actions) != 1+2*volumesAtOnce || undone || s.Parts.Stored != 2*len(s.Actions)+2 {
		t.Errorf("status %+v, parts %+v", s, s.Parts)
	}
}

func TestBlueprintOfABackupThatIsKilledAnywhere(t *testing.T) {
	k, binds := bound(t)
	for n := int64(1); ; n += step() {
		name := fmt.Sprint("kill-", n)
		app := k.application()
		k.backup(name, app, binds)
		killed := k.killedAfter(n, func(ctx context.Context, w *Worker) error { return w.Backup(ctx, k.system, name) })
		if err := k.worker().Backup(t.Context(), k.system, name); err != nil {
			t.Fatalf("killed after %d writes, taken up again: %v", n, err)
		}
		s := k.statusOf(name)
		if s.Phase != v1alpha1.PhaseComplete || s.Parts.Stored != 3 && s.Parts.Stored != 4 {
			t.Errorf("killed after %d writes: %+v %+v", n, s, s.Parts)
		}
		if !killed {
			return
		}
	}
}
