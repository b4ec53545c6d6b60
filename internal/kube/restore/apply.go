package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// Outcome is what became of a plan's objects.
type Outcome struct {
	Created  int `json:"created"`
	Replaced int `json:"replaced"`
	// Failed are the objects that did not come back, conflicts of the plan among them.
	Failed []Failure `json:"failed,omitempty"`
	// Notes are what is not quite as in the point.
	Notes []string `json:"notes,omitempty"`
}

// Failure is an object that did not come back.
type Failure struct {
	Object string `json:"object"` // NAMESPACE/KIND.GROUP/NAME
	Why    string `json:"why"`
}

// Waits of Apply between passes over what was refused.
const (
	firstWait = 250 * time.Millisecond
	longWait  = 10 * time.Second
	// How long Apply waits, with nothing going forward, for what may pass.
	defaultPatience = 2 * time.Minute
)

// Refusal is the error of a plan that must not begin: fault.ErrExists where existing is fail and something is in the way. Ask for it
// before volumes are touched.
func (p *Plan) Refusal() error {
	if p.options.Spec.Existing != v1alpha1.ExistingFail || p.options.Begun {
		return nil
	}
	n, first := 0, ""
	see := func(action Action, what string) {
		if action != Conflict {
			return
		}
		if n++; n == 1 {
			first = what
		}
	}
	for _, i := range p.Items {
		see(i.Action, i.String()+": "+i.Why)
	}
	for _, v := range p.Volumes {
		see(v.Action, v.Namespace+"/"+v.Claim+": "+v.Why)
	}
	if n == 0 {
		return nil
	}
	return fault.New("restore", fault.ErrExists, fmt.Sprintf("%s in the way, the first: %s", count(n, "object"), first),
		"existing: keep or replace says what is to happen to them; nothing was touched")
}

// Apply creates and replaces the plan's objects in order. One that is refused is named in the outcome and keeps no other from being
// tried; what may pass is tried again, until nothing has gone forward for as long as patience says (0: two minutes). Claims that come
// with their data are left to who exchanges volumes, before. Apply of a plan made anew goes on where one that was killed ended.
// An error means that it did not get to the end: that of ctx, or of Refusal.
func (p *Plan) Apply(ctx context.Context, patience time.Duration) (Outcome, error) {
	if err := p.Refusal(); err != nil {
		return Outcome{}, err
	}
	if patience == 0 {
		patience = defaultPatience
	}
	a := &applier{Plan: p, client: p.options.Cluster.Client, waiting: map[*Item][]*Item{}}
	var todo []*Item
	for _, i := range p.Items {
		switch i.Action {
		case Create, Replace:
			todo = append(todo, i)
		case Conflict:
			a.outcome.Failed = append(a.outcome.Failed, Failure{i.String(), i.Why})
		}
	}
	err := a.passes(ctx, todo, patience)
	a.dropped(todo)
	slices.SortFunc(a.outcome.Failed, func(x, y Failure) int { return strings.Compare(x.Object, y.Object) })
	return a.outcome, err
}

// applier applies one plan.
type applier struct {
	*Plan
	client  client.Client
	outcome Outcome
	waiting map[*Item][]*Item // objects that are there, by the owner they wait for
}

// attempt is an object that was refused.
type attempt struct {
	item *Item
	err  error
}

// passes goes over the objects until all are done, or what is left will not pass.
func (a *applier) passes(ctx context.Context, todo []*Item, patience time.Duration) error {
	wait := firstWait
	for {
		left := a.pass(ctx, todo)
		if err := ctx.Err(); err != nil {
			a.fail(left)
			return fault.Wrap("restore objects", nil, err, "")
		}
		forward := len(left) < len(todo)
		hopeful := slices.ContainsFunc(left, func(t attempt) bool { return passing(t.err) })
		switch {
		case len(left) == 0:
			return nil
		case forward:
			wait = firstWait
		case !hopeful || patience <= 0:
			a.fail(left)
			return nil
		default:
			if err := kube.Pause(ctx, min(wait, patience)); err != nil {
				a.fail(left)
				return fault.Wrap("restore objects", nil, err, "")
			}
			patience -= wait
			wait = min(2*wait, longWait)
		}
		todo = todo[:0:0]
		for _, t := range left {
			todo = append(todo, t.item)
		}
	}
}

func (a *applier) fail(left []attempt) {
	for _, t := range left {
		a.outcome.Failed = append(a.outcome.Failed, Failure{t.item.String(), reason(t.err, t.item.object)})
	}
}

// pass tries every object once and returns those that were refused.
func (a *applier) pass(ctx context.Context, todo []*Item) []attempt {
	var left []attempt
	for n, i := range todo {
		if err := ctx.Err(); err != nil {
			for _, rest := range todo[n:] {
				left = append(left, attempt{rest, err})
			}
			return left
		}
		lacking := i.lacking()
		if err := a.one(ctx, i); err != nil {
			left = append(left, attempt{i, err})
			continue
		}
		for _, of := range lacking {
			a.waiting[of] = append(a.waiting[of], i)
		}
		a.relink(ctx, i)
	}
	return left
}

// one brings one object back.
func (a *applier) one(ctx context.Context, i *Item) error {
	var err error
	if i.Action == Replace {
		err = a.replace(ctx, i)
	} else {
		err = a.create(ctx, i)
	}
	if err != nil || !isKind(i.object, "customresourcedefinition."+groupExtensions) {
		return err
	}
	return a.established(ctx, i)
}

func (a *applier) create(ctx context.Context, i *Item) error {
	if i.made != "" {
		return nil // a definition that was not established in the last pass
	}
	u := i.withOwners(false)
	err := a.client.Create(ctx, u, client.FieldOwner(Manager))
	if err != nil && portTaken(err) && dropNodePorts(i.object) {
		a.note(i, "its node ports are taken; it got others")
		u = i.withOwners(false)
		err = a.client.Create(ctx, u, client.FieldOwner(Manager))
	}
	if apierrors.IsAlreadyExists(err) {
		return a.overtaken(ctx, i, err)
	}
	if err != nil {
		return err
	}
	i.made = u.GetUID()
	a.outcome.Created++
	return nil
}

// portTaken reports whether a Service was refused because another has its node port.
func portTaken(err error) bool {
	return apierrors.IsInvalid(err) && strings.Contains(err.Error(), "provided port is already allocated")
}

// overtaken deals with an object that has come to be since the plan was made: a controller made it, or a run that was killed.
func (a *applier) overtaken(ctx context.Context, i *Item, taken error) error {
	live, err := a.read(ctx, i)
	if err != nil || live == nil {
		return errors.Join(taken, err)
	}
	if live.GetDeletionTimestamp() != nil {
		return fault.New("", fault.ErrBusy, "it is being deleted on the cluster", "")
	}
	if len(differences(i.withOwners(true), live)) == 0 || a.options.Spec.Existing != v1alpha1.ExistingReplace && !fresh(i) {
		if len(differences(i.withOwners(true), live)) > 0 {
			a.note(i, "something made it meanwhile; it is kept as that did")
		}
		i.live, i.made = live, live.GetUID()
		return nil
	}
	i.live = live
	return a.replace(ctx, i)
}

// fresh reports whether an object is one that the cluster puts into every new namespace, so that nothing of anybody's is lost by writing over it.
func fresh(i *Item) bool { return isKind(i.object, "serviceaccount") && i.Name == "default" }

func (a *applier) read(ctx context.Context, i *Item) (*unstructured.Unstructured, error) {
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(i.object.GroupVersionKind())
	err := a.client.Get(ctx, key(i.Ref), live)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // no object is an answer
	}
	return live, err
}

// replace writes the object over the one that is there. Where that changed since the plan was made, it is read again.
func (a *applier) replace(ctx context.Context, i *Item) error {
	const tries = 5
	var err error
	for range tries {
		if i.recreate {
			err = a.recreate(ctx, i)
		} else {
			u := update(i.withOwners(false), i.live)
			if err = a.client.Update(ctx, u, client.FieldOwner(Manager)); err == nil {
				i.made = u.GetUID()
				a.outcome.Replaced++
			}
		}
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return err
		}
		live, readErr := a.read(ctx, i)
		switch {
		case readErr != nil:
			return readErr
		case live == nil:
			i.Action = Create
			return a.create(ctx, i)
		case live.GetDeletionTimestamp() != nil:
			return fault.New("", fault.ErrBusy, "it is being deleted on the cluster", "")
		}
		i.live = live
	}
	return err
}

// recreate deletes the object that is there, without what it owns, and creates it.
func (a *applier) recreate(ctx context.Context, i *Item) error {
	uid, version := i.live.GetUID(), i.live.GetResourceVersion()
	err := a.client.Delete(ctx, i.live, client.PropagationPolicy(metav1.DeletePropagationOrphan),
		client.Preconditions{UID: &uid, ResourceVersion: &version})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	const tries = 40
	for range tries { // to orphan is the garbage collector's work
		live, err := a.read(ctx, i)
		if err != nil {
			return err
		}
		if live == nil || live.GetUID() != uid {
			i.Action, i.live, i.recreate = Create, nil, false
			if err := a.create(ctx, i); err != nil {
				return err
			}
			a.outcome.Created--
			a.outcome.Replaced++
			return nil
		}
		if err := kube.Pause(ctx, firstWait); err != nil {
			return err
		}
	}
	return fault.New("", fault.ErrBusy, "its old form was deleted, and does not go", "")
}

// established waits until the cluster serves a kind that was defined just now.
func (a *applier) established(ctx context.Context, i *Item) error {
	const tries = 60
	for range tries {
		live, err := a.read(ctx, i)
		if err != nil {
			return err
		}
		if live != nil && condition(live, "Established") == metav1.ConditionTrue {
			return a.served(ctx, live)
		}
		if err := kube.Pause(ctx, firstWait); err != nil {
			return err
		}
	}
	return fault.New("", fault.ErrBusy, "the definition is created, but not established", "")
}

// served waits until discovery knows the kind, too.
func (a *applier) served(ctx context.Context, definition *unstructured.Unstructured) error {
	group, _, _ := unstructured.NestedString(definition.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(definition.Object, "spec", "names", "kind")
	const tries = 40
	var err error
	for range tries {
		if _, err = a.client.RESTMapper().RESTMapping(schema.GroupKind{Group: group, Kind: kind}); err == nil {
			return nil
		}
		if slept := kube.Pause(ctx, firstWait); slept != nil {
			return slept
		}
	}
	return err
}

// lacking are the owners of i that are not there yet.
func (i *Item) lacking() []*Item {
	var found []*Item
	for _, o := range i.owners {
		if _, known := o.reference(); !known {
			found = append(found, o.item)
		}
	}
	return found
}

// relink gives objects that waited for an owner their reference to it.
func (a *applier) relink(ctx context.Context, made *Item) {
	for _, i := range a.waiting[made] {
		if err := a.addOwners(ctx, i); err != nil {
			a.note(i, "it does not have its owner "+made.String()+": "+reason(err, i.object))
		}
	}
	delete(a.waiting, made)
}

// addOwners writes the owners that are known by now into an object that is there.
func (a *applier) addOwners(ctx context.Context, i *Item) error {
	const tries = 5
	var err error
	for range tries {
		var live *unstructured.Unstructured
		if live, err = a.read(ctx, i); err != nil || live == nil {
			return err
		}
		refs := live.GetOwnerReferences()
		for _, o := range i.owners {
			ref, known := o.reference()
			if known && !slices.ContainsFunc(refs, func(r metav1.OwnerReference) bool { return r.UID == ref.UID }) {
				refs = append(refs, ref)
			}
		}
		live.SetOwnerReferences(refs)
		if err = a.client.Update(ctx, live, client.FieldOwner(Manager)); !apierrors.IsConflict(err) {
			return err
		}
	}
	return err
}

// dropped notes the objects whose owner did not come.
func (a *applier) dropped(done []*Item) {
	for _, i := range done {
		for _, o := range i.owners {
			if _, known := o.reference(); !known && i.made != "" {
				a.note(i, "it does not have its owner "+o.item.String()+", which did not come back")
			}
		}
	}
}

func (a *applier) note(i *Item, what string) {
	a.outcome.Notes = append(a.outcome.Notes, i.String()+": "+what)
}
