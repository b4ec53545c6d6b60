package blueprint

import (
	"context"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// Runner runs ActionSets. Its functions are called by several actions at once.
type Runner struct {
	// Functions are what phases may call.
	Functions []Function
	// Resolve reads what templates see of an action: the function Resolve, on a cluster.
	Resolve func(ctx context.Context, set *ActionSet, action ActionSpec, b *Blueprint) (*Params, error)
	// Objects reads the Secrets and ConfigMaps that a phase refers to, its templates rendered: the function ResolveObjects, on a cluster.
	Objects func(ctx context.Context, set *ActionSet, refs map[string]ObjectReference) (*PhaseParams, error)
	// Save makes the status last, secrets are masked in it. Calls do not overlap. An error of it ends Run.
	Save func(ctx context.Context, status *ActionSetStatus) error
	// Deadline is how long a phase may take whose Blueprint says nothing of it; 24 hours where zero.
	Deadline time.Duration
	// Log takes lines that phases print, secrets masked; nil drops them.
	Log func(action, phase, line string)
	Now func() time.Time
}

// Run runs an ActionSet to its end, from where its status stands. What phases did is in the status; an error means that it has not ended,
// and is to be taken up again: ctx ended, or Save failed, or what is needed cannot be read now.
func (r *Runner) Run(ctx context.Context, set *ActionSet, blueprints map[string]*Blueprint) error {
	return fault.ErrUnsupported
}
