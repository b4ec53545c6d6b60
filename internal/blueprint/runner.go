package blueprint

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// Runner runs ActionSets. Its functions are called by several actions at once.
type Runner struct {
	// Functions are what phases may call.
	Functions []Function
	// Resolve reads what templates see of an action: the function Resolve, on a cluster.
	Resolve func(ctx context.Context, set *ActionSet, action ActionSpec, b *Blueprint) (*Params, error)
	// Objects reads the Secrets and ConfigMaps that a phase refers to, its templates rendered: the function ResolveObjects, on a cluster.
	Objects func(ctx context.Context, set *ActionSet, refs map[string]ObjectReference) (*PhaseParams, error)
	// Save makes the status last; secrets are masked in it. Calls do not overlap. An error of it ends Run.
	Save func(ctx context.Context, status *ActionSetStatus) error
	// Deadline is how long a phase may take whose Blueprint says nothing of it; 24 hours where zero.
	Deadline time.Duration
	// Cancel, when it is closed, calls off what has not ended: phases fail, and deferPhases run all the same. Nil is never closed.
	Cancel <-chan struct{}
	// Log takes lines that phases print, secrets masked; nil drops them.
	Log func(action, phase, line string)
	Now func() time.Time

	pause func(ctx context.Context, d time.Duration) error // kube.Pause where nil
}

// Limits of what a status holds: an object of a cluster has room for about 1 MiB.
const (
	mostOutput  = 256 << 10 // of one phase, as JSON
	mostMessage = 16 << 10
	mostLine    = 8 << 10 // of what is logged
)

// Run runs an ActionSet to its end, from where its status stands, and leaves in it the status that was saved last. What phases did is in there; an error
// means that it has not ended and is to be taken up again: ctx ended, or Save failed, or what is needed cannot be read now.
func (r *Runner) Run(ctx context.Context, set *ActionSet, blueprints map[string]*Blueprint) error {
	if set.Status != nil && set.Status.State.Final() {
		return nil
	}
	run := &running{Runner: r, asked: set, set: set.DeepCopy(), status: set.Status.DeepCopy()}
	if run.set.Spec != nil {
		run.masks.leaveJSON(run.set.Spec)
	}
	for _, b := range blueprints {
		run.masks.leaveJSON(b.Actions)
	}
	if run.status == nil || run.status.State != StateRunning {
		if err := errors.Join(r.check(run.set, blueprints)...); err != nil {
			run.status = &ActionSetStatus{State: StateFailed}
			return run.update(ctx, func(s *ActionSetStatus) { run.say(s, err.Error()) })
		}
		run.status = pending(run.set.Spec, blueprints)
		if err := run.update(ctx, func(s *ActionSetStatus) { s.State = StateRunning }); err != nil {
			return err
		}
	}
	if len(run.status.Actions) != len(run.set.Spec.Actions) {
		return run.update(ctx, func(s *ActionSetStatus) {
			s.State = StateFailed
			run.say(s, "the ActionSet was changed while it ran")
		})
	}
	passed, err := run.actions(ctx, blueprints)
	if err != nil {
		return err
	}
	return run.update(ctx, func(s *ActionSetStatus) {
		s.State = StateFailed
		if passed {
			s.State = StateComplete
		}
	})
}

// check returns why an ActionSet cannot be begun.
func (r *Runner) check(set *ActionSet, blueprints map[string]*Blueprint) []error {
	if set.Spec == nil || len(set.Spec.Actions) == 0 {
		return []error{errors.New("it asks for no action")}
	}
	var faults []error
	for _, spec := range set.Spec.Actions {
		op := "action " + spec.Name
		b := blueprints[spec.Blueprint]
		if b == nil {
			faults = append(faults, fmt.Errorf("%s: there is no Blueprint %q", op, spec.Blueprint))
			continue
		}
		action := b.Actions[spec.Name]
		if action == nil {
			faults = append(faults, fmt.Errorf("%s: Blueprint %s has none of that name", op, spec.Blueprint))
			continue
		}
		found := append(validateAction(action, r.Functions), validateExtensions(b)...)
		for _, err := range append(found, missing(action, spec)...) {
			faults = append(faults, fmt.Errorf("%s: %w", op, err))
		}
	}
	return faults
}

// missing returns what an action needs and an ActionSet does not give.
func missing(action *Action, spec ActionSpec) []error {
	var faults []error
	for _, name := range action.InputArtifactNames {
		if _, given := spec.Artifacts[name]; !given {
			faults = append(faults, fmt.Errorf("it needs artifact %s", name))
		}
	}
	for _, name := range action.SecretNames {
		if _, given := spec.Secrets[name]; !given {
			faults = append(faults, fmt.Errorf("it needs Secret %s", name))
		}
	}
	for _, name := range action.ConfigMapNames {
		if _, given := spec.ConfigMaps[name]; !given {
			faults = append(faults, fmt.Errorf("it needs ConfigMap %s", name))
		}
	}
	if v := spec.PreferredVersion; v != "" && !versionPattern.MatchString(v) {
		faults = append(faults, fmt.Errorf("preferredVersion %q is no version such as v0.0.0", v))
	}
	return faults
}

// pending is the status of what has not begun.
func pending(spec *ActionSetSpec, blueprints map[string]*Blueprint) *ActionSetStatus {
	s := &ActionSetStatus{State: StatePending}
	for _, a := range spec.Actions {
		action := blueprints[a.Blueprint].Actions[a.Name]
		status := ActionStatus{Name: a.Name, Object: a.Object, Blueprint: a.Blueprint}
		for _, p := range action.all() {
			status.Phases = append(status.Phases, PhaseStatus{Name: p.Name, State: StatePending})
		}
		if last := len(action.Phases); action.DeferPhase != nil {
			status.DeferPhase, status.Phases = status.Phases[last], status.Phases[:last]
		}
		s.Actions = append(s.Actions, status)
	}
	return s
}

// running is an ActionSet that runs.
type running struct {
	*Runner

	asked *ActionSet // the caller's; only its status is touched
	set   *ActionSet
	masks masks

	mu     sync.Mutex // held while the status is saved, too
	status *ActionSetStatus
}

// actions runs the actions side by side, and reports whether all passed.
func (r *running) actions(ctx context.Context, blueprints map[string]*Blueprint) (passed bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	outcomes := make([]struct {
		passed bool
		err    error
	}, len(r.set.Spec.Actions))
	for i, spec := range r.set.Spec.Actions {
		all.Go(func() {
			o := &outcomes[i]
			x := &execution{running: r, index: i, spec: spec, blueprint: blueprints[spec.Blueprint]}
			if o.passed, o.err = x.run(ctx); o.err != nil {
				o.err = fmt.Errorf("action %s: %w", spec.Name, o.err)
				cancel(o.err) // nothing of the others could be saved, or read, either
			}
		})
	}
	all.Wait()
	passed = true
	for _, o := range outcomes {
		passed = passed && o.passed
		if err == nil {
			err = o.err
		}
	}
	return passed, err
}

// update changes the status and saves it.
func (r *running) update(ctx context.Context, change func(s *ActionSetStatus)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r.status)
	r.progress()
	saved := r.masks.status(r.status)
	if err := r.Save(ctx, saved.DeepCopy()); err != nil {
		return fault.Wrap("save status of ActionSet "+r.set.Name, nil, err, "")
	}
	r.asked.Status = saved
	return nil
}

// progress says how many of the phases have ended, and which run.
func (r *running) progress() {
	ended, all := 0, 0
	var run []string
	count := func(p PhaseStatus) {
		if p.State == "" {
			return
		}
		all++
		if p.State.Final() {
			ended++
		}
		if p.State == StateRunning {
			run = append(run, p.Name)
		}
	}
	for _, a := range r.status.Actions {
		for _, p := range a.Phases {
			count(p)
		}
		count(a.DeferPhase)
	}
	p := &r.status.Progress
	p.RunningPhase = strings.Join(run, ",")
	if r.status.State == StateComplete {
		ended = all
	}
	if all > 0 {
		const percent = 100
		p.PercentCompleted = strconv.Itoa(percent * ended / all)
	}
	p.LastTransitionTime = r.moment()
}

// say adds a reason why the ActionSet fails.
func (r *running) say(s *ActionSetStatus, reason string) {
	if s.Error.Message != "" {
		reason = s.Error.Message + "; " + reason
	}
	s.Error.Message = shortened(r.masks.text(reason), mostMessage)
}

func (r *running) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now() //nolint:forbidigo // the default; tests give another
}

func (r *running) moment() *metav1.Time {
	return &metav1.Time{Time: r.now().UTC().Truncate(time.Second)}
}

func (r *running) wait(ctx context.Context, d time.Duration) error {
	if r.pause != nil {
		return r.pause(ctx, d)
	}
	return kube.Pause(ctx, d)
}

// shortened is the beginning of a text that is longer than most bytes.
func shortened(text string, most int) string {
	if len(text) <= most {
		return text
	}
	const more = " …"
	return strings.ToValidUTF8(text[:most-len(more)], "") + more
}
