package blueprint

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/backstay/backstay/internal/fault"
)

// execution is one action that runs. Its phases run one after the other.
type execution struct {
	*running

	index     int
	spec      ActionSpec
	blueprint *Blueprint
	action    *Action
	params    *Params
	// lost tells that output of a phase that ran before has lost its secrets.
	lost bool
}

// run runs the action from where its status stands.
func (x *execution) run(ctx context.Context) (passed bool, err error) {
	if ended, passed := x.outcome(); ended {
		return passed, nil
	}
	switch err := x.resolve(ctx); {
	case err == nil:
	case again(ctx, err):
		return false, err
	default:
		return false, x.hopeless(ctx, err)
	}
	passed = true
	for i := range x.action.Phases {
		if passed, err = x.phase(ctx, i); err != nil {
			return false, err
		}
		if !passed {
			break
		}
	}
	if x.action.DeferPhase != nil {
		deferred, err := x.phase(ctx, len(x.action.Phases))
		if err != nil {
			return false, err
		}
		passed = passed && deferred
	}
	return x.end(ctx, passed)
}

// outcome reports whether the action has ended, and how: by then it is forgotten how it began.
func (x *execution) outcome() (ended, passed bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	a := x.status.Actions[x.index]
	passed = a.DeferPhase.State != StateFailed
	for _, p := range a.Phases {
		if _, runs := p.Output[keyBegun]; runs {
			return false, false
		}
		ended = ended || p.State.Final()
		passed = passed && p.State == StateComplete
	}
	if x.blueprint != nil && x.blueprint.Actions[x.spec.Name] != nil {
		for name := range x.blueprint.Actions[x.spec.Name].OutputArtifacts {
			_, made := a.Artifacts[name]
			passed = passed && made
		}
	}
	return ended, passed
}

// again reports whether err says nothing about the action, only that this is not the time.
func again(ctx context.Context, err error) bool { return ctx.Err() != nil || fault.Of(err).Retry }

// at is the status of phase i; that of deferPhase is after the others.
func (x *execution) at(s *ActionSetStatus, i int) *PhaseStatus {
	if i == len(x.action.Phases) {
		return &s.Actions[x.index].DeferPhase
	}
	return &s.Actions[x.index].Phases[i]
}

// standing is a copy of the status of phase i.
func (x *execution) standing(i int) PhaseStatus {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := *x.at(x.status, i)
	deepenPhaseStatus(&p)
	return p
}

// resolve reads what templates see, as it was when the action began.
func (x *execution) resolve(ctx context.Context) error {
	if x.blueprint == nil || x.blueprint.Actions[x.spec.Name] == nil {
		return fault.New("", fault.ErrNotFound, fmt.Sprintf("Blueprint %q, or its action, is gone", x.spec.Blueprint), "")
	}
	x.action = x.blueprint.Actions[x.spec.Name]
	if err := x.unchanged(); err != nil {
		return err
	}
	p, err := x.Resolve(ctx, x.set, x.spec, x.blueprint)
	if err != nil {
		return err
	}
	if p.Phases == nil {
		p.Phases = map[string]*PhaseParams{}
	}
	if p.Time == "" {
		p.Time = x.now().UTC().Format(time.RFC3339Nano)
	}
	if p.Profile != nil {
		x.masks.leaveJSON(p.Profile.Location)
	}
	x.masks.leaveJSON(begunFrom(p))
	x.masks.add(p)
	x.params = p
	first := x.standing(0)
	if noted, was := first.Output[keyBegun]; was {
		return x.asBegun(noted)
	}
	return x.update(ctx, func(s *ActionSetStatus) {
		status := x.at(s, 0)
		status.Output = merged(status.Output, map[string]any{keyBegun: begunFrom(p)})
	})
}

// unchanged refuses a Blueprint that has other phases than the ones that ran.
func (x *execution) unchanged() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	status := x.status.Actions[x.index]
	same := len(status.Phases) == len(x.action.Phases) && (status.DeferPhase.State != "") == (x.action.DeferPhase != nil)
	for i := 0; same && i < len(status.Phases); i++ {
		same = status.Phases[i].Name == x.action.Phases[i].Name
	}
	if !same {
		return fault.New("", fault.ErrInvalid, "Blueprint "+x.spec.Blueprint+" was changed while the action ran", "")
	}
	return nil
}

// keyBegun is where the output of the first phase has, until the action ends, what must not change while it runs: by the time it is taken
// up again its pods may be gone, by its own doing.
const keyBegun = "backstay.io/begun"

// begun is what an action found when it began.
type begun struct {
	Time     string          `json:"time"`
	Workload *WorkloadParams `json:"workload,omitempty"`
	Replicas *int64          `json:"replicas,omitempty"`
}

func begunFrom(p *Params) any {
	b := begun{Time: p.Time}
	for _, w := range []*WorkloadParams{p.StatefulSet, p.Deployment, p.DeploymentConfig} {
		if w != nil {
			b.Workload = w
		}
	}
	if n, found, err := unstructured.NestedInt64(p.Object, "spec", "replicas"); found && err == nil {
		b.Replicas = &n
	}
	text, err := json.Marshal(b)
	var plain map[string]any
	if err == nil {
		err = json.Unmarshal(text, &plain)
	}
	if err != nil { // strings and a number always have JSON
		return map[string]any{"time": p.Time}
	}
	return plain
}

func (x *execution) asBegun(noted any) error {
	var b begun
	text, err := json.Marshal(noted)
	if err == nil {
		err = json.Unmarshal(text, &b)
	}
	if err != nil {
		return fault.Wrap("read how the action began", fault.ErrInvalid, err, "")
	}
	p := x.params
	p.Time = b.Time
	for _, w := range []**WorkloadParams{&p.StatefulSet, &p.Deployment, &p.DeploymentConfig} {
		if *w != nil && b.Workload != nil {
			*w = b.Workload
		}
	}
	if _, found, _ := unstructured.NestedInt64(p.Object, "spec", "replicas"); found && b.Replicas != nil {
		return unstructured.SetNestedField(p.Object, *b.Replicas, "spec", "replicas")
	}
	return nil
}

// hopeless fails an action that can neither begin nor go on.
func (x *execution) hopeless(ctx context.Context, reason error) error {
	return x.update(ctx, func(s *ActionSetStatus) {
		x.say(s, fmt.Sprintf("action %s: %v", x.spec.Name, reason))
		a := &s.Actions[x.index]
		ran := len(a.Phases) > 0 && a.Phases[0].State != StatePending
		for i := range a.Phases {
			if a.Phases[i].State != StateComplete {
				x.ended(&a.Phases[i], StateFailed)
				break
			}
		}
		if a.DeferPhase.State != "" && !a.DeferPhase.State.Final() && ran {
			x.ended(&a.DeferPhase, StateFailed)
			x.say(s, fmt.Sprintf("action %s: deferPhase %s could not be run", x.spec.Name, a.DeferPhase.Name))
		}
		forget(a)
	})
}

// forget drops what only a run needs.
func forget(a *ActionStatus) {
	if len(a.Phases) > 0 {
		delete(a.Phases[0].Output, keyBegun)
	}
}

func (x *execution) ended(p *PhaseStatus, state State) {
	p.State = state
	p.Progress.LastTransitionTime = x.moment()
	if state == StateComplete {
		p.Progress.ProgressPercent = "100"
	}
}

// phase runs phase i, unless it has ended. A deferPhase that was interrupted is always taken up: it is there to make good what other
// phases did.
func (x *execution) phase(ctx context.Context, i int) (passed bool, err error) {
	p := x.action.all()[i]
	deferred := i == len(x.action.Phases)
	was := x.standing(i)
	delete(was.Output, keyBegun)
	x.lost = x.lost || masked(was.Output)
	if was.State.Final() {
		return was.State == StateComplete, x.past(ctx, p, deferred, was)
	}
	f, found := x.function(p.Func)
	if !found {
		return false, x.failed(ctx, i, fmt.Errorf("there is no function %s", p.Func))
	}
	if !deferred && x.canceled() {
		return false, x.failed(ctx, i, errCanceled)
	}
	if was.State == StateRunning && !deferred && f.Interrupted == Fails && !slices.Contains(x.blueprint.repeats(), p.Name) {
		return false, x.failed(ctx, i, errors.New("what ran it was killed, and whether it had done its work is not known"))
	}
	call, err := x.prepare(ctx, p, f, i)
	switch {
	case err == nil:
	case again(ctx, err):
		return false, err
	default:
		return false, x.failed(ctx, i, err)
	}
	if was.State == StateRunning {
		call.Saved = was.Output
		x.output(p, deferred, was.Output)
	} else if err := x.begin(ctx, i); err != nil {
		return false, err
	}
	return x.attempts(ctx, i, f, call, was)
}

// past lets templates see a phase that ended before this process began.
func (x *execution) past(ctx context.Context, p Phase, deferred bool, was PhaseStatus) error {
	seen, err := x.objects(ctx, p)
	switch {
	case err == nil:
	case again(ctx, err):
		return err
	default: // what needs them says so
		seen = &PhaseParams{}
	}
	seen.Output = was.Output
	x.show(p, deferred, seen)
	return nil
}

// objects reads the Secrets and ConfigMaps of a phase.
func (x *execution) objects(ctx context.Context, p Phase) (*PhaseParams, error) {
	if len(p.Objects) == 0 {
		return &PhaseParams{}, nil
	}
	refs := map[string]ObjectReference{}
	for name, ref := range p.Objects {
		var err error
		if refs[name], err = x.reference(ctx, ref); err != nil {
			return nil, fmt.Errorf("object %s: %w", name, err)
		}
	}
	seen, err := x.Objects(ctx, x.set, refs)
	if err != nil {
		return nil, err
	}
	x.masks.addPhase(seen)
	return seen, nil
}

func (x *execution) function(name string) (Function, bool) {
	i := slices.IndexFunc(x.Functions, func(f Function) bool { return f.Name == name })
	if i < 0 {
		return Function{}, false
	}
	return x.Functions[i], true
}

// show lets templates see a phase.
func (x *execution) show(p Phase, deferred bool, seen *PhaseParams) {
	if seen.Output == nil {
		seen.Output = map[string]any{}
	}
	c := *x.params // a function that runs goes on seeing what it was given
	c.CurrentPhase = seen
	if deferred {
		c.DeferPhase = seen
	} else {
		c.Phases = maps.Clone(c.Phases)
		c.Phases[p.Name] = seen
	}
	x.params = &c
}

// output lets templates see what a phase puts out.
func (x *execution) output(p Phase, deferred bool, output map[string]any) {
	seen := x.params.Phases[p.Name]
	if deferred {
		seen = x.params.DeferPhase
	}
	c := *seen
	c.Output = output
	x.show(p, deferred, &c)
}

// prepare reads what a phase refers to, and renders its arguments.
func (x *execution) prepare(ctx context.Context, p Phase, f Function, i int) (Call, error) {
	deferred := i == len(x.action.Phases)
	id := x.id(i)
	x.profileAt(id)
	seen, err := x.objects(ctx, p)
	if err != nil {
		return Call{}, err
	}
	x.show(p, deferred, seen)
	args := map[string]any{}
	for name, arg := range p.Args {
		if slices.Contains(f.Raw, name) {
			args[name] = copyAny(arg)
			continue
		}
		rendered, err := x.value(ctx, arg)
		if err != nil {
			return Call{}, fmt.Errorf("argument %s: %w", name, err)
		}
		args[name] = rendered
	}
	params := x.params
	return Call{
		Args: args, Params: params, ID: id, Deferred: deferred, Namespace: x.set.Namespace,
		Owner: metav1.OwnerReference{APIVersion: GroupVersion.String(), Kind: "ActionSet", Name: x.set.Name, UID: x.set.UID},
		Save:  func(ctx context.Context, output map[string]any) error { return x.saveOutput(ctx, i, output) },
		Render: func(text string, more map[string]any) (string, error) {
			return Render(ctx, text, params, more)
		},
		Log: func(line string) {
			if x.Log != nil {
				x.Log(x.spec.Name, p.Name, shortened(x.masks.text(line), mostLine))
			}
		},
	}, nil
}

// id is the same for each run of phase i, and of no other.
func (x *execution) id(i int) string {
	const length = 10
	of := fmt.Sprintf("%s/%s/%s/%d/%d", x.set.Namespace, x.set.Name, x.set.UID, x.index, i)
	sum := sha256.Sum256([]byte(of))
	return strings.ToLower(base32.HexEncoding.EncodeToString(sum[:]))[:length]
}

// profileAt says where the profile is in the containers of a phase, if it comes by file.
func (x *execution) profileAt(id string) {
	if x.params.ProfileFile == nil {
		return
	}
	c := *x.params
	profile, file := *c.Profile, *c.ProfileFile
	file.Path = path.Join("/dev/shm", "backstay-"+id, "profile.json")
	profile.Credential = CredentialParams{Type: CredentialFile, Path: file.Path}
	c.Profile, c.ProfileFile = &profile, &file
	x.params = &c
}

// text renders a template. What a phase put out before the process was killed has no secrets any more: what needs them cannot go on.
func (x *execution) text(ctx context.Context, text string) (string, error) {
	rendered, err := Render(ctx, text, x.params, nil)
	if err == nil && x.lost && masked(rendered) {
		return "", errors.New("it needs a secret that an earlier phase put out, which was not kept when the action was interrupted")
	}
	return rendered, err
}

// value renders all templates in an argument.
func (x *execution) value(ctx context.Context, arg any) (any, error) {
	switch arg := arg.(type) {
	case string:
		return x.text(ctx, arg)
	case []any:
		c := make([]any, len(arg))
		for i := range arg {
			var err error
			if c[i], err = x.value(ctx, arg[i]); err != nil {
				return nil, err
			}
		}
		return c, nil
	case map[string]any:
		c := make(map[string]any, len(arg))
		for k, v := range arg {
			key, err := x.text(ctx, k)
			if err != nil {
				return nil, err
			}
			if c[key], err = x.value(ctx, v); err != nil {
				return nil, err
			}
		}
		return c, nil
	}
	return arg, nil
}

// reference renders the templates in a reference.
func (x *execution) reference(ctx context.Context, ref ObjectReference) (ObjectReference, error) {
	for _, field := range []*string{&ref.APIVersion, &ref.Group, &ref.Resource, &ref.Kind, &ref.Name, &ref.Namespace} {
		var err error
		if *field, err = x.text(ctx, *field); err != nil {
			return ref, err
		}
	}
	return ref, nil
}

// begin notes that a phase runs, and what artifacts are sure by then: what it makes must not be without a record if it fails.
func (x *execution) begin(ctx context.Context, i int) error {
	err := x.update(ctx, func(s *ActionSetStatus) {
		p := x.at(s, i)
		p.State = StateRunning
		p.Progress.LastTransitionTime = x.moment()
		x.record(ctx, s)
	})
	if err != nil || ctx.Err() == nil {
		return err
	}
	// It was not called: that can still be told from a phase that was killed.
	return errors.Join(context.Cause(ctx), x.lasting(ctx, func(s *ActionSetStatus) { x.at(s, i).State = StatePending }))
}

// lasting is update for what has happened, and must be saved though ctx ends.
func (x *execution) lasting(ctx context.Context, change func(s *ActionSetStatus)) error {
	const patience = 30 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	return x.update(ctx, change)
}

// errCanceled ends phases of an ActionSet that is called off. It has a class that lasts: nobody takes them up again.
var errCanceled = fault.New("", fault.ErrRefused, "the ActionSet was canceled", "") //nolint:gochecknoglobals // an error to compare with

// record keeps the output artifacts that can be rendered by now.
func (x *execution) record(ctx context.Context, s *ActionSetStatus) {
	for name := range x.action.OutputArtifacts {
		if artifact, err := x.artifact(ctx, name); err == nil {
			x.keep(s, name, artifact)
		}
	}
}

func (x *execution) keep(s *ActionSetStatus, name string, artifact Artifact) {
	a := &s.Actions[x.index]
	if a.Artifacts == nil {
		a.Artifacts = map[string]Artifact{}
	}
	a.Artifacts[name] = artifact
}

// artifact renders an output artifact.
func (x *execution) artifact(ctx context.Context, name string) (Artifact, error) {
	wanted := x.action.OutputArtifacts[name]
	var made Artifact
	var err error
	if made.KopiaSnapshot, err = x.text(ctx, wanted.KopiaSnapshot); err != nil {
		return Artifact{}, err
	}
	if len(wanted.KeyValue) > 0 {
		made.KeyValue = map[string]string{}
	}
	held := x.masks.hold(made.KopiaSnapshot)
	for key, value := range wanted.KeyValue {
		if made.KeyValue[key], err = x.text(ctx, value); err != nil {
			return Artifact{}, err
		}
		held = held || x.masks.hold(made.KeyValue[key])
	}
	if held {
		return Artifact{}, errors.New("it holds a value of a Secret, and artifacts are for all to read")
	}
	return made, nil
}

// end renders the output artifacts for the last time, and notes that the action has ended.
func (x *execution) end(ctx context.Context, passed bool) (bool, error) {
	err := x.lasting(ctx, func(s *ActionSetStatus) {
		forget(&s.Actions[x.index])
		if !passed {
			return
		}
		for name := range x.action.OutputArtifacts {
			artifact, err := x.artifact(context.WithoutCancel(ctx), name)
			if err != nil {
				passed = false
				x.say(s, fmt.Sprintf("action %s: output artifact %s: %v", x.spec.Name, name, err))
				continue
			}
			x.keep(s, name, artifact)
		}
	})
	return passed, err
}
