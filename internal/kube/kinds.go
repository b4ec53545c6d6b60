package kube

import (
	"context"
	"errors"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	clientscheme "k8s.io/client-go/kubernetes/scheme"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// kind is a kind of objects that the API server can list.
type kind struct {
	schema.GroupVersionResource
	name       string // Deployment
	names      []string
	namespaced bool
	// stored tells that the objects are in the API server's own store, the one that resource versions of a Moment are of.
	stored bool
}

// String is PLURAL.GROUP, as users write it; the core group has none.
func (k kind) String() string { return k.GroupResource().String() }

// path is where the API server lists the kind.
func (k kind) path(namespace string) []string {
	segments := []string{"/apis", k.Group, k.Version}
	if k.Group == "" {
		segments = []string{"/api", k.Version}
	}
	if k.namespaced {
		segments = append(segments, "namespaces", namespace)
	}
	return append(segments, k.Resource)
}

// errStarting says that the API server does not know yet which kinds there are.
var errStarting = errors.New("the API server is not ready")

// kinds asks the API server what kinds it serves now, each in the version it prefers, and which groups do not tell theirs. An error means
// that it does not answer.
func (c *Cluster) kinds(ctx context.Context) ([]kind, map[schema.GroupVersion]error, error) {
	const op = "discover kinds"
	var lists []*metav1.APIResourceList
	var silent *discovery.ErrGroupDiscoveryFailed
	err := c.patiently(ctx, func() (err error) {
		if c.starting(ctx) {
			return errStarting
		}
		c.Discovery.Invalidate()
		if lists, err = discovery.ServerPreferredResources(c.Discovery); errors.As(err, &silent) {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, nil, fault.Wrap(op, ClassOf(err), err, "")
	}
	aggregated := c.aggregated(ctx)
	var found []kind
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, nil, fault.Wrap(op, fault.ErrUnsupported, err, "")
		}
		for _, r := range list.APIResources {
			if strings.Contains(r.Name, "/") || !slices.Contains(r.Verbs, "list") {
				continue
			}
			names := append([]string{strings.ToLower(r.Kind), r.Name, r.SingularName}, r.ShortNames...)
			found = append(found, kind{gv.WithResource(r.Name), r.Kind, names, r.Namespaced, !aggregated(gv)})
		}
	}
	slices.SortFunc(found, func(a, b kind) int { return strings.Compare(a.String(), b.String()) })
	if silent != nil {
		return found, silent.Groups, nil
	}
	return found, nil, nil
}

// aggregated finds out which groups other servers answer for: their resource versions are of other stores. Where that cannot be read it
// is all but Kubernetes' own.
func (c *Cluster) aggregated(ctx context.Context) func(schema.GroupVersion) bool {
	services := map[schema.GroupVersion]bool{}
	apiServices := kind{
		GroupVersionResource: schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"},
		name:                 "APIService", stored: true,
	}
	_, err := c.own().list(ctx, apiServices, "", query{}, func(u *unstructured.Unstructured) error {
		group, _, _ := unstructured.NestedString(u.Object, "spec", "group")
		version, _, _ := unstructured.NestedString(u.Object, "spec", "version")
		service, _, _ := unstructured.NestedMap(u.Object, "spec", "service")
		services[schema.GroupVersion{Group: group, Version: version}] = service != nil
		return nil
	})
	if err != nil {
		return func(gv schema.GroupVersion) bool { return !clientscheme.Scheme.IsVersionRegistered(gv) }
	}
	return func(gv schema.GroupVersion) bool { return services[gv] }
}

// excludedByRule are kinds that are never captured: what happened or is measured, what elects leaders, and what controllers make anew
// from other objects.
func excludedByRule(r schema.GroupResource) bool {
	switch r.Group {
	case "metrics.k8s.io", "custom.metrics.k8s.io", "external.metrics.k8s.io":
		return true
	case v1alpha1.Group: // records of runs; to create one again would run it again
		return r.Resource == "backups" || r.Resource == "restores" || r.Resource == "restorepoints" || r.Resource == "gates"
	}
	switch r.String() {
	case "events", "events.events.k8s.io", "componentstatuses",
		"leases.coordination.k8s.io", "leasecandidates.coordination.k8s.io", "csistoragecapacities.storage.k8s.io":
		return true
	}
	return false
}

// excludedByPolicy reports whether the patterns PLURAL.GROUP and *.GROUP take a kind.
func excludedByPolicy(patterns []string, r schema.GroupResource) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return p == r.String() || p == "*."+r.Group })
}

// reference is an object, or all of a kind, as users write it: KIND.GROUP/NAME, KIND/NAME.
type reference struct {
	text        string
	kind, group string
	anyGroup    bool
	name        string
}

// parseReference reads KIND.GROUP/NAME or KIND/NAME.
func parseReference(s string) (reference, error) {
	kindAndGroup, name, found := strings.Cut(s, "/")
	k, group, grouped := strings.Cut(kindAndGroup, ".")
	if !found || k == "" || name == "" || strings.Contains(name, "/") || grouped && group == "" {
		return reference{}, fault.New("object "+s, fault.ErrInvalid, "it is not KIND.GROUP/NAME", "deployment.apps/web, configmap/web")
	}
	return reference{s, strings.ToLower(k), group, !grouped, name}, nil
}

// of reports whether the reference is to objects of a kind.
func (r reference) of(k kind) bool {
	return (r.anyGroup || r.group == k.Group) && slices.Contains(k.names, r.kind)
}
