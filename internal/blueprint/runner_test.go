package blueprint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/internal/fault"
)

// stage is where ActionSets run in tests: a cluster of one workload and one Secret, and functions that only count.
type stage struct {
	t      *testing.T
	params func() *Params
	kill   func(save int) (before, after bool) // whether the process is killed at a save, before or after it lasts

	mu    sync.Mutex
	calls map[string]int // by ID of the phase
	logs  []string
	saves int
	saved []byte // the status that lasts
}

var errKilled = errors.New("killed")

func newStage(t *testing.T) *stage {
	return &stage{t: t, calls: map[string]int{}, params: func() *Params {
		return &Params{
			Deployment: &WorkloadParams{Name: "web", Namespace: "shop", Pods: []string{"web-1"}, Containers: [][]string{{"main"}}},
			Object:     map[string]any{"spec": map[string]any{"replicas": int64(2)}},
		}
	}}
}

// functions of a stage: Say puts out its arguments, and so do Repeat, which may be interrupted, and Fail, which fails then.
func (s *stage) functions() []Function {
	do := func(ctx context.Context, c Call) (map[string]any, error) {
		s.mu.Lock()
		s.calls[c.ID]++
		s.mu.Unlock()
		for k, v := range c.Args {
			c.Log(fmt.Sprintf("%s=%v", k, v))
		}
		return c.Args, ctx.Err()
	}
	names := []string{"a", "b", "c"}
	return []Function{
		{Name: "Say", Optional: names, Run: do},
		{Name: "Repeat", Optional: names, Interrupted: Repeats, Run: do},
		{Name: "Fail", Optional: names, Run: func(ctx context.Context, c Call) (map[string]any, error) {
			_, _ = do(ctx, c)
			return c.Args, fmt.Errorf("no luck with %v", c.Args["a"])
		}},
		{Name: "Hang", Run: func(ctx context.Context, c Call) (map[string]any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}},
		{Name: "Raw", Optional: names, Raw: []string{"a"}, Run: func(_ context.Context, c Call) (map[string]any, error) {
			text, err := c.Render(c.Args["a"].(string), map[string]any{"Extra": "more"})
			return map[string]any{"a": text}, err
		}},
	}
}

func (s *stage) runner(kill context.CancelCauseFunc) *Runner {
	return &Runner{
		Functions: s.functions(),
		Resolve: func(context.Context, *ActionSet, ActionSpec, *Blueprint) (*Params, error) {
			return s.params(), nil
		},
		Objects: func(_ context.Context, _ *ActionSet, refs map[string]ObjectReference) (*PhaseParams, error) {
			p := &PhaseParams{Secrets: map[string]corev1.Secret{}}
			for name, ref := range refs {
				if ref.Name == "gone" {
					return nil, fault.New("read secret", fault.ErrNotFound, "gone", "")
				}
				p.Secrets[name] = corev1.Secret{Data: map[string][]byte{"password": []byte("correct horse battery staple")}}
			}
			return p, nil
		},
		Save: func(ctx context.Context, status *ActionSetStatus) error {
			s.mu.Lock()
			s.saves++
			saves := s.saves
			s.mu.Unlock()
			before, after := false, false
			if s.kill != nil {
				before, after = s.kill(saves)
			}
			if before {
				kill(errKilled)
				return errKilled
			}
			var err error
			if s.saved, err = json.Marshal(status); err != nil {
				s.t.Error(err)
			}
			if after {
				kill(errKilled)
				return errKilled
			}
			return ctx.Err()
		},
		Log: func(action, phase, line string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.logs = append(s.logs, action+"/"+phase+": "+line)
		},
		Now: func() time.Time {
			s.mu.Lock()
			defer s.mu.Unlock()
			return time.Date(2026, 1, 2, 3, 4, s.saves, 5, time.UTC)
		},
		pause: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	}
}

// run runs an ActionSet of the Blueprint's actions until it has ended, however often it is killed.
func (s *stage) run(b *Blueprint, specs ...ActionSpec) *ActionSetStatus {
	s.t.Helper()
	if len(specs) == 0 {
		specs = []ActionSpec{{Name: "backup"}}
	}
	for i := range specs {
		specs[i].Blueprint = "b"
	}
	for range 20 {
		set := &ActionSet{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "set", UID: "1"}, Spec: &ActionSetSpec{Actions: specs}}
		if s.saved != nil {
			set.Status = &ActionSetStatus{}
			if err := json.Unmarshal(s.saved, set.Status); err != nil {
				s.t.Fatal(err)
			}
		}
		ctx, kill := context.WithCancelCause(s.t.Context())
		err := s.runner(kill).Run(ctx, set, map[string]*Blueprint{"b": b})
		kill(nil)
		if err == nil {
			return set.Status
		}
		if !errors.Is(err, errKilled) {
			s.t.Fatal(err)
		}
	}
	s.t.Fatal("it does not end")
	return nil
}

// called is how often the functions of the phases of the first action were called, by the phase's number.
func (s *stage) called(i int) int {
	x := execution{running: &running{set: &ActionSet{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "set", UID: "1"}}}}
	return s.calls[x.id(i)]
}

func blueprintOf(a *Action) *Blueprint {
	return &Blueprint{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Actions: map[string]*Action{"backup": a}}
}

func say(name string, args map[string]any) Phase { return Phase{Func: "Say", Name: name, Args: args} }

// states are those of the phases of the first action, deferPhase last.
func states(s *ActionSetStatus) []State {
	var all []State
	for _, p := range s.Actions[0].Phases {
		all = append(all, p.State)
	}
	if p := s.Actions[0].DeferPhase; p.State != "" {
		all = append(all, p.State)
	}
	return all
}

func TestPhasesSeeWhatEarlierOnesPutOut(t *testing.T) {
	s := newStage(t)
	status := s.run(blueprintOf(&Action{
		Phases: []Phase{
			say("one", map[string]any{"a": "{{ .Deployment.Name }}", "b": []any{"{{ index .Deployment.Pods 0 }}", int64(7)}}),
			say("two", map[string]any{"c": map[string]any{"{{ .Phases.one.Output.a }}-key": "{{ index .Phases.one.Output.b 0 }}"}}),
			{Func: "Raw", Name: "three", Args: map[string]any{"a": "{{ .Extra }} {{ .Deployment.Namespace }}"}},
		},
		DeferPhase:      &Phase{Func: "Say", Name: "last", Args: map[string]any{"a": "{{ index .Phases.two.Output.c \"web-key\" }}"}},
		OutputArtifacts: map[string]Artifact{"it": {KeyValue: map[string]string{"path": "{{ .DeferPhase.Output.a }}/{{ .Phases.three.Output.a }}"}}},
	}))
	if status.State != StateComplete || status.Error.Message != "" {
		t.Fatalf("%+v", status)
	}
	want := map[string]Artifact{"it": {KeyValue: map[string]string{"path": "web-1/more shop"}}}
	if got := status.Actions[0].Artifacts; !reflect.DeepEqual(got, want) {
		t.Errorf("artifacts %v, want %v", got, want)
	}
	if got := status.Actions[0].Phases[0].Output; !reflect.DeepEqual(got, map[string]any{"a": "web", "b": []any{"web-1", int64(7)}}) {
		t.Errorf("output of the first phase: %v", got)
	}
	if p := status.Progress; p.PercentCompleted != "100" || p.RunningPhase != "" || p.LastTransitionTime == nil {
		t.Errorf("progress %+v", p)
	}
}

func TestFailure(t *testing.T) {
	tests := []struct {
		name    string
		action  Action
		states  []State
		message string // part of it
	}{
		{
			"a phase",
			Action{Phases: []Phase{{Func: "Fail", Name: "one", Args: map[string]any{"a": "1"}}, say("two", nil)}},
			[]State{StateFailed, StatePending},
			"action backup: phase one: no luck with 1",
		},
		{
			"a phase before deferPhase",
			Action{
				Phases:     []Phase{{Func: "Fail", Name: "one"}, say("two", nil)},
				DeferPhase: &Phase{Func: "Say", Name: "last"},
			},
			[]State{StateFailed, StatePending, StateComplete},
			"phase one",
		},
		{
			"deferPhase",
			Action{Phases: []Phase{say("one", nil)}, DeferPhase: &Phase{Func: "Fail", Name: "last"}},
			[]State{StateComplete, StateFailed},
			"phase last: no luck",
		},
		{
			"an argument",
			Action{Phases: []Phase{say("one", map[string]any{"a": "{{ .Options.none }}"})}},
			[]State{StateFailed},
			`phase one: argument a: render: line 1:11`,
		},
		{
			"a secret that is not there",
			Action{Phases: []Phase{{
				Func: "Say", Name: "one", Objects: map[string]ObjectReference{"s": {Kind: "Secret", Name: "gone"}},
			}}},
			[]State{StateFailed},
			"phase one: read secret: gone",
		},
		{
			"an artifact that never is",
			Action{
				Phases:          []Phase{say("one", map[string]any{"a": "1"})},
				OutputArtifacts: map[string]Artifact{"it": {KopiaSnapshot: "{{ .Phases.one.Output.b }}"}},
			},
			[]State{StateComplete},
			"output artifact it: ",
		},
		{
			"a long output",
			Action{Phases: []Phase{say("one", map[string]any{"a": "{{ repeat 300000 `x` }}"})}},
			[]State{StateFailed},
			"phase one: it put out 293 KiB; the most is 256 KiB",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			status := newStage(t).run(blueprintOf(&test.action))
			if status.State != StateFailed {
				t.Errorf("state %s", status.State)
			}
			if got := states(status); !slices.Equal(got, test.states) {
				t.Errorf("states %v, want %v", got, test.states)
			}
			if !strings.Contains(status.Error.Message, test.message) {
				t.Errorf("message %q, want %q in it", status.Error.Message, test.message)
			}
		})
	}
}

func TestRefusedBeforeAnythingRuns(t *testing.T) {
	needs := &Action{
		InputArtifactNames: []string{"dump"}, SecretNames: []string{"key"}, ConfigMapNames: []string{"conf"},
		Phases: []Phase{say("one", nil)},
	}
	tests := []struct {
		name    string
		action  *Action
		spec    ActionSpec
		message string
	}{
		{"no artifact", needs, ActionSpec{}, "it needs artifact dump"},
		{"no Secret", needs, ActionSpec{}, "it needs Secret key"},
		{"no ConfigMap", needs, ActionSpec{}, "it needs ConfigMap conf"},
		{"no such action", &Action{Phases: []Phase{say("one", nil)}}, ActionSpec{Name: "restore"}, "Blueprint b has none of that name"},
		{"no such function", &Action{Phases: []Phase{say("one", nil), {Func: "say", Name: "two"}}}, ActionSpec{}, `there is no function "say"`},
		{"no version", &Action{Phases: []Phase{say("one", nil)}}, ActionSpec{PreferredVersion: "new"}, `"new" is no version`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.spec.Name == "" {
				test.spec.Name = "backup"
			}
			s := newStage(t)
			status := s.run(blueprintOf(test.action), test.spec)
			if status.State != StateFailed || !strings.Contains(status.Error.Message, test.message) || len(s.calls) > 0 {
				t.Errorf("%+v, calls %v", status, s.calls)
			}
		})
	}
}

func TestArtifactsOutliveAFailure(t *testing.T) {
	status := newStage(t).run(blueprintOf(&Action{
		Phases: []Phase{say("one", map[string]any{"a": "id"}), {Func: "Fail", Name: "two", Args: map[string]any{"b": "half"}}, say("three", nil)},
		OutputArtifacts: map[string]Artifact{
			"where": {KeyValue: map[string]string{"path": "/{{ .Deployment.Name }}/{{ .Time }}"}},
			"first": {KopiaSnapshot: "{{ .Phases.one.Output.a }}"},
			"half":  {KopiaSnapshot: "{{ .Phases.two.Output.b }}"},
			"never": {KopiaSnapshot: "{{ .Phases.three.Output.a }}"},
		},
	}))
	a := status.Actions[0].Artifacts
	if status.State != StateFailed || a["first"].KopiaSnapshot != "id" || a["half"].KopiaSnapshot != "half" || len(a) != 3 {
		t.Errorf("%s, %+v", status.State, a)
	}
	if !strings.HasPrefix(a["where"].KeyValue["path"], "/web/2026-01-02T03:04:") {
		t.Errorf("where: %v", a["where"])
	}
}

// sequence is a Blueprint of phases of each kind, whose last makes good what others did.
func sequence() *Blueprint {
	return blueprintOf(&Action{
		Phases: []Phase{
			say("one", map[string]any{"a": "{{ .Time }}"}),
			{Func: "Repeat", Name: "two", Args: map[string]any{"a": "{{ .Phases.one.Output.a }}", "b": "{{ index .Deployment.Pods 0 }}"}},
			say("three", map[string]any{"a": "{{ .Phases.two.Output.a }}", "b": "{{ .Object.spec.replicas }}"}),
		},
		DeferPhase: &Phase{Func: "Say", Name: "last", Args: map[string]any{"a": "{{ .Time }}"}},
		OutputArtifacts: map[string]Artifact{
			"time": {KopiaSnapshot: "{{ .Time }}"},
			"one":  {KopiaSnapshot: "{{ .Phases.one.Output.a }}"},
		},
	})
}

// vanishing has the pods of the stage's workload go once the first phase has run: it scaled it down.
func (s *stage) vanishing() {
	whole := s.params
	s.params = func() *Params {
		p := whole()
		if s.called(0) > 0 {
			p.Deployment.Pods = nil
			p.Object["spec"] = map[string]any{"replicas": int64(0)}
		}
		return p
	}
}

func TestKilledAtEverySaveAfterItLasts(t *testing.T) {
	for at := 1; ; at++ {
		s := newStage(t)
		s.vanishing()
		s.kill = func(save int) (bool, bool) { return false, save == at }
		status := s.run(sequence())
		if s.saves < at {
			if at < 10 {
				t.Fatalf("only %d saves", s.saves)
			}
			return
		}
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			checkEnded(t, s, status)
			if got := s.called(3); got != 1 {
				t.Errorf("deferPhase ran %d times", got)
			}
		})
	}
}

func TestKilledAtEverySaveBeforeItLasts(t *testing.T) {
	for at := 1; ; at++ {
		s := newStage(t)
		s.vanishing()
		var lost string
		s.kill = func(save int) (bool, bool) {
			if save == at && s.called(3) == 1 {
				lost = "the end of deferPhase"
			}
			return save == at, false
		}
		status := s.run(sequence())
		if s.saves < at {
			return
		}
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			if at <= 3 && status.State != StateComplete {
				t.Errorf("nothing had run, and it is %s: %s", status.State, status.Error.Message)
			}
			checkEnded(t, s, status)
			if got := s.called(3); got != 1 && (lost == "" || got != 2) {
				t.Errorf("deferPhase ran %d times; what was lost: %q", got, lost)
			}
		})
	}
}

// checkEnded checks what holds wherever the process was killed.
func checkEnded(t *testing.T, s *stage, status *ActionSetStatus) {
	t.Helper()
	if !status.State.Final() {
		t.Errorf("state %s", status.State)
	}
	for _, once := range []int{0, 2} {
		if got := s.called(once); got > 1 {
			t.Errorf("phase %d ran %d times", once, got)
		}
	}
	a := status.Actions[0]
	if status.State == StateComplete != (a.Phases[2].State == StateComplete) || status.State == StateFailed != (status.Error.Message != "") {
		t.Errorf("%s, but %+v", status.State, a)
	}
	if status.State == StateFailed && !strings.Contains(status.Error.Message, "killed") {
		t.Errorf("message %q", status.Error.Message)
	}
	if a.DeferPhase.State != StateComplete {
		t.Errorf("deferPhase %s", a.DeferPhase.State)
	}
	if a.Artifacts["time"].KopiaSnapshot == "" {
		t.Error("an artifact was lost that was sure before anything ran")
	}
	if a.Phases[0].State == StateComplete {
		one := a.Phases[0].Output["a"]
		if a.Artifacts["one"].KopiaSnapshot != one || a.Artifacts["time"].KopiaSnapshot != one {
			t.Errorf("time %v, artifacts %v", one, a.Artifacts)
		}
	}
	if a.Phases[1].State == StateComplete && a.Phases[1].Output["b"] != "web-1" {
		t.Errorf("after an interruption the workload was another: %v", a.Phases[1].Output)
	}
	if a.Phases[2].State == StateComplete && a.Phases[2].Output["b"] != "2" {
		t.Errorf("after an interruption the object was another: %v", a.Phases[2].Output)
	}
	if _, left := a.Phases[0].Output[keyBegun]; left {
		t.Error("what the run noted for itself is left")
	}
}

func TestInterruptedInsideAPhase(t *testing.T) {
	tests := []struct {
		function string
		repeat   string
		state    State
		calls    int
	}{
		{"Say", "", StateFailed, 0},
		{"Say", "one", StateComplete, 1},
		{"Repeat", "", StateComplete, 1},
	}
	for _, test := range tests {
		t.Run(test.function+test.repeat, func(t *testing.T) {
			s := newStage(t)
			b := blueprintOf(&Action{Phases: []Phase{{Func: test.function, Name: "one"}}, DeferPhase: &Phase{Func: "Say", Name: "last"}})
			b.Annotations = map[string]string{AnnotationRepeat: test.repeat}
			s.saved = []byte(`{"state":"running","actions":[{"name":"backup","object":{},"blueprint":"b",` +
				`"phases":[{"name":"one","state":"running","output":{"backstay.io/begun":{"time":"then"}}}],"deferPhase":{"name":"last","state":"pending"}}]}`)
			status := s.run(b)
			if got := states(status); !slices.Equal(got, []State{test.state, StateComplete}) || s.called(0) != test.calls || s.called(1) != 1 {
				t.Errorf("states %v, called %d and %d times: %s", got, s.called(0), s.called(1), status.Error.Message)
			}
		})
	}
}

func TestGracefulEndLeavesThePhaseToBeTakenUp(t *testing.T) {
	s := newStage(t)
	ctx, cancel := context.WithCancel(t.Context())
	r := s.runner(func(error) {})
	save := r.Save
	r.Save = func(ctx context.Context, status *ActionSetStatus) error {
		if status.Actions != nil && status.Actions[0].Phases[0].State == StateRunning {
			cancel() // asked to end just now
			return save(context.WithoutCancel(ctx), status)
		}
		return save(ctx, status)
	}
	set := &ActionSet{Spec: &ActionSetSpec{Actions: []ActionSpec{{Name: "backup", Blueprint: "b"}}}}
	b := blueprintOf(&Action{Phases: []Phase{say("one", nil)}})
	if err := r.Run(ctx, set, map[string]*Blueprint{"b": b}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	if got := set.Status.Actions[0].Phases[0].State; got != StatePending || len(s.calls) > 0 {
		t.Errorf("state %s, calls %v", got, s.calls)
	}
}

func TestRetriesAndDeadline(t *testing.T) {
	s := newStage(t)
	b := blueprintOf(&Action{Phases: []Phase{{Func: "Fail", Name: "one"}}})
	b.Annotations = map[string]string{AnnotationRepeat: "one"}
	if status := s.run(b); status.State != StateFailed || s.called(0) != 4 {
		t.Errorf("%s after %d calls", status.State, s.called(0))
	}

	s = newStage(t)
	last := &Phase{Func: "Raw", Name: "last", Args: map[string]any{"a": "x"}} // the deadline is its own, too: Raw takes no notice
	b = blueprintOf(&Action{Phases: []Phase{{Func: "Hang", Name: "one"}}, DeferPhase: last})
	b.Annotations = map[string]string{AnnotationDeadline: "1ms"}
	status := s.run(b)
	if got := states(status); !slices.Equal(got, []State{StateFailed, StateComplete}) || !strings.Contains(status.Error.Message, "did not end within 1ms") {
		t.Errorf("%v: %s", got, status.Error.Message)
	}
}

func TestCanceled(t *testing.T) {
	s := newStage(t)
	r := s.runner(func(error) {})
	cancel := make(chan struct{})
	r.Cancel = cancel
	save := r.Save
	var once sync.Once
	r.Save = func(ctx context.Context, status *ActionSetStatus) error {
		if status.Actions[0].Phases[1].State == StateRunning {
			once.Do(func() { close(cancel) })
		}
		return save(ctx, status)
	}
	set := &ActionSet{Spec: &ActionSetSpec{Actions: []ActionSpec{{Name: "backup", Blueprint: "b"}}}}
	b := blueprintOf(&Action{Phases: []Phase{say("one", nil), {Func: "Hang", Name: "two"}, say("three", nil)}, DeferPhase: &Phase{Func: "Say", Name: "last"}})
	if err := r.Run(t.Context(), set, map[string]*Blueprint{"b": b}); err != nil {
		t.Fatal(err)
	}
	want := []State{StateComplete, StateFailed, StatePending, StateComplete}
	if got := states(set.Status); !slices.Equal(got, want) || set.Status.State != StateFailed || !strings.Contains(set.Status.Error.Message, "was canceled") {
		t.Errorf("%s: %v: %s", set.Status.State, got, set.Status.Error.Message)
	}

	s.saved = nil
	set = &ActionSet{Spec: set.Spec} // and one that did not begin
	if err := r.Run(t.Context(), set, map[string]*Blueprint{"b": b}); err != nil {
		t.Fatal(err)
	}
	if got := states(set.Status); got[0] != StateFailed || got[3] != StateComplete {
		t.Errorf("%v", got)
	}
}

func TestActionsRunSideBySide(t *testing.T) {
	s := newStage(t)
	var both sync.WaitGroup
	both.Add(2)
	r := s.runner(func(error) {})
	r.Functions = []Function{{Name: "Meet", Run: func(context.Context, Call) (map[string]any, error) {
		both.Done()
		both.Wait() // for ever, one after the other
		return nil, nil
	}}}
	b := blueprintOf(&Action{Phases: []Phase{{Func: "Meet", Name: "one"}}})
	spec := ActionSpec{Name: "backup", Blueprint: "b"}
	set := &ActionSet{Spec: &ActionSetSpec{Actions: []ActionSpec{spec, spec}}}
	if err := r.Run(t.Context(), set, map[string]*Blueprint{"b": b}); err != nil || set.Status.State != StateComplete {
		t.Errorf("%v, %+v", err, set.Status)
	}
}

func TestSecretsAreNotSaid(t *testing.T) {
	const secret = "correct horse battery staple"
	s := newStage(t)
	status := s.run(blueprintOf(&Action{
		Phases: []Phase{
			{
				Func: "Say", Name: "one", Objects: map[string]ObjectReference{"s": {Kind: "Secret", Name: "db"}},
				Args: map[string]any{"a": "{{ index .Phases.one.Secrets.s.Data `password` | toString }}", "b": "{{ index .Phases.one.Secrets.s.Data `password` | toString | b64enc }}"},
			},
			{Func: "Fail", Name: "two", Args: map[string]any{"a": "{{ .Phases.one.Output.a }}"}},
		},
		OutputArtifacts: map[string]Artifact{"it": {KopiaSnapshot: "{{ .Phases.one.Output.a }}"}, "fine": {KopiaSnapshot: "{{ .Deployment.Name }}"}},
	}))
	for _, said := range append(s.logs, string(s.saved)) {
		if strings.Contains(said, secret) || strings.Contains(said, "Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ==") {
			t.Errorf("it says %s", said)
		}
	}
	if !strings.Contains(status.Error.Message, "no luck with [secret]") {
		t.Errorf("message %q", status.Error.Message)
	}
	if a := status.Actions[0].Artifacts; len(a) != 1 || a["fine"].KopiaSnapshot != "web" {
		t.Errorf("artifacts %v", a)
	}
}

func TestASecretThatAnInterruptionTookIsNotMadeUp(t *testing.T) {
	s := newStage(t)
	s.saved = []byte(`{"state":"running","actions":[{"name":"backup","object":{},"blueprint":"b","phases":[` +
		`{"name":"one","state":"complete","output":{"a":"[secret]","backstay.io/begun":{"time":"then"}}},{"name":"two","state":"pending"}]}]}`)
	status := s.run(blueprintOf(&Action{Phases: []Phase{say("one", nil), say("two", map[string]any{"a": "{{ .Phases.one.Output.a }}"})}}))
	if s.called(1) != 0 || !strings.Contains(status.Error.Message, "was not kept") {
		t.Errorf("called %d times: %s", s.called(1), status.Error.Message)
	}
}

func TestChangedWhileItRan(t *testing.T) {
	s := newStage(t)
	s.saved = []byte(`{"state":"running","actions":[{"name":"backup","object":{},"blueprint":"b","phases":[` +
		`{"name":"other","state":"complete","output":{"backstay.io/begun":{"time":"then"}}},{"name":"two","state":"pending"}]}]}`)
	status := s.run(blueprintOf(&Action{Phases: []Phase{say("one", nil), say("two", nil)}}))
	if status.State != StateFailed || len(s.calls) > 0 || !strings.Contains(status.Error.Message, "was changed while the action ran") {
		t.Errorf("%+v", status)
	}
}
