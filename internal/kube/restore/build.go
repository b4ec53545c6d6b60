package restore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// builder makes one plan.
type builder struct {
	Options

	plan       *Plan
	mapping    mapping
	chosen     []selector // empty: all
	matched    []bool     // of chosen, which matched something
	transforms []transform
	groups     map[string]bool // API groups that the cluster serves

	all    []*Item                   // of everything in the point, also what is skipped
	origin map[string]*Item          // by uid in the point
	places map[Ref]*Item             // by place on the cluster
	live   map[string]nsState        // target namespaces
	crds   map[schema.GroupKind]bool // kinds whose definitions the point brings: whether they are of the cluster
	scopes map[schema.GroupVersionKind]scope
	asked  int // owners that were looked for on the cluster
}

// scope is what there is to know of a kind.
type scope struct {
	cluster bool   // its objects have no namespace
	coming  bool   // the cluster does not know it yet; its definition comes with the point
	why     string // there can be no such objects
}

// nsState is how a namespace on the cluster is.
type nsState struct{ exists, ending bool }

// Build compares a point with the cluster and plans what is to happen. It changes nothing; where something would be replaced, or
// existing is fail, it asks the server for dry runs. What cannot come back is a conflict in the plan. An error means that there is no
// plan: fault.ErrInvalid for a spec that cannot be, fault.ErrDenied for a tenant that reaches too far, fault.ErrRefused for a namespace of
// the cluster's own, fault.ErrUnavailable.
func Build(ctx context.Context, o Options) (*Plan, error) {
	b, err := newBuilder(o)
	if err != nil {
		return nil, err
	}
	if err := b.checkTargets(); err != nil {
		return nil, err
	}
	if err := b.lookAround(); err != nil {
		return nil, err
	}
	b.take()
	b.leaveToOwners()
	b.findDefinitions()
	for _, i := range b.all {
		b.prepare(i)
	}
	if err := b.readNamespaces(ctx); err != nil {
		return nil, err
	}
	if err := b.readLive(ctx); err != nil {
		return nil, err
	}
	if err := b.link(ctx); err != nil {
		return nil, err
	}
	if err := b.judge(ctx); err != nil {
		return nil, err
	}
	if err := b.volumes(ctx); err != nil {
		return nil, err
	}
	b.lacks(ctx)
	b.finish()
	return b.plan, nil
}

func newBuilder(o Options) (*builder, error) {
	b := &builder{
		Options: o, plan: &Plan{Version: PlanVersion, Taken: o.Taken, Made: o.Now, options: o},
		mapping: mapping{namespaces: o.Spec.Namespaces, classes: o.Spec.StorageClasses},
		groups:  map[string]bool{}, origin: map[string]*Item{}, places: map[Ref]*Item{}, live: map[string]nsState{}, crds: map[schema.GroupKind]bool{},
		scopes: map[schema.GroupVersionKind]scope{},
	}
	if lost := o.Now.Sub(o.Taken); lost > 0 && !o.Taken.IsZero() {
		b.plan.Lost = int64(lost.Seconds())
	}
	var err error
	if b.chosen, err = parseSelectors(o.Spec.Objects); err != nil {
		return nil, err
	}
	b.matched = make([]bool, len(b.chosen))
	if b.transforms, err = parseTransforms(o.Spec.Transforms); err != nil {
		return nil, err
	}
	switch o.Spec.Existing {
	case "", v1alpha1.ExistingKeep, v1alpha1.ExistingReplace, v1alpha1.ExistingFail:
	default:
		return nil, fault.New("plan restore", fault.ErrInvalid, fmt.Sprintf("existing: %q is not keep, replace or fail", o.Spec.Existing), "")
	}
	switch o.Spec.Only {
	case "", v1alpha1.OnlyConfig, v1alpha1.OnlyData:
	default:
		return nil, fault.New("plan restore", fault.ErrInvalid, fmt.Sprintf("only: %q is not data or config", o.Spec.Only), "")
	}
	return b, nil
}

// checkTargets refuses namespaces that the Restore may not reach.
func (b *builder) checkTargets() error {
	for _, from := range slices.Sorted(maps.Keys(b.Spec.Namespaces)) {
		to := b.Spec.Namespaces[from]
		if len(validation.IsDNS1123Label(to)) > 0 {
			return fault.New("map namespace "+from, fault.ErrInvalid, fmt.Sprintf("%q is no name of a namespace", to), "")
		}
	}
	for _, from := range b.sources() {
		to := b.mapping.to(from)
		if len(validation.IsDNS1123Label(to)) > 0 {
			return fault.New("plan restore", fault.ErrInvalid, fmt.Sprintf("the point has a namespace %q, which is no name of one", from), "")
		}
		if why := b.checkTarget(to); why != nil {
			return why
		}
	}
	return nil
}

// sources are the namespaces in the point.
func (b *builder) sources() []string {
	found := map[string]bool{}
	for namespace := range b.Objects {
		found[namespace] = true
	}
	for _, d := range b.Data {
		found[d.Namespace] = true
	}
	return slices.Sorted(maps.Keys(found))
}

// checkTarget says why a Restore may not write into a namespace of the cluster.
func (b *builder) checkTarget(namespace string) error {
	if b.Tenant != "" && namespace != b.Tenant {
		return fault.New("restore into namespace "+namespace, fault.ErrDenied, "a Restore outside Backstay's own namespace reaches its own only",
			fmt.Sprintf("map it there: namespaces: {NAME: %s}; or ask who runs Backstay", b.Tenant))
	}
	if !ownNamespace(namespace) && (namespace != b.System || b.System == "") {
		return nil
	}
	for _, to := range b.Spec.Namespaces {
		if to == namespace {
			return nil
		}
	}
	return fault.New("restore into namespace "+namespace, fault.ErrRefused, "it is the cluster's own",
		fmt.Sprintf("if that is what you want, say so: namespaces: {%s: %s}", namespace, namespace))
}

// lookAround learns which API groups the cluster serves.
func (b *builder) lookAround() error {
	b.Cluster.Discovery.Invalidate()
	groups, err := b.Cluster.Discovery.ServerGroups()
	if err != nil {
		return unavailable("plan restore", err)
	}
	for _, g := range groups.Groups {
		b.groups[g.Name] = true
	}
	_, err = b.Cluster.Client.RESTMapper().RESTMapping(schema.GroupKind{Group: "argoproj.io", Kind: "Application"})
	b.mapping.argo = err == nil
	return nil
}

// take makes an item of everything in the point, in order.
func (b *builder) take() {
	for _, namespace := range slices.Sorted(maps.Keys(b.Objects)) {
		for n := range b.Objects[namespace] {
			b.add(&b.Objects[namespace][n], namespace)
		}
	}
	for n := range b.ClusterObjects {
		b.add(&b.ClusterObjects[n], "")
	}
	for n, s := range b.Spec.Objects {
		if !b.matched[n] {
			b.plan.Warnings = append(b.plan.Warnings, fmt.Sprintf("objects: %s matches nothing in the point", s))
		}
	}
}

// add makes an item of one object, and says at once where it does not come back.
func (b *builder) add(u *unstructured.Unstructured, namespace string) {
	i := &Item{Ref: refOf(u), namespace: namespace}
	i.Namespace = namespace
	i.cluster = namespace == ""
	b.all = append(b.all, i)
	if why := badIdentity(u); why != "" {
		i.Kind, i.Name, i.Group = plain(i.Kind, maxName), plain(i.Name, maxName), plain(i.Group, maxName)
		i.Action, i.Why = Conflict, why
		return
	}
	c, why := copyOf(u)
	if c == nil {
		i.Action, i.Why = Conflict, why
		return
	}
	if isKind(c, "namespace") {
		i.cluster, i.namespace, i.Namespace = true, c.GetName(), ""
	} else if c.GetNamespace() != namespace {
		i.Action, i.Why = Conflict, fmt.Sprintf("it says that it is of namespace %q", plain(c.GetNamespace(), maxName))
		return
	}
	i.original, i.uid, i.Git = c, string(c.GetUID()), gitOwner(c)
	if _, again := b.origin[i.uid]; i.uid != "" && !again {
		b.origin[i.uid] = i
	}
	switch {
	case !b.isChosen(i):
		i.Action, i.unchosen = Skip, true
	case !b.clusterAllowed(i):
		i.Action, i.Why = Skip, "objects of the cluster are left alone"
	default:
		why := neverBack(c)
		if why == "" && b.Scratch != nil {
			why = b.Scratch.leaves(i, b.resource)
		}
		if why != "" {
			i.Action, i.Why = Skip, why
		}
	}
}

// resource is the name of a kind as PLURAL.GROUP; of one that the cluster does not know the kind's own.
func (b *builder) resource(gk schema.GroupKind) string {
	m, err := b.Cluster.Client.RESTMapper().RESTMapping(gk)
	if err != nil {
		return kindName(gk)
	}
	return m.Resource.GroupResource().String()
}

// isChosen applies the filters of the spec. A namespace is always needed by what is in it.
func (b *builder) isChosen(i *Item) bool {
	if isKind(i.original, "namespace") {
		_, ours := b.Objects[i.Name]
		return ours
	}
	if b.Spec.Only == v1alpha1.OnlyData {
		return false
	}
	if len(b.chosen) == 0 {
		return true
	}
	found := false
	for n, s := range b.chosen {
		if s.matches(i.groupKind(), i.Name) {
			b.matched[n], found = true, true
		}
	}
	return found
}

// clusterAllowed reports whether an object of the cluster may come back.
func (b *builder) clusterAllowed(i *Item) bool {
	if !i.cluster || isKind(i.original, "namespace") {
		return !i.cluster || b.Tenant == ""
	}
	return b.Tenant == "" && (b.Spec.ClusterObjects == nil || *b.Spec.ClusterObjects)
}

// leaveToOwners skips what an owner that is in the point makes anew.
func (b *builder) leaveToOwners() {
	for _, i := range b.all {
		if i.Action != "" {
			continue
		}
		ref := controller(i.original)
		if ref == nil || !madeByOwner(i.groupKind(), *ref) {
			continue
		}
		if owner, found := b.origin[string(ref.UID)]; found && owner != i && owner.namespace == i.namespace {
			i.Action, i.Why = Skip, "its "+owner.Kind+" makes it: "+owner.Name
		}
	}
}

// prepare makes the object as it is to be.
func (b *builder) prepare(i *Item) {
	if i.Action != "" {
		if i.original != nil {
			i.moveName(b.mapping)
		}
		return
	}
	u := i.original.DeepCopy()
	strip(u)
	b.mapping.apply(u, i.namespace, i.cluster)
	if isKind(u, "namespace") {
		if to := b.mapping.to(i.Name); to != i.Name {
			u.SetName(to)
			forget(u, b.mapping.argo)
		}
	}
	for _, t := range b.transforms {
		if !t.matches(i.groupKind(), i.Name) {
			continue
		}
		if why := t.apply(u); why != "" {
			i.say(why)
			b.plan.Warnings = append(b.plan.Warnings, i.String()+": "+why)
		}
	}
	if b.Scratch != nil {
		harmless(u)
	}
	i.object = u
	i.moved(u)
	if why := b.misplaced(i); why != "" {
		i.conflict(why)
		return
	}
	if other, taken := b.places[i.Ref]; taken {
		i.conflict("another object of the point goes to the same place, from namespace " + other.namespace)
		return
	}
	b.places[i.Ref] = i
	b.noteFinalizers(i)
}

// moveName gives an item that has no object the namespace on the cluster.
func (i *Item) moveName(m mapping) {
	if !i.cluster && m.to(i.namespace) != i.namespace {
		i.From, i.Namespace = i.namespace, m.to(i.namespace)
	}
}

// moved takes over the identity that mapping and transforms gave the object.
func (i *Item) moved(u *unstructured.Unstructured) {
	i.Ref = refOf(u)
	if isKind(u, "namespace") {
		if i.Name != i.namespace {
			i.From = i.namespace
		}
	} else if i.Namespace != i.namespace {
		i.From = i.namespace
	}
}

func (i *Item) conflict(why string) {
	i.Action = Conflict
	i.say(why)
}

// say adds to Why.
func (i *Item) say(why string) {
	switch {
	case why == "":
	case i.Why == "":
		i.Why = why
	default:
		i.Why += "; " + why
	}
}

// misplaced says why the object, as mapping and transforms made it, may not be where it would go.
func (b *builder) misplaced(i *Item) string {
	if why := badIdentity(i.object); why != "" {
		return "after its transforms " + why
	}
	gvk := i.object.GroupVersionKind()
	s, known := b.scopes[gvk]
	if !known {
		s = b.scope(gvk)
		b.scopes[gvk] = s
	}
	switch {
	case s.why != "":
		return s.why
	case s.cluster && !i.cluster:
		return "it is a kind of the cluster, but stands in a namespace of the point"
	case !s.cluster && i.cluster:
		return "it is a kind of namespaces, but stands outside of them in the point"
	}
	return b.misplacedNamespace(i)
}

// scope asks the cluster about a kind. What it does not know is asked anew each time, so ask once.
func (b *builder) scope(gvk schema.GroupVersionKind) scope {
	mapper := b.Cluster.Client.RESTMapper()
	m, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err == nil {
		return scope{cluster: m.Scope.Name() == meta.RESTScopeNameRoot}
	}
	name := plain(kindName(gvk.GroupKind()), maxName)
	l := Lack{Kind: "CustomResourceDefinition", Name: name}
	if other, otherErr := mapper.RESTMapping(gvk.GroupKind()); otherErr == nil {
		l.Why = fmt.Sprintf("the point has version %s; the cluster serves %s", plain(gvk.Version, maxName), other.GroupVersionKind.Version)
	} else if cluster, defined := b.crds[gvk.GroupKind()]; defined {
		return scope{cluster: cluster, coming: true}
	} else if isNoMatch(err) {
		l.Why = "the cluster does not know the kind " + name
	} else {
		l.Kind, l.Name = "APIService", plain(gvk.Version+"."+gvk.Group, maxName)
		l.Why = "the API server cannot say what it serves of " + plain(gvk.Group, maxName)
	}
	b.lack(l)
	return scope{why: l.Why}
}

func (b *builder) misplacedNamespace(i *Item) string {
	if i.cluster {
		if i.Namespace != "" {
			return "after its transforms it names a namespace, which its kind has none of"
		}
		if isKind(i.object, "namespace") {
			if err := b.checkTarget(i.Name); err != nil {
				return err.Error()
			}
		}
		return ""
	}
	if len(validation.IsDNS1123Label(i.Namespace)) > 0 {
		return "after its transforms its namespace is none that can be"
	}
	if err := b.checkTarget(i.Namespace); err != nil {
		return err.Error()
	}
	return ""
}

// findDefinitions learns the kinds that the point defines.
func (b *builder) findDefinitions() {
	for _, i := range b.all {
		if i.Action != "" || !isKind(i.original, "customresourcedefinition."+groupExtensions) {
			continue
		}
		group, _, _ := unstructured.NestedString(i.original.Object, "spec", "group")
		kind, _, _ := unstructured.NestedString(i.original.Object, "spec", "names", "kind")
		scope, _, _ := unstructured.NestedString(i.original.Object, "spec", "scope")
		b.crds[schema.GroupKind{Group: group, Kind: kind}] = scope == "Cluster"
	}
}

// lack notes what is missing, once.
func (b *builder) lack(l Lack) {
	if !slices.ContainsFunc(b.plan.Missing, func(o Lack) bool { return o.Kind == l.Kind && o.Name == l.Name }) {
		b.plan.Missing = append(b.plan.Missing, l)
	}
}

// noteFinalizers says which finalizers come back whose controller does not seem to be there: the object could not be deleted.
func (b *builder) noteFinalizers(i *Item) {
	for _, f := range i.object.GetFinalizers() {
		domain, _, _ := strings.Cut(f, "/")
		if len(b.groups) == 0 || b.servesDomain(domain) {
			continue
		}
		i.say("finalizer " + plain(f, maxName) + " comes back; nothing seems to be there to remove it")
	}
}

// servesDomain reports whether an API group of the cluster, or one that the point defines, is of the same domain.
func (b *builder) servesDomain(domain string) bool {
	related := func(group string) bool {
		return group == domain || strings.HasSuffix(domain, "."+group) || strings.HasSuffix(group, "."+domain)
	}
	for group := range b.groups {
		if strings.Contains(group, ".") && related(group) {
			return true
		}
	}
	for gk := range b.crds {
		if gk.Group != "" && related(gk.Group) {
			return true
		}
	}
	return domain == "kubernetes" || strings.HasSuffix(domain, "kubernetes.io") || strings.HasSuffix(domain, "k8s.io")
}

// finish sorts the plan.
func (b *builder) finish() {
	for _, i := range b.all {
		switch {
		case i.unchosen:
			b.plan.NotChosen++
		case i.Action != "":
			b.plan.Items = append(b.plan.Items, i)
		}
		if i.watchable() {
			b.plan.watched = append(b.plan.watched, i)
		}
	}
	order(b.plan.Items)
	order(b.plan.watched)
	slices.SortFunc(b.plan.Missing, func(a, z Lack) int { return strings.Compare(a.Kind+"/"+a.Name, z.Kind+"/"+z.Name) })
	slices.Sort(b.plan.Warnings)
	b.plan.Warnings = slices.Compact(b.plan.Warnings)
}

func key(r Ref) types.NamespacedName {
	return types.NamespacedName{Namespace: r.Namespace, Name: r.Name}
}
