package kube

import (
	"context"
	"errors"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/backstay/backstay/internal/fault"
)

// ofCluster captures the objects of the cluster that those captured before need: first what names others, then what is named.
func (p *part) ofCluster(ctx context.Context) error {
	choosers := map[string]func(*unstructured.Unstructured) bool{
		"clusterrolebindings." + rbacGroup:                             p.binds,
		"apiservices.apiregistration.k8s.io":                           p.serves,
		"mutatingwebhookconfigurations.admissionregistration.k8s.io":   p.calls,
		"validatingwebhookconfigurations.admissionregistration.k8s.io": p.calls,
	}
	var named []kind
	for _, k := range p.kinds {
		chooses := choosers[k.String()]
		switch {
		case k.namespaced || p.excluded(k):
		case chooses == nil:
			named = append(named, k)
		default:
			if err := p.lackOfCluster(ctx, k, p.clusterKind(ctx, k, "", p.orDeployed(k, chooses))); err != nil {
				return err
			}
		}
	}
	all := func(*unstructured.Unstructured) bool { return true }
	for _, k := range named {
		for _, name := range p.clusterNames(k) {
			if err := p.lackOfCluster(ctx, k, p.clusterKind(ctx, k, "metadata.name="+name, all)); err != nil {
				return err
			}
		}
	}
	return nil
}

// orDeployed chooses what a deployment says is its own, too.
func (c *capture) orDeployed(k kind, chooses func(*unstructured.Unstructured) bool) func(*unstructured.Unstructured) bool {
	return func(u *unstructured.Unstructured) bool {
		return chooses(u) || c.chosen != nil && c.chosen.deployed.has(keyOf(k, u), u.GetLabels())
	}
}

// clusterNames are the objects of a kind of the cluster that are needed, or deployed with the application. Namespaces have parts of their own.
func (c *capture) clusterNames(k kind) []string {
	names := c.needs.names(k.GroupResource())
	if c.chosen == nil || k.String() == "namespaces" {
		return names
	}
	names = append(names, c.chosen.deployed.names(k)...)
	slices.Sort(names)
	return slices.Compact(names)
}

// clusterKind captures those objects of a kind of the cluster that are chosen; only they count. Roles that every cluster has are none of
// an application's.
func (p *part) clusterKind(ctx context.Context, k kind, selector string, chooses func(*unstructured.Unstructured) bool) error {
	var others int64
	l, err := p.cluster.list(ctx, k, "", query{at: p.at.ResourceVersion, selector: selector}, func(u *unstructured.Unstructured) error {
		if !chooses(u) || u.GetLabels()["kubernetes.io/bootstrapping"] == "rbac-defaults" {
			others++
			return nil
		}
		return p.write(ctx, k, u)
	})
	l.expected -= others
	p.listed(k, l)
	return err
}

// lackOfCluster is lackOf, but a service account that may not read objects of the cluster does without: they would not be restored with its
// rights either.
func (p *part) lackOfCluster(ctx context.Context, k kind, err error) error {
	if errors.Is(err, fault.ErrDenied) && p.cluster.process != nil {
		p.note("not readable for the service account, lists of " + k.String())
		return nil
	}
	return p.lackOf(ctx, k, err)
}

// serves reports whether a service of the application answers for the group of an APIService.
func (c *capture) serves(u *unstructured.Unstructured) bool {
	return c.hasService(u.Object, "spec", "service")
}

// calls reports whether one of a configuration's webhooks is a service of the application.
func (c *capture) calls(u *unstructured.Unstructured) bool {
	return slices.ContainsFunc(items(u.Object, "webhooks"), func(hook map[string]any) bool {
		return c.hasService(hook, "clientConfig", "service")
	})
}

func (c *capture) hasService(object map[string]any, fields ...string) bool {
	service, _ := field(object, fields...).(map[string]any)
	return c.has(schema.GroupResource{Resource: "services"}, text(service, "namespace"), text(service, "name"))
}
