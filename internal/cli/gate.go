package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

const gateHelp = `
Gate holds a sync of Argo CD until a restore point of the application is made. It is the container of a PreSync hook, a Job in the
application's repository: see deploy/argocd and docs/argocd.md. It asks Backstay's controller and tells what it waits for; when it
fails, so does the sync.`

const gateExample = `  kustomize edit add component https://github.com/backstay/backstay//deploy/argocd`

const (
	gateDeadline   = 20 * time.Minute
	gatePatience   = time.Minute            // for the right to make Gates, which comes from the controller; and for its first word
	gateLook       = 500 * time.Millisecond // the longest pause between two looks; the first are shorter, for most answers come at once
	gateFirstLook  = 50 * time.Millisecond
	gateFarewell   = 3 * time.Second // for the answer that is why the pod is to stop
	terminationLog = "/dev/termination-log"
	maxTermination = 4096 // bytes that the kubelet reads of it
)

type gateOptions struct {
	pod      string
	deadline time.Duration
	last     string // file for the last words
}

func newGateCommand(a *app) *cobra.Command {
	var o gateOptions
	cmd := &cobra.Command{
		Use:     "gate",
		GroupID: groupPolicies,
		Short:   "Hold a sync of Argo CD until a point is made; a hook runs it",
		Long:    exits(gateHelp, "6   the gate is closed: no point could be made"),
		Example: gateExample,
		Args:    takes(0, 0),
		RunE:    a.runs(func(ctx context.Context, _ []string) error { return a.gate(ctx, o) }),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.DurationVar(&o.deadline, "deadline", gateDeadline, "give up after this `SPAN`; longer than the policy's own deadline")
	flags.StringVar(&o.pod, "pod", "", "`NAME` of the pod (default $HOSTNAME)")
	flags.StringVar(&o.last, "termination-log", terminationLog, "`FILE` that gets the cause of a failure")
	return cmd
}

// gate waits at a gate in the pod of a hook.
func (a *app) gate(ctx context.Context, o gateOptions) error {
	err := a.waitAtGate(ctx, o)
	if err != nil {
		text := strings.Join(append([]string{err.Error()}, fault.Hints(err)...), "; ")
		_ = os.WriteFile(o.last, []byte(text[:min(len(text), maxTermination)]), 0o600) // the log says it too
	}
	return err
}

func (a *app) waitAtGate(ctx context.Context, o gateOptions) error {
	cluster, err := kube.Connect("", "")
	if err != nil {
		return err
	}
	pod, namespace := cmp.Or(o.pod, a.Getenv("HOSTNAME")), ownNamespace(podNamespace)
	if pod == "" || namespace == "" {
		return fault.New("gate", fault.ErrInvalid, "this is no pod", "a hook of Argo CD runs it; see docs/argocd.md")
	}
	v := visitor{app: a, client: cluster.Client, gate: &v1alpha1.Gate{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: pod}, Spec: v1alpha1.GateSpec{Pod: pod},
	}}
	return v.wait(ctx, o.deadline)
}

// visitor is a pod before its gate.
type visitor struct {
	*app
	client client.Client
	gate   *v1alpha1.Gate
	said   string
}

// wait returns when the gate is open, or says why it stays closed. Whatever goes wrong, no answer is no leave.
func (v *visitor) wait(ctx context.Context, deadline time.Duration) error {
	began := v.Clock()
	within, cancel := context.WithTimeoutCause(ctx, deadline, errGateDeadline)
	defer cancel()
	err := v.arrive(within, began)
	if err == nil {
		err = v.follow(within, began)
	}
	if errors.Is(err, errGateDeadline) {
		return fault.New("wait at the gate", fault.ErrUnavailable, fmt.Sprintf("it is not open after %s: %s", deadline, cmp.Or(v.said, "nobody answered")),
			"see whether Backstay's controller runs, and `kubectl describe gate "+v.gate.Name+"`")
	}
	if ctx.Err() == nil {
		return err
	}
	// Kubernetes ends the pod of a Job that the controller failed, with a cause that the Gate has a moment later.
	farewell, done := context.WithTimeout(context.WithoutCancel(ctx), gateFarewell)
	defer done()
	if last := v.follow(farewell, began); !errors.Is(last, context.DeadlineExceeded) {
		return last
	}
	return err
}

var errGateDeadline = errors.New("the deadline is over") // cause of a context's end

// arrive makes the Gate. One that is there is that of this pod, whose container was started again.
func (v *visitor) arrive(ctx context.Context, began time.Time) error {
	const op = "make a Gate"
	for {
		err := v.client.Create(ctx, v.gate.DeepCopy())
		waited := v.Clock().Sub(began)
		switch {
		case err == nil || apierrors.IsAlreadyExists(err):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case apierrors.IsForbidden(err) && waited > gatePatience:
			return fault.Wrap(op, fault.ErrDenied, err, "Backstay gives this right where a policy with `gitops` selects the application; see docs/argocd.md")
		case apierrors.IsForbidden(err):
			v.tell("waits for the right to make a Gate")
		case kube.Transient(err):
			v.tell("waits for the API server: " + err.Error())
		default:
			return answer(op, err)
		}
		if kube.Pause(ctx, gateLook) != nil {
			return context.Cause(ctx)
		}
	}
}

// follow tells what the gate waits for until it has been answered.
func (v *visitor) follow(ctx context.Context, began time.Time) error {
	for pause := gateFirstLook; ; pause = min(2*pause, gateLook) {
		err := v.client.Get(ctx, client.ObjectKeyFromObject(v.gate), v.gate)
		s := &v.gate.Status
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && kube.Transient(err):
			v.tell("waits for the API server: " + err.Error())
		case err != nil:
			return answer("follow gate "+v.gate.Name, err)
		case s.Phase == v1alpha1.GateOpen:
			v.tell("open, " + s.Reason + ": " + s.Message)
			return nil
		case s.Phase.Final():
			return fault.New("the gate is closed", classOfGate(s.Reason), s.Reason+": "+s.Message, "")
		case s.Phase != "":
			v.tell(s.Message)
		case v.Clock().Sub(began) > gatePatience:
			v.tell("no Backstay controller has taken the gate in")
		}
		if kube.Pause(ctx, pause) != nil {
			return context.Cause(ctx)
		}
	}
}

// tell says what is new.
func (v *visitor) tell(line string) {
	if line == v.said {
		return
	}
	v.said = line
	v.told.progress(message{Message: "gate " + v.gate.Name + ": " + line})
}

func classOfGate(reason string) error {
	if reason == v1alpha1.GateDeadline {
		return fault.ErrUnavailable
	}
	return fault.ErrRefused
}
