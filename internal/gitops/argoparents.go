package gitops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// parentsLimit is how many Applications are held off for one, at most: more is a mistake, or meant to be endless.
const parentsLimit = 100

// Suspensions are the AppProjects of the Application, of the Applications that have it in git, or the ApplicationSet that makes it, or the
// AppProjects of these, and so on up. Those furthest from the Application come first: what would take a window back is held off before
// the window comes.
func (d argoCD) Suspensions(ctx context.Context) ([]v1alpha1.Suspension, error) {
	a, err := d.application(ctx)
	if err != nil {
		return nil, fault.Wrap(d.does("read"), nil, err, "")
	}
	p := parents{client: d.client, seen: map[types.NamespacedName]bool{}}
	if err := p.add(ctx, a); err != nil {
		return nil, fault.Wrap(d.does("find what syncs"), nil, err, "")
	}
	return p.all, nil
}

// parents collects what is held off.
type parents struct {
	client client.Reader
	seen   map[types.NamespacedName]bool // Applications
	all    []v1alpha1.Suspension
}

// add adds what has a, and what has its project, before a itself.
func (p *parents) add(ctx context.Context, a Application) error {
	if p.seen[a.Name()] {
		return nil
	}
	if len(p.seen) == parentsLimit {
		return fault.New("", fault.ErrUnsupported, fmt.Sprintf("more than %d Applications have it in git", parentsLimit), "")
	}
	p.seen[a.Name()] = true
	project, err := p.project(ctx, a)
	if err != nil {
		return err
	}
	held := []*unstructured.Unstructured{a.object, project}
	set, err := p.set(ctx, a)
	if err != nil {
		return err
	}
	if set != nil {
		held = append(held, set)
	}
	for _, object := range held {
		if err := p.addParent(ctx, object, a.controlPlane()); err != nil {
			return err
		}
	}
	p.hold(project, a.Name().Name)
	return nil
}

// addParent adds the Application that has an object in git, if one has.
func (p *parents) addParent(ctx context.Context, object *unstructured.Unstructured, controlPlane string) error {
	label, err := p.label(ctx, controlPlane)
	if err != nil {
		return err
	}
	name, sure := tracking(object, label)
	if name.Name == "" {
		return nil
	}
	if name.Namespace == "" {
		name.Namespace = controlPlane
	}
	found, err := get(ctx, p.client, "Application", name)
	if errors.Is(err, fault.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	parent := Application{found}
	if !sure && !parent.Has(object) { // Helm writes the label too
		return nil
	}
	return p.add(ctx, parent)
}

// label is the one by which an Argo CD knows objects, where it does so by label.
func (p *parents) label(ctx context.Context, controlPlane string) (string, error) {
	var settings corev1.ConfigMap
	err := p.client.Get(ctx, types.NamespacedName{Namespace: controlPlane, Name: "argocd-cm"}, &settings)
	if client.IgnoreNotFound(err) != nil {
		return "", fault.Wrap("read the settings of Argo CD", kube.ClassOf(err), err, "")
	}
	return cmp.Or(settings.Data["application.instanceLabelKey"], labelInstance), nil
}

// set is the ApplicationSet that made an Application, nil for none.
func (p *parents) set(ctx context.Context, a Application) (*unstructured.Unstructured, error) {
	kind, name := a.Owner()
	if kind != "ApplicationSet" {
		return nil, nil
	}
	set, err := get(ctx, p.client, kind, types.NamespacedName{Namespace: a.Name().Namespace, Name: name})
	if errors.Is(err, fault.ErrNotFound) {
		return nil, nil
	}
	return set, err
}

// project reads the AppProject.
func (p *parents) project(ctx context.Context, a Application) (*unstructured.Unstructured, error) {
	key := a.project()
	project, err := get(ctx, p.client, "AppProject", key)
	return project, fault.Wrap("read AppProject "+key.String()+" of Application "+a.Name().String(), nil, err, "")
}

func (p *parents) hold(project metav1.Object, application string) {
	for i := range p.all {
		if s := &p.all[i]; s.Namespace == project.GetNamespace() && s.Name == project.GetName() {
			if !slices.Contains(s.Of, application) { // one of the name in another namespace is held by the same window
				s.Of = append(s.Of, application)
				slices.Sort(s.Of)
			}
			return
		}
	}
	p.all = append(p.all, v1alpha1.Suspension{
		Kind: "AppProject", Namespace: project.GetNamespace(), Name: project.GetName(), Of: []string{application},
	})
}

// project is the name of the AppProject, which is in Argo CD's namespace.
func (a Application) project() types.NamespacedName {
	return types.NamespacedName{Namespace: a.controlPlane(), Name: a.Project()}
}

// controlPlane is the namespace of the Argo CD that looks after the Application.
func (a Application) controlPlane() string {
	if namespace := a.text("status", "controllerNamespace"); namespace != "" {
		return namespace
	}
	return a.Name().Namespace
}

// Has reports whether Argo CD lists an object among those of the Application.
func (a Application) Has(o *unstructured.Unstructured) bool {
	kind := o.GroupVersionKind()
	return slices.ContainsFunc(a.list("status", "resources"), func(r any) bool {
		m := asMap(r)
		return text(m, "group") == kind.Group && text(m, "kind") == kind.Kind && text(m, "name") == o.GetName() &&
			(o.GetNamespace() == "" || text(m, "namespace") == o.GetNamespace())
	})
}
