package worker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/gitops"
	"github.com/backstay/backstay/internal/point"
)

const deployed = "test/engine/shop" // the name of what deploys the application

// Revisions: what the point is of, what was deployed after it, and what came to git later.
const (
	goodOne = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	badOne  = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// engine deploys one application. While nothing holds it off it deploys what git has, as soon as anybody looks.
type engine struct {
	mu      sync.Mutex
	state   gitops.State
	held    map[string]bool // what is held off, and by whom
	syncs   []string        // revisions that it deployed by itself
	refuses string          // the revision that cannot be deployed
	lost    bool            // git has none but what is live
}

func newEngine() *engine {
	return &engine{
		held: map[string]bool{},
		state: gitops.State{
			Name: deployed, Sources: []gitops.Source{{URL: "https://git.example.com/shop.git", Path: "shop", Revision: "main"}},
			Live: []string{badOne}, Head: []string{badOne}, Automated: true, Synced: true, Healthy: true,
			Operation: &gitops.Operation{Revisions: []string{badOne}, Phase: "Succeeded"},
		},
	}
}

// open is the engine as a process sees it that may be killed.
func (e *engine) open(name string, d *doomed) (gitops.Deployment, error) {
	if e == nil || name != deployed {
		return nil, fault.New("deployment "+name, fault.ErrNotFound, "", "")
	}
	return opened{e, d}, nil
}

type opened struct {
	*engine
	d *doomed // nil for nobody
}

// deed does something unless the process is dead.
func (o opened) deed(do func()) error {
	if o.d != nil && o.d.dead() {
		return errKilled
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	do()
	if o.d != nil {
		o.d.spend()
	}
	return nil
}

func (o opened) State(context.Context) (s gitops.State, _ error) {
	if o.d != nil && o.d.dead() {
		return s, errKilled
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state.Automated && len(o.held) == 0 && !slices.Equal(o.state.Head, o.state.Live) {
		o.syncs = append(o.syncs, o.state.Head...)
		o.state.Live = o.state.Head
	}
	o.state.Lost = o.lost && o.state.Operation.Phase == "Error"
	return o.state, nil
}

func (o opened) Suspensions(context.Context) ([]v1alpha1.Suspension, error) {
	return []v1alpha1.Suspension{{Kind: "Project", Namespace: "engine", Name: "parents"}, {Kind: "Project", Namespace: "engine", Name: "shops"}}, nil
}

func (o opened) Suspend(_ context.Context, s v1alpha1.Suspension, by string) error {
	return o.deed(func() { o.held[s.Name+" by "+by] = true })
}

func (o opened) Resume(_ context.Context, s v1alpha1.Suspension, by string) error {
	return o.deed(func() { delete(o.held, s.Name+" by "+by) })
}

func (o opened) Stop(context.Context, string) error { return o.deed(func() {}) }

func (o opened) Deploy(_ context.Context, revisions []string, _ string) error {
	return o.deed(func() {
		o.state.Operation = &gitops.Operation{Revisions: revisions, Phase: "Succeeded"}
		switch {
		case o.lost && !slices.Equal(revisions, o.state.Live):
			o.state.Operation.Phase = "Error"
		case slices.Contains(revisions, o.refuses):
			o.state.Operation.Phase, o.state.Operation.Message = "Failed", "it is not valid"
		default:
			o.state.Live = revisions
		}
	})
}

// revised is a vault whose points were made while a revision was live.
type revised struct {
	Store
	deployed *point.Deployment
}

func (r revised) Open(ctx context.Context, id string) (*point.Record, point.Reader, error) {
	record, tree, err := r.Store.Open(ctx, id)
	if err == nil {
		changed := *record
		changed.Point.Deployment = r.deployed
		record = &changed
	}
	return record, tree, err
}

// rolling is a lab whose applications are deployed, with a point of the good revision.
func rolling(t *testing.T) (*lab, string) {
	t.Helper()
	l := newLab(t)
	l.engine = newEngine()
	l.deployed = &point.Deployment{Name: deployed, Sources: []point.DeployedSource{{URL: "https://git.example.com/shop.git", Path: "shop", From: goodOne, To: badOne}}}
	l.history = &history{files: map[string]map[string]string{goodOne: {"shop/app.yaml": "1"}, badOne: {"shop/app.yaml": "1", "shop/job.yaml": "1"}}}
	app := l.application()
	l.backedUp("backup", app)
	return l, app
}

func TestTransaction(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(l *lab, spec *v1alpha1.RestoreSpec)
		phase  v1alpha1.Phase
		live   string
		held   string // a part of why; empty for resumed
	}{
		{"git still has it", nil, v1alpha1.PhaseComplete, goodOne, "git still has shop/job.yaml as in bbbbbbb"},
		{"git was reverted", func(l *lab, _ *v1alpha1.RestoreSpec) { l.engine.state.Head = []string{goodOne} }, v1alpha1.PhaseComplete, goodOne, ""},
		{"nothing is automated", func(l *lab, _ *v1alpha1.RestoreSpec) { l.engine.state.Automated = false }, v1alpha1.PhaseComplete, goodOne, ""},
		{"to be held", func(l *lab, spec *v1alpha1.RestoreSpec) {
			l.engine.state.Head, spec.GitOps.Resume = []string{goodOne}, v1alpha1.ResumeHold
		}, v1alpha1.PhaseComplete, goodOne, "resume is Hold"},
		{"the bad one never was live", func(l *lab, _ *v1alpha1.RestoreSpec) {
			l.engine.state.Live = []string{goodOne}
			l.engine.state.Operation.Phase, l.engine.state.Operation.Message = "Failed", "the migration failed"
			l.engine.held["somebody"] = true // it would try again
		}, v1alpha1.PhaseComplete, goodOne, "git still has shop/job.yaml as in bbbbbbb"},
		{"data alone", func(_ *lab, spec *v1alpha1.RestoreSpec) { spec.Only = v1alpha1.OnlyData }, v1alpha1.PhaseComplete, badOne, ""},
		{"configuration alone", func(_ *lab, spec *v1alpha1.RestoreSpec) { spec.Only = v1alpha1.OnlyConfig }, v1alpha1.PhaseComplete, goodOne, "git still has"},
		{"it is not healthy", func(l *lab, spec *v1alpha1.RestoreSpec) {
			l.engine.state.Healthy, l.engine.state.Message, spec.GitOps.Settle = false, "web crashes", "10ms"
		}, v1alpha1.PhaseIncomplete, goodOne, "web crashes"},
		{"it cannot be deployed", func(l *lab, _ *v1alpha1.RestoreSpec) { l.engine.refuses = goodOne }, v1alpha1.PhaseFailed, badOne, ""},
		{"git has lost it", func(l *lab, _ *v1alpha1.RestoreSpec) { l.engine.lost = true }, v1alpha1.PhaseComplete, badOne, "git still has shop/job.yaml as in bbbbbbb"},
		{"another name", func(_ *lab, spec *v1alpha1.RestoreSpec) { spec.GitOps.Deployment = "test/engine/other" }, v1alpha1.PhaseFailed, badOne, ""},
		{"a source was added", func(l *lab, _ *v1alpha1.RestoreSpec) { l.engine.state.Sources = make([]gitops.Source, 2) }, v1alpha1.PhaseFailed, badOne, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, app := rolling(t)
			spec := v1alpha1.RestoreSpec{Latest: latest(app), GitOps: &v1alpha1.Transaction{}}
			if test.change != nil {
				test.change(l, &spec)
			}
			m := l.settings(app)
			m.Data["colour"] = "red"
			if err := l.cluster.Client.Update(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			s := l.restored("rollback", spec)
			delete(l.engine.held, "somebody")
			j := s.GitOps
			if s.Phase != test.phase || !slices.Equal(l.engine.state.Live, []string{test.live}) {
				t.Errorf("%s, live %s; status %+v", s.Phase, l.engine.state.Live, s)
			}
			if (test.held != "") != (len(l.engine.held) == 2) || j != nil && !strings.Contains(j.Held, test.held) {
				t.Errorf("held %v, status %+v", l.engine.held, j)
			}
			if j != nil && j.Deployment != "" && (j.Resumed == nil) != (test.held != "") {
				t.Errorf("resumed %v, held %q", j.Resumed, j.Held)
			}
			if test.phase == v1alpha1.PhaseComplete && (j.Settled == nil || j.Took == "") {
				t.Errorf("status %+v", j)
			}
			want := "red" // it is the engine's
			if test.name == "git has lost it" {
				want = "blue"
			}
			if colour := l.settings(app).Data["colour"]; colour != want {
				t.Errorf("the configuration is %s, want %s", colour, want)
			}
		})
	}
}

func TestTransactionThatIsKilledAnywhereComesToItsEnd(t *testing.T) {
	l, app := rolling(t)
	for n := int64(1); ; n += step() {
		l.engine = newEngine()
		name := fmt.Sprint("kill-", n)
		l.restore(name, v1alpha1.RestoreSpec{Latest: latest(app), GitOps: &v1alpha1.Transaction{}})
		killed := l.killedAfter(n, func(ctx context.Context, w *Worker) error { return w.Restore(ctx, l.system, name) })
		if err := l.worker().Restore(t.Context(), l.system, name); err != nil {
			t.Fatalf("killed after %d writes, taken up again: %v", n, err)
		}
		if err := l.worker().Tidy(t.Context()); err != nil { // the next one would wait for leases that this one left
			t.Fatalf("killed after %d writes: %v", n, err)
		}
		s := l.restoreStatus(name)
		if s.Phase != v1alpha1.PhaseComplete || s.GitOps.Held == "" || len(l.engine.held) != 2 || l.engine.state.Live[0] != goodOne || len(l.engine.syncs) > 0 {
			t.Errorf("killed after %d writes: %+v, status %+v", n, l.engine, s)
		}
		if !killed {
			return
		}
	}
}

func TestTransactionThatIsKilledForGoodIsUndone(t *testing.T) {
	l, app := rolling(t)
	for n := int64(1); ; n += step() {
		l.engine = newEngine()
		name := fmt.Sprint("kill-", n)
		l.restore(name, v1alpha1.RestoreSpec{Latest: latest(app), GitOps: &v1alpha1.Transaction{}})
		killed := l.killedAfter(n, func(ctx context.Context, w *Worker) error { return w.Restore(ctx, l.system, name) })
		if !killed {
			return
		}
		s := l.givenUp(name)
		held := s.GitOps != nil && s.GitOps.Held != ""
		if held && s.Phase == v1alpha1.PhaseFailed { // its volumes would be taken back, and nothing else
			t.Errorf("killed after %d writes: syncs are held off by what has not ended: %+v", n, s)
		}
		if err := l.worker().Tidy(t.Context()); err != nil {
			t.Fatalf("killed after %d writes: %v", n, err)
		}
		if !held && (len(l.engine.held) > 0 || l.engine.state.Live[0] != badOne) || held && len(l.engine.held) != 2 {
			t.Errorf("killed after %d writes: %+v, status %+v", n, l.engine, l.restoreStatus(name))
		}
	}
}

func TestTransactionIsUndone(t *testing.T) {
	l, app := rolling(t)
	if s := l.restored("rollback", v1alpha1.RestoreSpec{Latest: latest(app), GitOps: &v1alpha1.Transaction{}}); s.GitOps.Held == "" {
		t.Fatalf("status %+v", s)
	}
	s := l.restored("undo", v1alpha1.RestoreSpec{Undo: "rollback"})
	if s.Phase != v1alpha1.PhaseComplete || l.engine.state.Live[0] != badOne || len(l.engine.held) > 0 || len(l.engine.syncs) > 0 {
		t.Errorf("%+v, status %+v", l.engine, s)
	}
	if of := l.restoreStatus("rollback").GitOps; of.Held != "" || of.Resumed == nil {
		t.Errorf("what is undone still says %+v", of)
	}
}

func TestPlanOfATransaction(t *testing.T) {
	l, app := rolling(t)
	s := l.restored("plan", v1alpha1.RestoreSpec{Latest: latest(app), PlanOnly: true, GitOps: &v1alpha1.Transaction{}})
	if s.Phase != v1alpha1.PhasePlanned || len(l.engine.held) > 0 || l.engine.state.Live[0] != badOne {
		t.Errorf("%+v, status %+v", l.engine, s)
	}
}

// rolledBackTo is a rollback to the good revision that holds syncs off.
func (l *lab) rolledBackTo(app, name string) {
	l.Helper()
	l.engine = newEngine()
	if s := l.restored(name, v1alpha1.RestoreSpec{Latest: latest(app), GitOps: &v1alpha1.Transaction{}}); s.GitOps.Held == "" {
		l.Fatalf("status %+v", s)
	}
}

func TestUndoThatIsKilledAnywhereComesToItsEnd(t *testing.T) {
	l, app := rolling(t)
	for n := int64(1); ; n += step() {
		of, name := fmt.Sprint("rollback-", n), fmt.Sprint("undo-", n)
		l.rolledBackTo(app, of)
		l.restore(name, v1alpha1.RestoreSpec{Undo: of})
		killed := l.killedAfter(n, func(ctx context.Context, w *Worker) error { return w.Restore(ctx, l.system, name) })
		if err := l.worker().Restore(t.Context(), l.system, name); err != nil {
			t.Fatalf("killed after %d writes, taken up again: %v", n, err)
		}
		s := l.restoreStatus(name)
		if s.Phase != v1alpha1.PhaseComplete || l.engine.state.Live[0] != badOne || len(l.engine.held) > 0 || l.restoreStatus(of).GitOps.Held != "" {
			t.Errorf("killed after %d writes: live %s, held %v, status %+v", n, l.engine.state.Live, l.engine.held, s)
		}
		if err := l.worker().Tidy(t.Context()); err != nil { // the next one would wait for leases that this one left
			t.Fatalf("killed after %d writes: %v", n, err)
		}
		if !killed {
			return
		}
	}
}

func TestUndoThatIsKilledForGoodIsDoneOrLeavesWhatItUndid(t *testing.T) {
	l, app := rolling(t)
	for n := int64(1); ; n += step() {
		of, name := fmt.Sprint("rollback-", n), fmt.Sprint("undo-", n)
		l.rolledBackTo(app, of)
		l.restore(name, v1alpha1.RestoreSpec{Undo: of})
		killed := l.killedAfter(n, func(ctx context.Context, w *Worker) error { return w.Restore(ctx, l.system, name) })
		done := l.givenUp(name).Phase == v1alpha1.PhaseComplete
		if err := l.worker().Tidy(t.Context()); err != nil {
			t.Fatalf("killed after %d writes: %v", n, err)
		}
		live, held := goodOne, 2
		if done {
			live, held = badOne, 0
		}
		if l.engine.state.Live[0] != live || len(l.engine.held) != held || len(l.engine.syncs) > 0 || (l.restoreStatus(of).GitOps.Held == "") != done {
			t.Errorf("killed after %d writes, done %v: live %s, held %v, deployed by itself %s; what is undone says %+v", n, done, l.engine.state.Live,
				l.engine.held, l.engine.syncs, l.restoreStatus(of).GitOps)
		}
		if !killed {
			return
		}
	}
}

// givenUp ends a Restore that no process works on any more, as the controller does, unless it has ended. It is how it ended.
func (l *lab) givenUp(name string) v1alpha1.RestoreStatus {
	l.Helper()
	var r v1alpha1.Restore
	l.get(name, &r)
	if !r.Status.Phase.Final() {
		r.Status.Phase, r.Status.Finished = v1alpha1.PhaseFailed, &metav1.Time{Time: time.Now()}
		if err := l.cluster.Client.Status().Update(l.Context(), &r); err != nil {
			l.Fatal(err)
		}
	}
	return r.Status
}
