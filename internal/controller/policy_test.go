package controller_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

// policy makes a policy of the applications of some namespaces.
func (w *world) policy(namespace string, schedule *v1alpha1.Schedule, applications ...string) *v1alpha1.Policy {
	w.Helper()
	p := &v1alpha1.Policy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "nightly"},
		Spec: v1alpha1.PolicySpec{
			Schedule: schedule, Location: "vault", Sources: []v1alpha1.Source{{Applications: &v1alpha1.Applications{Namespaces: applications}}},
		},
	}
	w.create(p)
	return p
}

// backups lists the Backups of a policy by run.
func (w *world) backups(p *v1alpha1.Policy) map[string][]v1alpha1.Backup {
	w.Helper()
	var all v1alpha1.BackupList
	err := w.admin.List(w.Context(), &all, client.InNamespace(p.Namespace), client.MatchingLabels{v1alpha1.LabelPolicy: p.Name})
	if err != nil {
		w.Fatal(err)
	}
	runs := map[string][]v1alpha1.Backup{}
	for _, b := range all.Items {
		runs[b.Labels[v1alpha1.LabelRun]] = append(runs[b.Labels[v1alpha1.LabelRun]], b)
	}
	return runs
}

// runs waits until a policy has so many runs, and returns the newest.
func (w *world) runs(p *v1alpha1.Policy, want int) (newest string) {
	w.Helper()
	w.eventually("runs", func() string {
		got := slices.Sorted(maps.Keys(w.backups(p)))
		if len(got) != want {
			return fmt.Sprintf("%q, want %d", got, want)
		}
		newest = got[len(got)-1]
		return ""
	})
	return newest
}

// made waits until a run has so many Backups, which are made one after the other, and returns them.
func (w *world) made(p *v1alpha1.Policy, run string, want int) (all []v1alpha1.Backup) {
	w.Helper()
	w.eventually("backups of run "+run, func() string {
		if all = w.backups(p)[run]; len(all) != want {
			return fmt.Sprintf("%d, want %d", len(all), want)
		}
		return ""
	})
	return all
}

// finish waits for the Job of a run, and ends its Backups and it.
func (w *world) finish(p *v1alpha1.Policy, run string, phase v1alpha1.Phase) {
	w.Helper()
	all := w.backups(p)[run]
	w.clock.forward(3 * time.Second) // the Job waits for more Backups of the run
	w.touch(&all[0])
	var of *batchv1.Job
	w.eventually("job of run "+run, func() string {
		for _, j := range w.jobs("backup") {
			if strings.HasSuffix(j.Annotations["backstay.io/for"], "/"+run) {
				of = &j
				return ""
			}
		}
		return "there is none"
	})
	for i := range all {
		w.status(&all[i], func() {
			all[i].Status.Phase, all[i].Status.Finished = phase, &metav1.Time{Time: w.clock.now()}
			if phase != v1alpha1.PhaseComplete {
				all[i].Status.Problems = []string{"disk on fire"}
			}
		})
	}
	w.succeed(of)
}

func TestPolicyRunsAtItsTimes(t *testing.T) {
	w := newWorld(t)
	stop := w.start()
	w.location(w.system)
	one, two := w.namespace(), w.namespace()
	p := w.policy(w.system, &v1alpha1.Schedule{Cron: "@every 1h", Jitter: "5m"}, one, two)
	w.stands(p, &p.Status.Conditions, "Ready", "True/Scheduled")
	if p.Status.Applications != 2 || p.Status.NextRun == nil || p.Status.LastRun != nil {
		t.Fatalf("status %+v", p.Status)
	}
	first := p.Status.NextRun.Time
	if ahead := first.Sub(w.clock.now()); ahead < 59*time.Minute || ahead > 65*time.Minute {
		t.Errorf("it runs next in %v", ahead)
	}

	stop()
	w.clock.forward(5*time.Hour + 30*time.Minute) // five times go by
	stop = w.start()
	run := w.runs(p, 1)
	all := w.made(p, run, 2)
	for i, b := range all {
		application := b.Spec.Application.Namespaces[0]
		if b.Name != run+"-"+application || b.Spec.Policy != p.Name || b.Labels[v1alpha1.LabelApplication] != application {
			t.Errorf("backup %d: %+v", i, b)
		}
	}
	j := w.job("backup")
	if got := j.Annotations["backstay.io/for"]; got != w.system+"/"+run {
		t.Errorf("job for %q", got)
	}
	w.finish(p, run, v1alpha1.PhaseComplete)
	w.stands(p, &p.Status.Conditions, "Ready", "True/Complete")
	if p.Status.LastGood == nil || p.Status.LastRun == nil || !p.Status.NextRun.After(w.clock.now()) {
		t.Errorf("status %+v", p.Status)
	}

	w.clock.forward(70 * time.Minute)
	w.touch(p)
	w.runs(p, 2)
	w.eventually("the time after the second run", func() string {
		if err := w.get(p); err != nil {
			return err.Error()
		}
		if !p.Status.NextRun.After(w.clock.now()) { // its Backups are made before this is saved
			return fmt.Sprintf("it runs next at %v", p.Status.NextRun)
		}
		return ""
	})
	w.clock.forward(70 * time.Minute) // it is not over
	w.touch(p)
	w.event(w.system, "Skipped")
	var second string
	for name := range w.backups(p) {
		if name != run {
			second = name
		}
	}
	w.runs(p, 2)
	w.finish(p, second, v1alpha1.PhaseFailed)
	w.stands(p, &p.Status.Conditions, "Ready", "False/Failed")
	if good := p.Status.LastGood; good == nil || w.clock.now().Sub(good.Time) < time.Hour {
		t.Errorf("last good is %v", good)
	}
	stop()
}

func TestPolicyRunsOnceForEachToken(t *testing.T) {
	w := newWorld(t)
	stop := w.start()
	w.location(w.system)
	p := w.policy(w.system, &v1alpha1.Schedule{Cron: "0 0 1 1 *"}, w.namespace())
	w.stands(p, &p.Status.Conditions, "Ready", "True/Scheduled")
	var names []string
	ask := func(token string) {
		w.eventually("annotate", func() string {
			if err := w.get(p); err != nil {
				return err.Error()
			}
			p.Annotations = map[string]string{v1alpha1.AnnotationRunNow: token}
			if err := w.admin.Update(t.Context(), p); err != nil {
				return err.Error()
			}
			return ""
		})
	}
	for i, phase := range []v1alpha1.Phase{
		v1alpha1.PhaseComplete, v1alpha1.PhaseFailed, v1alpha1.PhaseComplete, v1alpha1.PhaseComplete, v1alpha1.PhaseIncomplete,
	} {
		ask(fmt.Sprint("token ", i))
		var run string
		w.eventually("run", func() string {
			for name := range w.backups(p) {
				if !slices.Contains(names, name) {
					run = name
					return ""
				}
			}
			return "there is none"
		})
		names = append(names, run)
		w.finish(p, run, phase)
		time.Sleep(1100 * time.Millisecond) // times of objects are whole seconds
		if i == 1 {
			stop()
			stop = w.start() // the same token is none anew
		}
	}
	w.stands(p, &p.Status.Conditions, "Ready", "False/Incomplete")
	want := []string{names[1], names[2], names[3], names[4]} // the newest three, and what failed
	slices.Sort(want)
	w.eventually("history", func() string {
		if got := slices.Sorted(maps.Keys(w.backups(p))); !slices.Equal(got, want) {
			return fmt.Sprintf("%q, want %q", got, want)
		}
		return ""
	})
	w.clock.forward(8 * 24 * time.Hour)
	w.touchKeeping(p)
	w.eventually("history", func() string {
		if got := slices.Sorted(maps.Keys(w.backups(p))); slices.Contains(got, names[1]) {
			return fmt.Sprintf("%q has what failed a week ago", got)
		}
		return ""
	})
	stop()
}

// touchKeeping is touch for an object whose annotations mean something.
func (w *world) touchKeeping(o client.Object) {
	w.Helper()
	w.eventually("touch "+o.GetName(), func() string {
		if err := w.get(o); err != nil {
			return err.Error()
		}
		o.SetLabels(map[string]string{"touched": fmt.Sprint(w.clock.now().Unix())})
		if err := w.admin.Update(w.Context(), o); err != nil {
			return err.Error()
		}
		return ""
	})
}

func TestPoliciesThatDoNotRun(t *testing.T) {
	w := newWorld(t)
	w.start()
	tenant, other := w.namespace(), w.namespace()
	for _, test := range []struct {
		name      string
		namespace string
		change    func(*v1alpha1.Policy)
		kind      string
		want      string
	}{
		{"foreign namespace", tenant, func(p *v1alpha1.Policy) {
			p.Spec.Sources[0].Applications.Namespaces = []string{other}
		}, "Stalled", "True/Denied"},
		{"labels of namespaces", tenant, func(p *v1alpha1.Policy) {
			p.Spec.Sources[0].Applications.NamespaceSelector = &metav1.LabelSelector{}
		}, "Stalled", "True/Denied"},
		{"repositories of a tenant", tenant, func(p *v1alpha1.Policy) {
			p.Spec.Sources = []v1alpha1.Source{{Git: &v1alpha1.Git{Access: v1alpha1.Access{URL: "https://git.example.com/a.git"}}}}
		}, "Stalled", "True/Denied"},
		{"nothing selected", w.system, func(p *v1alpha1.Policy) {
			p.Spec.Sources[0].Applications.Namespaces = []string{"nothing-like-this-*"}
		}, "Ready", "False/NotFound"},
		{"twice the same", w.system, func(p *v1alpha1.Policy) {
			p.Spec.Sources = append(p.Spec.Sources, p.Spec.Sources[0])
		}, "Stalled", "True/Invalid"},
		{"suspended", w.system, func(p *v1alpha1.Policy) { p.Spec.Suspend = true }, "Ready", "True/Scheduled"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &v1alpha1.Policy{
				ObjectMeta: metav1.ObjectMeta{Namespace: test.namespace, Name: strings.ReplaceAll(test.name, " ", "-")},
				Spec: v1alpha1.PolicySpec{
					Location: "vault", Sources: []v1alpha1.Source{{Applications: &v1alpha1.Applications{Namespaces: []string{test.namespace}}}},
				},
			}
			test.change(p)
			if err := w.admin.Create(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			w.stands(p, &p.Status.Conditions, test.kind, test.want)
			if runs := w.backups(p); len(runs) > 0 {
				t.Errorf("it has runs %v", runs)
			}
		})
	}
}

func TestPolicyBacksUpRepositories(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.location(w.system)
	app := w.namespace()
	p := &v1alpha1.Policy{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: "nightly"},
		Spec: v1alpha1.PolicySpec{Location: "vault", Sources: []v1alpha1.Source{
			{Git: &v1alpha1.Git{Access: v1alpha1.Access{URL: "https://git.example.com/a.git"}}},
			{GitHub: &v1alpha1.Forge{Organization: "acme"}},
		}},
	}
	w.create(p)
	run := w.runs(p, 1)
	all := w.backups(p)[run]
	if len(all) != 1 || !all[0].Spec.Repositories || len(all[0].Spec.Application.Namespaces) > 0 {
		t.Fatalf("backups %+v", all)
	}
	w.finish(p, run, v1alpha1.PhaseIncomplete)
	w.stands(p, &p.Status.Conditions, "Ready", "False/Incomplete")

	both := &v1alpha1.Policy{ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: "both"}, Spec: *p.Spec.DeepCopy()}
	both.Spec.Sources = append(both.Spec.Sources, v1alpha1.Source{Applications: &v1alpha1.Applications{Namespaces: []string{app}}})
	w.create(both)
	w.made(both, w.runs(both, 1), 2)
}

func TestNamespaceThatIsNotThereIsSeen(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.location(w.system)
	there := w.namespace()
	p := w.policy(w.system, nil, there, "not-there")
	run := w.runs(p, 1)
	var got []string
	w.eventually("backups", func() string {
		got = nil
		for _, b := range w.backups(p)[run] {
			got = append(got, b.Spec.Application.Namespaces...)
		}
		slices.Sort(got)
		if want := []string{there, "not-there"}; !slices.Equal(got, want) {
			return fmt.Sprintf("%q, want %q", got, want)
		}
		return ""
	})
}

func TestRunOfManyApplicationsHasOneJob(t *testing.T) {
	const many = 60
	w := newWorld(t)
	w.location(w.system)
	tag := map[string]string{"many": w.system}
	for i := range many {
		w.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", w.system, i), Labels: tag}})
	}
	w.clock.forward(-time.Hour) // the youngest Backup stays too young, however long it takes to make them all
	w.start()
	p := &v1alpha1.Policy{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: "nightly"},
		Spec: v1alpha1.PolicySpec{Location: "vault", Sources: []v1alpha1.Source{
			{Applications: &v1alpha1.Applications{NamespaceSelector: &metav1.LabelSelector{MatchLabels: tag}}},
		}},
	}
	w.create(p)
	all := w.made(p, w.runs(p, 1), many)
	if n := len(w.jobs("backup")); n > 0 {
		t.Errorf("%d jobs were started before the last Backup had been there for a while", n)
	}
	w.clock.forward(time.Hour + 3*time.Second)
	w.touch(&all[0])
	w.job("backup")
	for i := range all {
		w.phase(&all[i], v1alpha1.PhasePending)
	}
	w.job("backup")
}
