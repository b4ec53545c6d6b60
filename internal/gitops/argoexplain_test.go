package gitops

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/backstay/backstay/internal/fault"
)

const failedOperation = `{spec: {project: default}, status: {sync: {status: OutOfSync}, operationState: {phase: Failed, startedAt: "2026-11-22T10:00:00Z",
	finishedAt: "2026-11-22T10:00:09Z", message: "tasks failed (retried 5 times).", operation: {sync: {revision: bbb}}, syncResult: {revision: bbb,
	resources: [{kind: Job, namespace: shop, name: gate, hookType: PreSync, hookPhase: Failed, syncPhase: PreSync, message: "backstay: no room"},
		{kind: Job, namespace: shop, name: migrate, hookType: PreSync, hookPhase: Running, syncPhase: PreSync}]}}}}`

func begun() time.Time { return time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC) }

// before does something just before the first patch: what Argo CD does between a look at an Application and a change of it.
func (l lab) before(change func(*unstructured.Unstructured)) lab {
	inner := l.WithWatch
	done := false
	l.WithWatch = interceptor.NewClient(inner, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			if !done {
				done = true
				now := l.read("Application", o.GetName())
				change(now)
				if err := inner.Update(ctx, now); err != nil {
					return err
				}
			}
			return c.Patch(ctx, o, p, opts...)
		},
	})
	return l
}

func message(u *unstructured.Unstructured) string {
	return Application{u}.text("status", "operationState", "message")
}

func TestExplain(t *testing.T) {
	const words, want = "tasks failed (retried 5 times).", "tasks failed (retried 5 times).; backstay gate: BackupFailed: no room"
	set := func(value any, fields ...string) func(*unstructured.Unstructured) {
		return func(u *unstructured.Unstructured) {
			if err := unstructured.SetNestedField(u.Object, value, fields...); err != nil {
				t.Error(err)
			}
		}
	}
	operation := func(value any, field string) func(*unstructured.Unstructured) {
		return set(value, "status", "operationState", field)
	}
	for _, test := range []struct {
		name      string
		is        func(*unstructured.Unstructured) // when it is read
		meanwhile func(*unstructured.Unstructured) // before it is written
		started   time.Time
		want      string
	}{
		{name: "a sync that failed", want: want},
		{name: "one that could not be tried", is: operation("Error", "phase"), want: want},
		{name: "told already", is: operation(want, "message"), want: want},
		{name: "told another cause", is: operation(words+"; backstay gate: Waiting: no", "message"), want: want},
		{name: "one that ended well", is: operation("Succeeded", "phase"), want: words},
		{name: "one that runs", is: operation("Running", "phase"), want: words},
		{name: "one that is ended", is: operation("Terminating", "phase"), want: words},
		{name: "another", started: begun().Add(-time.Minute), want: words},
		{name: "the next is asked for", is: set(map[string]any{"sync": map[string]any{}}, "operation"), want: words},
		{name: "Argo CD refreshes", meanwhile: set("Synced", "status", "sync", "status"), want: want},
		{name: "the next is asked for meanwhile", meanwhile: set(map[string]any{"sync": map[string]any{}}, "operation"), want: words},
		{name: "the next begins meanwhile", meanwhile: func(u *unstructured.Unstructured) {
			operation("Running", "phase")(u)
			operation("2026-11-22T10:01:00Z", "startedAt")(u)
		}, want: words},
		{name: "the next fails meanwhile", meanwhile: operation("2026-11-22T10:01:00Z", "startedAt"), want: words},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t)
			l.add("Application", "shop", failedOperation)
			u := l.read("Application", "shop")
			if test.is != nil {
				test.is(u)
				if err := l.Update(t.Context(), u); err != nil {
					t.Fatal(err)
				}
			}
			if test.meanwhile != nil {
				l = l.before(test.meanwhile)
			}
			if test.started.IsZero() {
				test.started = begun()
			}
			trimmed := u.DeepCopy()
			Trim(trimmed)
			for range 2 { // the second time has nothing to do
				if err := Explain(t.Context(), l, trimmed, test.started, "BackupFailed: no room"); err != nil {
					t.Fatal(err)
				}
			}
			now := l.read("Application", "shop")
			if got := message(now); got != test.want {
				t.Errorf("it says %q, want %q", got, test.want)
			}
			if o := (Application{now}).Operation(); o.Message != words && o.Phase != "" {
				t.Errorf("Argo CD's own words are %q", o.Message)
			}
			if now.Object["spec"] == nil || (Application{now}).text("status", "sync", "status") == "" || len(Application{now}.HookJobs()) != 2 {
				t.Errorf("what else it says is another: %v", now.Object)
			}
		})
	}
}

// TestExplainedTwice: of two who tell the same, the second finds it told.
func TestExplainedTwice(t *testing.T) {
	l := newLab(t)
	l.add("Application", "shop", failedOperation)
	u := l.read("Application", "shop")
	for range 2 { // with what was read before the first
		if err := Explain(t.Context(), l, u, begun(), "BackupFailed: no room"); err != nil {
			t.Fatal(err)
		}
	}
	if got := message(l.read("Application", "shop")); strings.Count(got, "no room") != 1 {
		t.Errorf("it says %q", got)
	}
}

func TestExplainOfOneThatIsGone(t *testing.T) {
	l := newLab(t)
	l.add("Application", "shop", failedOperation)
	u := l.read("Application", "shop")
	if err := l.Delete(t.Context(), u.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	if err := Explain(t.Context(), l, u, begun(), "BackupFailed: no room"); !errors.Is(err, fault.ErrNotFound) {
		t.Error(err)
	}
}

// TestACauseIsNoComplaintOfArgoCD: what a Backup could not read says nothing about what Argo CD can.
func TestACauseIsNoComplaintOfArgoCD(t *testing.T) {
	u := object(t, failedOperation)
	a := Application{u}
	if !a.explain(begun(), "BackupFailed: repository not found") {
		t.Fatal("nothing is explained")
	}
	if s := a.State(); s.Lost || strings.Contains(s.Message, "repository not found") {
		t.Errorf("state %+v", s)
	}
}

func TestHookJobsSayWhatTheyFailedOf(t *testing.T) {
	u := object(t, failedOperation)
	Trim(u)
	jobs := Application{u}.HookJobs()
	want := []HookJob{{Namespace: "shop", Name: "gate", Failed: true, Message: "backstay: no room"}, {Namespace: "shop", Name: "migrate", Running: true}}
	if len(jobs) != len(want) || jobs[0] != want[0] || jobs[1] != want[1] {
		t.Errorf("jobs %+v", jobs)
	}
}
