package controller

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestWhoMayHaveAJob(t *testing.T) {
	runOf := func(namespace, name string) task { return runTask(namespace, name) }
	live := func(work string, tasks ...task) []batchv1.Job {
		var all []batchv1.Job
		for _, task := range tasks {
			all = append(all, batchv1.Job{ObjectMeta: metav1.ObjectMeta{
				Name: task.name(), Labels: map[string]string{LabelWork: work}, Annotations: map[string]string{annotationFor: task.key.String()},
			}})
		}
		return all
	}
	ahead := func(tasks ...task) []waiting {
		var all []waiting
		for _, task := range tasks {
			all = append(all, waiting{task.key, task.name(), time.Time{}})
		}
		return all
	}
	mine, big, bigger, theirs := runOf("team-a", "mine"), runOf("team-b", "big"), runOf("team-b", "bigger"), runOf("system", "theirs")
	for name, test := range map[string]struct {
		live  []batchv1.Job
		ahead []waiting
		o     Options
		want  bool
	}{
		"nobody else":                            {o: Options{JobsAtOnce: 2}, want: true},
		"all taken":                              {live: live(workBackup, big, theirs), o: Options{JobsAtOnce: 2}},
		"one ahead, room for both":               {live: live(workBackup, big), ahead: ahead(theirs), o: Options{JobsAtOnce: 3}, want: true},
		"one ahead, room for one":                {live: live(workBackup, big), ahead: ahead(theirs), o: Options{JobsAtOnce: 2}},
		"who is ahead has a Job":                 {live: live(workBackup, big), ahead: ahead(big), o: Options{JobsAtOnce: 2}, want: true},
		"who is ahead has all its namespace may": {live: live(workBackup, big), ahead: ahead(bigger), o: Options{JobsAtOnce: 2, JobsPerNamespace: 1}, want: true},
		"its namespace has all it may":           {live: live(workBackup, runOf("team-a", "first")), o: Options{JobsAtOnce: 5, JobsPerNamespace: 1}},
		"other work does not count":              {live: live(workRestore, big, theirs), o: Options{JobsAtOnce: 2}, want: true},
		"but where all is bounded":               {live: live(workRestore, big, theirs), o: Options{JobsAtOnce: 2, MaxJobs: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			test.o.System = "system"
			c := &controller{Options: test.o}
			if got := c.roomFor(workBackup, test.live).admits(mine, test.ahead); got != test.want {
				t.Errorf("admitted: %t", got)
			}
		})
	}
}

func TestWhoHadATurnGoesBehindThoseThatWait(t *testing.T) {
	at := func(minute int) time.Time { return time.Date(2026, 11, 22, 4, minute, 0, 0, time.UTC) }
	key := func(name string) types.NamespacedName { return types.NamespacedName{Namespace: "system", Name: name} }
	all := map[types.NamespacedName]waiting{}
	for name, since := range map[string]time.Time{"thousand": at(10), "one": at(5), "late": at(12)} { // thousand came first, and had a turn until then
		all[key(name)] = waiting{key: key(name), since: since}
	}
	order := inOrder(all)
	if order[0].key != key("one") || order[1].key != key("thousand") || len(before(order, key("late"))) != 2 || len(before(order, key("gone"))) != 3 {
		t.Errorf("order %v", order)
	}
}

func TestARunThatEndedForOthersHasAnotherJob(t *testing.T) {
	started := metav1.Now()
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"backstay.io/yield": "true"}}}
	switch {
	case !yielded(j, []deed{{}}):
		t.Error("what was not begun is lost")
	case yielded(j, []deed{{}, {started: &started}}):
		t.Error("what was begun and not ended is forgotten")
	case yielded(&batchv1.Job{}, []deed{{}}), yielded(nil, nil):
		t.Error("nobody asked it to")
	}
}

func TestAnIndexedJobForShards(t *testing.T) {
	c := &controller{Options: Options{System: "system", Image: "backstay"}}
	task := runTask("system", "nightly")
	if j := c.job(task); j.Spec.CompletionMode != nil || j.Spec.Completions != nil {
		t.Errorf("one process needs no index: %+v", j.Spec)
	}
	task.shards = 3
	j := c.job(task)
	if *j.Spec.CompletionMode != batchv1.IndexedCompletion || *j.Spec.Completions != 3 || *j.Spec.Parallelism != 3 || *j.Spec.BackoffLimit != 3*backoffLimit {
		t.Errorf("spec %+v", j.Spec)
	}
	if j.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyNever {
		t.Error("a pod that failed is made anew")
	}
}
