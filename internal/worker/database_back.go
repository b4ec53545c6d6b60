package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// loadBack puts back what databases had before a Restore changed them: out of the point that was made before it. Each that is back is told.
func (r *restoration) loadBack(ctx context.Context, of *v1alpha1.Restore, back func(name string) error) error {
	changed := map[string]bool{}
	for _, d := range of.Status.Databases {
		if d.Begun != nil {
			changed[d.Name] = true
		}
	}
	if len(changed) == 0 {
		return nil
	}
	const op = "put back what databases had"
	if of.Status.GitOps == nil || of.Status.GitOps.UndoBackup == "" {
		return fault.New(op, fault.ErrNotFound, "no point was made before", "restore an older point with existing: replace")
	}
	before, err := r.undoBackup(ctx, of)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	store, _, err := r.open(ctx, before.Namespace, before.Spec.Location, false)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	defer store.Close(context.WithoutCancel(ctx)) //nolint:errcheck // only read from
	record, tree, err := store.Open(ctx, before.Status.Point)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	all, err := (&restoration{Worker: r.Worker, object: of}).returns(ctx, record, tree)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	for _, d := range all {
		if !changed[d.to.Name] {
			continue
		}
		if err := r.loadOne(ctx, d, tree, true, func(string) error { return nil }); err != nil {
			return fault.Wrap(op+": "+d.String(), nil, err, "")
		}
		if err := back(d.to.Name); err != nil {
			return err
		}
		delete(changed, d.to.Name)
	}
	if len(changed) > 0 {
		return fault.New(op, fault.ErrIncomplete, fmt.Sprintf("point %s does not have %v", record.Point.ID, sortedKeys(changed)), "")
	}
	return nil
}

// takeBackDatabases puts back what databases had before this Restore, which fails. An error is what another attempt may mend; what none can
// is told in the status.
func (r *restoration) takeBackDatabases(ctx context.Context) error {
	err := r.loadBack(ctx, r.object, func(name string) error {
		return r.unbegun(ctx, func(d *v1alpha1.DatabaseStatus) bool { return d.Name == name }, "")
	})
	if err = overdue(ctx, err); err == nil || again(ctx, err) {
		return err
	}
	return r.leaveDatabases(ctx, err)
}

// leaveDatabases gives up on what databases had.
func (r *restoration) leaveDatabases(ctx context.Context, why error) error {
	r.Log.Error("databases are left as the restore made them", "restore", r.object.Name, "error", why.Error())
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTime)
	defer cancel()
	return r.unbegun(tidy, func(*v1alpha1.DatabaseStatus) bool { return true }, "it has not got back what it had: "+why.Error())
}

// unbegun writes down that nobody will put back any more what some databases had: they have it, or there is a problem.
func (r *restoration) unbegun(ctx context.Context, which func(*v1alpha1.DatabaseStatus) bool, problem string) error {
	err := r.persist(ctx, r.object, func() error {
		s := &r.object.Status
		for i := range s.Databases {
			d := &s.Databases[i]
			if d.Begun == nil || !which(d) {
				continue
			}
			d.Begun, d.Stored, d.Problem = nil, false, shorten(problem)
			if problem != "" {
				s.Problems = listed(append(s.Problems, "database "+d.Name+": "+problem))
			}
		}
		return nil
	})
	if errors.Is(err, fault.ErrNotFound) { // it is gone
		return nil
	}
	return err
}

// loadBackTime is for how long after the end of a Restore a database that cannot be reached gets back what it had. Later somebody may
// have put it right by hand.
const loadBackTime = 24 * time.Hour

// failed does what is left to do for a Restore that has failed: the process that worked on it could not put back what databases had.
func (r *restoration) failed(ctx context.Context) (err error) {
	if r.rights, err = r.tenant(r.object.Namespace, r.object.Spec.ServiceAccountName); err != nil {
		return err
	}
	ctx, cancel := r.limit(ctx, "put back what databases had", nil, r.object.Spec.Deadline)
	defer cancel()
	held := map[string]bool{r.object.Namespace: r.object.Namespace != r.System}
	if j := r.object.Status.GitOps; j != nil {
		held[j.Deployment] = true
	}
	for _, d := range r.object.Status.Databases {
		if namespace, _, inPod := strings.Cut(d.At, "/"); inPod {
			held[namespace] = true
		}
	}
	maps.DeleteFunc(held, func(name string, is bool) bool { return name == "" || !is })
	return r.holding(ctx, sortedKeys(held), string(r.object.UID), func(ctx context.Context) error {
		why, err := r.overtaken(ctx)
		switch {
		case err != nil:
			return err
		case why != "":
			return r.leaveDatabases(ctx, errors.New(why))
		}
		return r.takeBackDatabases(ctx)
	})
}

// overtaken says why databases are no more to be touched for the sake of a Restore that has failed; empty where they are.
func (r *restoration) overtaken(ctx context.Context) (why string, _ error) {
	ended := r.object.Status.Finished
	if ended == nil {
		return "", nil
	}
	if r.Now().Sub(ended.Time) > loadBackTime {
		return "nobody could for a day", nil
	}
	var all v1alpha1.RestoreList
	if err := r.Cluster.Client.List(ctx, &all, client.InNamespace(r.object.Namespace)); err != nil {
		return "", fault.Wrap("list restores", kube.ClassOf(err), err, "")
	}
	for _, other := range all.Items {
		j, of := other.Status.GitOps, r.object.Status.GitOps
		if j != nil && of != nil && j.Deployment == of.Deployment && other.Status.Started != nil && ended.Before(other.Status.Started) {
			return "restore " + other.Name + " began since", nil
		}
	}
	return "", nil
}

// undoBackup is the Backup that was made before a Restore, when its point is made.
func (r *restoration) undoBackup(ctx context.Context, of *v1alpha1.Restore) (*v1alpha1.Backup, error) {
	for {
		var b v1alpha1.Backup
		name := of.Status.GitOps.UndoBackup
		if err := r.Cluster.Client.Get(ctx, types.NamespacedName{Namespace: of.Namespace, Name: name}, &b); err != nil {
			return nil, fault.Wrap("read backup "+name, kube.ClassOf(err), err, "")
		}
		if b.Status.Phase.Final() && b.Status.Point == "" {
			return nil, fault.New("backup "+name, fault.ErrNotFound, "it made no point", "")
		}
		if b.Status.Phase.Final() {
			return &b, nil
		}
		if err := kube.Pause(ctx, databaseLook); err != nil {
			return nil, err
		}
	}
}
