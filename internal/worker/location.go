package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/point"
)

// maintainEvery is how old the last maintenance of a location must be for another.
const maintainEvery = 24 * time.Hour

// Location brings a location's points and the objects that stand for them in line, and maintains it once a day. Points whose object is
// being deleted are deleted first.
func (w *Worker) Location(ctx context.Context, namespace, name string) error {
	var l v1alpha1.Location
	if err := w.Cluster.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &l); err != nil {
		return fault.Wrap(fmt.Sprintf("read location %s/%s", namespace, name), kube.ClassOf(err), err, "")
	}
	err := w.location(ctx, &l)
	unsigned := w.Signs(ctx)
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTime)
	defer cancel()
	return errors.Join(err, w.persist(tidy, &l, func() error {
		message, is := "points and objects are in line", good
		if l.Status.PasswordChanged != nil {
			message += "; the vault has the new password: put it in the place of password, and take newPassword away"
		}
		if unsigned != nil {
			message += "; evidence is not signed: " + unsigned.Error()
		}
		switch {
		case err != nil && again(ctx, err):
			message, is = err.Error(), retried
		case err != nil:
			message, is = err.Error(), stalled
		}
		l.Status.ObservedGeneration = l.Generation
		l.Status.Conditions = conditions(l.Status.Conditions, l.Generation, is, reasonOf(err), message, w.Now())
		return nil
	}))
}

func (w *Worker) location(ctx context.Context, l *v1alpha1.Location) (err error) {
	if err := w.rotate(ctx, l); err != nil {
		return err
	}
	store, secrets, err := w.open(ctx, l.Namespace, l.Name, true)
	if err != nil {
		return err
	}
	defer func() {
		err = w.renewed(context.WithoutCancel(ctx), l, secrets, err)
		tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTime)
		defer cancel()
		err = errors.Join(err, store.Close(tidy))
	}()
	if err := w.deletePoints(ctx, l, letting{store, w, l.Namespace, secrets}); err != nil {
		return err
	}
	points, err := w.syncObjects(ctx, l.Namespace, l.Name, store)
	if err != nil {
		return err
	}
	now := metav1.NewTime(w.Now())
	if l.Status.Maintained == nil || now.Sub(l.Status.Maintained.Time) >= maintainEvery {
		if err := w.Maintain(ctx, store); err != nil {
			return err
		}
		l.Status.Maintained = &now
	}
	maintained := l.Status.Maintained
	return w.persist(ctx, l, func() error {
		l.Status.Points, l.Status.Synced, l.Status.Maintained = points, &now, maintained
		return nil
	})
}

// rotate gives the vault the new password that its location names. The Secrets are left to whoever wrote them: until they say so, all
// others try both passwords.
func (w *Worker) rotate(ctx context.Context, l *v1alpha1.Location) error {
	if l.Spec.NewPassword == nil {
		if l.Status.PasswordChanged == nil {
			return nil
		}
		return w.persist(ctx, l, func() error { l.Status.PasswordChanged = nil; return nil })
	}
	secrets, err := w.secrets(ctx, l)
	if err != nil {
		return err
	}
	if l.Namespace != w.System {
		if err := ownCredentials(secrets); err != nil {
			return err
		}
	}
	if secrets.Password == secrets.OtherPassword {
		return nil // Status says what came of it
	}
	changed, err := w.Rotate(ctx, secrets)
	if errors.Is(err, fault.ErrNotFound) { // there is no vault yet; it is made with the old one
		return nil
	}
	if err != nil {
		return fault.Wrap("location "+l.Name, nil, w.renewed(ctx, l, secrets, err), "")
	}
	if l.Status.PasswordChanged != nil && !changed {
		return nil
	}
	now := metav1.NewTime(w.Now())
	return w.persist(ctx, l, func() error { l.Status.PasswordChanged = &now; return nil })
}

// deletePoints deletes the points whose objects are being deleted, and lets those go. A point on hold, or locked, keeps its object.
func (w *Worker) deletePoints(ctx context.Context, l *v1alpha1.Location, store Store) error {
	objects, err := w.objectsOf(ctx, l.Namespace, l.Name)
	if err != nil {
		return err
	}
	if ends, err := w.ends(ctx, l); ends || err != nil { // asked after the list: what is deleted in it was deleted by somebody
		return err
	}
	var failed []error
	for i := range objects {
		o := &objects[i]
		if o.DeletionTimestamp.IsZero() {
			continue
		}
		err := store.Delete(ctx, o.Spec.Point)
		switch {
		case errors.Is(err, fault.ErrRefused), errors.Is(err, fault.ErrLocked): // that is no fault of the location
			failed = append(failed, w.tellKept(ctx, o, err))
			continue
		case err != nil && !errors.Is(err, fault.ErrNotFound):
			failed = append(failed, fault.Wrap("delete point of "+o.Name, nil, err, ""))
			continue
		}
		failed = append(failed, w.keeper(l.Namespace, "", "").ForgetPoint(ctx, o.Spec.Point), w.letGo(ctx, o))
	}
	return errors.Join(failed...)
}

// tellKept says on the object of a point that is to be deleted why it stays.
func (w *Worker) tellKept(ctx context.Context, o *v1alpha1.RestorePoint, why error) error {
	err := w.persist(ctx, o, func() error {
		o.Status.Conditions = conditions(o.Status.Conditions, o.Generation, stalled, reasonOf(why), why.Error(), w.Now())
		return nil
	})
	if errors.Is(err, fault.ErrNotFound) { // the controller let it go
		return nil
	}
	return err
}

// ends reports whether a location, or its namespace, is being deleted. Objects go with a namespace; points stay, for that is what they are
// for.
func (w *Worker) ends(ctx context.Context, l *v1alpha1.Location) (bool, error) {
	var ns corev1.Namespace
	var now v1alpha1.Location
	err := errors.Join(
		w.Cluster.Client.Get(ctx, types.NamespacedName{Name: l.Namespace}, &ns),
		w.Cluster.Client.Get(ctx, client.ObjectKeyFromObject(l), &now),
	)
	if err != nil {
		return apierrors.IsNotFound(err), fault.Wrap("look whether the location is deleted", kube.ClassOf(err), client.IgnoreNotFound(err), "")
	}
	return !ns.DeletionTimestamp.IsZero() || !now.DeletionTimestamp.IsZero(), nil
}

func (w *Worker) objectsOf(ctx context.Context, namespace, location string) ([]v1alpha1.RestorePoint, error) {
	var all v1alpha1.RestorePointList
	if err := w.Cluster.Client.List(ctx, &all, client.InNamespace(namespace)); err != nil {
		return nil, fault.Wrap("list restore points", kube.ClassOf(err), err, "")
	}
	return slices.DeleteFunc(all.Items, func(p v1alpha1.RestorePoint) bool { return p.Spec.Location != location }), nil
}

// letGo takes our finalizer off an object.
func (w *Worker) letGo(ctx context.Context, o client.Object) error {
	before := o.DeepCopyObject().(client.Object) //nolint:errcheck,forcetypeassert // a copy of an object is one
	if !controllerutil.RemoveFinalizer(o, v1alpha1.FinalizerPoint) {
		return nil
	}
	return client.IgnoreNotFound(w.Cluster.Client.Patch(ctx, o, client.MergeFrom(before)))
}

// syncObjects makes an object of each point of an application in the location, and removes the objects of points that are no more. It
// returns how many points there are.
func (w *Worker) syncObjects(ctx context.Context, namespace, location string, store Store) (count int, _ error) {
	objects, err := w.objectsOf(ctx, namespace, location) // before the points, or the object of one made meanwhile would seem to have none
	if err != nil {
		return 0, err
	}
	points, err := store.Points(ctx, point.Filter{})
	if err != nil {
		return 0, err
	}
	byPoint := map[string]*v1alpha1.RestorePoint{}
	for i := range objects {
		byPoint[objects[i].Spec.Point] = &objects[i]
	}
	for _, p := range points {
		if p.Subject.Kind != point.SubjectApplication {
			continue
		}
		count++
		if err := w.syncObject(ctx, namespace, location, store, p, byPoint[p.ID]); err != nil {
			return 0, err
		}
		delete(byPoint, p.ID)
	}
	for _, gone := range byPoint {
		if err := w.drop(ctx, gone); err != nil {
			return 0, err
		}
	}
	return count, nil
}

// syncObject makes the object of a point, or brings the one that there is up to date.
func (w *Worker) syncObject(ctx context.Context, namespace, location string, store Store, p point.Point, existing *v1alpha1.RestorePoint) error {
	if existing == nil {
		p, err := whole(ctx, store, p)
		if err != nil {
			return err
		}
		_, err = w.publish(ctx, namespace, location, p)
		return err
	}
	want := specOf(location, p)
	if equality.Semantic.DeepEqual(existing.Spec.Holds, want.Holds) && equality.Semantic.DeepEqual(existing.Spec.Proof, want.Proof) {
		return nil
	}
	before := existing.DeepCopy()
	existing.Spec.Holds, existing.Spec.Proof = want.Holds, want.Proof
	return client.IgnoreNotFound(w.Cluster.Client.Patch(ctx, existing, client.MergeFrom(before)))
}

// whole is a point of the list with what its record says of its deployment. One that cannot be read is as it is listed: the vault's
// verification says why.
func whole(ctx context.Context, store Store, p point.Point) (point.Point, error) {
	if deployment, _ := p.DeployedBy(); deployment == "" || p.Deployment != nil {
		return p, nil
	}
	record, _, err := store.Open(ctx, p.ID)
	switch {
	case err != nil && again(ctx, err):
		return p, err
	case err == nil:
		p.Deployment = record.Point.Deployment
	}
	return p, nil
}

// drop removes the object of a point that is no more, and its snapshots. The finalizer goes last: the controller puts it back on what is
// not being deleted.
func (w *Worker) drop(ctx context.Context, o *v1alpha1.RestorePoint) error {
	if err := w.keeper(o.Namespace, "", "").ForgetPoint(ctx, o.Spec.Point); err != nil {
		return err
	}
	if err := w.Cluster.Client.Delete(ctx, o); client.IgnoreNotFound(err) != nil {
		return err
	}
	return w.letGo(ctx, o)
}

// publish makes the object that stands for a point, and returns its name.
func (w *Worker) publish(ctx context.Context, namespace, location string, p point.Point) (string, error) {
	o := v1alpha1.RestorePoint{
		ObjectMeta: metav1.ObjectMeta{
			Name: nameOf(p), Namespace: namespace, Finalizers: []string{v1alpha1.FinalizerPoint}, Labels: map[string]string{},
		},
		Spec: specOf(location, p),
	}
	for label, value := range map[string]string{v1alpha1.LabelApplication: o.Spec.Application, v1alpha1.LabelPolicy: p.Policy} {
		if value != "" && len(validation.IsValidLabelValue(value)) == 0 {
			o.Labels[label] = value
		}
	}
	if err := w.Cluster.Client.Create(ctx, &o); err != nil && !apierrors.IsAlreadyExists(err) {
		return "", fault.Wrap("publish point "+p.ID, kube.ClassOf(err), err, "")
	}
	return o.Name, nil
}

func specOf(location string, p point.Point) v1alpha1.RestorePointSpec {
	cluster, application := p.Subject.Name, ""
	if at := strings.LastIndexByte(p.Subject.Name, '/'); at >= 0 {
		cluster, application = p.Subject.Name[:at], p.Subject.Name[at+1:]
	}
	spec := v1alpha1.RestorePointSpec{
		Location: location, Point: p.ID, Cluster: cluster, Application: application, Policy: p.Policy,
		Time: metav1.NewTime(p.Time.Truncate(time.Second)), State: string(p.State), Bytes: p.Bytes, Proof: proofOf(p.Proof),
	}
	for _, h := range p.Holds {
		spec.Holds = append(spec.Holds, shorten(h.Reason))
	}
	spec.Deployment, spec.Revisions = p.DeployedBy()
	if p.Deployment != nil {
		for _, s := range p.Deployment.Sources {
			if s.To != "" {
				spec.NextRevisions = append(spec.NextRevisions, s.To)
			}
		}
	}
	return spec
}

// nameOf is the name of a point's object: APPLICATION-TIME-ID, as long as names may be.
func nameOf(p point.Point) string {
	const most, idDigits = 63, 8
	tail := p.Time.UTC().Format("-20060102150405-") + p.ID[:min(idDigits, len(p.ID))]
	application := p.Subject.Name[strings.LastIndexByte(p.Subject.Name, '/')+1:]
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		}
		return '-'
	}, strings.ToLower(application))
	name = strings.Trim(name[:min(len(name), most-len(tail))], "-")
	if name == "" {
		name = "app"
	}
	return name + tail
}
