package controller_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

func (w *world) backup(namespace, name string, application ...string) *v1alpha1.Backup {
	w.Helper()
	b := &v1alpha1.Backup{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.BackupSpec{Location: "vault", Application: v1alpha1.Applications{Namespaces: application}},
	}
	w.create(b)
	return b
}

// phase waits until a Backup is in a phase.
func (w *world) phase(b *v1alpha1.Backup, want v1alpha1.Phase) {
	w.Helper()
	w.eventually("phase of "+b.Name, func() string {
		if err := w.get(b); err != nil {
			return err.Error()
		}
		if b.Status.Phase != want {
			return "it is " + string(b.Status.Phase) + ", want " + string(want)
		}
		return ""
	})
}

func TestBackupHasOneJobAndEnds(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.location(w.system)
	b := w.backup(w.system, "now", w.namespace())
	j := w.job("backup")
	w.phase(b, v1alpha1.PhasePending)
	if b.Status.Job != j.Name {
		t.Errorf("job of the status is %q, want %q", b.Status.Job, j.Name)
	}
	want := []string{"worker", "backup", "--namespace", w.system, "--run", b.Labels[v1alpha1.LabelRun], "--job", j.Name, "--cluster-name", "test"}
	if got := j.Spec.Template.Spec.Containers[0].Args; !slices.Equal(got, want) {
		t.Errorf("arguments %q, want %q", got, want)
	}
	if !slices.Contains(b.Finalizers, v1alpha1.FinalizerRunning) {
		t.Errorf("finalizers %q", b.Finalizers)
	}
	w.status(b, func() { b.Status.Phase = v1alpha1.PhaseComplete })
	w.succeed(j)
	w.eventually("end", func() string {
		if err := w.get(b); err != nil {
			return err.Error()
		}
		if len(b.Finalizers) > 0 {
			return "it still has its finalizer"
		}
		if err := w.get(j); err != nil {
			return err.Error()
		}
		if j.Spec.TTLSecondsAfterFinished == nil {
			return "its job stays for ever"
		}
		return ""
	})
}

// letGo waits until an object has none of our finalizers, or is gone.
func (w *world) letGo(o client.Object) {
	w.Helper()
	w.eventually("finalizers of "+o.GetName(), func() string {
		if err := w.get(o); err != nil {
			return ""
		}
		return strings.Join(o.GetFinalizers(), " ")
	})
}

func TestBackupFailsWithItsJobAndIsTidied(t *testing.T) {
	for _, test := range []struct{ name, reason, message, want string }{
		{"status of a class", "PodFailurePolicy", "Container worker for pod x/y failed with exit code 5 matching FailJob rule at index 2", "Denied"},
		{"too often", "BackoffLimitExceeded", "Job has reached the specified backoff limit", "BackoffLimitExceeded"},
		{"too long", "DeadlineExceeded", "Job was active longer than specified deadline", "DeadlineExceeded"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.start()
			w.succeed(w.job("tidy"))
			w.location(w.system)
			b := w.backup(w.system, "now", w.namespace())
			j := w.job("backup")
			w.status(b, func() { b.Status.Phase, b.Status.Started = v1alpha1.PhaseMoving, &metav1.Time{Time: w.clock.now()} })
			w.fail(j, test.reason, test.message)
			w.phase(b, v1alpha1.PhaseFailed)
			if got := condition(b.Status.Conditions, "Ready"); got != "False/"+test.want {
				t.Errorf("Ready is %s, want False/%s", got, test.want)
			}
			if got := condition(b.Status.Conditions, "Stalled"); got != "True/"+test.want {
				t.Errorf("Stalled is %s, want True/%s", got, test.want)
			}
			if b.Status.Finished == nil || len(b.Status.Problems) != 1 {
				t.Errorf("finished %v, problems %q", b.Status.Finished, b.Status.Problems)
			}
			if len(b.Finalizers) == 0 {
				t.Error("it lost its finalizer before it was tidied up after")
			}
			w.event(w.system, test.want)
			w.letGoTidied(b)
		})
	}
}

// letGoTidied plays the worker that tidies and the garbage collector until an object has none of our finalizers. Where its end and the
// tidying fall into the same second, it is tidied twice.
func (w *world) letGoTidied(o client.Object) {
	w.Helper()
	w.eventually("finalizers of "+o.GetName(), func() string {
		for _, j := range w.jobs("tidy") {
			switch {
			case !j.DeletionTimestamp.IsZero():
				w.gone(&j)
			case len(j.Status.Conditions) == 0:
				w.succeed(&j)
			}
		}
		if err := w.get(o); err != nil {
			return ""
		}
		return strings.Join(o.GetFinalizers(), " ")
	})
}

func TestWhatIsNotTidiedIsLetGoAfterAWhile(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.location(w.system)
	b := w.backup(w.system, "now", w.namespace())
	w.fail(w.job("backup"), "BackoffLimitExceeded", "")
	w.phase(b, v1alpha1.PhaseFailed)
	w.clock.forward(11 * time.Minute)
	w.touch(b)
	w.letGo(b)
	w.event(w.system, "Untidy")
}

func TestBackupWhoseApplicationIsAtRestIsLetGoWhenThatIsOver(t *testing.T) {
	for _, over := range []bool{true, false} {
		t.Run(fmt.Sprint("over ", over), func(t *testing.T) {
			w := newWorld(t)
			w.start()
			w.location(w.system)
			b := w.backup(w.system, "now", w.namespace())
			w.job("backup")
			w.status(b, func() {
				b.Status.Phase, b.Status.Finished = v1alpha1.PhaseIncomplete, &metav1.Time{Time: w.clock.now()}
				b.Status.Resting = []v1alpha1.RestingPod{{Namespace: "shop", Pod: "db"}}
			})
			if over {
				w.status(b, func() { b.Status.Resting = nil })
			} else {
				w.clock.forward(11 * time.Minute)
				w.touch(b)
				w.event(w.system, "Untidy")
			}
			w.letGo(b)
		})
	}
}

// touch has an object looked at again, as the passing of time would.
func (w *world) touch(o client.Object) {
	w.Helper()
	w.eventually("touch "+o.GetName(), func() string {
		if err := w.get(o); err != nil {
			return err.Error()
		}
		o.SetAnnotations(map[string]string{"touched": w.clock.now().String()})
		if err := w.admin.Update(w.Context(), o); err != nil {
			return err.Error()
		}
		return ""
	})
}

func TestLostJobFailsABackupThatWasBegun(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.location(w.system)
	b := w.backup(w.system, "now", w.namespace())
	j := w.job("backup")
	if err := w.admin.Delete(t.Context(), j, client.PropagationPolicy(metav1.DeletePropagationBackground)); err != nil {
		t.Fatal(err)
	}
	w.job("backup") // nothing was begun: it gets another
	w.status(b, func() { b.Status.Phase, b.Status.Started = v1alpha1.PhaseMoving, &metav1.Time{Time: w.clock.now()} })
	w.eventually("phase of "+b.Name, func() string {
		for _, j := range w.jobs("backup") { // another where the controller has not seen yet that something was begun
			if err := w.admin.Delete(t.Context(), &j, client.PropagationPolicy(metav1.DeletePropagationBackground)); client.IgnoreNotFound(err) != nil {
				return err.Error()
			}
		}
		if err := w.get(b); err != nil || b.Status.Phase != v1alpha1.PhaseFailed {
			return string(b.Status.Phase)
		}
		return ""
	})
	if got := condition(b.Status.Conditions, "Ready"); got != "False/JobLost" {
		t.Errorf("Ready is %s", got)
	}
}

func TestWorkerThatForgetsABackup(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.location(w.system)
	b := w.backup(w.system, "now", w.namespace())
	w.phase(b, v1alpha1.PhasePending)
	j := w.job("backup")
	time.Sleep(1100 * time.Millisecond) // times of objects are whole seconds
	w.succeed(j)
	if j.CreationTimestamp.Time.After(b.CreationTimestamp.Time) {
		w.phase(b, v1alpha1.PhaseFailed)
	} else { // it may have come after the worker had looked
		w.gone(j)
		w.job("backup")
	}
}

func TestRefusedBackups(t *testing.T) {
	w := newWorld(t)
	w.start()
	tenant, other := w.namespace(), w.namespace()
	w.location(tenant)
	w.location(w.system)
	for _, test := range []struct {
		name   string
		backup *v1alpha1.Backup
		reason string
		later  time.Duration
	}{
		{"foreign namespace", w.backup(tenant, "foreign", other), "Denied", 0},
		{"glob of a tenant", w.backup(tenant, "glob", "*"), "Denied", 0},
		{"no location", w.backup(other, "nowhere", other), "NotFound", 2 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.later > 0 {
				w.eventually("conditions", func() string {
					_ = w.get(test.backup)
					if got := condition(test.backup.Status.Conditions, "Reconciling"); got != "True/"+test.reason {
						return "Reconciling is " + got
					}
					return ""
				})
				w.clock.forward(test.later)
				w.touch(test.backup)
			}
			w.phase(test.backup, v1alpha1.PhaseFailed)
			if got := condition(test.backup.Status.Conditions, "Stalled"); got != "True/"+test.reason {
				t.Errorf("Stalled is %s, want True/%s", got, test.reason)
			}
		})
	}
	if jobs := w.jobs("backup"); len(jobs) > 0 {
		t.Errorf("%d jobs were started", len(jobs))
	}
}

func TestLocationThatComesAMomentLater(t *testing.T) {
	w := newWorld(t)
	w.start()
	b := w.backup(w.system, "now", w.namespace())
	w.eventually("conditions", func() string {
		_ = w.get(b)
		if got := condition(b.Status.Conditions, "Reconciling"); got != "True/NotFound" {
			return "Reconciling is " + got
		}
		return ""
	})
	w.location(w.system)
	w.phase(b, v1alpha1.PhasePending)
	w.job("backup")
}

func TestDeletedBackupStopsItsWorkAndNoOther(t *testing.T) {
	w := newWorld(t)
	stop := w.start()
	w.location(w.system)
	var all []*v1alpha1.Backup
	for _, name := range []string{"one", "two"} {
		b := &v1alpha1.Backup{
			ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: name, Labels: map[string]string{v1alpha1.LabelRun: "both"}},
			Spec:       v1alpha1.BackupSpec{Location: "vault", Application: v1alpha1.Applications{Namespaces: []string{w.namespace()}}},
		}
		w.create(b)
		all = append(all, b)
	}
	j := w.job("backup")
	for _, b := range all {
		w.status(b, func() { b.Status.Phase, b.Status.Started = v1alpha1.PhaseMoving, &metav1.Time{Time: w.clock.now()} })
	}
	if err := w.admin.Delete(t.Context(), all[0]); err != nil {
		t.Fatal(err)
	}
	w.gone(j)
	stop() // whenever that happens
	w.start()
	w.phase(all[0], v1alpha1.PhaseFailed)
	again := w.job("backup")
	if again.UID == j.UID {
		t.Error("the job was not stopped")
	}
	w.phase(all[1], v1alpha1.PhaseMoving)
	w.letGoTidied(all[0])
	w.status(all[1], func() { all[1].Status.Phase = v1alpha1.PhaseComplete })
	w.succeed(again)
	w.letGo(all[1])
}

func TestRunsWaitForTheirTurn(t *testing.T) {
	w := newWorld(t)
	w.location(w.system)
	var all []*v1alpha1.Backup
	for _, name := range []string{"a", "b", "c", "d"} {
		all = append(all, w.backup(w.system, name, w.namespace()))
	}
	w.start()
	w.eventually("two jobs", func() string {
		if n := len(w.jobs("backup")); n != 2 {
			return fmt.Sprint(n)
		}
		return ""
	})
	for _, b := range all {
		w.phase(b, v1alpha1.PhasePending)
	}
	time.Sleep(300 * time.Millisecond)
	if n := len(w.jobs("backup")); n != 2 {
		t.Fatalf("%d jobs at once", n)
	}
	done := map[string]bool{}
	for range all {
		w.eventually("a job", func() string {
			for _, j := range w.jobs("backup") {
				if len(j.Status.Conditions) > 0 {
					continue
				}
				for _, b := range all {
					if b.Status.Job == j.Name && !done[j.Name] {
						w.status(b, func() { b.Status.Phase = v1alpha1.PhaseComplete })
						w.succeed(&j)
						done[j.Name] = true
						return ""
					}
				}
			}
			return "there is none"
		})
	}
	if len(done) != len(all) {
		t.Errorf("%d of %d were done", len(done), len(all))
	}
}

func TestJobThatDoesNotBeginIsSeen(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.location(w.system)
	b := w.backup(w.system, "now", w.namespace())
	w.job("backup")
	w.clock.forward(6 * time.Minute)
	w.touch(b)
	w.stands(b, &b.Status.Conditions, "Reconciling", "True/NotStarted")
	w.event(w.system, "NotStarted")
	w.phase(b, v1alpha1.PhasePending)
}
