package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// turnTime is how long a run of many applications has its Job when others wait: then it begins no more of them, and takes its place behind
// those that wait.
const turnTime = 5 * time.Minute

// Defaults of Options.
const defaultMaxShards = 8

// waiting is a task that may have no Job yet.
type waiting struct {
	key   types.NamespacedName
	job   string
	since time.Time // it came, or ended its last turn
}

// inOrder is whose turn it is next: whoever has waited longest.
func inOrder(all map[types.NamespacedName]waiting) []waiting {
	var list []waiting
	for _, w := range all {
		list = append(list, w)
	}
	slices.SortFunc(list, func(a, b waiting) int {
		if c := a.since.Compare(b.since); c != 0 {
			return c
		}
		return strings.Compare(a.key.String(), b.key.String())
	})
	return list
}

// before is those that come before one; all of them where it does not wait itself.
func before(all []waiting, key types.NamespacedName) []waiting {
	i := slices.IndexFunc(all, func(w waiting) bool { return w.key == key })
	if i < 0 {
		return all
	}
	return all[:i]
}

// room is how many Jobs there may be, and how many there are.
type room struct {
	most        int // of one kind of work
	mostOverall int // of all kinds; 0 for no bound
	mostOf      int // of one kind for objects of one namespace beside Backstay's own; 0 for no bound
	system      string

	busy, overall int
	busyOf        map[string]int // by namespace
	known         map[string]bool
}

// roomFor counts the Jobs of a kind of work, and all others.
func (c *controller) roomFor(work string, live []batchv1.Job) *room {
	r := &room{
		most: c.JobsAtOnce, mostOverall: c.MaxJobs, mostOf: c.JobsPerNamespace, system: c.System, busyOf: map[string]int{}, known: map[string]bool{},
	}
	if work == workActions {
		r.most *= actionsPerJob
	}
	for i := range live {
		j := &live[i]
		isOne := j.Labels[LabelWork] == work
		r.known[j.Name] = r.known[j.Name] || isOne
		if outcomeOf(j).state != running {
			continue
		}
		r.overall++
		if isOne {
			key, _ := keyFor(j)
			r.busy++
			r.busyOf[key.Namespace]++
		}
	}
	return r
}

func (r *room) full() bool {
	return r.busy >= r.most || r.mostOverall > 0 && r.overall >= r.mostOverall
}

func (r *room) fullFor(namespace string) bool {
	return r.mostOf > 0 && namespace != r.system && r.busyOf[namespace] >= r.mostOf
}

// admits reports whether a task may have a Job now. Those that come before it are given theirs first, but for those whose namespace has all
// that it may have: nobody waits for them.
func (r *room) admits(t task, ahead []waiting) bool {
	for _, w := range ahead {
		if r.known[w.job] || r.fullFor(w.key.Namespace) {
			continue
		}
		r.busy++
		r.overall++
		r.busyOf[w.key.Namespace]++
	}
	return !r.full() && !r.fullFor(t.key.Namespace)
}

// askToYield asks the run that has had its Job for longest to let others have a turn. It ends what it is at, and begins no more.
func (c *controller) askToYield(ctx context.Context, live []batchv1.Job) error {
	var longest *batchv1.Job
	for i := range live {
		j := &live[i]
		if j.Labels[LabelWork] != workBackup || outcomeOf(j).state != running {
			continue
		}
		if j.Annotations[v1alpha1.AnnotationYield] != "" {
			return nil // one at a time
		}
		if longest == nil || j.CreationTimestamp.Time.Before(longest.CreationTimestamp.Time) {
			longest = j
		}
	}
	if longest == nil || c.Now().Sub(longest.CreationTimestamp.Time) < turnTime {
		return nil
	}
	before := longest.DeepCopy()
	if longest.Annotations == nil {
		longest.Annotations = map[string]string{}
	}
	longest.Annotations[v1alpha1.AnnotationYield] = "true"
	err := c.client.Patch(ctx, longest, client.MergeFrom(before))
	return client.IgnoreNotFound(err)
}

// yielded reports whether a Job ended because others waited: what it did not begin gets another.
func yielded(j *batchv1.Job, open []deed) bool {
	return j != nil && j.Annotations[v1alpha1.AnnotationYield] != "" && !slices.ContainsFunc(open, func(d deed) bool { return d.started != nil })
}

// shardsOf is how many pods share the work on Backups of one run.
func (c *controller) shardsOf(ctx context.Context, all []v1alpha1.Backup) (int, error) {
	var p v1alpha1.Policy
	open, repositories := 0, false
	for i := range all {
		if !all[i].Status.Phase.Final() {
			open++
			repositories = repositories || all[i].Spec.Repositories
		}
	}
	name := all[0].Labels[v1alpha1.LabelPolicy]
	if name == "" || open == 0 {
		return 1, nil
	}
	err := c.client.Get(ctx, types.NamespacedName{Namespace: all[0].Namespace, Name: name}, &p)
	if client.IgnoreNotFound(err) != nil {
		return 0, fmt.Errorf("read policy %s: %w", name, err)
	}
	shards := min(p.Spec.Shards, c.MaxShards)
	if !repositories {
		shards = min(shards, open)
	}
	return max(shards, 1), nil
}

// limits checks what is said of how much may be done at once, and completes it.
func (o *Options) limits() error {
	if o.JobsAtOnce == 0 {
		o.JobsAtOnce = defaultJobsAtOnce
	}
	if o.MaxShards == 0 {
		o.MaxShards = defaultMaxShards
	}
	if o.JobsAtOnce < 0 || o.MaxJobs < 0 || o.JobsPerNamespace < 0 || o.MaxShards < 0 || o.MaxShards > mostShards {
		return fault.New("start the controller", fault.ErrInvalid, fmt.Sprintf("numbers of Jobs are not negative, and of shards at most %d", mostShards), "")
	}
	return nil
}

// mostShards is how many processes a run may have: each leaves a few checkpoints in the vault, of which so many are looked at.
const mostShards = 16
