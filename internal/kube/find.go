package kube

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// Application is what is captured as one.
type Application struct {
	Name       string
	Namespaces []string        // sorted
	Selector   labels.Selector // of the objects in them; nil for all
	Objects    []string        // KIND.GROUP/NAME or KIND/NAME; none for all
	Deployed   []Deployed      // the only objects are those that these deploy; none where the application is not chosen by them
	Capture    v1alpha1.Capture
}

// whole reports whether everything in the namespaces belongs to the application.
func (a Application) whole() bool {
	return a.Selector == nil && len(a.Objects) == 0 && len(a.Deployed) == 0
}

// Find resolves what sel selects, in the order of names. The namespace home is that of the object that says sel, system Backstay's own:
// who asks from another namespace than system reaches that one only (else fault.ErrDenied). Namespaces that are named and are not there
// give fault.ErrNotFound, beside the applications that were found; so do deployments. A GitOps engine that the cluster does not have
// is fault.ErrUnsupported.
func (c *Cluster) Find(ctx context.Context, sel v1alpha1.Applications, home, system string) ([]Application, error) {
	const op = "find applications"
	if len(sel.ArgoCD)+len(sel.Flux) > 0 {
		apps, err := c.findDeployed(ctx, sel, home, system)
		return apps, fault.Wrap(op, nil, err, "")
	}
	var all labels.Selector
	if sel.Selector != nil {
		var err error
		if all, err = metav1.LabelSelectorAsSelector(sel.Selector); err != nil {
			return nil, fault.Wrap(op+": selector", fault.ErrInvalid, err, "")
		}
	}
	for _, o := range sel.Objects {
		if _, err := parseReference(o); err != nil {
			return nil, fault.Wrap(op, nil, err, "")
		}
	}
	var names []string
	var err error
	if home == system {
		names, err = c.namespaces(ctx, sel, system)
	} else {
		names, err = ownNamespace(sel, home)
	}
	if err != nil && !errors.Is(err, fault.ErrNotFound) {
		return nil, fault.Wrap(op, nil, err, "")
	}
	var apps []Application
	for _, n := range names {
		apps = append(apps, Application{Name: n, Namespaces: []string{n}, Selector: all, Objects: sel.Objects, Capture: sel.Capture})
	}
	if sel.Name != "" && len(names) > 0 {
		apps = []Application{{Name: sel.Name, Namespaces: names, Selector: all, Objects: sel.Objects, Capture: sel.Capture}}
	}
	return apps, fault.Wrap(op, nil, err, "")
}

// ownNamespace is what a tenant may select: the namespace of the object that selects. That it is there needs no proof.
func ownNamespace(sel v1alpha1.Applications, home string) ([]string, error) {
	const hint = "objects outside Backstay's own namespace protect their own namespace only"
	if sel.NamespaceSelector != nil {
		return nil, fault.New("namespaceSelector", fault.ErrDenied, "it may select other namespaces than "+home, hint)
	}
	for _, n := range sel.Namespaces {
		if n != home {
			return nil, fault.New("namespace "+n, fault.ErrDenied, "it is not "+home, hint)
		}
	}
	for _, pattern := range sel.ExcludeNamespaces {
		switch taken, err := path.Match(pattern, home); {
		case err != nil:
			return nil, fault.New("excludeNamespaces "+pattern, fault.ErrInvalid, "it is no pattern", "")
		case taken:
			return nil, nil
		}
	}
	return []string{home}, nil
}

// namespaces resolves the globs and labels of sel.
func (c *Cluster) namespaces(ctx context.Context, sel v1alpha1.Applications, system string) ([]string, error) {
	if len(sel.Namespaces) == 0 && sel.NamespaceSelector == nil {
		return nil, fault.New("namespaces", fault.ErrInvalid, "none is selected", "say namespaces or namespaceSelector")
	}
	for _, pattern := range slices.Concat(sel.Namespaces, sel.ExcludeNamespaces) {
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, fault.New("namespace "+pattern, fault.ErrInvalid, "it is no pattern", "* stands for any characters, ? for one")
		}
	}
	byLabels := labels.Nothing()
	if sel.NamespaceSelector != nil {
		var err error
		if byLabels, err = metav1.LabelSelectorAsSelector(sel.NamespaceSelector); err != nil {
			return nil, fault.Wrap("namespaceSelector", fault.ErrInvalid, err, "")
		}
	}
	known, err := c.namespaceLabels(ctx, sel)
	if err != nil {
		return nil, err
	}
	var names []string
	for name, set := range known {
		internal := name == system || strings.HasPrefix(name, "kube-")
		chosen := slices.Contains(sel.Namespaces, name) || !internal && (matches(sel.Namespaces, name) || byLabels.Matches(set))
		if chosen && !matches(sel.ExcludeNamespaces, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, missingNamespaces(sel, known)
}

// namespaceLabels reads the labels of all namespaces, or of those named where sel does no more than name some.
func (c *Cluster) namespaceLabels(ctx context.Context, sel v1alpha1.Applications) (map[string]labels.Set, error) {
	known := map[string]labels.Set{}
	if sel.NamespaceSelector == nil && !slices.ContainsFunc(sel.Namespaces, isGlob) {
		for _, name := range sel.Namespaces {
			ns := metav1.PartialObjectMetadata{TypeMeta: namespaceType()}
			err := c.Client.Get(ctx, client.ObjectKey{Name: name}, &ns)
			if err != nil && !apierrors.IsNotFound(err) {
				return nil, fault.Wrap("read namespace "+name, ClassOf(err), err, "")
			}
			if err == nil {
				known[name] = ns.Labels
			}
		}
		return known, nil
	}
	list := metav1.PartialObjectMetadataList{TypeMeta: namespaceType()}
	for {
		if err := c.Client.List(ctx, &list, client.Limit(pageItems), client.Continue(list.Continue)); err != nil {
			return nil, fault.Wrap("list namespaces", ClassOf(err), err, "")
		}
		for _, ns := range list.Items {
			known[ns.Name] = ns.Labels
		}
		if list.Continue == "" {
			return known, nil
		}
	}
}

// missingNamespaces is an error that names the namespaces that sel names and that are not known.
func missingNamespaces(sel v1alpha1.Applications, known map[string]labels.Set) error {
	var missing []string
	for _, n := range sel.Namespaces {
		if _, found := known[n]; !found && !isGlob(n) && !matches(sel.ExcludeNamespaces, n) {
			missing = append(missing, n)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fault.New("namespace "+strings.Join(missing, ", "), fault.ErrNotFound, "there is none", "")
}

// namespaceType asks for the metadata of namespaces.
func namespaceType() metav1.TypeMeta { return metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"} }

func isGlob(pattern string) bool { return strings.ContainsAny(pattern, `*?[\`) }

// matches reports whether one of the patterns, checked before, takes a name.
func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		taken, err := path.Match(p, name)
		return err == nil && taken
	})
}
