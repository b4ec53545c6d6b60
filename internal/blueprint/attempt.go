package blueprint

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// attempts calls a function, and again if the Blueprint lets it after a failure.
func (x *execution) attempts(ctx context.Context, i int, f Function, call Call, was PhaseStatus) (passed bool, err error) {
	const (
		retries = 3
		pause   = 5 * time.Second // before the first; it doubles
	)
	p := x.action.all()[i]
	most := 1
	if slices.Contains(x.blueprint.repeats(), p.Name) {
		most += retries
	}
	left := x.left(was)
	within, cancel := context.WithTimeoutCause(ctx, left, fmt.Errorf("it did not end within %s", x.deadline()))
	defer cancel()
	if i < len(x.action.Phases) {
		var release func()
		within, release = x.cancelable(within)
		defer release()
	}
	for attempt := 1; ; attempt++ {
		var after []func(context.Context) error
		call.After = func(do func(context.Context) error) { after = append(after, do) }
		output, err := f.Run(within, call)
		if err != nil && ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if err != nil && within.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(within), err)
		}
		if err == nil || attempt >= most || within.Err() != nil {
			return x.finish(ctx, i, output, err, after)
		}
		call.Log(fmt.Sprintf("attempt %d of %d failed: %v", attempt, most, err))
		x.clean(ctx, call, after)
		call.Saved = x.standing(i).Output
		delete(call.Saved, keyBegun)
		if err := x.wait(within, pause<<(attempt-1)); err != nil && ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
	}
}

// deadline is how long a phase may take.
func (x *execution) deadline() time.Duration {
	d, err := x.blueprint.deadline()
	if err != nil || d == 0 { // checked when the ActionSet began
		return cmp.Or(x.Deadline, defaultDeadline)
	}
	return d
}

func (x *execution) canceled() bool {
	select {
	case <-x.Cancel:
		return true
	default:
		return false
	}
}

// cancelable ends with ctx, and when the ActionSet is called off. release waits until nothing of it is left.
func (x *execution) cancelable(ctx context.Context) (_ context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-x.Cancel:
			cancel(errCanceled)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-watched
	}
}

// left is how long a phase may go on; one that was interrupted began before.
func (x *execution) left(was PhaseStatus) time.Duration {
	if began := was.Progress.LastTransitionTime; was.State == StateRunning && began != nil {
		return x.deadline() - x.now().Sub(began.Time)
	}
	return x.deadline()
}

// clean does what was to be done after a call.
func (x *execution) clean(ctx context.Context, call Call, after []func(context.Context) error) {
	const patience = time.Minute
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	for _, do := range after {
		if err := do(ctx); err != nil {
			call.Log(fmt.Sprintf("clean up: %v", err))
		}
	}
}

// finish notes how a phase ended.
func (x *execution) finish(ctx context.Context, i int, output map[string]any, failure error, after []func(context.Context) error) (passed bool, err error) {
	whole, tooLong := x.added(i, output)
	if failure == nil {
		failure = tooLong
	}
	err = x.lasting(ctx, func(s *ActionSetStatus) {
		p := x.at(s, i)
		if tooLong == nil {
			p.Output = whole
		}
		x.ended(p, StateComplete)
		if failure != nil {
			x.ended(p, StateFailed)
			x.say(s, x.reason(i, failure))
		}
		x.record(ctx, s)
	})
	if err != nil {
		return false, err
	}
	x.clean(ctx, Call{Log: func(line string) {
		if x.Log != nil {
			x.Log(x.spec.Name, x.action.all()[i].Name, x.masks.text(line))
		}
	}}, after)
	return failure == nil, nil
}

// failed notes that a phase failed before it was called.
func (x *execution) failed(ctx context.Context, i int, failure error) error {
	return x.lasting(ctx, func(s *ActionSetStatus) {
		x.ended(x.at(s, i), StateFailed)
		x.say(s, x.reason(i, failure))
	})
}

func (x *execution) reason(i int, failure error) string {
	return fmt.Sprintf("action %s: phase %s: %v", x.spec.Name, x.action.all()[i].Name, failure)
}

// saveOutput makes output last while the phase runs.
func (x *execution) saveOutput(ctx context.Context, i int, output map[string]any) error {
	whole, err := x.added(i, output)
	if err != nil {
		return err
	}
	return x.lasting(ctx, func(s *ActionSetStatus) {
		x.at(s, i).Output = whole
		x.record(ctx, s)
	})
}

// added is the output of a phase with more of it, for the status; templates see it from now on. An error says that it is too long.
func (x *execution) added(i int, output map[string]any) (map[string]any, error) {
	whole := merged(x.standing(i).Output, output)
	text, err := json.Marshal(whole)
	switch {
	case err != nil:
		return nil, fmt.Errorf("what it put out: %w", err)
	case len(text) > mostOutput:
		return nil, fmt.Errorf("it put out %d KiB; the most is %d KiB", len(text)>>10, mostOutput>>10)
	}
	seen := maps.Clone(whole)
	delete(seen, keyBegun)
	x.output(x.action.all()[i], i == len(x.action.Phases), seen)
	return whole, nil
}

func merged(output, more map[string]any) map[string]any {
	whole := copyMap(output)
	if whole == nil {
		whole = map[string]any{}
	}
	maps.Copy(whole, copyMap(more))
	return whole
}
