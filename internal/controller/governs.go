package controller

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/gitops"
)

// gateRole is the cluster role of hooks that wait at gates, and the name of its bindings.
const gateRole = "backstay-gate"

// precision is how exactly a policy selects a deployment; the smallest wins.
type precision int

const (
	byDeployment precision = iota // that it names
	byDeployments
	byNamespace // that it names
	byNamespaces
	partly // some of the objects in the namespace
	not
)

// governing is the policy that has syncs of a deployment wait for a point, and what a Backup for it captures. Nil where none does.
func (c *controller) governing(ctx context.Context, s gitops.State) (*v1alpha1.Policy, v1alpha1.Applications, error) {
	var all v1alpha1.PolicyList
	if err := c.client.List(ctx, &all); err != nil {
		return nil, v1alpha1.Applications{}, fmt.Errorf("list policies: %w", err)
	}
	slices.SortFunc(all.Items, func(a, b v1alpha1.Policy) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	var (
		best        *v1alpha1.Policy
		application v1alpha1.Applications
		least       = not
	)
	for i := range all.Items {
		p := &all.Items[i]
		if p.Spec.GitOps == nil || p.Namespace != c.System && p.Namespace != s.Namespace {
			continue // a tenant's says nothing of what goes elsewhere
		}
		for _, source := range applicationsOf(p) {
			selected, how := c.selects(ctx, p, source, s)
			if how < least {
				best, application, least = p, selected, how
			}
		}
	}
	return best, application, nil
}

// selects is what a source of a policy captures of a deployment, and how exactly it says so.
func (c *controller) selects(ctx context.Context, p *v1alpha1.Policy, source v1alpha1.Applications, s gitops.State) (v1alpha1.Applications, precision) {
	engine, name, _ := strings.Cut(s.Name, "/")
	if len(source.ArgoCD)+len(source.Flux) > 0 {
		patterns, one := source.ArgoCD, *source.DeepCopy()
		one.ArgoCD, one.Flux = []string{name}, nil
		if engine == v1alpha1.EngineFlux {
			patterns, one.ArgoCD, one.Flux = source.Flux, nil, []string{name}
		}
		how := not
		for _, pattern := range patterns {
			how = min(how, matchDeployment(pattern, name))
		}
		if how < not && source.Name != "" { // all that it selects is one application
			one = source
		}
		return one, how
	}
	found, err := c.Cluster.Find(ctx, source, p.Namespace, c.System)
	if err != nil && len(found) == 0 { // the policy says so itself
		return source, not
	}
	for _, a := range found {
		if !slices.Contains(a.Namespaces, s.Namespace) {
			continue
		}
		one := *source.DeepCopy()
		one.Namespaces, one.ExcludeNamespaces, one.NamespaceSelector = a.Namespaces, nil, nil
		switch {
		case source.Selector != nil || len(source.Objects) > 0:
			return one, partly
		case p.Namespace != c.System || slices.Contains(source.Namespaces, s.Namespace):
			return one, byNamespace
		}
		return one, byNamespaces
	}
	return source, not
}

// matchDeployment is how exactly a pattern, NAME or NAMESPACE/NAME, takes a deployment's NAMESPACE/NAME.
func matchDeployment(pattern, name string) precision {
	if !strings.Contains(pattern, "/") {
		name = name[strings.IndexByte(name, '/')+1:]
	}
	if pattern == name {
		return byDeployment
	}
	if taken, err := path.Match(pattern, name); err == nil && taken {
		return byDeployments
	}
	return not
}

// nameOf is the name that a selection of one application gives it.
func nameOf(a v1alpha1.Applications) string {
	switch {
	case a.Name != "":
		return a.Name
	case len(a.ArgoCD)+len(a.Flux) > 0:
		name := slices.Concat(a.ArgoCD, a.Flux)[0]
		return name[strings.IndexByte(name, '/')+1:]
	case len(a.Namespaces) > 0:
		return a.Namespaces[0]
	}
	return ""
}

// admitGates lets the pods of a namespace make Gates in it. Nobody needs to have that right in git.
func (c *controller) admitGates(ctx context.Context, namespace string) error {
	if namespace == "" {
		return nil
	}
	err := c.client.Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: gateRole, Namespace: namespace, Labels: map[string]string{"app.kubernetes.io/name": "backstay"}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: gateRole},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:serviceaccounts:" + namespace}},
	})
	going := apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
	if err == nil || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) || going { // it comes later, or not any more
		return nil
	}
	return fmt.Errorf("let pods of namespace %s to their gates: %w", namespace, err)
}
