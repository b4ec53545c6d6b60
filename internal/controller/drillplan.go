package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/policy"
)

const (
	keepDrills   = 3                // of each application, that have ended: history, not data
	demandLook   = 10 * time.Minute // between two looks whether proofs have grown too old
	mostUnproven = 10               // in a message
)

// addDrillPlans makes Drills at the times that policies say, and tells where a proof is asked for and there is none.
func (c *controller) addDrillPlans(m manager.Manager) error {
	ofPolicy := func(_ context.Context, o client.Object) []reconcile.Request {
		name := o.GetLabels()[v1alpha1.LabelPolicy]
		if p, is := o.(*v1alpha1.RestorePoint); is {
			name = p.Spec.Policy
		}
		if name == "" {
			return nil
		}
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}}}
	}
	return ctrl.NewControllerManagedBy(m).Named("drillplan").
		For(&v1alpha1.Policy{}).
		Watches(&v1alpha1.RestorePoint{}, handler.EnqueueRequestsFromMapFunc(ofPolicy)).
		Watches(&v1alpha1.Drill{}, handler.EnqueueRequestsFromMapFunc(ofPolicy)).
		Complete(calmly(c.reconcileDrillPlan))
}

// plan is one look at what a policy says of drills.
type plan struct {
	*turn
	points map[string][]*v1alpha1.RestorePoint // of each application, the newest first
}

func (c *controller) reconcileDrillPlan(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	var p v1alpha1.Policy
	if err := c.client.Get(ctx, r.NamespacedName, &p); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if !p.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, nil
	}
	if p.Spec.Drill == nil || len(applicationsOf(&p)) == 0 {
		return reconcile.Result{}, c.forgetDrills(ctx, &p)
	}
	d := plan{&turn{controller: c, policy: &p, now: c.Now()}, map[string][]*v1alpha1.RestorePoint{}}
	if err := d.read(ctx); err != nil {
		return reconcile.Result{}, d.misread(ctx, err)
	}
	if err := d.drill(ctx); err != nil {
		return reconcile.Result{}, err
	}
	if err := d.prune(ctx); err != nil {
		return reconcile.Result{}, err
	}
	if err := d.demand(ctx); err != nil {
		return reconcile.Result{}, err
	}
	result := reconcile.Result{}
	if next := p.Status.NextDrill; next != nil {
		result.RequeueAfter = max(next.Sub(d.now), time.Second)
	}
	if p.Spec.Drill.ProvenWithin != "" && (result.RequeueAfter == 0 || result.RequeueAfter > demandLook) {
		result.RequeueAfter = demandLook
	}
	return result, nil
}

// forgetDrills takes from a policy what is said of drills that it asks for no more.
func (c *controller) forgetDrills(ctx context.Context, p *v1alpha1.Policy) error {
	s := &p.Status
	if s.NextDrill == nil && s.Unproven == 0 && meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionProven) == nil {
		return nil
	}
	return c.save(ctx, p, func() {
		s.NextDrill, s.Unproven = nil, 0
		meta.RemoveStatusCondition(&s.Conditions, v1alpha1.ConditionProven)
	})
}

// read understands what the policy says of drills, and finds its points.
func (d plan) read(ctx context.Context) (err error) {
	p := d.policy
	if s := p.Spec.Drill.Schedule; s != nil {
		op := "policy " + p.Name + ": drill"
		if p.Namespace != d.System {
			return fault.New(op, fault.ErrDenied, "drills of applications are made in Backstay's own namespace only, "+d.System, "")
		}
		if d.times, d.jitter, err = readSchedule(op, s); err != nil {
			return err
		}
	}
	var all v1alpha1.RestorePointList
	if err := d.client.List(ctx, &all, client.InNamespace(p.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list restore points: %w", err)
	}
	for i := range all.Items {
		o := &all.Items[i]
		if o.Spec.Policy == p.Name && o.Spec.Location == p.Spec.Location && o.DeletionTimestamp.IsZero() {
			d.points[o.Spec.Application] = append(d.points[o.Spec.Application], o)
		}
	}
	for _, of := range d.points {
		slices.SortFunc(of, func(a, b *v1alpha1.RestorePoint) int { return b.Spec.Time.Compare(a.Spec.Time.Time) })
	}
	return nil
}

// misread tells what is wrong with what a policy says of drills. What no class is known of is the API server's, and tried again.
func (d plan) misread(ctx context.Context, problem error) error {
	if class := fault.Of(problem); class.Retry || class.Reason == fault.Of(fmt.Errorf("no class")).Reason {
		return problem
	}
	return d.tellProven(ctx, metav1.ConditionFalse, fault.Of(problem).Reason, problem.Error(), 0)
}

// drill makes the Drills that are due: of the newest complete point of each application, those first whose proof is oldest.
func (d plan) drill(ctx context.Context) error {
	s := &d.policy.Status
	next := d.next(d.now)
	due := s.NextDrill != nil && !s.NextDrill.After(d.now)
	if !due {
		if next == nil && s.NextDrill == nil || next != nil && s.NextDrill != nil && !next.Before(s.NextDrill) {
			return nil
		}
		return d.save(ctx, d.policy, func() { s.NextDrill = next })
	}
	if next != nil {
		for _, p := range d.chosen() {
			if err := d.create(ctx, p, s.NextDrill.Time); err != nil {
				return err
			}
		}
	}
	return d.save(ctx, d.policy, func() {
		at := metav1.NewTime(d.now)
		s.LastDrill, s.NextDrill = &at, next
	})
}

// chosen are the points that are drilled now.
func (d plan) chosen() []*v1alpha1.RestorePoint {
	type candidate struct {
		newest *v1alpha1.RestorePoint
		looked time.Time // at any of them, last
	}
	var all []candidate
	for _, points := range d.points {
		var c candidate
		for _, p := range points {
			if c.newest == nil && p.Spec.State == stateComplete {
				c.newest = p
			}
			if p.Spec.Proof != nil && p.Spec.Proof.Time.After(c.looked) {
				c.looked = p.Spec.Proof.Time.Time
			}
		}
		if c.newest != nil {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(a.looked.Compare(b.looked), strings.Compare(a.newest.Spec.Application, b.newest.Spec.Application))
	})
	var chosen []*v1alpha1.RestorePoint
	for i, c := range all {
		if limit := d.policy.Spec.Drill.Limit; limit == 0 || i < limit {
			chosen = append(chosen, c.newest)
		}
	}
	return chosen
}

// create makes the Drill of a point; it may be there already.
func (d plan) create(ctx context.Context, of *v1alpha1.RestorePoint, at time.Time) error {
	p := d.policy
	o := &v1alpha1.Drill{
		ObjectMeta: metav1.ObjectMeta{
			Name: short(p.Name + "-" + stamp(at) + "-" + of.Spec.Application), Namespace: p.Namespace,
			Labels:     map[string]string{v1alpha1.LabelPolicy: p.Name},
			Finalizers: []string{v1alpha1.FinalizerRunning},
			OwnerReferences: []metav1.OwnerReference{
				{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindPolicy, Name: p.Name, UID: p.UID}, // it blocks nobody's deletion
			},
		},
		Spec: v1alpha1.DrillSpec{RestorePoint: of.Name, DrillChecks: p.Spec.Drill.DrillChecks, DrillScratch: p.Spec.Drill.DrillScratch},
	}
	if len(validation.IsValidLabelValue(of.Spec.Application)) == 0 {
		o.Labels[v1alpha1.LabelApplication] = of.Spec.Application
	}
	if err := d.client.Create(ctx, o); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create drill %s: %w", o.Name, err)
	}
	return nil
}

// prune deletes Drills of the policy that are history of no use any more.
func (d plan) prune(ctx context.Context) error {
	var all v1alpha1.DrillList
	err := d.client.List(ctx, &all, client.InNamespace(d.policy.Namespace), client.MatchingLabels{v1alpha1.LabelPolicy: d.policy.Name})
	if err != nil {
		return fmt.Errorf("list drills of policy %s: %w", d.policy.Name, err)
	}
	slices.SortFunc(all.Items, func(a, b v1alpha1.Drill) int {
		return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), strings.Compare(b.Name, a.Name))
	})
	ended := map[string]int{}
	for i := range all.Items {
		o := &all.Items[i]
		if !o.Status.Phase.Final() || !o.DeletionTimestamp.IsZero() {
			continue
		}
		application := o.Labels[v1alpha1.LabelApplication]
		if ended[application]++; ended[application] <= keepDrills {
			continue
		}
		if err := d.client.Delete(ctx, o); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete drill %s: %w", o.Name, err)
		}
	}
	return nil
}

// demand tells whether each application has a point that is as lately proven as the policy asks for.
func (d plan) demand(ctx context.Context) error {
	within := d.policy.Spec.Drill.ProvenWithin
	if within == "" {
		if meta.FindStatusCondition(d.policy.Status.Conditions, v1alpha1.ConditionProven) == nil {
			return nil
		}
		return d.save(ctx, d.policy, func() {
			d.policy.Status.Unproven = 0
			meta.RemoveStatusCondition(&d.policy.Status.Conditions, v1alpha1.ConditionProven)
		})
	}
	span, err := policy.ParseDuration(within)
	if err != nil {
		return d.misread(ctx, fault.Wrap("policy "+d.policy.Name+": drill.provenWithin", fault.ErrInvalid, err, ""))
	}
	since, unproven := span.Before(d.now), []string{}
	for application, points := range d.points {
		if at := slices.IndexFunc(points, provenPoint); at < 0 || points[at].Spec.Time.Time.Before(since) {
			unproven = append(unproven, application)
		}
	}
	slices.Sort(unproven)
	switch n := len(unproven); {
	case len(d.points) == 0:
		return d.tellProven(ctx, metav1.ConditionFalse, "NotProven", "there is no point yet", 0)
	case n > 0:
		named := strings.Join(unproven[:min(n, mostUnproven)], ", ")
		message := fmt.Sprintf("%d of %d applications have no point of the last %s that is proven: %s", n, len(d.points), within, named)
		return d.tellProven(ctx, metav1.ConditionFalse, "NotProven", message, n)
	}
	return d.tellProven(ctx, metav1.ConditionTrue, "Proven", "each application has a point of the last "+within+" that is proven", 0)
}

func provenPoint(p *v1alpha1.RestorePoint) bool { return p.Spec.Proof != nil && p.Spec.Proof.Proven }

// tellProven writes the condition of a policy, and makes an event where it was another.
func (d plan) tellProven(ctx context.Context, status metav1.ConditionStatus, reason, message string, unproven int) error {
	s := &d.policy.Status
	said := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionProven)
	if said != nil && said.Status == status && said.Reason == reason && said.Message == shorten(message) && said.ObservedGeneration == d.policy.Generation {
		return nil
	}
	news := said == nil || said.Status != status || said.Reason != reason
	err := d.save(ctx, d.policy, func() {
		s.Unproven = unproven
		meta.SetStatusCondition(&s.Conditions, provenCondition(status, reason, message, d.policy.Generation, d.now))
	})
	if err != nil || !news {
		return err
	}
	kind := corev1.EventTypeNormal
	if status != metav1.ConditionTrue {
		kind = corev1.EventTypeWarning
	}
	d.tell(d.policy, kind, reason, message)
	return nil
}

func provenCondition(status metav1.ConditionStatus, reason, message string, generation int64, now time.Time) metav1.Condition {
	return metav1.Condition{
		Type: v1alpha1.ConditionProven, Status: status, Reason: reason, Message: shorten(message), ObservedGeneration: generation,
		LastTransitionTime: metav1.NewTime(now),
	}
}

// tellProof writes on a point's object what the newest drill of it found, and makes an event of it.
func (c *controller) tellProof(ctx context.Context, p *v1alpha1.RestorePoint) error {
	said, proof := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionProven), p.Spec.Proof
	if proof == nil {
		if said == nil {
			return nil
		}
		return c.save(ctx, p, func() { meta.RemoveStatusCondition(&p.Status.Conditions, v1alpha1.ConditionProven) })
	}
	at := proof.Time.UTC().Format(time.RFC3339)
	status, kind, reason, message := metav1.ConditionTrue, corev1.EventTypeNormal, "Proven", "restored and looked at on "+at+"; it ran after "+proof.RestoreTook
	if len(proof.Excepted) > 0 {
		message += "; nobody looked at " + strings.Join(proof.Excepted, ", ")
	}
	if !proof.Proven {
		status, kind, reason = metav1.ConditionFalse, corev1.EventTypeWarning, "NotProven"
		message = "the drill of " + at + " found: " + strings.Join(proof.Problems, "; ")
	}
	if said != nil && said.Status == status && said.Message == shorten(message) {
		return nil
	}
	err := c.save(ctx, p, func() {
		meta.SetStatusCondition(&p.Status.Conditions, provenCondition(status, reason, message, p.Generation, c.Now()))
	})
	if err == nil {
		c.tell(p, kind, reason, message)
	}
	return err
}
