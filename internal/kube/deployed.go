package kube

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// Deployed is what a GitOps engine deploys of an application.
type Deployed struct {
	Name    string      // ENGINE/NAMESPACE/NAME: argocd/argocd/shop
	Objects []ObjectKey // as the engine lists them, whether they are there or not

	namespace string // where its objects go that name none
	away      bool   // they go to another cluster
	made      time.Time
	called    string // as an application
	releases  []release
}

// ObjectKey names an object exactly. Namespace is empty for objects of the cluster.
type ObjectKey struct{ Group, Kind, Namespace, Name string }

func keyOf(k kind, u *unstructured.Unstructured) ObjectKey {
	return ObjectKey{k.Group, k.name, u.GetNamespace(), u.GetName()}
}

// release is a release of Helm that Flux keeps. Its objects bear labels with the name of the HelmRelease, and Helm's own record of it
// those of the release.
type release struct {
	namespace, name   string // of the HelmRelease
	storage, storedAs string // namespace of Helm's record, and the release's name there
}

// Labels of what releases of Helm are made of.
const (
	labelReleaseName      = "helm.toolkit.fluxcd.io/name"
	labelReleaseNamespace = "helm.toolkit.fluxcd.io/namespace"
)

// split is the namespace and name of a deployment.
func (d Deployed) split() (engine, namespace, name string) {
	engine, rest, _ := strings.Cut(d.Name, "/")
	namespace, name, _ = strings.Cut(rest, "/")
	return engine, namespace, name
}

// deployedObjects are the objects of all deployments of an application.
type deployedObjects struct {
	keys     map[ObjectKey]bool
	releases []release
}

func (a Application) deployed() deployedObjects {
	all := deployedObjects{keys: map[ObjectKey]bool{}}
	for _, d := range a.Deployed {
		all.releases = append(all.releases, d.releases...)
		for _, o := range d.Objects {
			all.keys[o] = true
		}
	}
	return all
}

// has reports whether a deployment says that an object is its own.
func (d deployedObjects) has(key ObjectKey, set map[string]string) bool {
	return d.keys[key] || slices.ContainsFunc(d.releases, func(r release) bool {
		return set[labelReleaseName] == r.name && set[labelReleaseNamespace] == r.namespace ||
			key.Group == "" && key.Kind == "Secret" && key.Namespace == r.storage && set["owner"] == "helm" && set["name"] == r.storedAs
	})
}

// Has finds out which objects are a deployment's own, by their names and labels.
func (d Deployed) Has() func(key ObjectKey, labels map[string]string) bool {
	return Application{Deployed: []Deployed{d}}.deployed().has
}

// names are those of the objects of a kind of the cluster.
func (d deployedObjects) names(k kind) []string {
	var names []string
	for o := range d.keys {
		if o.Group == k.Group && o.Kind == k.name && o.Namespace == "" {
			names = append(names, o.Name)
		}
	}
	return names
}

// DeployedTo lists what GitOps engines deploy into an application that is chosen by namespaces. To a tenant, home, only what deploys into
// its own namespace is told.
func (c *Cluster) DeployedTo(ctx context.Context, a Application, home, system string) ([]Deployed, error) {
	var there []Deployed
	for _, list := range []func(context.Context) ([]Deployed, error){c.argoApplications, c.fluxDeployments} {
		all, err := list(ctx)
		if errors.Is(err, fault.ErrUnsupported) {
			continue // the cluster has no such engine
		}
		if err != nil {
			return nil, err
		}
		if home != system {
			all = within(all, home)
		}
		for _, d := range all {
			if !d.away && slices.ContainsFunc(Application{Deployed: []Deployed{d}}.deployedTo(), func(n string) bool { return slices.Contains(a.Namespaces, n) }) {
				there = append(there, d)
			}
		}
	}
	return there, nil
}

// findDeployed resolves globs over deployments: each is an application, or, with a name, all of them together. A tenant has those that
// deploy into its namespace, and of these what is there.
func (c *Cluster) findDeployed(ctx context.Context, sel v1alpha1.Applications, home, system string) ([]Application, error) {
	if len(sel.Namespaces)+len(sel.ExcludeNamespaces)+len(sel.Objects) > 0 || sel.NamespaceSelector != nil || sel.Selector != nil {
		return nil, fault.New("argocd and flux", fault.ErrInvalid, "namespaces, objects and selectors do not go with them", "declare another source")
	}
	var chosen []Deployed
	var absent []string
	for _, engine := range c.engines(sel) {
		all, err := engine.list(ctx)
		if err != nil {
			return nil, err
		}
		all = slices.DeleteFunc(all, func(d Deployed) bool { return d.away })
		if home != system {
			all = within(all, home)
		}
		call(all)
		found, missing, err := pick(engine.globs, all)
		if err != nil {
			return nil, err
		}
		chosen, absent = append(chosen, found...), append(absent, missing...)
	}
	apps, err := c.applicationsOf(ctx, sel, chosen, home != system)
	if err == nil && len(absent) > 0 {
		err = fault.New("deployment "+strings.Join(absent, ", "), fault.ErrNotFound, "there is none that deploys into this cluster", "")
		if home != system {
			err = fault.New("deployment "+strings.Join(absent, ", "), fault.ErrNotFound, "there is none that deploys into namespace "+home, "")
		}
	}
	return apps, err
}

// engine is one that deploys, with what is selected of it.
type engine struct {
	globs []string
	list  func(ctx context.Context) ([]Deployed, error)
}

func (c *Cluster) engines(sel v1alpha1.Applications) []engine {
	var all []engine
	for _, e := range []engine{{sel.ArgoCD, c.argoApplications}, {sel.Flux, c.fluxDeployments}} {
		if len(e.globs) > 0 {
			all = append(all, e)
		}
	}
	return all
}

// within leaves what deploys into a namespace, and of it what is there.
func within(all []Deployed, namespace string) []Deployed {
	var own []Deployed
	for _, d := range all {
		if d.namespace != namespace {
			continue
		}
		d.Objects = slices.DeleteFunc(slices.Clone(d.Objects), func(o ObjectKey) bool { return o.Namespace != namespace })
		own = append(own, d)
	}
	return own
}

// call names deployments as applications: by their names. Of several of one name that made first has it, and the others have that of
// their namespace before it, so that none takes another's points by coming.
func call(all []Deployed) {
	slices.SortFunc(all, func(a, b Deployed) int { return cmp.Or(a.made.Compare(b.made), strings.Compare(a.Name, b.Name)) })
	taken := map[string]bool{}
	for i := range all {
		_, namespace, name := all[i].split()
		if all[i].called = name; taken[name] {
			all[i].called = namespace + "." + name
		}
		taken[name] = true
	}
}

// pick chooses deployments by globs over NAME or NAMESPACE/NAME. Names that stand for none are missing.
func pick(globs []string, all []Deployed) (chosen []Deployed, missing []string, _ error) {
	taken := map[string]bool{}
	for _, glob := range globs {
		if _, err := path.Match(glob, ""); err != nil {
			return nil, nil, fault.New("deployment "+glob, fault.ErrInvalid, "it is no pattern", "* stands for any characters, ? for one")
		}
		some := false
		for _, d := range all {
			_, namespace, name := d.split()
			if strings.Contains(glob, "/") {
				name = namespace + "/" + name
			}
			if is, _ := path.Match(glob, name); !is {
				continue
			}
			some = true
			if !taken[d.Name] {
				taken[d.Name] = true
				chosen = append(chosen, d)
			}
		}
		if !some && !isGlob(glob) {
			missing = append(missing, glob)
		}
	}
	slices.SortFunc(chosen, func(a, b Deployed) int { return strings.Compare(a.Name, b.Name) })
	return chosen, missing, nil
}

// applicationsOf makes applications of deployments.
func (c *Cluster) applicationsOf(ctx context.Context, sel v1alpha1.Applications, chosen []Deployed, tenant bool) ([]Application, error) {
	var apps []Application
	for _, d := range chosen {
		apps = append(apps, Application{Name: d.called, Deployed: []Deployed{d}, Capture: sel.Capture})
	}
	if sel.Name != "" && len(apps) > 0 {
		apps = []Application{{Name: sel.Name, Deployed: chosen, Capture: sel.Capture}}
	}
	slices.SortFunc(apps, func(a, b Application) int { return strings.Compare(a.Name, b.Name) })
	for i := range apps {
		namespaces := apps[i].deployedTo()
		if !tenant { // whose own is there
			there, err := c.namespaceLabels(ctx, v1alpha1.Applications{Namespaces: namespaces})
			if err != nil {
				return nil, err
			}
			namespaces = slices.Sorted(maps.Keys(there))
		}
		apps[i].Namespaces = namespaces
	}
	return apps, nil
}

// deployedTo lists the namespaces that an application's deployments have objects in, or would have, sorted.
func (a Application) deployedTo() []string {
	set := map[string]bool{}
	for _, d := range a.Deployed {
		set[d.namespace] = true
		for _, o := range d.Objects {
			set[o.Namespace] = true
			if o.Group == "" && o.Kind == "Namespace" {
				set[o.Name] = true
			}
		}
	}
	delete(set, "")
	return slices.Sorted(maps.Keys(set))
}

// Alone is what of sel, by which the application was found, selects it and no other.
func (a Application) Alone(sel v1alpha1.Applications) v1alpha1.Applications {
	one := *sel.DeepCopy()
	one.NamespaceSelector, one.ExcludeNamespaces, one.ArgoCD, one.Flux = nil, nil, nil, nil
	if len(a.Deployed) == 0 {
		one.Namespaces = a.Namespaces
		return one
	}
	for _, d := range a.Deployed {
		engine, namespace, name := d.split()
		if engine == v1alpha1.EngineArgoCD {
			one.ArgoCD = append(one.ArgoCD, namespace+"/"+name)
		} else {
			one.Flux = append(one.Flux, namespace+"/"+name)
		}
	}
	return one
}

// argoApplications lists Applications of Argo CD.
func (c *Cluster) argoApplications(ctx context.Context) ([]Deployed, error) {
	var all []Deployed
	k := deploymentKind("argoproj.io", "v1alpha1", "applications", "Application")
	served, err := c.deployments(ctx, k, func(u *unstructured.Unstructured) {
		d := newDeployed(v1alpha1.EngineArgoCD, u)
		d.namespace = text(u.Object, "spec", "destination", "namespace")
		server, cluster := text(u.Object, "spec", "destination", "server"), text(u.Object, "spec", "destination", "name")
		d.away = server != "" && server != "https://kubernetes.default.svc" || cluster != "" && cluster != "in-cluster"
		for _, o := range items(u.Object, "status", "resources") {
			d.Objects = append(d.Objects, ObjectKey{text(o, "group"), text(o, "kind"), text(o, "namespace"), text(o, "name")})
		}
		all = append(all, d)
	})
	if err == nil && !served {
		err = fault.New("list Applications of Argo CD", fault.ErrUnsupported, "the cluster has no such kind", "install Argo CD, or say namespaces in place of argocd")
	}
	return all, err
}

// fluxDeployments lists Kustomizations and HelmReleases of Flux. A Kustomization and a HelmRelease of one name and namespace are one.
func (c *Cluster) fluxDeployments(ctx context.Context) ([]Deployed, error) {
	byName := map[string]*Deployed{}
	add := func(d Deployed) {
		if other := byName[d.Name]; other != nil {
			other.Objects, other.releases = append(other.Objects, d.Objects...), append(other.releases, d.releases...)
			return
		}
		byName[d.Name] = &d
	}
	releases := map[ObjectKey]release{}
	hasReleases, err := c.deployments(ctx, deploymentKind(groupHelm, "v2", "helmreleases", kindRelease), func(u *unstructured.Unstructured) {
		d, r := helmRelease(u)
		releases[ObjectKey{groupHelm, kindRelease, u.GetNamespace(), u.GetName()}] = r
		add(d)
	})
	if err != nil {
		return nil, err
	}
	hasKustomizations, err := c.deployments(ctx, deploymentKind("kustomize.toolkit.fluxcd.io", "v1", "kustomizations", "Kustomization"),
		func(u *unstructured.Unstructured) { add(kustomization(u, releases)) })
	if err == nil && !hasReleases && !hasKustomizations {
		err = fault.New("list Kustomizations of Flux", fault.ErrUnsupported, "the cluster has no such kind", "install Flux, or say namespaces in place of flux")
	}
	var all []Deployed
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		all = append(all, *byName[name])
	}
	return all, err
}

const (
	groupHelm   = "helm.toolkit.fluxcd.io"
	kindRelease = "HelmRelease"
)

// helmRelease is a HelmRelease as a deployment: of the objects that bear its name.
func helmRelease(u *unstructured.Unstructured) (Deployed, release) {
	d := newDeployed(v1alpha1.EngineFlux, u)
	r := release{namespace: u.GetNamespace(), name: u.GetName()}
	d.namespace = cmp.Or(text(u.Object, "spec", "targetNamespace"), u.GetNamespace())
	r.storage = cmp.Or(text(u.Object, "status", "storageNamespace"), text(u.Object, "spec", "storageNamespace"), u.GetNamespace())
	r.storedAs = text(u.Object, "spec", "releaseName")
	if target := text(u.Object, "spec", "targetNamespace"); r.storedAs == "" && target != "" {
		r.storedAs = target + "-" + u.GetName()
	}
	r.storedAs = cmp.Or(r.storedAs, u.GetName())
	d.away = field(u.Object, "spec", "kubeConfig") != nil
	d.Objects = append(inventory(u), ObjectKey{groupHelm, kindRelease, r.namespace, r.name})
	d.releases = []release{r}
	return d, r
}

// kustomization is a Kustomization as a deployment, with what the HelmReleases make that it applies.
func kustomization(u *unstructured.Unstructured, releases map[ObjectKey]release) Deployed {
	d := newDeployed(v1alpha1.EngineFlux, u)
	d.namespace = cmp.Or(text(u.Object, "spec", "targetNamespace"), u.GetNamespace())
	d.away = field(u.Object, "spec", "kubeConfig") != nil
	d.Objects = inventory(u)
	for _, o := range d.Objects {
		if r, is := releases[o]; is {
			d.releases = append(d.releases, r)
		}
	}
	return d
}

// inventory reads what Flux says that it has applied: NAMESPACE_NAME_GROUP_KIND. In names of RBAC, two lines stand for a colon.
func inventory(u *unstructured.Unstructured) []ObjectKey {
	var all []ObjectKey
	for _, entry := range items(u.Object, "status", "inventory", "entries") {
		id := text(entry, "id")
		namespace, rest, _ := strings.Cut(id, "_")
		kindAt := strings.LastIndexByte(rest, '_')
		if kindAt < 0 {
			continue
		}
		groupAt := strings.LastIndexByte(rest[:kindAt], '_')
		if groupAt < 0 {
			continue
		}
		name := strings.ReplaceAll(rest[:groupAt], "__", ":")
		all = append(all, ObjectKey{rest[groupAt+1 : kindAt], rest[kindAt+1:], namespace, name})
	}
	return all
}

func newDeployed(engine string, u *unstructured.Unstructured) Deployed {
	return Deployed{Name: engine + "/" + u.GetNamespace() + "/" + u.GetName(), made: u.GetCreationTimestamp().Time}
}

// deploymentKind is a kind of deployments, listed in all namespaces.
func deploymentKind(group, version, resource, name string) kind {
	return kind{GroupVersionResource: schema.GroupVersionResource{Group: group, Version: version, Resource: resource}, name: name, stored: true}
}

// deployments lists a kind with the process's own rights, and reports whether the cluster has it.
func (c *Cluster) deployments(ctx context.Context, k kind, each func(*unstructured.Unstructured)) (served bool, _ error) {
	_, err := c.own().list(ctx, k, "", query{}, func(u *unstructured.Unstructured) error {
		each(u)
		return nil
	})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return true, err
}
