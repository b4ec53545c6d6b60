package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// Manager is the name under which Backstay writes fields of objects that it restores.
const Manager = "backstay"

// requestsAtOnce bounds the requests of one plan that are under way at a time.
const requestsAtOnce = 8

// each calls do for every item, several at a time, and returns the first error by order of the items.
func each(ctx context.Context, items []*Item, do func(context.Context, *Item) error) error {
	var all sync.WaitGroup
	free := make(chan struct{}, requestsAtOnce)
	failed := make([]error, len(items))
	for n, i := range items {
		free <- struct{}{}
		all.Go(func() {
			defer func() { <-free }()
			failed[n] = do(ctx, i)
		})
	}
	all.Wait()
	for _, err := range failed {
		if err != nil {
			return err
		}
	}
	return nil
}

// open are the items that are not decided yet.
func (b *builder) open() []*Item {
	return slices.DeleteFunc(slices.Clone(b.all), func(i *Item) bool { return i.Action != "" })
}

// readNamespaces learns how the target namespaces are, and plans those that are missing.
func (b *builder) readNamespaces(ctx context.Context) error {
	for _, target := range b.targets() {
		var ns corev1.Namespace
		err := b.Cluster.Client.Get(ctx, client.ObjectKey{Name: target}, &ns)
		switch {
		case err == nil:
			b.live[target] = nsState{exists: true, ending: ns.DeletionTimestamp != nil || ns.Status.Phase == corev1.NamespaceTerminating}
		case apierrors.IsNotFound(err):
			b.live[target] = nsState{}
			b.needNamespace(target)
		case apierrors.IsForbidden(err):
			b.live[target] = nsState{exists: true} // a tenant may be allowed everything in its namespace but to read it
		default:
			return unavailable("read namespace "+target, err)
		}
	}
	return nil
}

// targets are the namespaces into which something goes, in order.
func (b *builder) targets() []string {
	var found []string
	for _, i := range b.all {
		if i.Action == "" && !i.cluster {
			found = append(found, i.Namespace)
		}
	}
	for _, d := range b.Data {
		found = append(found, b.mapping.to(d.Namespace))
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// needNamespace plans a namespace that the point does not have as an object.
func (b *builder) needNamespace(name string) {
	ref := Ref{Kind: "Namespace", Name: name}
	if _, planned := b.places[ref]; planned || b.Tenant != "" {
		return
	}
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	u.SetName(name)
	i := &Item{Ref: ref, Why: "the point has no object for it", object: u, original: u, cluster: true, namespace: name}
	b.all = append(b.all, i)
	b.places[ref] = i
}

// readLive reads what stands where objects are to go.
func (b *builder) readLive(ctx context.Context) error {
	there := slices.DeleteFunc(b.open(), func(i *Item) bool { return b.scopes[i.object.GroupVersionKind()].coming })
	return each(ctx, there, func(ctx context.Context, i *Item) error {
		live, err := b.read(ctx, i)
		switch {
		case err == nil:
			i.live = live
		case unreachable(err):
			return unavailable("read "+i.String(), err)
		default:
			i.conflict("it cannot be read on the cluster: " + reason(err, i.object))
		}
		return nil
	})
}

// read reads the object on the cluster; nil where there is none.
func (b *builder) read(ctx context.Context, i *Item) (*unstructured.Unstructured, error) {
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(i.object.GroupVersionKind())
	err := b.Cluster.Client.Get(ctx, key(i.Ref), live)
	if apierrors.IsNotFound(err) || isNoMatch(err) {
		return nil, nil //nolint:nilnil // no object is an answer
	}
	return live, err
}

// judge decides what happens to every object.
func (b *builder) judge(ctx context.Context) error {
	items := slices.DeleteFunc(b.open(), b.hasVolume)
	err := each(ctx, items, func(ctx context.Context, i *Item) error {
		if why := b.ending(i); why != "" {
			i.conflict(why)
			return nil
		}
		if i.live == nil {
			return b.judgeNew(ctx, i)
		}
		return b.judgeExisting(ctx, i)
	})
	for _, i := range items {
		if i.refused != nil {
			b.judgeRecreate(i, i.refused)
		}
	}
	return err
}

// ending says what is being deleted, so that nothing can be put there.
func (b *builder) ending(i *Item) string {
	if b.live[i.Namespace].ending {
		return "namespace " + i.Namespace + " is being deleted"
	}
	if i.live == nil || i.live.GetDeletionTimestamp() == nil {
		return ""
	}
	const limit = 200
	why := "it is being deleted on the cluster"
	if f := i.live.GetFinalizers(); len(f) > 0 {
		why += ", which waits for " + plain(strings.Join(f, ", "), limit)
	}
	return why
}

// strict reports whether the Restore must not begin where something is in the way.
func (b *builder) strict() bool { return b.Spec.Existing == v1alpha1.ExistingFail && !b.Begun }

func (b *builder) judgeNew(ctx context.Context, i *Item) error {
	i.Action = Create
	if b.hasData(i) { // that is not asked for
		if b.Spec.Only != v1alpha1.OnlyConfig {
			i.Action = Skip
			i.say("its data is not asked for, and programs would take it for new without")
			return nil
		}
		i.say("without its data")
	}
	if isKind(i.original, "persistentvolumeclaim") && slices.ContainsFunc(b.Data, func(d Data) bool { return d.of(i) && b.leftOut(d) }) {
		i.say("it is empty: the point has no data of it, on purpose")
	}
	if i.Git != "" && i.From == "" {
		i.say(i.Git + " takes it over")
	}
	if i.From != "" && !i.cluster {
		i.Git = ""
	}
	there := i.cluster || b.live[i.Namespace].exists
	if !b.strict() || !there || b.scopes[i.object.GroupVersionKind()].coming {
		return nil
	}
	err := b.Cluster.Client.Create(ctx, i.withOwners(false), client.DryRunAll, client.FieldOwner(Manager))
	switch {
	case err == nil || apierrors.IsAlreadyExists(err) || noDryRun(err):
	case unreachable(err):
		return unavailable("try "+i.String(), err)
	default:
		i.conflict("the cluster refuses it: " + reason(err, i.object))
	}
	return nil
}

// noDryRun reports whether something could not be tried because a webhook has side effects.
func noDryRun(err error) bool {
	return apierrors.IsBadRequest(err) && strings.Contains(err.Error(), "dry")
}

func (b *builder) judgeExisting(ctx context.Context, i *Item) error {
	i.Fields = differences(i.withOwners(true), i.live)
	if i.Git = gitOwner(i.live); i.Git == "" && i.From == "" {
		i.Git = gitOwner(i.original)
	}
	switch {
	case len(i.Fields) == 0:
		i.Action = Same
	case b.Begun && slices.Equal(i.Fields, []string{"+ metadata.ownerReferences"}):
		i.Action = Replace // an earlier run was killed between the object and its owner
		i.say("it gets its owner")
	case i.cluster && !isKind(i.object, "namespace"):
		i.keep("objects of the cluster are never replaced")
	case i.cluster && i.From != "":
		i.keep("the namespace is another")
	case i.cluster && b.Spec.Existing != v1alpha1.ExistingReplace:
		i.keep("")
	case b.strict():
		i.conflict("it is there and differs")
	case b.Spec.Existing != v1alpha1.ExistingReplace:
		i.keep("")
	default:
		return b.judgeReplace(ctx, i)
	}
	return nil
}

func (i *Item) keep(why string) {
	i.Action = Keep
	i.say(why)
	if i.Git != "" {
		i.say("left to git: " + i.Git)
	}
}

// judgeReplace tries to replace an object without doing it.
func (b *builder) judgeReplace(ctx context.Context, i *Item) error {
	if by := controller(i.live); by != nil && !i.ownedBy(by.Kind, by.Name) {
		i.conflict("on the cluster it belongs to " + strings.ToLower(by.Kind) + "/" + by.Name)
		return nil
	}
	i.Action = Replace
	if i.Git != "" {
		i.say(i.Git + " brings it back to what git says")
	}
	if isKind(i.object, "service") && headless(i.object) != headless(i.live) { // an update would say nothing, and change nothing
		i.refused = fault.New("", fault.ErrRefused, "spec.clusterIP field is immutable", "")
		return nil
	}
	tried := update(i.withOwners(false), i.live)
	err := b.Cluster.Client.Update(ctx, tried, client.DryRunAll, client.FieldOwner(Manager))
	switch {
	case err == nil:
		if fields := differences(tried, i.live); len(fields) > 0 {
			i.Fields = fields
		} else {
			i.Action, i.Fields, i.Why = Same, nil, ""
		}
	case unreachable(err):
		return unavailable("try "+i.String(), err)
	case apierrors.IsConflict(err) || passing(err) || noDryRun(err):
		i.say("could not be tried: " + reason(err, i.object))
	case immutable(err):
		i.refused = err
	default:
		i.conflict("the cluster refuses it: " + reason(err, i.object))
	}
	return nil
}

// headless reports whether a Service has no address of its own on purpose.
func headless(u *unstructured.Unstructured) bool {
	ip, _, _ := unstructured.NestedString(u.Object, "spec", "clusterIP")
	return ip == "None"
}

func (i *Item) ownedBy(kind, name string) bool {
	return slices.ContainsFunc(i.owners, func(o owner) bool { return o.ref.Kind == kind && o.ref.Name == name })
}

// judgeRecreate decides about an object that cannot be changed as it would have to be.
func (b *builder) judgeRecreate(i *Item, err error) {
	if !recreatable(i.object, i.live) {
		i.conflict("it cannot be changed: " + reason(err, i.object))
		return
	}
	i.recreate = true
	i.say("it is deleted and made again, for it cannot be changed")
	if isKind(i.object, "statefulset.apps") {
		i.say("its pods stay")
	}
}

// recreatable reports whether nothing is lost when an object is deleted and made again: no data, and no pod is stopped.
func recreatable(point, live *unstructured.Unstructured) bool {
	switch kindName(point.GroupVersionKind().GroupKind()) {
	case "configmap", "secret", "rolebinding." + groupRBAC:
		return true
	case "statefulset.apps":
		return sameField(point, live, "spec", "selector") && sameField(point, live, "spec", "serviceName")
	case "service":
		kind, _, _ := unstructured.NestedString(live.Object, "spec", "type")
		return kind != string(corev1.ServiceTypeLoadBalancer)
	}
	return false
}

func sameField(a, b *unstructured.Unstructured, path ...string) bool {
	x, _, _ := unstructured.NestedFieldNoCopy(a.Object, path...)
	y, _, _ := unstructured.NestedFieldNoCopy(b.Object, path...)
	d := &differ{}
	d.compare("", x, y)
	return len(d.fields) == 0
}

// update makes of the wanted object one that can be written over the live one: with what the server assigned to that, and its finalizers,
// for what they wait for was not undone.
func update(wanted, live *unstructured.Unstructured) *unstructured.Unstructured {
	wanted.SetUID(live.GetUID())
	wanted.SetResourceVersion(live.GetResourceVersion())
	finalizers := wanted.GetFinalizers()
	for _, f := range live.GetFinalizers() {
		if !slices.Contains(finalizers, f) {
			finalizers = append(finalizers, f)
		}
	}
	if len(finalizers) > 0 {
		wanted.SetFinalizers(finalizers)
	}
	annotations := wanted.GetAnnotations()
	for _, k := range assignedAnnotations {
		if v, found := live.GetAnnotations()[k]; found && k != v1alpha1.AnnotationScaled {
			if annotations == nil {
				annotations = map[string]string{}
			}
			annotations[k] = v
		}
	}
	if len(annotations) > 0 {
		wanted.SetAnnotations(annotations)
	}
	carryKind(wanted, live)
	return wanted
}

// carryKind takes over what a kind's server assigned and does not let go.
func carryKind(wanted, live *unstructured.Unstructured) {
	var fields [][]string
	switch kindName(wanted.GroupVersionKind().GroupKind()) {
	case "service":
		if !headless(wanted) && !headless(live) {
			fields = [][]string{{"spec", "clusterIP"}, {"spec", "clusterIPs"}}
		}
		fields = append(fields, []string{"spec", "healthCheckNodePort"})
	case "persistentvolumeclaim":
		fields = [][]string{{"spec", "volumeName"}}
	case "namespace":
		fields = [][]string{{"spec"}}
	case "serviceaccount":
		fields = [][]string{{"secrets"}}
	case "job.batch":
		fields = [][]string{{"spec", "selector"}, {"spec", "template"}}
	}
	for _, path := range fields {
		v, found, err := unstructured.NestedFieldCopy(live.Object, path...)
		if err != nil || !found {
			continue
		}
		if err := unstructured.SetNestedField(wanted.Object, v, path...); err != nil {
			return // the point's object is no such thing; the server will say so
		}
	}
}

// hasVolume reports whether an item is a claim that comes back with its data.
func (b *builder) hasVolume(i *Item) bool {
	return b.hasData(i) && slices.ContainsFunc(b.Data, func(d Data) bool { return d.of(i) && b.dataChosen(d) })
}

// hasData reports whether an item is a claim whose data is in the point, or should be.
func (b *builder) hasData(i *Item) bool {
	return isKind(i.original, "persistentvolumeclaim") && slices.ContainsFunc(b.Data, func(d Data) bool { return d.of(i) && !b.leftOut(d) })
}

func (d Data) of(i *Item) bool { return d.Namespace == i.namespace && d.Claim == i.original.GetName() }

// dataChosen applies the filters of the spec to claims. Who names objects and no claims gets the data of the claims among them.
func (b *builder) dataChosen(d Data) bool {
	switch {
	case b.Spec.Only == v1alpha1.OnlyConfig:
		return false
	case len(b.Spec.Claims) > 0:
		return slices.Contains(b.Spec.Claims, d.Claim)
	case len(b.chosen) > 0 && b.Spec.Only != v1alpha1.OnlyData:
		return slices.ContainsFunc(b.chosen, func(s selector) bool {
			return s.matches(corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim").GroupKind(), d.Claim)
		})
	}
	return true
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
