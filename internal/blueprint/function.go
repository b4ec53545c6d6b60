package blueprint

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Function is what a phase calls: KubeExec, KubeTask and so on. Functions are handed to a Runner, not registered.
type Function struct {
	// Name as Blueprints write it.
	Name string
	// Required and Optional are the names of the arguments that it takes; others are refused.
	Required, Optional []string
	// Raw are arguments that it gets as they are written, not rendered: it renders them itself, by Call.Render.
	Raw []string
	// Interrupted says what becomes of a phase whose process was killed in it.
	Interrupted Interrupted
	// Run carries it out. Its result is the phase's output: strings, numbers, lists and maps, as JSON has them.
	Run func(ctx context.Context, c Call) (map[string]any, error)
}

// Interrupted says what becomes of a phase whose process was killed in it.
type Interrupted int

const (
	// Fails is for what cannot be followed further, nor safely be done twice: a command in somebody else's container. The phase fails,
	// unless the Blueprint says that it may be repeated.
	Fails Interrupted = iota
	// Repeats is for what may be done twice: the function is run again.
	Repeats
	// Attaches is for what goes on by itself: the function is run again, and finds by Call.ID what it began.
	Attaches
)

// Call is one run of a function.
type Call struct {
	// Args are the phase's arguments, rendered: strings, lists and maps as the Blueprint has them. All that are required are there.
	Args map[string]any
	// Params are what templates see.
	Params *Params
	// ID is the same for each run of one phase of one ActionSet, and of no other: 10 characters fit for names of objects.
	ID string
	// Deferred is the deferPhase. It is run again where a process was killed in it, and is to be done once.
	Deferred bool
	// Namespace is where pods are made if the phase names none: that of the ActionSet.
	Namespace string
	// Owner is the ActionSet, to own what is made for it in Namespace; its UID is empty where there is none in the cluster.
	Owner metav1.OwnerReference
	// Saved is the output that was saved by an earlier run of this phase, whose process was killed; nil in the first.
	Saved map[string]any
	// Save makes output last before the function ends. The function's result is added to it.
	Save func(ctx context.Context, output map[string]any) error
	// After has something done once the phase's end is saved, or at once where it is nil: pods of a phase that has ended must stand as
	// long as a killed process may have to find out by them that it had. Each may be done again by the next run.
	After func(do func(ctx context.Context) error)
	// Render renders a template that stands in a raw argument, with more names besides Params' own.
	Render func(text string, more map[string]any) (string, error)
	// Log takes a line of what pods print. It is not kept in memory.
	Log func(line string)
}
