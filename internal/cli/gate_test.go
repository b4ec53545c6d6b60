package cli

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// gatekeeper is an API server with one Gate, whose status follows a script: one for each look, the last one for ever.
type gatekeeper struct {
	client.Client // of which no more is used than what is here

	mu      sync.Mutex
	refuses []error // of the first attempts to make the Gate
	script  []v1alpha1.GateStatus
	made    *v1alpha1.Gate
	looks   int
}

func (k *gatekeeper) Create(ctx context.Context, o client.Object, _ ...client.CreateOption) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.refuses) > 0 {
		err := k.refuses[0]
		if len(k.refuses) > 1 {
			k.refuses = k.refuses[1:]
		} else if !apierrors.IsForbidden(err) {
			k.refuses = nil
		}
		return err
	}
	k.made, _ = o.(*v1alpha1.Gate)
	return ctx.Err()
}

func (k *gatekeeper) Get(ctx context.Context, _ client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if gate, is := o.(*v1alpha1.Gate); is && len(k.script) > 0 {
		gate.Status = k.script[min(k.looks, len(k.script)-1)]
	}
	k.looks++
	return ctx.Err()
}

func TestGate(t *testing.T) {
	forbidden := apierrors.NewForbidden(schema.GroupResource{Group: v1alpha1.Group, Resource: "gates"}, "hook-x", nil)
	away := apierrors.NewServiceUnavailable("it starts")
	waits := v1alpha1.GateStatus{Phase: v1alpha1.GateWaiting, Reason: "Waiting", Message: "snapshots are taken, 0 of 1"}
	opens := v1alpha1.GateStatus{Phase: v1alpha1.GateOpen, Reason: v1alpha1.GateSnapshot, Message: "its snapshots are taken"}
	shut := func(reason string) v1alpha1.GateStatus {
		return v1alpha1.GateStatus{Phase: v1alpha1.GateClosed, Reason: reason, Message: "the bucket is gone"}
	}
	for _, test := range []struct {
		name     string
		refuses  []error
		script   []v1alpha1.GateStatus
		deadline time.Duration
		ahead    time.Duration // by which the clock goes at each look at it
		class    error
		says     string // on standard error, or the error itself
	}{
		{name: "opens", script: []v1alpha1.GateStatus{{}, waits, waits, opens}, says: "gate hook-x: snapshots are taken, 0 of 1\nbackstay: gate hook-x: open, Snapshot"},
		{name: "the container was started again", refuses: []error{apierrors.NewAlreadyExists(schema.GroupResource{}, "hook-x")}, script: []v1alpha1.GateStatus{opens}},
		{name: "closed", script: []v1alpha1.GateStatus{waits, shut(v1alpha1.GateFailed)}, class: fault.ErrRefused, says: "the gate is closed: BackupFailed: the bucket is gone"},
		{name: "too late", script: []v1alpha1.GateStatus{shut(v1alpha1.GateDeadline)}, class: fault.ErrUnavailable, says: "the bucket is gone"},
		{name: "the right comes", refuses: []error{forbidden, away}, script: []v1alpha1.GateStatus{opens}, says: "waits for the right to make a Gate"},
		{name: "the right does not come", refuses: []error{forbidden}, ahead: 40 * time.Second, class: fault.ErrDenied, says: "make a Gate"},
		{name: "nobody answers", script: []v1alpha1.GateStatus{{}}, ahead: 40 * time.Second, deadline: 400 * time.Millisecond, class: fault.ErrUnavailable, says: "no Backstay controller has taken the gate in"},
		{name: "no end", script: []v1alpha1.GateStatus{waits}, deadline: 100 * time.Millisecond, class: fault.ErrUnavailable, says: "it is not open after 100ms: snapshots are taken"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // no deadline ends before what is to be seen within it
				v, said := newVisitor(&gatekeeper{refuses: test.refuses, script: test.script}, test.ahead)
				deadline := test.deadline
				if deadline == 0 {
					deadline = time.Minute
				}
				err := v.wait(t.Context(), deadline)
				if !errors.Is(err, test.class) || test.class == nil && err != nil {
					t.Errorf("error %v, want %v", err, test.class)
				}
				text := said.String()
				if err != nil {
					text += err.Error()
				}
				if !strings.Contains(text, test.says) {
					t.Errorf("it says %q, want %q", text, test.says)
				}
			})
		})
	}
}

// TestGateWhosePodIsToEnd: the controller has the pod of a gate that it closes ended, and the cause comes right after.
func TestGateWhosePodIsToEnd(t *testing.T) {
	waits := v1alpha1.GateStatus{Phase: v1alpha1.GateWaiting, Message: "waits"}
	keeper := &gatekeeper{script: []v1alpha1.GateStatus{waits, waits, {Phase: v1alpha1.GateClosed, Reason: v1alpha1.GateFailed, Message: "the bucket is gone"}}}
	synctest.Test(t, func(t *testing.T) {
		v, _ := newVisitor(keeper, 0)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := v.wait(ctx, time.Minute); err == nil || !strings.Contains(err.Error(), "the bucket is gone") {
			t.Errorf("it says %v", err)
		}
	})
}

// newVisitor is a pod before a gate, with a clock that goes ahead whenever it is looked at.
func newVisitor(k *gatekeeper, ahead time.Duration) (*visitor, *strings.Builder) {
	said, now := &strings.Builder{}, time.Unix(1e9, 0)
	clock := func() time.Time {
		now = now.Add(ahead)
		return now
	}
	a := &app{Process: Process{Clock: clock}}
	a.told.w, a.told.clock = said, clock
	return &visitor{app: a, client: k, gate: &v1alpha1.Gate{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "hook-x"}}}, said
}
