package convert

import (
	"path"
	"slices"
	"strings"

	"github.com/backstay/backstay/api/v1alpha1"
)

// isGlob reports whether a name of a namespace stands for several.
func isGlob(name string) bool { return strings.ContainsAny(name, `*?[\`) }

// covers reports whether one of the patterns takes a name.
func covers(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		taken, err := path.Match(pattern, name)
		return err == nil && taken || pattern == name
	})
}

// within splits sources so that each is either wholly within the namespaces of names, or wholly without them, and returns those within
// by their places. As each namespace is an application of its own, however many sources there are, nothing else changes by that. It
// fails, and changes nothing, where namespaces are chosen in a way that cannot be split.
func within(sources []v1alpha1.Source, names []string) (all []v1alpha1.Source, inside []int, ok bool) {
	for i := range sources {
		a := sources[i].Applications
		if a.Name != "" || a.NamespaceSelector != nil {
			return sources, nil, false
		}
		in, out, ok := split(a, names)
		if !ok {
			return sources, nil, false
		}
		if in != nil {
			inside = append(inside, len(all))
			all = append(all, v1alpha1.Source{Applications: in})
		}
		if out != nil {
			all = append(all, v1alpha1.Source{Applications: out})
		}
	}
	return all, inside, true
}

// split divides a selection by its namespaces into what is within those of names, and what is not; either may be nil.
func split(a *v1alpha1.Applications, names []string) (in, out *v1alpha1.Applications, ok bool) {
	var inside, outside []string
	for _, namespace := range a.Namespaces {
		switch {
		case covers(names, namespace) || slices.Contains(names, "*"):
			inside = append(inside, namespace)
		case !isGlob(namespace):
			outside = append(outside, namespace)
		default: // a glob that takes more than names do, or others
			if slices.ContainsFunc(names, isGlob) {
				return nil, nil, false
			}
			for _, name := range names {
				if covers([]string{namespace}, name) && !covers(a.ExcludeNamespaces, name) {
					inside = append(inside, name)
				}
			}
			outside = append(outside, namespace)
		}
	}
	if len(inside) > 0 {
		in = a.DeepCopy()
		in.Namespaces = sorted(inside)
	}
	if len(outside) > 0 {
		out = a.DeepCopy()
		out.Namespaces = sorted(outside)
		if in != nil && slices.ContainsFunc(outside, isGlob) {
			out.ExcludeNamespaces = sorted(append(slices.Clone(out.ExcludeNamespaces), inside...))
			in.ExcludeNamespaces = nil
		}
	}
	return in, out, true
}

// governs reports whether a policy takes a namespace by its name.
func governs(p *v1alpha1.Policy, namespace string) bool {
	return slices.ContainsFunc(p.Spec.Sources, func(s v1alpha1.Source) bool {
		return covers(s.Applications.Namespaces, namespace) && !covers(s.Applications.ExcludeNamespaces, namespace)
	})
}
