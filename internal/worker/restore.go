package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/restore"
	"github.com/backstay/backstay/internal/kube/volume"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

const (
	defaultKeepOld = 24 * time.Hour
	stepTime       = 10 * time.Minute // for any one thing that the cluster must do: pods that end, claims that bind
	readyTime      = 15 * time.Minute // until what was restored runs
	maxPlan        = 900 << 10        // bytes of a plan in a ConfigMap
)

// restoration is the work on one Restore.
type restoration struct {
	*Worker
	object *v1alpha1.Restore
	rights *kube.Cluster // with which objects are written
	// scratch says that it is a drill's: nothing but its own namespaces is changed, the local snapshots are not looked at, and object is on
	// no cluster. Nil for a Restore.
	scratch *restore.Scratch

	location string
	secrets  volume.Location
	store    Store
	record   *point.Record
	tree     point.Reader

	made      []made // by Blueprints
	databases []returning
	undone    *v1alpha1.Restore // whose transaction is undone; nil for none
	plan      *restore.Plan
	volumes   *volume.Keeper
	claims    *volume.Restorer

	mu sync.Mutex // of object.Status
}

// Restore works on a Restore until it has ended. It returns an error where the work should be taken up again.
func (w *Worker) Restore(ctx context.Context, namespace, name string) error {
	var object v1alpha1.Restore
	if err := w.Cluster.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &object); err != nil {
		return fault.Wrap(fmt.Sprintf("read restore %s/%s", namespace, name), kube.ClassOf(err), err, "")
	}
	r := &restoration{Worker: w, object: &object}
	switch {
	case object.Status.LoadsBack():
		return r.failed(ctx)
	case object.Status.Phase.Final():
		return w.letUndoneGo(ctx, &object)
	}
	return r.run(ctx)
}

func (r *restoration) run(ctx context.Context) error {
	ctx, cancel := r.limit(ctx, "restore "+r.object.Name, r.object.Status.Started, r.object.Spec.Deadline)
	defer cancel()
	err := r.work(ctx)
	if r.store != nil {
		tidy, done := context.WithTimeout(context.WithoutCancel(ctx), tidyTime)
		if err := r.store.Close(tidy); err != nil { // only read from
			r.Log.Warn("the location was not closed well", "location", r.location, "error", err.Error())
		}
		done()
	}
	err = overdue(ctx, r.renewedAt(ctx, r.object.Namespace, r.location, r.secrets, err))
	if err == nil || again(ctx, err) {
		return err
	}
	return r.abort(ctx, err)
}

func (r *restoration) work(ctx context.Context) error {
	if err := r.prepare(ctx); err != nil {
		return err
	}
	if r.object.Spec.Undo != "" {
		return r.undo(ctx)
	}
	if err := r.read(ctx); err != nil {
		return err
	}
	if r.object.Spec.PlanOnly {
		if err := r.build(ctx); err != nil {
			return err
		}
		return r.end(ctx, v1alpha1.PhasePlanned, nil)
	}
	return r.holding(ctx, r.targets(), string(r.object.UID), func(ctx context.Context) error {
		if err := r.build(ctx); err != nil { // not before: another may have been at work
			return err
		}
		if r.object.Spec.GitOps != nil {
			return r.transact(ctx)
		}
		return r.apply(ctx)
	})
}

// prepare finds out with which rights the Restore works.
func (r *restoration) prepare(ctx context.Context) (err error) {
	if err := r.ownVolumes(r.object.Namespace, r.object.Status.Volumes); err != nil {
		return err
	}
	if r.rights, err = r.tenant(r.object.Namespace, r.object.Spec.ServiceAccountName); err != nil {
		return err
	}
	keep := defaultKeepOld
	if d, err := time.ParseDuration(r.object.Spec.KeepOld); err == nil {
		keep = d
	}
	uid := string(r.object.UID)
	r.volumes = r.keeper(r.object.Namespace, uid, "")
	r.claims = &volume.Restorer{
		Cluster: r.Cluster, Application: r.rights, System: r.System, Owner: uid, Keep: keep, Wait: stepTime, Poll: time.Second, Now: r.Now,
	}
	return r.save(ctx, func(s *v1alpha1.RestoreStatus) {
		if s.Started == nil {
			now := metav1.NewTime(r.Now())
			s.Started = &now
		}
		if s.Phase == "" || s.Phase == v1alpha1.PhasePending {
			s.Phase = v1alpha1.PhasePlanning
		}
	})
}

// read opens the point. Which point the newest is, is decided once.
func (r *restoration) read(ctx context.Context) (err error) {
	p, err := r.pointObject(ctx)
	if err != nil {
		return err
	}
	r.location = p.Spec.Location
	if r.store, r.secrets, err = r.open(ctx, r.object.Namespace, r.location, false); err != nil {
		return err
	}
	if r.record, r.tree, err = r.store.Open(ctx, p.Spec.Point); err != nil {
		return err
	}
	if r.record.Point.Subject.Kind != point.SubjectApplication {
		return fault.New("restore "+r.object.Name, fault.ErrInvalid, "the point is of a "+r.record.Point.Subject.Kind+", not of an application", "")
	}
	if r.made, err = readMade(ctx, r.record, r.tree); err != nil {
		return err
	}
	return r.save(ctx, func(s *v1alpha1.RestoreStatus) { s.Point = p.Spec.Point })
}

// pointObject finds the RestorePoint that is meant.
func (r *restoration) pointObject(ctx context.Context) (*v1alpha1.RestorePoint, error) {
	op := "find the point of restore " + r.object.Name
	if name := r.object.Spec.RestorePoint; name != "" {
		var p v1alpha1.RestorePoint
		err := r.Cluster.Client.Get(ctx, types.NamespacedName{Namespace: r.object.Namespace, Name: name}, &p)
		return &p, fault.Wrap(op, kube.ClassOf(err), err, "")
	}
	want := r.object.Spec.Latest
	if want == nil {
		return nil, fault.New(op, fault.ErrInvalid, "it names none", "say restorePoint or latest")
	}
	all, err := r.objectsOf(ctx, r.object.Namespace, want.Location)
	if err != nil {
		return nil, err
	}
	if decided := r.object.Status.Point; decided != "" {
		i := slices.IndexFunc(all, func(p v1alpha1.RestorePoint) bool { return p.Spec.Point == decided })
		if i < 0 {
			return nil, fault.New(op, fault.ErrNotFound, "point "+decided+" is in location "+want.Location+" no more", "")
		}
		return &all[i], nil
	}
	all = slices.DeleteFunc(all, func(p v1alpha1.RestorePoint) bool {
		return p.Spec.Application != want.Application || want.AsOf != nil && p.Spec.Time.After(want.AsOf.Time)
	})
	newest := map[string]*v1alpha1.RestorePoint{} // of each cluster
	if want.Revision != "" {
		if newest, err = r.pointsOf(ctx, all, want.Revision); err != nil {
			return nil, err
		}
		return chosen(op, newest, want, r.Name)
	}
	for i := range all {
		p := &all[i]
		if known := newest[p.Spec.Cluster]; p.Spec.State == string(point.Complete) && (known == nil || known.Spec.Time.Before(&p.Spec.Time)) {
			newest[p.Spec.Cluster] = p
		}
	}
	return chosen(op, newest, want, r.Name)
}

// pointsOf are the points that go with a revision, by the clusters that they were made on.
func (r *restoration) pointsOf(ctx context.Context, all []v1alpha1.RestorePoint, revision string) (map[string]*v1alpha1.RestorePoint, error) {
	of, err := ReadPast(ctx, r.Cluster.Client, r.object.Namespace, all)
	if err != nil {
		return nil, err
	}
	found := map[string]*v1alpha1.RestorePoint{}
	for cluster, past := range of {
		c := past.PointOf(revision)
		if c.Point == nil {
			continue
		}
		found[cluster] = c.Point
		if len(c.Passed) > 0 || c.Touched {
			r.Log.Warn("another revision was tried or live before points of this one were made", "revision", revision, "taken", c.Point.Name,
				"passed", len(c.Passed), "touched", c.Touched)
		}
	}
	return found, nil
}

// chosen is the point of the cluster that is wanted, else of this one, else of the only one.
func chosen(op string, newest map[string]*v1alpha1.RestorePoint, want *v1alpha1.LatestPoint, here string) (*v1alpha1.RestorePoint, error) {
	if p := newest[cmp.Or(want.Cluster, here)]; p != nil {
		return p, nil
	}
	clusters := slices.Sorted(maps.Keys(newest))
	if want.Cluster != "" || len(clusters) == 0 {
		cause := "no complete point of " + want.Application + " in location " + want.Location
		if want.Revision != "" {
			cause += " was made while revision " + want.Revision + " was live"
		}
		return nil, fault.New(op, fault.ErrNotFound, cause, "")
	}
	if len(clusters) > 1 {
		cause := fmt.Sprintf("several clusters have an application %s: %s", want.Application, strings.Join(clusters, ", "))
		return nil, fault.New(op, fault.ErrInvalid, cause, "say latest.cluster, or name a point")
	}
	return newest[clusters[0]], nil
}

// build compares the point with the cluster, and writes the plan down.
func (r *restoration) build(ctx context.Context) error {
	o := restore.Options{
		Cluster: r.rights, Spec: r.spec(), System: r.System, Objects: map[string][]unstructured.Unstructured{},
		Taken: r.record.Point.Time, Now: r.Now(), Begun: r.begun(), Scratch: r.scratch,
	}
	if r.object.Namespace != r.System {
		o.Tenant = r.object.Namespace
	}
	for _, p := range r.record.Point.Parts {
		lacks := p.State != point.Stored && p.State != point.Carried
		if isActed(p.Name) {
			continue
		}
		switch p.Kind {
		case point.KindObjects:
			if lacks {
				continue // what is missing is said at the end
			}
			objects, err := kube.ReadObjects(ctx, protect.Within(r.tree, p.Name))
			if err != nil {
				return fault.Wrap("read "+p.Name, nil, err, "")
			}
			switch namespace, is := kube.NamespaceOf(p.Name); {
			case !is:
				return fault.New("read the point", fault.ErrCorrupt, fmt.Sprintf("part %q names no namespace", p.Name), "")
			case namespace == "":
				o.ClusterObjects = objects
			default:
				o.Objects[namespace] = objects
			}
		case point.KindVolume, point.KindBlock:
			namespace, claim, is := volume.ClaimOf(p.Name)
			if !is {
				return fault.New("read the point", fault.ErrCorrupt, fmt.Sprintf("part %q names no claim", p.Name), "")
			}
			d := restore.Data{Namespace: namespace, Claim: claim, Part: p.Name, Block: p.Kind == point.KindBlock, Bytes: p.Bytes}
			switch {
			case p.State == point.Skipped:
				d.Missing, d.LeftOut = p.Reason, true
			case lacks:
				d.Missing = string(p.State) + ": " + p.Reason
			}
			o.Data = append(o.Data, d)
		}
	}
	var err error
	if r.plan, err = restore.Build(ctx, o); err != nil {
		return err
	}
	if r.object.Spec.GitOps != nil {
		if err := r.planTransaction(ctx); err != nil {
			return err
		}
	}
	for _, m := range r.acts(r.made) {
		r.plan.Actions = append(r.plan.Actions, "Blueprint "+m.Blueprint.Name+" restores "+m.name())
	}
	if err := r.planDatabases(ctx); err != nil {
		return err
	}
	return r.writePlan(ctx)
}

// begun reports whether an earlier process changed the cluster already.
func (r *restoration) begun() bool {
	switch r.object.Status.Phase {
	case v1alpha1.PhaseSwapping, v1alpha1.PhaseApplying, v1alpha1.PhaseActing, v1alpha1.PhaseWaiting, v1alpha1.PhaseTidying, v1alpha1.PhaseSyncing:
		return true
	}
	return false
}

// writePlan puts the first plan into a ConfigMap beside the Restore; a Restore that is taken up again keeps it.
func (r *restoration) writePlan(ctx context.Context) error {
	if r.object.Status.PlanName != "" || r.scratch != nil {
		return nil
	}
	document, err := json.Marshal(r.plan)
	if err != nil {
		return fmt.Errorf("encode plan: %w", err)
	}
	text := strings.Join(r.plan.Lines(), "\n") + "\n"
	m := corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name: r.object.Name + "-plan", Namespace: r.object.Namespace,
			OwnerReferences: []metav1.OwnerReference{
				{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindRestore, Name: r.object.Name, UID: r.object.UID}, // it blocks nobody's deletion
			},
		},
		Data: map[string]string{v1alpha1.PlanText: text[:min(len(text), maxPlan/2)]},
	}
	if len(document) < maxPlan/2 {
		m.Data[v1alpha1.PlanJSON] = string(document)
	}
	if err := r.Cluster.Client.Create(ctx, &m); err != nil && !apierrors.IsAlreadyExists(err) {
		return fault.Wrap("write the plan", kube.ClassOf(err), err, "")
	}
	status := r.plan.Status()
	return r.save(ctx, func(s *v1alpha1.RestoreStatus) { s.Plan, s.PlanName = &status, m.Name })
}

// targets are the namespaces that the Restore may change: those in the point, as they are called here. A tenant's holds nobody else's,
// whatever its vault says.
func (r *restoration) targets() []string {
	reached := map[string]bool{}
	if r.object.Namespace != r.System {
		reached[r.object.Namespace] = true
	}
	for _, p := range r.record.Point.Parts {
		namespace, is := kube.NamespaceOf(p.Name)
		if !is {
			namespace, _, is = volume.ClaimOf(p.Name)
		}
		if is && namespace != "" && r.object.Namespace == r.System {
			reached[cmp.Or(r.object.Spec.Namespaces[namespace], namespace)] = true
		}
	}
	if r.object.Spec.GitOps != nil {
		if _, deployment := r.revisions(); deployment != "" {
			reached[deployment] = true // no namespace has a slash in its name
		}
	}
	return sortedKeys(reached)
}

// apply does what the plan says.
func (r *restoration) apply(ctx context.Context) (err error) {
	if err := r.plan.Refusal(); err != nil {
		return err
	}
	problems, err := r.bringBack(ctx)
	if err != nil {
		return err
	}
	return r.settle(ctx, problems)
}

// bringBack does what the plan says, and tells what of it could not be done.
func (r *restoration) bringBack(ctx context.Context) (problems []string, _ error) {
	if err := r.vacant(ctx); err != nil {
		return nil, err
	}
	if err := r.exchange(ctx); err != nil {
		return nil, err
	}
	unloaded, err := r.load(ctx, false) // while workloads that were stopped are
	if err != nil {
		return nil, err
	}
	if r.object.Spec.Only != v1alpha1.OnlyData {
		if err := r.phase(ctx, v1alpha1.PhaseApplying); err != nil {
			return nil, err
		}
		outcome, err := r.plan.Apply(ctx, 0)
		if err != nil {
			return nil, err
		}
		for _, f := range outcome.Failed {
			problems = append(problems, f.Object+": "+f.Why)
		}
	}
	if err := r.start(ctx); err != nil {
		return nil, err
	}
	failed, err := r.act(ctx)
	if err != nil {
		return nil, err
	}
	empty, err := r.load(ctx, true)
	return slices.Concat(problems, failed, unloaded, empty, r.lacks()), err
}

// settle waits until what was restored runs, and ends the Restore.
func (r *restoration) settle(ctx context.Context, problems []string) error {
	if err := r.phase(ctx, v1alpha1.PhaseWaiting); err != nil {
		return err
	}
	lagging, err := r.plan.Ready(ctx, readyTime)
	if err != nil {
		return err
	}
	for _, n := range lagging {
		if !n.Before {
			problems = append(problems, n.Object+" is not ready: "+n.Why)
		}
	}
	return r.end(ctx, phaseOf(problems), problems)
}

// phaseOf is how work ends that brought back all but what the problems name.
func phaseOf(problems []string) v1alpha1.Phase {
	if len(problems) > 0 {
		return v1alpha1.PhaseIncomplete
	}
	return v1alpha1.PhaseComplete
}

// exchange puts volumes of the point behind claims. What uses them is left stopped.
func (r *restoration) exchange(ctx context.Context) error {
	volumes := r.exchanged()
	if err := r.fill(ctx, volumes); err != nil {
		return err
	}
	return r.swap(ctx, volumes)
}

// exchanged are the volumes that come back.
func (r *restoration) exchanged() []restore.Volume {
	return slices.DeleteFunc(slices.Clone(r.plan.Volumes), func(v restore.Volume) bool {
		return v.Action != restore.Create && v.Action != restore.Exchange
	})
}

// lacks says what of the point, or of the plan, could not be brought back.
func (r *restoration) lacks() []string {
	var all []string
	if r.undone != nil {
		return nil
	}
	for _, p := range r.record.Point.Parts {
		if p.State == point.Failed && slices.Contains([]string{point.KindObjects, point.KindDatabase, kindArtifacts}, p.Kind) {
			all = append(all, p.Name+" is not in the point: "+p.Reason)
		}
	}
	for _, v := range r.plan.Volumes {
		if v.Action == restore.Conflict {
			all = append(all, "volume of claim "+v.Namespace+"/"+v.Claim+": "+v.Why)
		}
	}
	return all
}

// fill makes the new volumes, while the application still runs.
func (r *restoration) fill(ctx context.Context, volumes []restore.Volume) error {
	err := r.save(ctx, func(s *v1alpha1.RestoreStatus) {
		if s.Volumes == nil {
			s.Phase = v1alpha1.PhaseMoving
		}
		for _, v := range volumes {
			if stand(s, v) == nil {
				s.Volumes = append(s.Volumes, v1alpha1.VolumeStatus{Namespace: v.Namespace, Claim: v.Claim, Part: v.Part, Block: v.Block, Method: v1alpha1.MethodNone})
			}
		}
	})
	if err != nil {
		return err
	}
	if err := r.plan.Classes(ctx); err != nil {
		return fault.Wrap("restore "+r.object.Name, kube.ClassOf(err), err, "")
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(volumesAtOnce)
	open := slices.DeleteFunc(slices.Clone(volumes), func(v restore.Volume) bool { return stand(&r.object.Status, v).NewVolume != "" })
	local := r.record.Point.ID
	if r.scratch != nil {
		local = "" // what is in the location is to be proven
	}
	for _, v := range open {
		group.Go(func() error {
			task := volume.Task{
				Operation: volume.Restore, Location: r.secrets, Subject: r.record.Point.Subject, Point: r.record.Point.ID,
				Volumes: []volume.Mount{{Part: v.Part, Kind: kindOf(v.Block)}},
			}
			filled, err := r.claims.Fill(groupCtx, r.volumes, volume.Wanted{Claim: *v.Wanted, Point: local, From: v.From, Size: v.Size}, task)
			if err != nil {
				return err
			}
			return r.save(groupCtx, func(s *v1alpha1.RestoreStatus) {
				if is := stand(s, v); is != nil {
					is.NewVolume = filled
				}
			})
		})
	}
	return group.Wait()
}

// stand is how a volume stands; nil where the status has none of its claim. A plan that is made anew may have other volumes than the
// first one had.
func stand(s *v1alpha1.RestoreStatus, v restore.Volume) *v1alpha1.VolumeStatus {
	for i := range s.Volumes {
		if s.Volumes[i].Namespace == v.Namespace && s.Volumes[i].Claim == v.Claim {
			return &s.Volumes[i]
		}
	}
	return nil
}

// swap stops what uses the claims and puts the new volumes behind them.
func (r *restoration) swap(ctx context.Context, volumes []restore.Volume) error {
	if !slices.ContainsFunc(volumes, func(v restore.Volume) bool { return !stand(&r.object.Status, v).Stored }) {
		return nil // an earlier process did it all; what runs again is not to stop once more
	}
	if err := r.phase(ctx, v1alpha1.PhaseSwapping); err != nil {
		return err
	}
	if err := r.plan.Ground(ctx); err != nil {
		return fault.Wrap("restore "+r.object.Name, kube.ClassOf(err), err, "")
	}
	var claims []types.NamespacedName
	for _, v := range volumes {
		claims = append(claims, types.NamespacedName{Namespace: v.Namespace, Name: v.Claim})
	}
	stopped, err := r.claims.Stop(ctx, claims)
	if err != nil {
		return err
	}
	if err := r.save(ctx, func(s *v1alpha1.RestoreStatus) { s.Stopped = stopped }); err != nil {
		return err
	}
	until := metav1.NewTime(r.Now().Add(r.claims.Keep))
	for _, v := range volumes {
		now := stand(&r.object.Status, v)
		if now.Stored {
			continue
		}
		old, err := r.claims.Swap(ctx, volume.Exchange{Claim: *v.Wanted, NewVolume: now.NewVolume})
		if err != nil {
			return err
		}
		err = r.save(ctx, func(s *v1alpha1.RestoreStatus) {
			if is := stand(s, v); is != nil {
				is.OldVolume, is.Stored = old, true
			}
			if old != "" && r.claims.Keep > 0 {
				s.UndoUntil = &until
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// start starts the workloads again, whatever happened.
func (r *restoration) start(ctx context.Context) error {
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTime)
	defer cancel()
	return r.claims.Start(tidy)
}

// undo puts the volumes back that another Restore took out of use.
func (r *restoration) undo(ctx context.Context) error {
	var other v1alpha1.Restore
	if r.object.Spec.PlanOnly {
		return fault.New("undo "+r.object.Spec.Undo, fault.ErrInvalid, "there is no plan of an undo", "leave planOnly out")
	}
	if err := r.Cluster.Client.Get(ctx, types.NamespacedName{Namespace: r.object.Namespace, Name: r.object.Spec.Undo}, &other); err != nil {
		return fault.Wrap("read restore "+r.object.Spec.Undo, kube.ClassOf(err), err, "")
	}
	if err := r.ownVolumes(r.object.Namespace, other.Status.Volumes); err != nil {
		return err
	}
	if !other.Status.Phase.Final() {
		return fault.New("undo "+other.Name, fault.ErrRefused, "it has not ended", "delete it, and it takes back what it did")
	}
	held, claims := map[string]bool{}, takenOut(&other)
	for _, c := range claims {
		held[c.Namespace] = true
	}
	if j := other.Status.GitOps; j != nil && j.Deployment != "" {
		r.undone = &other
		held[j.Deployment] = true
	}
	if len(held) == 0 {
		return fault.New("undo "+other.Name, fault.ErrNotFound, "it took no volume out of use", "")
	}
	return r.holding(ctx, sortedKeys(held), string(r.object.UID), func(ctx context.Context) error {
		if r.undone != nil {
			return r.transact(ctx)
		}
		if err := r.putBack(ctx, claims, string(other.UID)); err != nil {
			return err
		}
		if err := r.start(ctx); err != nil {
			return err
		}
		return r.end(ctx, v1alpha1.PhaseComplete, nil)
	})
}

// takenOut are the claims whose volumes a Restore took out of use.
func takenOut(r *v1alpha1.Restore) []types.NamespacedName {
	var claims []types.NamespacedName
	for _, v := range r.Status.Volumes {
		if v.OldVolume != "" {
			claims = append(claims, types.NamespacedName{Namespace: v.Namespace, Name: v.Claim})
		}
	}
	return claims
}

// putBack stops what uses the claims and puts the volumes back behind them that another Restore took out.
func (r *restoration) putBack(ctx context.Context, claims []types.NamespacedName, other string) error {
	if err := r.phase(ctx, v1alpha1.PhaseSwapping); err != nil {
		return err
	}
	stopped, err := r.claims.Stop(ctx, claims)
	if err != nil {
		return err
	}
	if err := r.save(ctx, func(s *v1alpha1.RestoreStatus) { s.Stopped = stopped }); err != nil {
		return err
	}
	volumes, err := r.claims.Undo(ctx, other)
	if err != nil { // half of them may be back: nothing is to start before the others are, or all are as they were
		return err
	}
	until := metav1.NewTime(r.Now().Add(r.claims.Keep))
	return r.save(ctx, func(s *v1alpha1.RestoreStatus) { s.Volumes, s.UndoUntil = volumes, &until })
}

// abort ends a Restore as failed, with the workloads as they were and the volumes behind their claims that were there before.
func (r *restoration) abort(ctx context.Context, cause error) error {
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepTime)
	defer cancel()
	if r.claims != nil {
		if err := r.putRight(tidy); err != nil {
			r.Log.Error("what the restore left could not all be put right; the next processes will", "restore", r.object.Name, "error", err.Error())
		}
	}
	r.Log.Error("restore failed", "restore", r.object.Name, "error", cause.Error())
	err := r.save(tidy, func(s *v1alpha1.RestoreStatus) {
		s.Problems = listed(slices.Concat([]string{cause.Error()}, fault.Hints(cause), s.Problems))
		endRestore(s, r.object.Generation, v1alpha1.PhaseFailed, reasonOf(cause), cause.Error(), r.Now())
	})
	if errors.Is(err, errEnded) {
		return nil
	}
	return err
}

// putRight puts volumes and workloads back as they were. Workloads whose volumes cannot be put back stay stopped: they would write to
// volumes of two times.
func (r *restoration) putRight(ctx context.Context) error {
	transaction := owes(r.object)
	if transaction {
		if err := r.stopDeploying(ctx, r.object); err != nil {
			return err
		}
	}
	err := r.claims.TakeBack(ctx)
	if err != nil {
		if exchanged, unknown := r.claims.Exchanged(ctx); exchanged || unknown != nil {
			return errors.Join(err, unknown)
		}
	}
	if transaction {
		err = errors.Join(err, r.undoTransaction(ctx, r.object))
	}
	return errors.Join(err, r.start(ctx), r.takeBackDatabases(ctx))
}

func (r *restoration) phase(ctx context.Context, phase v1alpha1.Phase) error {
	return r.save(ctx, func(s *v1alpha1.RestoreStatus) { s.Phase = phase })
}

// end ends a Restore, with what else its status is to say from then on.
func (r *restoration) end(ctx context.Context, phase v1alpha1.Phase, problems []string, and ...func(*v1alpha1.RestoreStatus)) error {
	err := r.save(ctx, func(s *v1alpha1.RestoreStatus) {
		for _, change := range and {
			change(s)
		}
		s.Problems = listed(problems)
		endRestore(s, r.object.Generation, phase, string(phase), strings.Join(s.Problems, "; "), r.Now())
	})
	if err != nil {
		return err
	}
	if err := r.claims.Discard(ctx); err != nil { // not before: one that fails takes its volumes back
		r.Log.Warn("volumes taken out of use are left to `worker tidy`", "restore", r.object.Name, "error", err.Error())
	}
	return nil
}

// save changes the status and writes it, unless the controller has ended the Restore.
func (r *restoration) save(ctx context.Context, change func(*v1alpha1.RestoreStatus)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.scratch != nil {
		change(&r.object.Status)
		return nil
	}
	return r.persist(ctx, r.object, func() error {
		if r.object.Status.Phase == v1alpha1.PhaseFailed {
			return errEnded
		}
		change(&r.object.Status)
		return nil
	})
}
