package kube

import (
	"context"
	"errors"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// Bound is an object whose data a Blueprint captures.
type Bound struct {
	Resource  schema.GroupVersionResource
	Kind      string // Deployment
	Namespace string // empty for a namespace itself
	Name      string
	Binding   v1alpha1.BlueprintBinding
	needs     *needs
}

// annotatedKinds are the kinds on which the annotation is looked for.
func annotatedKinds() []kind {
	of := func(resource, name string) kind {
		return kind{GroupVersionResource: schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: resource}, name: name, namespaced: true, stored: true}
	}
	return []kind{of("deployments", "Deployment"), of("statefulsets", "StatefulSet")}
}

// Bound finds the objects of an application that are bound to Blueprints: by annotation, which beats the bindings of its Capture, and
// of those the first. They are in the order of kinds and names.
func (c *Cluster) Bound(ctx context.Context, a Application) ([]Bound, error) {
	op := "find what Blueprints capture of " + a.Name
	b := &binder{Cluster: c, app: a, found: map[string]Bound{}}
	for _, k := range annotatedKinds() {
		if err := b.look(ctx, k, annotated); err != nil {
			return nil, fault.Wrap(op, nil, err, "")
		}
	}
	if a.whole() {
		if err := b.namespaces(ctx); err != nil {
			return nil, fault.Wrap(op, nil, err, "")
		}
	}
	for _, binding := range a.Capture.Blueprints {
		if err := b.bind(ctx, binding); err != nil {
			return nil, fault.Wrap(op+": Blueprint "+binding.Name, nil, err, "")
		}
	}
	if err := b.choose(ctx); err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	var all []Bound
	for _, key := range slices.Sorted(maps.Keys(b.found)) {
		all = append(all, b.found[key])
	}
	return all, nil
}

type binder struct {
	*Cluster
	app   Application
	kinds []kind // of the cluster; nil until they are needed
	found map[string]Bound
	uids  map[string]types.UID
}

func annotated(u *unstructured.Unstructured) (v1alpha1.BlueprintBinding, bool) {
	name := u.GetAnnotations()[v1alpha1.AnnotationBlueprint]
	return v1alpha1.BlueprintBinding{Name: name}, name != ""
}

// look finds the objects of a kind that are bound. Who may not list the kind is bound to nothing of it: the objects that are captured
// say what cannot be read.
func (b *binder) look(ctx context.Context, k kind, bound func(*unstructured.Unstructured) (v1alpha1.BlueprintBinding, bool)) error {
	for _, namespace := range b.app.Namespaces {
		_, err := b.list(ctx, k, namespace, query{}, func(u *unstructured.Unstructured) error {
			key := k.String() + " " + namespace + "/" + u.GetName()
			binding, is := bound(u)
			if _, known := b.found[key]; !is || known {
				return nil
			}
			b.found[key] = Bound{
				Resource: k.GroupVersionResource, Kind: k.name, Namespace: namespace, Name: u.GetName(), Binding: binding, needs: needsOf(k, u),
			}
			if b.uids == nil {
				b.uids = map[string]types.UID{}
			}
			b.uids[key] = u.GetUID()
			return nil
		})
		if err != nil && (ctx.Err() != nil || !errors.Is(err, fault.ErrDenied)) {
			return err
		}
	}
	return nil
}

func needsOf(k kind, u *unstructured.Unstructured) *needs {
	var n needs
	n.of(k, u)
	n.add(k.Group, k.Resource, u.GetNamespace(), u.GetName())
	return &n
}

// namespaces finds the namespaces that are bound themselves.
func (b *binder) namespaces(ctx context.Context) error {
	for _, name := range b.app.Namespaces {
		o := metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}}
		err := b.Client.Get(ctx, types.NamespacedName{Name: name}, &o)
		switch {
		case apierrors.IsForbidden(err): // a tenant need not see its namespace
			continue
		case err != nil:
			return fault.Wrap("read namespace "+name, ClassOf(err), err, "")
		}
		if blueprint := o.Annotations[v1alpha1.AnnotationBlueprint]; blueprint != "" {
			b.found["namespaces "+name] = Bound{
				Resource: corev1.SchemeGroupVersion.WithResource("namespaces"), Kind: "Namespace", Name: name,
				Binding: v1alpha1.BlueprintBinding{Name: blueprint}, needs: &needs{},
			}
		}
	}
	return nil
}

// bind finds the objects that a binding is of.
func (b *binder) bind(ctx context.Context, binding v1alpha1.BlueprintBinding) error {
	if err := b.discover(ctx); err != nil {
		return err
	}
	i := slices.IndexFunc(b.kinds, func(k kind) bool { return k.String() == binding.Kind && k.namespaced })
	if i < 0 {
		return fault.New("bind", fault.ErrNotFound, "the cluster has no kind "+binding.Kind, "say PLURAL.GROUP, as `kubectl api-resources` lists it")
	}
	selected := labels.Everything()
	if binding.Selector != nil {
		var err error
		if selected, err = metav1.LabelSelectorAsSelector(binding.Selector); err != nil {
			return fault.Wrap("selector", fault.ErrInvalid, err, "")
		}
	}
	return b.look(ctx, b.kinds[i], func(u *unstructured.Unstructured) (v1alpha1.BlueprintBinding, bool) {
		return binding, selected.Matches(labels.Set(u.GetLabels()))
	})
}

func (b *binder) discover(ctx context.Context) (err error) {
	if b.kinds == nil {
		b.kinds, _, err = b.Cluster.kinds(ctx)
	}
	return err
}

// choose leaves those that belong to an application that is a choice of objects.
func (b *binder) choose(ctx context.Context) error {
	if b.app.whole() || len(b.found) == 0 {
		return nil
	}
	if err := b.discover(ctx); err != nil {
		return err
	}
	chosen, err := b.Cluster.choose(ctx, b.app, b.kinds, "")
	if err != nil {
		return err
	}
	maps.DeleteFunc(b.found, func(key string, _ Bound) bool { return !chosen.uids[b.uids[key]] })
	return nil
}

// Mounts reports whether a claim is the object itself, or one that its pods mount.
func (b Bound) Mounts(namespace, claim string) bool {
	return b.needs.has(schema.GroupResource{Resource: "persistentvolumeclaims"}, namespace, claim)
}
