package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/volume"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

// Parts of a point that hold nothing, and fail where the moment that the point is of is not what was asked for.
const (
	partHooks   = "instant/hooks"
	partSkew    = "instant/skew"
	kindInstant = "instant"
)

// Backup works on the Backups of one run until each has ended. It returns an error where the work should be taken up again: the vault or
// the API server cannot be reached, or the process is to stop.
func (w *Worker) Backup(ctx context.Context, namespace, run string) error {
	var all v1alpha1.BackupList
	err := w.Cluster.Client.List(ctx, &all, client.InNamespace(namespace), client.MatchingLabels{v1alpha1.LabelRun: run})
	if err != nil {
		return fault.Wrap("list backups of run "+run, kube.ClassOf(err), err, "")
	}
	byLocation := map[string][]*v1alpha1.Backup{}
	atOnce := applicationsAtOnce
	for i := range all.Items {
		b := &all.Items[i]
		if b.Status.Phase.Final() || !w.Share.has(b) {
			continue
		}
		declared, location, err := w.locationOf(ctx, b)
		switch {
		case err != nil && again(ctx, err):
			return err
		case err != nil:
			if err := (&backup{Worker: w, object: b}).abort(ctx, err); err != nil {
				return err
			}
			continue
		}
		if declared != nil && declared.Spec.Parallel > 0 {
			atOnce = declared.Spec.Parallel
		}
		byLocation[location] = append(byLocation[location], b)
	}
	var failed []error
	for location, backups := range byLocation {
		failed = append(failed, w.backupsTo(ctx, namespace, location, backups, atOnce))
	}
	return errors.Join(failed...)
}

// locationOf is the policy of a Backup, nil for none, and its location.
func (w *Worker) locationOf(ctx context.Context, b *v1alpha1.Backup) (*v1alpha1.Policy, string, error) {
	if b.Spec.Policy == "" {
		if b.Spec.Location == "" {
			return nil, "", fault.New("backup "+b.Name, fault.ErrInvalid, "it names neither a policy nor a location", "")
		}
		return nil, b.Spec.Location, nil
	}
	var p v1alpha1.Policy
	if err := w.Cluster.Client.Get(ctx, types.NamespacedName{Namespace: b.Namespace, Name: b.Spec.Policy}, &p); err != nil {
		return nil, "", fault.Wrap("read policy "+b.Spec.Policy, kube.ClassOf(err), err, "")
	}
	if b.Spec.Location != "" {
		return &p, b.Spec.Location, nil
	}
	return &p, p.Spec.Location, nil
}

// backupsTo works on Backups that go to one location, several at once, through one connection to it.
func (w *Worker) backupsTo(ctx context.Context, namespace, location string, backups []*v1alpha1.Backup, atOnce int) error {
	store, secrets, err := w.open(ctx, namespace, location, true)
	if err != nil {
		if again(ctx, err) {
			return err
		}
		for _, b := range backups {
			if err := (&backup{Worker: w, object: b}).abort(ctx, err); err != nil {
				return err
			}
		}
		return nil
	}
	var group errgroup.Group // without a context: one that is to be taken up again stops none of the others
	group.SetLimit(atOnce)
	failed := make([]error, len(backups))
	var works []*backup
	for i, b := range backups {
		if b.Status.Started == nil && i > 0 && w.yields(ctx) {
			break
		}
		work := &backup{Worker: w, object: b, store: store, location: location, secrets: secrets}
		works = append(works, work)
		group.Go(func() error {
			failed[i] = work.run(ctx)
			return nil
		})
	}
	_ = group.Wait() // they are in failed
	err = errors.Join(append(failed, w.expire(ctx, store, namespace, location, works))...)
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTime)
	defer cancel()
	return errors.Join(err, store.Close(tidy))
}

// backup is the work on one Backup.
type backup struct {
	*Worker
	object   *v1alpha1.Backup
	store    Store
	location string
	secrets  volume.Location

	policy  *v1alpha1.Policy
	rights  *kube.Cluster // with which the application is read
	app     kube.Application
	volumes *volume.Keeper
	bound   map[string]kube.Bound // to Blueprints, by their parts
	seen    *sight                // of the objects, while they are captured
	servers []v1alpha1.Database   // of databases that belong to the application
	dumps   *dumps                // of them, that this process has begun; nil for none

	mu sync.Mutex // of object.Status, and its version; the rest of object stays as it was read
}

// run works on a Backup. What is wrong with the application, or with the Backup, ends it as Failed and is no error.
func (b *backup) run(ctx context.Context) error {
	ctx, cancel := b.limit(ctx, "backup "+b.object.Name, b.object.Status.Started, b.object.Spec.Deadline)
	defer cancel()
	work := b.application
	if b.object.Spec.Repositories {
		work = b.repositories
	}
	err := overdue(ctx, b.renewedAt(ctx, b.object.Namespace, b.location, b.secrets, work(ctx)))
	if err == nil || again(ctx, err) {
		return err
	}
	return b.abort(ctx, err)
}

func (b *backup) application(ctx context.Context) error {
	defer func() { b.dumps.end() }()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	// Parts of two points of one subject must not come to lie among each other in the vault, also where the application is lent before.
	return b.holding(ctx, []string{"points of " + b.subject().Name}, string(b.object.UID), b.onApplication)
}

// onApplication makes the point, and keeps others off the application while it must.
func (b *backup) onApplication(ctx context.Context) error {
	var rest func(context.Context) error // what needs nothing of the application any more
	err := b.holding(ctx, b.app.Namespaces, string(b.object.UID), func(ctx context.Context) (err error) {
		rest, err = b.work(ctx)
		if err != nil || rest == nil || b.lends() {
			return err
		}
		finish := rest
		rest = nil
		return finish(ctx)
	})
	if err != nil || rest == nil {
		return err
	}
	return rest(ctx)
}

// lends reports whether others may work on the application while data goes to the location: before a sync or a rollback somebody waits.
func (b *backup) lends() bool {
	live := func(v v1alpha1.VolumeStatus) bool { return v.Method == v1alpha1.MethodLive }
	return b.object.Spec.Sync != nil && !slices.ContainsFunc(b.object.Status.Volumes, live)
}

// prepare finds out what the Backup is of, and with which rights.
func (b *backup) prepare(ctx context.Context) (err error) {
	if b.policy, _, err = b.locationOf(ctx, b.object); err != nil {
		return err
	}
	if err := b.ownVolumes(b.object.Namespace, b.object.Status.Volumes); err != nil {
		return err
	}
	spec := b.object.Spec.Application
	if b.rights, err = b.tenant(b.object.Namespace, b.object.Spec.ServiceAccountName); err != nil {
		return err
	}
	apps, err := b.rights.Find(ctx, spec, b.object.Namespace, b.System)
	if err != nil {
		return err
	}
	if len(apps) != 1 {
		return fault.New("backup "+b.object.Name, fault.ErrNotFound, fmt.Sprintf("it selects %d applications", len(apps)), "name one namespace, or give what is selected a name")
	}
	b.app = apps[0]
	if b.servers, err = b.databases(); err != nil {
		return err
	}
	b.volumes = b.keeper(b.object.Namespace, string(b.object.UID), b.subject().Name+" "+b.object.Spec.Policy)
	if b.object.Status.Started != nil {
		return nil
	}
	return b.save(ctx, func(s *v1alpha1.BackupStatus) {
		now := metav1.NewTime(b.Now())
		s.Started = &now
	})
}

func (b *backup) subject() point.Subject {
	return point.Subject{Kind: point.SubjectApplication, Name: b.Name + "/" + b.app.Name}
}

// work takes a Backup from where its status says it is to where all is captured, and returns what is left to do.
func (b *backup) work(ctx context.Context) (rest func(context.Context) error, _ error) {
	if b.object.Status.Instant == nil {
		if err := b.act(ctx); err != nil {
			return nil, err
		}
		if err := b.instant(ctx); err != nil {
			return nil, err
		}
	} else if made, err := b.made(ctx); made != nil || err != nil {
		return func(ctx context.Context) error { return b.finish(ctx, made) }, err
	}
	compose, err := b.capture(ctx)
	return func(ctx context.Context) error {
		receipt, err := compose(ctx)
		if receipt == nil {
			return err
		}
		return b.finish(ctx, receipt)
	}, err
}

// capture captures the objects, and returns what makes the point. Where there are volumes, the objects do not wait for them: the version
// they are listed at does not stay.
func (b *backup) capture(ctx context.Context) (compose func(context.Context) (*point.Receipt, error), _ error) {
	if len(b.object.Status.Volumes)+len(b.object.Status.Actions)+len(b.object.Status.Databases) == 0 {
		receipt, err := b.commit(ctx, objectsAlone{b.source(), b})
		return func(context.Context) (*point.Receipt, error) { return receipt, nil }, err
	}
	objects, err := b.objects(ctx)
	if err == nil {
		err = b.dumped(ctx) // what changes the application's tables breaks its dumps: nobody else is let to it before
	}
	return func(ctx context.Context) (*point.Receipt, error) {
		if err := b.move(ctx); err != nil {
			return nil, err
		}
		return b.compose(ctx, objects)
	}, err
}

// objectsAlone is the source of a point of an application without volumes, whose objects go right into it.
type objectsAlone struct {
	*kube.Objects
	backup *backup
}

func (o objectsAlone) Capture(ctx context.Context, to point.Sink) error {
	if err := o.Objects.Capture(ctx, to); err != nil {
		return err
	}
	if err := o.backup.listed(ctx, o.Objects, v1alpha1.PhaseListing); err != nil {
		return err
	}
	return o.backup.composed(nil).Capture(ctx, to)
}

// made is the point of this Backup that an earlier process composed before it was killed; nil for none.
func (b *backup) made(ctx context.Context) (*point.Receipt, error) {
	subject := b.subject()
	points, err := b.store.Points(ctx, point.Filter{Subject: &subject, Policy: b.object.Spec.Policy})
	if err != nil {
		return nil, err
	}
	for _, p := range points {
		if !p.Time.Equal(b.moment()) {
			continue
		}
		record, _, err := b.store.Open(ctx, p.ID)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(record.Point.Parts, func(p point.Part) bool { return strings.HasPrefix(p.Mark, b.mark("")) }) {
			return &point.Receipt{Record: *record}, nil
		}
	}
	return nil, nil //nolint:nilnil // none was made
}

// instant takes all volumes, and the version of the objects, at one moment. Taken up again, it starts over.
func (b *backup) instant(ctx context.Context) (err error) {
	trouble := b.release(ctx)
	if len(b.object.Status.Volumes) > 0 {
		if err := b.volumes.Discard(ctx); err != nil {
			return err
		}
	}
	claims, err := b.rights.Claims(ctx, b.app)
	if err != nil {
		return err
	}
	planned, err := b.volumes.Plan(ctx, claims, b.app.Capture.Volumes)
	if err != nil {
		return err
	}
	for i := range planned {
		if to := b.leaves(planned[i].Namespace, planned[i].Claim); to != "" {
			planned[i].Method, planned[i].Skipped, planned[i].Problem = v1alpha1.MethodNone, true, "Blueprint "+to+" captures its data"
		}
	}
	err = b.save(ctx, func(s *v1alpha1.BackupStatus) {
		s.Phase, s.Volumes, s.Databases, s.Problems = v1alpha1.PhaseQuiescing, planned, b.planned(), nil
	})
	if err != nil {
		return err
	}
	begun := metav1.NewMicroTime(b.Now())
	at := v1alpha1.Instant{Begun: begun}
	trouble = errors.Join(trouble, b.rights.Rest(ctx, b.app, b.resting(ctx)))
	b.dumps = b.dump(ctx, begun)
	err = b.volumes.Snapshot(ctx, planned, func(vols []v1alpha1.VolumeStatus) error {
		return b.save(ctx, func(s *v1alpha1.BackupStatus) { s.Volumes = vols })
	})
	if err == nil {
		err = b.dumps.standing(ctx)
	}
	if err == nil {
		at.ResourceVersion, at.Versioned.Time, err = b.rights.Version(ctx)
	}
	trouble = errors.Join(trouble, b.release(ctx)) // whatever became of the snapshots
	if err != nil {
		return err
	}
	at.Released = metav1.NewMicroTime(b.Now())
	for _, v := range planned {
		at.FirstSnapshot, at.LastSnapshot = earlier(at.FirstSnapshot, v.Taken), later(at.LastSnapshot, v.Taken)
	}
	return b.save(ctx, func(s *v1alpha1.BackupStatus) {
		s.Phase, s.Instant, s.Volumes, s.Deployed = v1alpha1.PhaseListing, &at, planned, nil
		b.dumps.show(s)
		if trouble != nil {
			s.HookProblem = shorten(trouble.Error())
		}
	})
}

// resting records in the status which containers are at rest, before they are.
func (b *backup) resting(ctx context.Context) func([]v1alpha1.RestingPod) error {
	return func(pods []v1alpha1.RestingPod) error {
		return b.write(ctx, func(s *v1alpha1.BackupStatus) error { // of a Backup that has ended, too
			s.Resting = pods
			return nil
		})
	}
}

// release undoes what brought the application to rest, also when the work is to stop. It needs nothing but the Backup itself: its policy
// and its namespaces may be gone.
func (b *backup) release(ctx context.Context) error {
	resting := b.object.Status.Resting
	if len(resting) == 0 {
		return nil
	}
	rights, err := b.tenant(b.object.Namespace, b.object.Spec.ServiceAccountName)
	if err != nil {
		return err
	}
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTime)
	defer cancel()
	return rights.Release(tidy, kube.Application{Capture: b.object.Spec.Application.Capture}, resting, b.resting(tidy))
}

// source is the application's objects at the instant.
func (b *backup) source() *kube.Objects {
	at := b.object.Status.Instant
	moment := kube.Moment{ResourceVersion: at.ResourceVersion, At: at.Versioned.Time, Mark: b.mark("objects")}
	objects := kube.NewObjects(b.rights, b.app, b.subject(), moment)
	b.seen = newSight(len(b.app.Deployed) > 0)
	objects.Seen = b.seen.see
	return objects
}

// objects captures the objects of the application ahead of its point, and says what became of each of their parts.
func (b *backup) objects(ctx context.Context) ([]point.Part, error) {
	source := b.source()
	if b.object.Status.Instant.Listed != nil {
		if parts, err := b.found(ctx, source.Parts(), b.mark("objects")); err != nil || parts != nil {
			return parts, err
		}
	}
	parts, err := protect.WriteShard(ctx, b.store, source, b.object.Spec.Policy)
	if err != nil {
		return nil, err
	}
	return parts, b.listed(ctx, source, v1alpha1.PhaseMoving)
}

// listed records which moment the objects that were captured are of, and what had deployed them.
func (b *backup) listed(ctx context.Context, objects *kube.Objects, next v1alpha1.Phase) error {
	_, last := objects.Skew()
	at := metav1.NewMicroTime(last)
	deployed := b.object.Status.Deployed
	if deployed == nil {
		var err error
		if deployed, err = b.deployed(ctx, b.seen); err != nil {
			return err
		}
	}
	return b.save(ctx, func(s *v1alpha1.BackupStatus) { s.Phase, s.Instant.Listed, s.Deployed = next, &at, deployed })
}

// found returns the parts of a capture if all of them are in the vault already, else none.
func (b *backup) found(ctx context.Context, names []string, mark string) ([]point.Part, error) {
	var shards []protect.Shard
	for _, name := range names {
		shards = append(shards, protect.Shard{Name: name, Mark: mark})
	}
	found, err := protect.Found(ctx, b.store, b.subject(), b.object.Spec.Policy, shards)
	if err != nil || len(found) < len(names) {
		return nil, err
	}
	return slices.Collect(maps.Values(found)), nil
}

// mark is what parts captured for this Backup are marked with.
func (b *backup) mark(what string) string { return string(b.object.UID) + " " + what }

// move brings the data of each volume into the vault. What fails fails for one volume.
func (b *backup) move(ctx context.Context) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(volumesAtOnce)
	for i, v := range b.object.Status.DeepCopy().Volumes { // which is written to meanwhile
		if v.Stored || v.Problem != "" || v.Method == v1alpha1.MethodNone {
			continue
		}
		group.Go(func() error {
			task := volume.Task{
				Operation: volume.Backup, Location: b.secrets, Subject: b.subject(), Policy: b.object.Spec.Policy,
				Volumes: []volume.Mount{{Part: v.Part, Kind: kindOf(v.Block), Mark: b.mark(v.Part)}},
			}
			result, err := b.volumes.Move(groupCtx, v, task)
			if groupCtx.Err() != nil {
				return context.Cause(groupCtx)
			}
			if err == nil && result.State != point.Stored {
				err = errors.New(result.Reason)
			}
			return b.save(groupCtx, func(s *v1alpha1.BackupStatus) {
				if s.Volumes[i].Stored = err == nil; err != nil {
					s.Volumes[i].Problem = shorten(err.Error())
				}
			})
		})
	}
	return group.Wait()
}

func kindOf(block bool) string {
	if block {
		return point.KindBlock
	}
	return point.KindVolume
}

// compose makes the point of what is in the vault, and of what is not.
func (b *backup) compose(ctx context.Context, objects []point.Part) (*point.Receipt, error) {
	status := &b.object.Status
	var shards []protect.Shard
	for _, p := range objects {
		s := protect.Shard{Name: p.Name, Kind: p.Kind, Mark: p.Mark, Captured: p.Captured}
		switch p.State {
		case point.Skipped:
			s.Skipped = p.Reason
		case point.Failed:
			s.Failed = errors.New(p.Reason)
		}
		shards = append(shards, s)
	}
	for _, v := range status.Volumes {
		s := protect.Shard{Name: v.Part, Kind: kindOf(v.Block), Mark: b.mark(v.Part)}
		if v.Taken != nil {
			s.Captured = &v.Taken.Time
		}
		switch {
		case v.Method == v1alpha1.MethodNone && v.Skipped:
			s.Skipped = v.Problem
		case v.Problem != "":
			s.Failed = errors.New(v.Problem)
		}
		shards = append(shards, s)
	}
	acted, err := b.acted(ctx)
	if err != nil {
		return nil, err
	}
	return b.commit(ctx, b.composed(slices.Concat(shards, acted, b.dumpShards())))
}

// composed is the source of the point of what is in the vault, of what is missing, and of the repositories that the application came from.
func (b *backup) composed(shards []protect.Shard) protect.Source {
	return composition{protect.Composed(b.subject(), b.moment(), slices.Concat(shards, b.misses())), b}
}

type composition struct {
	protect.Source
	backup *backup
}

func (c composition) Capture(ctx context.Context, to point.Sink) error {
	deployment, revisions := c.backup.provenance()
	origins, err := c.backup.origins(ctx, deployment)
	if err != nil {
		return err
	}
	if draft, is := to.(point.Revised); is {
		draft.Deployed(deployment, revisions)
	}
	if err := c.Source.Capture(ctx, to); err != nil {
		return err
	}
	for _, o := range origins { // last: the application waits for none of them
		if err := o.capture(ctx, to); err != nil {
			return err
		}
	}
	return nil
}

// commit makes the point of what src yields. That it is incomplete is no error: what is missing is in its record.
func (b *backup) commit(ctx context.Context, src protect.Source) (*point.Receipt, error) {
	receipt, err := protect.Backup(ctx, b.store, src, b.object.Spec.Policy)
	if receipt != nil {
		return receipt, nil
	}
	return nil, err
}

// misses are the parts of a point whose moment is not what was asked for; none where it is.
func (b *backup) misses() []protect.Shard {
	var misses []protect.Shard
	if problem := b.object.Status.HookProblem; problem != "" {
		misses = append(misses, protect.Shard{Name: partHooks, Kind: kindInstant, Failed: errors.New(problem)})
	}
	if err := b.skewed(); err != nil {
		misses = append(misses, protect.Shard{Name: partSkew, Kind: kindInstant, Failed: err})
	}
	if err := b.unknown(); err != nil {
		misses = append(misses, protect.Shard{Name: partDeployment, Kind: kindInstant, Failed: err})
	}
	return misses
}

// moment is what the point is of: the first thing that was captured.
func (b *backup) moment() time.Time { return b.first(&b.object.Status.Instant.Versioned).Time }

// first is when the first thing was captured, or at where that is earlier.
func (b *backup) first(at *metav1.MicroTime) *metav1.MicroTime {
	for _, a := range b.object.Status.Actions {
		if a.Done {
			at = earlier(at, a.Started)
		}
	}
	for _, d := range b.object.Status.Databases {
		at = earlier(at, d.Captured)
	}
	return earlier(b.object.Status.Instant.FirstSnapshot, at)
}

// skewed tells whether what was captured lies further apart than the application allows.
func (b *backup) skewed() error {
	limit, err := time.ParseDuration(b.app.Capture.MaxSkew)
	if b.app.Capture.MaxSkew == "" || err != nil {
		return nil
	}
	at := b.object.Status.Instant
	first, last := b.first(at.Listed), later(at.LastSnapshot, at.Listed)
	for _, d := range b.object.Status.Databases {
		last = later(last, d.Captured)
	}
	if first == nil || last.Sub(first.Time) <= limit {
		return nil
	}
	return fault.New("capture at one instant", fault.ErrIncomplete, fmt.Sprintf("what was captured lies %s apart; the policy allows %s", last.Sub(first.Time), limit), "")
}

func earlier(a, b *metav1.MicroTime) *metav1.MicroTime {
	if a == nil || b != nil && b.Before(a) {
		return b
	}
	return a
}

func later(a, b *metav1.MicroTime) *metav1.MicroTime {
	if a == nil || b != nil && a.Before(b) {
		return b
	}
	return a
}

// finish publishes the point on the cluster, and keeps or drops the snapshots.
func (b *backup) finish(ctx context.Context, receipt *point.Receipt) error {
	if err := b.save(ctx, func(s *v1alpha1.BackupStatus) { s.Phase, s.Point = v1alpha1.PhaseTidying, receipt.Point.ID }); err != nil {
		return err
	}
	problems := append(lacks(receipt.Point.Parts), receipt.Warnings...)
	if err := b.release(ctx); err != nil { // what could not be undone at the instant
		problems = append(problems, err.Error())
	}
	name, err := b.publish(ctx, b.object.Namespace, b.location, receipt.Point)
	if err != nil {
		return err
	}
	if err := b.keepSnapshots(ctx, receipt.Point.ID); err != nil {
		problems = append(problems, "local snapshots: "+err.Error())
	}
	phase := v1alpha1.PhaseComplete
	if receipt.Point.State != point.Complete {
		phase = v1alpha1.PhaseIncomplete
	}
	return b.save(ctx, func(s *v1alpha1.BackupStatus) {
		s.RestorePoint, s.Parts, s.Problems = name, partsOf(receipt.Ledger), listed(problems)
		b.end(s, phase, strings.Join(s.Problems, "; "))
	})
}

// lacks names what parts should hold and do not.
func lacks(parts []point.Part) []string {
	var all []string
	for _, p := range parts {
		switch p.State {
		case point.Skipped:
		case point.Stored:
			all = append(all, shortOf(p)...)
		default:
			all = append(all, fmt.Sprintf("%s %s: %s", p.Name, p.State, p.Reason))
		}
	}
	return all
}

// shortOf names what a part that was stored lacks: by its notes, else by the counts that do not close.
func shortOf(p point.Part) []string {
	var noted, counted []string
	for _, note := range p.Notes {
		if what, is := strings.CutPrefix(note, "missing: "); is {
			noted = append(noted, p.Name+" lacks "+what)
		}
	}
	for _, c := range p.Counts {
		if !c.Closes() {
			counted = append(counted, fmt.Sprintf("%s has %d of %d %s", p.Name, c.Stored, c.Expected, c.Of))
		}
	}
	if len(counted) > 0 && len(noted) > 0 {
		return noted
	}
	return counted
}

// keepSnapshots keeps the snapshots of the newest points where the policy wants it, and deletes the others.
func (b *backup) keepSnapshots(ctx context.Context, id string) error {
	if len(b.object.Status.Volumes) == 0 {
		return nil
	}
	keep, settle := b.app.Capture.Volumes.KeepSnapshots, b.volumes.Forget
	if keep > 0 {
		settle = func(ctx context.Context) error { return b.volumes.Keep(ctx, b.object.Status.Volumes, id) }
	}
	return errors.Join(settle(ctx), b.volumes.KeepNewest(ctx, keep))
}

// abort ends a Backup as failed, with the application as it was.
func (b *backup) abort(ctx context.Context, cause error) error {
	if b.object.Spec.Repositories && !b.Share.first() {
		return nil // it only helps
	}
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTime)
	defer cancel()
	failed := []error{b.release(tidy)}
	if len(b.object.Status.Volumes) > 0 {
		failed = append(failed, b.keeper(b.object.Namespace, string(b.object.UID), "").Discard(tidy))
	}
	if err := errors.Join(failed...); err != nil {
		b.Log.Error("what the backup left could not all be put right; `worker tidy` will", "backup", b.object.Name, "error", err.Error())
	}
	return b.fail(tidy, cause)
}

// save changes the status and writes it, unless the controller has ended the Backup.
func (b *backup) save(ctx context.Context, change func(*v1alpha1.BackupStatus)) error {
	return b.write(ctx, func(s *v1alpha1.BackupStatus) error {
		if s.Phase == v1alpha1.PhaseFailed {
			return errEnded
		}
		change(s)
		return nil
	})
}

// write changes the status and writes it, by a copy: the client empties an object before it fills in the answer, and those who work on other
// volumes, or for other Blueprints, read of this one meanwhile whose it is.
func (b *backup) write(ctx context.Context, change func(*v1alpha1.BackupStatus) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	own := b.object.DeepCopy()
	err := b.persist(ctx, own, func() error { return change(&own.Status) })
	b.object.ResourceVersion, b.object.Status = own.ResourceVersion, own.Status
	return err
}

// fail ends a Backup as failed, unless the controller did.
func (b *backup) fail(ctx context.Context, cause error) error {
	b.Log.Error("backup failed", "backup", b.object.Name, "error", cause.Error())
	err := b.save(ctx, func(s *v1alpha1.BackupStatus) {
		s.Problems = listed(append([]string{cause.Error()}, fault.Hints(cause)...))
		endBackup(s, b.object.Generation, v1alpha1.PhaseFailed, reasonOf(cause), cause.Error(), b.Now())
	})
	if errors.Is(err, errEnded) {
		return nil
	}
	return err
}

func (b *backup) end(s *v1alpha1.BackupStatus, phase v1alpha1.Phase, message string) {
	endBackup(s, b.object.Generation, phase, string(phase), message, b.Now())
}

func partsOf(l point.Ledger) *v1alpha1.PartsStatus {
	return &v1alpha1.PartsStatus{
		Expected: l.Expected, Stored: l.Stored, Carried: l.Carried, Skipped: l.Skipped, Failed: l.Failed, Vanished: l.Vanished,
		Bytes: l.Bytes, NewBytes: l.NewBytes,
	}
}
