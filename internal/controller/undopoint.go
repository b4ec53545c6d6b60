package controller

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/gitops"
)

// wantsUndoPoint reports whether a point of the application as it is comes before a Restore.
func wantsUndoPoint(r *v1alpha1.Restore) bool {
	g := r.Spec.GitOps
	return g != nil && !g.NoUndoPoint && !r.Spec.PlanOnly && r.Spec.Undo == "" && r.DeletionTimestamp.IsZero() &&
		r.Status.Phase == v1alpha1.PhasePending && r.Status.Started == nil
}

// undoPoint has a point made of the application as it is, before anything is touched. It is ready when the point's instant is over: its
// data may go to the location meanwhile.
func (c *controller) undoPoint(ctx context.Context, r *v1alpha1.Restore) (ready bool, _ error) {
	if r.Status.GitOps == nil || r.Status.GitOps.UndoBackup == "" {
		v := verdict{metav1.ConditionFalse, true, false, "Pending", "waits for a point of the application as it is"}
		return false, c.save(ctx, r, func() {
			r.Status.GitOps = &v1alpha1.TransactionStatus{UndoBackup: short(r.Name + "-undo")}
			judge(&r.Status.Conditions, r.Generation, c.Now(), v)
		})
	}
	var b v1alpha1.Backup
	err := c.direct.Get(ctx, types.NamespacedName{Namespace: r.Namespace, Name: r.Status.GitOps.UndoBackup}, &b)
	if apierrors.IsNotFound(err) {
		return false, c.makeUndoBackup(ctx, r)
	}
	if err != nil {
		return false, fmt.Errorf("read backup %s: %w", r.Status.GitOps.UndoBackup, err)
	}
	if b.Status.Phase == v1alpha1.PhaseFailed {
		message := fmt.Sprintf("backup %s of the application as it is failed: %s; nothing was touched; with gitops.noUndoPoint it goes on without", b.Name, causeOf(&b))
		return false, c.fail(ctx, deedOfRestore(r), "UndoPointFailed", message)
	}
	for _, d := range b.Status.Databases { // volumes are kept in any case; this is the only copy of what a database has now
		if d.Problem != "" && r.Spec.Only != v1alpha1.OnlyConfig {
			message := fmt.Sprintf("backup %s of the application as it is lacks database %s: %s; nothing was touched; with gitops.noUndoPoint it goes on without", b.Name, d.Name, d.Problem)
			return false, c.fail(ctx, deedOfRestore(r), "UndoPointFailed", message)
		}
	}
	return b.Status.Phase.Final() || b.Status.Instant != nil && b.Status.Instant.Listed != nil && !b.Status.Dumping(), nil
}

// makeUndoBackup makes the Backup. It is of no policy, whose retention and local snapshots are for points that one goes back to.
func (c *controller) makeUndoBackup(ctx context.Context, r *v1alpha1.Restore) error {
	p, err := c.pointOf(ctx, r)
	if err != nil {
		return err
	}
	application, err := c.capturedBy(ctx, p)
	if err != nil {
		return err
	}
	b := &v1alpha1.Backup{
		ObjectMeta: metav1.ObjectMeta{
			Name: r.Status.GitOps.UndoBackup, Namespace: r.Namespace,
			Labels:     map[string]string{v1alpha1.LabelRun: r.Status.GitOps.UndoBackup},
			Finalizers: []string{v1alpha1.FinalizerRunning},
			OwnerReferences: []metav1.OwnerReference{
				{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindRestore, Name: r.Name, UID: r.UID}, // it blocks nobody's deletion
			},
		},
		Spec: v1alpha1.BackupSpec{Location: p.Spec.Location, Application: application, ServiceAccountName: r.Spec.ServiceAccountName},
	}
	if len(validation.IsValidLabelValue(p.Spec.Application)) == 0 {
		b.Labels[v1alpha1.LabelApplication] = p.Spec.Application
	}
	if b.Spec.Sync, err = c.syncBack(ctx, r, p); err != nil {
		return err
	}
	if err := c.client.Create(ctx, b); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create backup %s: %w", b.Name, err)
	}
	return nil
}

// syncBack is the sync that a Restore will ask for; nil where nothing says what deploys the application.
func (c *controller) syncBack(ctx context.Context, r *v1alpha1.Restore, p *v1alpha1.RestorePoint) (*v1alpha1.Sync, error) {
	name := cmp.Or(r.Spec.GitOps.Deployment, p.Spec.Deployment)
	if name == "" {
		return nil, nil //nolint:nilnil // nothing is an answer
	}
	engine, err := gitops.Open(c.Cluster.Client, name)
	if err != nil {
		return nil, err
	}
	s, err := engine.State(ctx)
	if err != nil {
		return nil, err
	}
	return &v1alpha1.Sync{Deployment: name, From: s.Live, To: p.Spec.Revisions, By: "restore " + r.Name}, nil
}

// pointOf is the point that a Restore brings back; of the newest ones any, for they are of the same application.
func (c *controller) pointOf(ctx context.Context, r *v1alpha1.Restore) (*v1alpha1.RestorePoint, error) {
	if r.Spec.RestorePoint != "" {
		var p v1alpha1.RestorePoint
		return &p, c.need(ctx, "restore "+r.Name, "restore point", types.NamespacedName{Namespace: r.Namespace, Name: r.Spec.RestorePoint}, &p)
	}
	var all v1alpha1.RestorePointList
	if err := c.client.List(ctx, &all, client.InNamespace(r.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list restore points: %w", err)
	}
	want := r.Spec.Latest
	for i := range all.Items {
		if p := &all.Items[i]; want != nil && p.Spec.Application == want.Application && p.Spec.Location == want.Location {
			return p.DeepCopy(), nil // its revisions go into a Backup, which the API server's answer is read into
		}
	}
	return nil, fault.New("restore "+r.Name, fault.ErrNotFound, "no point of the application is there", "")
}

// capturedBy is how the application of a point was captured: as its policy says now, else what deploys it, else the namespace of its name.
func (c *controller) capturedBy(ctx context.Context, p *v1alpha1.RestorePoint) (v1alpha1.Applications, error) {
	var of v1alpha1.Policy
	err := client.IgnoreNotFound(c.client.Get(ctx, types.NamespacedName{Namespace: p.Namespace, Name: p.Spec.Policy}, &of))
	if err != nil {
		return v1alpha1.Applications{}, fmt.Errorf("read policy %s: %w", p.Spec.Policy, err)
	}
	if of.Name != "" {
		all, err := (&turn{controller: c, policy: &of, now: c.Now()}).choose(ctx)
		if err != nil {
			return v1alpha1.Applications{}, err
		}
		for _, a := range all {
			if a.application == p.Spec.Application {
				return a.by, nil
			}
		}
	}
	engine, name, _ := strings.Cut(p.Spec.Deployment, "/")
	switch of := (v1alpha1.Applications{Name: p.Spec.Application}); {
	case strings.HasSuffix(name, "/"+p.Spec.Application) && engine == v1alpha1.EngineArgoCD:
		of.ArgoCD = []string{name}
		return of, nil
	case strings.HasSuffix(name, "/"+p.Spec.Application) && engine == v1alpha1.EngineFlux:
		of.Flux = []string{name}
		return of, nil
	}
	return v1alpha1.Applications{Namespaces: []string{p.Spec.Application}}, nil
}

// keepUndoPoint writes down the point once it is made.
func (c *controller) keepUndoPoint(ctx context.Context, r *v1alpha1.Restore) error {
	j := r.Status.GitOps
	if j == nil || j.UndoBackup == "" || j.UndoPoint != "" {
		return nil
	}
	var b v1alpha1.Backup
	if err := c.client.Get(ctx, types.NamespacedName{Namespace: r.Namespace, Name: j.UndoBackup}, &b); err != nil {
		return client.IgnoreNotFound(err)
	}
	if !b.Status.Phase.Final() || b.Status.Point == "" {
		return nil
	}
	return c.save(ctx, r, func() { j.UndoPoint = b.Status.Point })
}
