package controller

import (
	"context"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// gather is how long the youngest Backup of a policy's run must be there before its Job starts: one Job is to find them all.
const gather = 2 * time.Second

// addBackups takes Backups in, each for itself, and lets go of those that have ended.
func (c *controller) addBackups(m manager.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("backup").
		For(&v1alpha1.Backup{}).
		Watches(&batchv1.Job{}, handler.EnqueueRequestsFromMapFunc(c.untidyBackups)).
		Watches(&v1alpha1.Location{}, handler.EnqueueRequestsFromMapFunc(untaken(c.backups))).
		Watches(&v1alpha1.Policy{}, handler.EnqueueRequestsFromMapFunc(untaken(c.backups))).
		Complete(calmly(c.reconcileBackup))
}

// untidyBackups are those that the end of tidying may let go.
func (c *controller) untidyBackups(ctx context.Context, j client.Object) []reconcile.Request {
	if j.GetLabels()[LabelWork] != workTidy {
		return nil
	}
	var all v1alpha1.BackupList
	if err := c.client.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		return nil // they look again by themselves
	}
	return requestsFor(all.Items, func(b *v1alpha1.Backup) bool { return b.Status.Phase == v1alpha1.PhaseFailed && len(b.Finalizers) > 0 })
}

// backups are all of them, as far as the options go.
func (c *controller) backups(ctx context.Context, of ...client.ListOption) ([]deed, error) {
	var all v1alpha1.BackupList
	err := c.client.List(ctx, &all, append(of, client.UnsafeDisableDeepCopy)...)
	return deedsOf(all.Items, deedOfBackup), err
}

func (c *controller) reconcileBackup(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	var b v1alpha1.Backup
	if err := c.client.Get(ctx, r.NamespacedName, &b); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	d := deedOfBackup(&b)
	if b.Status.Phase.Final() {
		return c.release(ctx, d)
	}
	run := runOf(&b)
	return c.admit(ctx, d, run, runTask(b.Namespace, run).name(), func() error { return c.checkBackup(ctx, &b) })
}

// runOf is the run that a Backup belongs to: its own where it is of no policy's.
func runOf(b *v1alpha1.Backup) string {
	if run := b.Labels[v1alpha1.LabelRun]; run != "" {
		return run
	}
	const digits = 8
	return "backup-" + string(b.UID)[:min(digits, len(b.UID))]
}

// checkBackup finds what is wrong with a Backup before any work is done for it. Namespaces and claims are the worker's to look at.
func (c *controller) checkBackup(ctx context.Context, b *v1alpha1.Backup) error {
	op := "backup " + b.Name
	location := b.Spec.Location
	if b.Spec.Policy != "" {
		var p v1alpha1.Policy
		if err := c.need(ctx, op, "policy", types.NamespacedName{Namespace: b.Namespace, Name: b.Spec.Policy}, &p); err != nil {
			return err
		}
		if location == "" {
			location = p.Spec.Location
		}
	}
	if location == "" {
		return fault.New(op, fault.ErrInvalid, "it names no location, and no policy that has one", "")
	}
	if err := c.need(ctx, op, "location", types.NamespacedName{Namespace: b.Namespace, Name: location}, &v1alpha1.Location{}); err != nil {
		return err
	}
	if b.Namespace == c.System {
		return nil
	}
	_, err := c.Cluster.Find(ctx, b.Spec.Application, b.Namespace, c.System) // without a question to the API server for a tenant
	return fault.Wrap(op, nil, err, "")
}

// need reads an object that another names. One that is not there is fault.ErrNotFound.
func (c *controller) need(ctx context.Context, op, kind string, key types.NamespacedName, o client.Object) error {
	err := c.client.Get(ctx, key, o)
	if apierrors.IsNotFound(err) {
		return fault.New(op, fault.ErrNotFound, fmt.Sprintf("there is no %s %s in namespace %s", kind, key.Name, key.Namespace), "")
	}
	if err != nil {
		return fmt.Errorf("%s: read %s %s: %w", op, kind, key.Name, err)
	}
	return nil
}

// addRuns works on the Backups of each run together: one Job for all of them.
func (c *controller) addRuns(m manager.Manager) error {
	runsOf := func(_ context.Context, o client.Object) []reconcile.Request {
		run := o.GetLabels()[v1alpha1.LabelRun]
		if run == "" {
			return nil
		}
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: run}}}
	}
	return ctrl.NewControllerManagedBy(m).Named("run").
		Watches(&v1alpha1.Backup{}, handler.EnqueueRequestsFromMapFunc(runsOf)).
		Watches(&batchv1.Job{}, handler.EnqueueRequestsFromMapFunc(c.runsOfJob)).
		Complete(calmly(c.reconcileRun))
}

// runsOfJob are the run of a Job, and those that wait for it to end.
func (c *controller) runsOfJob(ctx context.Context, j client.Object) []reconcile.Request {
	key, known := keyFor(j)
	if j.GetLabels()[LabelWork] != workBackup || !known {
		return nil
	}
	requests := []reconcile.Request{{NamespacedName: key}}
	waiting, err := c.waitingRuns(ctx)
	if err != nil {
		return requests // they look again by themselves
	}
	for _, w := range waiting {
		requests = append(requests, reconcile.Request{NamespacedName: w.key})
	}
	return requests
}

func runTask(namespace, run string) task {
	return task{work: workBackup, key: types.NamespacedName{Namespace: namespace, Name: run}}
}

func (c *controller) reconcileRun(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	var all v1alpha1.BackupList
	err := c.client.List(ctx, &all, client.InNamespace(r.Namespace), client.MatchingLabels{v1alpha1.LabelRun: r.Name})
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("list backups of run %s: %w", r.Name, err)
	}
	if len(all.Items) == 0 {
		return reconcile.Result{}, c.discard(ctx, workBackup, r.NamespacedName)
	}
	var deeds []deed
	t := runTask(r.Namespace, r.Name)
	for i := range all.Items {
		b := &all.Items[i]
		young := gather - c.Now().Sub(b.CreationTimestamp.Time)
		if b.Labels[v1alpha1.LabelPolicy] != "" && b.Status.Started == nil && !b.Status.Phase.Final() && young > 0 {
			return reconcile.Result{RequeueAfter: young}, nil
		}
		deeds, t.urgent = append(deeds, deedOfBackup(b)), t.urgent || b.Spec.Sync != nil // a sync waits for it
	}
	if t.shards, err = c.shardsOf(ctx, all.Items); err != nil {
		return reconcile.Result{}, err
	}
	return c.advance(ctx, t, deeds, func() ([]waiting, error) {
		waiting, err := c.waitingRuns(ctx)
		return before(waiting, r.NamespacedName), err
	})
}

// waitingRuns lists the runs that have Backups which were not begun, in the order in which they came, or had their last turn.
func (c *controller) waitingRuns(ctx context.Context) ([]waiting, error) {
	var all v1alpha1.BackupList
	if err := c.client.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list backups: %w", err)
	}
	runs, turns := map[types.NamespacedName]waiting{}, map[types.NamespacedName]time.Time{}
	for i := range all.Items {
		b := &all.Items[i]
		if key := (types.NamespacedName{Namespace: b.Namespace, Name: runOf(b)}); b.Status.Finished != nil && b.Status.Finished.After(turns[key]) {
			turns[key] = b.Status.Finished.Time
		}
		if b.Status.Phase != v1alpha1.PhasePending || b.Status.Started != nil || !b.DeletionTimestamp.IsZero() {
			continue
		}
		key := types.NamespacedName{Namespace: b.Namespace, Name: runOf(b)}
		if known, found := runs[key]; !found || b.CreationTimestamp.Time.Before(known.since) {
			runs[key] = waiting{key, runTask(key.Namespace, key.Name).name(), b.CreationTimestamp.Time}
		}
	}
	for key, last := range turns {
		if w, waits := runs[key]; waits && last.After(w.since) {
			w.since = last
			runs[key] = w
		}
	}
	return inOrder(runs), nil
}
