package convert

import (
	"cmp"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
)

// hook turns a hook of a backup into hooks of the applications in its namespaces.
func (w *veleroWork) hook(s *source) {
	s.take("name").needless("hooks have no names")
	if kinds := s.take("includedResources"); kinds.there && !slices.Contains(kinds.texts(), "pods") && !slices.Contains(kinds.texts(), "*") {
		s.drop(Dropped, "commands run in pods, and this hook is of other objects")
		return
	}
	s.take("excludedResources").needless("commands run in pods only")
	var selector metav1.LabelSelector
	labels := s.take("labelSelector")
	if found := labels.selector(); found != nil {
		selector = *found
		labels.kept("hooks.selector")
	} else if labels.raw != nil && !labels.there {
		s.drop(Dropped, "in which pods it runs is not clear")
		return
	}
	hooks := w.commands(s, selector)
	if len(hooks) == 0 {
		return
	}
	all, inside, ok := w.hookNamespaces(s)
	if !ok || len(inside) == 0 {
		s.drop(Dropped, "it runs nowhere: its namespaces cannot be told from the others")
		return
	}
	for _, i := range inside {
		a := all[i].Applications
		a.Hooks = append(slices.Clone(a.Hooks), hooks...)
	}
	w.sources = all
}

// hookNamespaces splits the sources so that a hook is of some of them, and returns those by their places.
func (w *veleroWork) hookNamespaces(s *source) (all []v1alpha1.Source, inside []int, ok bool) {
	included, excluded := s.take("includedNamespaces"), s.take("excludedNamespaces")
	in, out := included.texts(), excluded.texts()
	every := len(in) == 0 || slices.Contains(in, "*")
	switch {
	case every && len(out) == 0:
		for i := range w.sources {
			inside = append(inside, i)
		}
		return w.sources, inside, true
	case every:
		excluded.kept("namespaces")
		return outside(w.sources, out)
	case len(out) == 0:
		included.kept("namespaces")
		return within(w.sources, in)
	}
	return nil, nil, false
}

// outside is the complement of within.
func outside(sources []v1alpha1.Source, names []string) (all []v1alpha1.Source, without []int, ok bool) {
	all, inside, ok := within(sources, names)
	for i := range all {
		if !slices.Contains(inside, i) {
			without = append(without, i)
		}
	}
	return all, without, ok
}

// commands pairs what brings to rest with what undoes it: the first with the first of the same container, and so on.
func (w *veleroWork) commands(s *source, selector metav1.LabelSelector) []v1alpha1.Hook {
	before, after := w.execs(s, "pre"), w.execs(s, "post")
	var hooks []v1alpha1.Hook
	for _, b := range before {
		h := v1alpha1.Hook{Selector: selector, EachPod: true, Container: b.container, Before: b.command, Timeout: b.timeout}
		if i := slices.IndexFunc(after, func(a exec) bool { return a.container == b.container }); i >= 0 {
			h.After, h.Timeout = after[i].command, longest(b.timeout, after[i].timeout)
			after = slices.Delete(after, i, i+1)
		}
		hooks = append(hooks, h)
	}
	for _, a := range after {
		s.tell("post", Dropped, "", a.command[0]+": there is no command before the snapshot to which it belongs: hooks are pairs")
	}
	return hooks
}

// exec is one command.
type exec struct {
	container string
	command   []string
	timeout   string
}

func (w *veleroWork) execs(s *source, path string) []exec {
	var all []exec
	s.each(path, func(one *source) {
		container, command, timeout := one.take("exec.container"), one.take("exec.command"), one.take("exec.timeout")
		e := exec{container: container.text(), command: command.texts(), timeout: timeout.text()}
		if len(e.command) == 0 {
			return
		}
		if _, err := time.ParseDuration(cmp.Or(e.timeout, "30s")); err != nil {
			timeout.dropped("not a span of time")
			e.timeout = ""
		}
		timeout.kept("hooks.timeout")
		container.kept("hooks.container")
		command.kept(map[string]string{"pre": "hooks.before", "post": "hooks.after"}[path])
		if onError := one.take("exec.onError"); onError.text() == "Continue" {
			onError.changed("", "the point is made, and is incomplete")
		} else {
			onError.changed("", "a failure leaves the point incomplete; what was begun is undone in any case")
		}
		all = append(all, e)
	})
	return all
}

// longest is the longer of two spans; "" is the default of both tools, 30s.
func longest(a, b string) string {
	x, _ := time.ParseDuration(cmp.Or(a, "30s"))
	y, _ := time.ParseDuration(cmp.Or(b, "30s"))
	if y > x {
		return b
	}
	return a
}
