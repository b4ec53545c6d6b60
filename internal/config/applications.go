package config

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
)

// What concerns applications is a cluster's work. Files hold it to be checked before it gets there; the API server says the same by the
// definitions in deploy/crds.

// runsHere reports whether a policy is for backstay run, at least in part.
func runsHere(p *v1alpha1.Policy) bool {
	for i := range p.Spec.Sources {
		if p.Spec.Sources[i].Applications == nil {
			return true
		}
	}
	return len(p.Spec.Sources) == 0
}

// source judges a source of applications within its policy.
func (c *checker) source(s *v1alpha1.Source, spec *v1alpha1.PolicySpec, path string) {
	switch {
	case s.Name != "":
		c.wrong(join(path, "name"), "applications are named by applications.name, or by their namespaces")
	case spec.Location == "" && len(spec.Exports)+len(spec.Mirrors) > 0:
		c.wrong(join(path, "applications"), "they go into restore points only, and there is no location for them")
	}
	c.applications(s.Applications, join(path, "applications"))
}

// applicationNames tells sources of applications apart: two that make the same applications would be captured twice.
func applicationNames(a *v1alpha1.Applications) string {
	if a.Name != "" {
		return "application " + a.Name
	}
	if len(a.ArgoCD)+len(a.Flux) > 0 {
		return "deployments " + strings.Join(a.ArgoCD, " ") + ", " + strings.Join(a.Flux, " ")
	}
	by := strings.Join(a.Namespaces, " ")
	if a.NamespaceSelector != nil {
		by += " labelled " + metav1.FormatLabelSelector(a.NamespaceSelector)
	}
	return "namespaces " + by
}

func (c *checker) applications(a *v1alpha1.Applications, path string) {
	c.selector(a.NamespaceSelector, join(path, "namespaceSelector"))
	c.selector(a.Selector, join(path, "selector"))
	for i := range a.Hooks {
		c.selector(&a.Hooks[i].Selector, fmt.Sprintf("%s.hooks[%d].selector", path, i))
	}
}

func (c *checker) selector(s *metav1.LabelSelector, path string) {
	if s == nil || said(c.decoder, path) {
		return
	}
	if _, err := metav1.LabelSelectorAsSelector(s); err != nil {
		c.wrong(path, "%s", err)
	}
}

func (c *checker) backup(spec *v1alpha1.BackupSpec) {
	if spec.Policy == "" && spec.Location == "" {
		c.wrong("spec", "policy or location is missing")
	}
	c.applications(&spec.Application, "spec.application")
}

func (c *checker) restore(spec *v1alpha1.RestoreSpec) {
	chosen := len(spec.Namespaces)+len(spec.Objects)+len(spec.Claims)+len(spec.StorageClasses)+len(spec.Transforms) > 0 ||
		spec.Only != "" || spec.Existing != "" || spec.ClusterObjects != nil
	switch {
	case spec.Undo != "" && chosen:
		c.wrong("spec.undo", "undo puts back what a Restore exchanged; nothing is chosen or changed with it")
	case spec.GitOps != nil && (len(spec.Namespaces)+len(spec.Objects)+len(spec.Transforms) > 0 || spec.Existing != "" || spec.ClusterObjects != nil):
		c.wrong("spec.gitops", "what deploys the application brings its objects: none are chosen or changed with it")
	case spec.Only == v1alpha1.OnlyData && len(spec.Objects)+len(spec.Transforms) > 0:
		c.wrong("spec.only", "only data is asked for: objects and transforms go with configuration")
	case spec.Only == v1alpha1.OnlyConfig && len(spec.Claims) > 0:
		c.wrong("spec.only", "only configuration is asked for: claims go with data")
	}
	for from, to := range spec.Namespaces {
		if checkName(from) != nil || checkName(to) != nil {
			c.wrong("spec.namespaces", "names of namespaces are expected, those in the point to those on the cluster")
			break
		}
	}
	for i, t := range spec.Transforms {
		for j, o := range t.Patch {
			c.operation(o, fmt.Sprintf("spec.transforms[%d].patch[%d]", i, j))
		}
	}
}

func (c *checker) operation(o v1alpha1.PatchOperation, path string) {
	switch o.Op {
	case "add", "replace", "test":
		if o.Value == "" {
			c.wrong(path, "add, replace and test need a value")
		}
	case "move", "copy":
		if o.From == "" {
			c.wrong(path, "move and copy need from")
		}
	}
}
