package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/restore"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

// drill is the work on one Drill: a restoration into namespaces of its own, a look at what came back, and its removal. One that was cut
// short is begun anew, so that the time it takes is that of a restore.
type drill struct {
	*Worker
	object *v1alpha1.Drill

	restoration *restoration
	checks      []point.Check
	took        time.Duration // until all ran; 0 where it did not come to that
}

// checkDatabase is what a drill calls that a database came back.
const checkDatabase = "database"

// Drill works on a Drill until it has ended. It returns an error where the work should be taken up again.
func (w *Worker) Drill(ctx context.Context, namespace, name string) error {
	var object v1alpha1.Drill
	if err := w.Cluster.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &object); err != nil {
		return fault.Wrap(fmt.Sprintf("read drill %s/%s", namespace, name), kube.ClassOf(err), err, "")
	}
	if object.Status.Phase.Final() {
		return nil
	}
	return (&drill{Worker: w, object: &object}).run(ctx)
}

func (d *drill) run(ctx context.Context) error {
	ctx, cancel := d.limit(ctx, "drill "+d.object.Name, d.object.Status.Started, d.object.Spec.Deadline)
	defer cancel()
	err := overdue(ctx, d.work(ctx))
	stopped := err != nil && again(ctx, err)
	tidy, done := context.WithTimeout(context.WithoutCancel(ctx), stepTime)
	defer done()
	if stopped && ctx.Err() != nil { // little time is left, and who takes it up begins with this
		return err
	}
	var untidy []string
	if left := d.clear(tidy, string(d.object.UID)); left != nil {
		untidy = append(untidy, "what it made could not all be removed: "+left.Error())
	}
	if d.restoration != nil && d.restoration.store != nil {
		if err := d.restoration.store.Close(tidy); err != nil {
			d.Log.Warn("the location was not closed well", "location", d.restoration.location, "error", err.Error())
		}
	}
	if stopped {
		return err
	}
	return d.end(tidy, err, untidy)
}

// work makes the drill, and has the location keep what was found.
func (d *drill) work(ctx context.Context) error {
	if d.object.Namespace != d.System {
		return fault.New("drill "+d.object.Name, fault.ErrDenied, "drills of applications are made in Backstay's own namespace only, "+d.System, "")
	}
	err := d.save(ctx, func(s *v1alpha1.DrillStatus) {
		if s.Started == nil {
			now := metav1.NewTime(d.Now())
			s.Started = &now
		}
		s.Phase = v1alpha1.PhasePlanning
	})
	if err != nil {
		return err
	}
	if err := d.clear(ctx, string(d.object.UID)); err != nil { // of an earlier process
		return err
	}
	began := d.Now()
	if err := d.restore(ctx, began); err != nil {
		return err
	}
	if len(point.Proof{Checks: d.checks}.Problems()) == 0 {
		if err := d.phase(ctx, v1alpha1.PhaseChecking); err != nil {
			return err
		}
		if err := d.look(ctx); err != nil {
			return err
		}
	}
	d.unseen()
	return d.prove(ctx, began)
}

// restore brings the point back into scratch, and waits until it runs. What is wrong with the point becomes a check that did not pass; an
// error means that the drill could not be made.
func (d *drill) restore(ctx context.Context, began time.Time) error {
	r, err := d.open(ctx)
	if err != nil {
		return d.blame("read", "", err)
	}
	if err := d.ground(ctx); err != nil {
		return err
	}
	if err := d.blame("read", "", r.build(ctx)); err != nil || len(d.checks) > 0 {
		return err
	}
	for _, p := range r.record.Point.Parts {
		if p.State == point.Failed || p.State == point.Carried {
			d.found("part", p.Name, p.State == point.Carried, cmp.Or(p.Reason, string(p.State)))
		}
	}
	if err := d.phase(ctx, v1alpha1.PhaseMoving); err != nil {
		return err
	}
	problems, err := r.bringBack(ctx)
	if err != nil {
		return d.blame("restore", "", err)
	}
	for _, p := range problems {
		d.found("restore", "", false, p)
	}
	d.restored(r.plan)
	return d.ready(ctx, r.plan, began)
}

// open finds the point and opens it, as a restoration into namespaces of this drill.
func (d *drill) open(ctx context.Context) (*restoration, error) {
	o := d.object
	no := false
	r := &restoration{
		Worker: d.Worker, rights: d.Cluster, scratch: &restore.Scratch{ExcludeKinds: o.Spec.ExcludeKinds},
		object: &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Name: o.Name, Namespace: o.Namespace, UID: o.UID}},
	}
	r.object.Spec = v1alpha1.RestoreSpec{
		RestorePoint: o.Spec.RestorePoint, Latest: o.Spec.Latest, ClusterObjects: &no, StorageClasses: o.Spec.StorageClasses, KeepOld: "0s",
	}
	r.object.Status.Point = o.Status.Point // decided once
	d.restoration = r
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	p, err := r.pointObject(ctx)
	if err != nil {
		return nil, err
	}
	err = d.save(ctx, func(s *v1alpha1.DrillStatus) { s.Point, s.RestorePoint = p.Spec.Point, p.Name })
	if err != nil {
		return nil, err
	}
	r.object.Spec.RestorePoint, r.object.Spec.Latest = p.Name, nil
	if err := r.read(ctx); err != nil {
		return nil, err
	}
	r.object.Spec.Namespaces = d.scratch(r.targets())
	return r, nil
}

// blame makes of an error that is the point's a check that did not pass. Any other is returned.
func (d *drill) blame(what, of string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fault.ErrCorrupt), errors.Is(err, fault.ErrIncomplete):
		d.found(what, of, false, err.Error())
		return nil
	}
	return err
}

// found notes what was looked at, and what was found.
func (d *drill) found(what, of string, ok bool, detail string) {
	d.checks = append(d.checks, point.Check{What: what, Of: of, OK: ok, Detail: shorten(detail)})
}

// restored notes what came back, counted.
func (d *drill) restored(p *restore.Plan) {
	objects := map[string]int{}
	for _, i := range p.Items {
		if i.Action == restore.Create {
			objects[i.From]++
		}
	}
	for _, part := range d.restoration.record.Point.Parts {
		if namespace, is := kube.NamespaceOf(part.Name); is && namespace != "" {
			d.found("objects", part.Name, true, fmt.Sprintf("%d objects", objects[namespace]))
		}
	}
	for i, one := range d.restoration.databases {
		if is := d.restoration.object.Status.Databases; i < len(is) && is[i].Stored {
			d.found(checkDatabase, one.part, true, "loaded")
		}
	}
	for _, v := range p.Volumes {
		if v.Action == restore.Create || v.Action == restore.Exchange {
			d.found("volume", v.Part, true, fmt.Sprintf("%d bytes", v.Bytes))
		}
	}
}

// unseen notes the databases that were not loaded, as they are outside of what came back.
func (d *drill) unseen() {
	const why = "not looked at: it is outside of the application's namespaces"
	for _, one := range d.restoration.databases {
		switch {
		case one.left == "":
		case slices.Contains(d.object.Spec.ExceptDatabases, one.to.Name):
			d.checks = append(d.checks, point.Check{What: checkDatabase, Of: one.part, Excepted: true, Detail: why})
		default:
			d.found(checkDatabase, one.part, false, why+"; exceptDatabases can except it")
		}
	}
}

// ready waits until what came back runs.
func (d *drill) ready(ctx context.Context, p *restore.Plan, began time.Time) error {
	if err := d.phase(ctx, v1alpha1.PhaseWaiting); err != nil {
		return err
	}
	patience := readyTime
	if within, err := time.ParseDuration(d.object.Spec.ReadyWithin); err == nil && within > 0 {
		patience = within
	}
	lagging, err := p.Ready(ctx, patience)
	if err != nil {
		return err
	}
	fine := true
	for _, n := range lagging {
		if n.Before {
			d.found("ready", d.asInPoint(n.Object), true, "it did not run when the point was made: "+n.Why)
			continue
		}
		d.found("ready", d.asInPoint(n.Object), false, n.Why)
		fine = false
	}
	if fine {
		d.took = d.Now().Sub(began)
		d.found("ready", "", true, "after "+d.took.Round(time.Second).String())
	}
	return nil
}

// asInPoint names an object of scratch as the point does: NAMESPACE/KIND/NAME.
func (d *drill) asInPoint(object string) string {
	namespace, rest, found := strings.Cut(object, "/")
	for from, to := range d.restoration.object.Spec.Namespaces {
		if found && to == namespace {
			return from + "/" + rest
		}
	}
	return object
}

// prove has the location keep what was found, and says so on the point's object.
func (d *drill) prove(ctx context.Context, began time.Time) error {
	p := point.Proof{
		Point: d.object.Status.Point, Started: began.UTC(), Finished: d.Now().UTC(), RestoreSeconds: d.took.Seconds(), Checks: d.checks,
		By: strings.Join([]string{d.Name, d.object.Namespace, d.object.Name}, "/"),
	}
	p.Proven = len(p.Problems()) == 0
	if err := protect.KeepProof(ctx, d.restoration.store, p); err != nil {
		return fault.Wrap("keep what the drill found", nil, err, "")
	}
	var o v1alpha1.RestorePoint
	if err := d.Cluster.Client.Get(ctx, types.NamespacedName{Namespace: d.object.Namespace, Name: d.object.Status.RestorePoint}, &o); err != nil {
		return fault.Wrap("read the point's object", kube.ClassOf(client.IgnoreNotFound(err)), client.IgnoreNotFound(err), "")
	}
	before := o.DeepCopy()
	o.Spec.Proof = proofOf(&p)
	err := client.IgnoreNotFound(d.Cluster.Client.Patch(ctx, &o, client.MergeFrom(before)))
	return fault.Wrap("write the point's object", kube.ClassOf(err), err, "")
}

// proofOf is what a point's object says of its newest drill; nil for none.
func proofOf(p *point.Proof) *v1alpha1.PointProof {
	if p == nil {
		return nil
	}
	proof := v1alpha1.PointProof{
		Time: metav1.NewTime(p.Finished.Truncate(time.Second)), Proven: p.Proven, RestoreTook: tookOf(time.Duration(p.RestoreSeconds * float64(time.Second))),
	}
	for _, c := range p.Problems() {
		proof.Problems = append(proof.Problems, textOf(c))
	}
	proof.Problems, proof.Excepted = listed(proof.Problems), p.Excepted()
	return &proof
}

// tookOf is a span as statuses have it; empty for none.
func tookOf(span time.Duration) string {
	if span <= 0 {
		return ""
	}
	return max(span.Round(time.Second), time.Second).String()
}

// textOf is a check in one line.
func textOf(c point.Check) string {
	text := c.What
	if c.Of != "" {
		text += " " + c.Of
	}
	return text + ": " + c.Detail
}

// end writes what became of the drill. cause is why it could not be made; nil where it could.
func (d *drill) end(ctx context.Context, cause error, untidy []string) error {
	proof := point.Proof{Checks: d.checks}
	phase, reason, problems := v1alpha1.PhaseComplete, string(v1alpha1.PhaseComplete), []string{}
	for _, c := range proof.Problems() {
		phase, reason, problems = v1alpha1.PhaseIncomplete, "NotProven", append(problems, textOf(c))
	}
	if cause != nil {
		phase, reason, problems = v1alpha1.PhaseFailed, reasonOf(cause), append([]string{cause.Error()}, fault.Hints(cause)...)
		d.Log.Error("drill failed", "drill", d.object.Name, "error", cause.Error())
	}
	message := strings.Join(problems, "; ")
	if phase == v1alpha1.PhaseComplete {
		message = fmt.Sprintf("proven: everything ran %s after the first byte", tookOf(d.took))
		if but := proof.Excepted(); len(but) > 0 {
			message += "; nobody looked at " + strings.Join(but, ", ")
		}
	}
	err := d.save(ctx, func(s *v1alpha1.DrillStatus) {
		now := metav1.NewTime(d.Now())
		s.Phase, s.Finished, s.ObservedGeneration, s.RestoreTook = phase, &now, d.object.Generation, tookOf(d.took)
		s.Problems = listed(append(problems, untidy...))
		s.Checks = nil
		for _, c := range d.checks {
			s.Checks = append(s.Checks, v1alpha1.DrillCheck{What: c.What, Of: c.Of, OK: c.OK, Excepted: c.Excepted, Detail: c.Detail})
		}
		s.Conditions = conditions(s.Conditions, d.object.Generation, standingOf(phase), reason, message, now.Time)
	})
	if errors.Is(err, errEnded) {
		return nil
	}
	return err
}

func (d *drill) phase(ctx context.Context, phase v1alpha1.Phase) error {
	return d.save(ctx, func(s *v1alpha1.DrillStatus) { s.Phase = phase })
}

// save changes the status and writes it, unless the controller has ended the drill.
func (d *drill) save(ctx context.Context, change func(*v1alpha1.DrillStatus)) error {
	return d.persist(ctx, d.object, func() error {
		if d.object.Status.Phase == v1alpha1.PhaseFailed {
			return errEnded
		}
		change(&d.object.Status)
		return nil
	})
}
