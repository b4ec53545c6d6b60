package convert

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
)

// k10Binding adds a Blueprint to the policies whose applications it is bound to.
func (c *conversion) k10Binding(s *source) {
	b := &binding{conversion: c, source: s}
	name := s.take("spec.blueprintRef.name")
	b.blueprint = name.text()
	from := s.take("spec.blueprintRef.namespace")
	from.needless("a Blueprint is of the Policy's namespace")
	s.each("spec.resources.matchAll", b.requirement)
	if s.each("spec.resources.matchAny", func(any *source) { any.drop(Dropped, "only matchAll is read: write a binding for each") }) > 0 {
		b.unclear = true
	}
	switch {
	case b.unclear, b.blueprint == "":
		s.drop(Dropped, "bound to nothing: which objects it means cannot be said here")
		return
	case len(b.kinds) == 0:
		s.drop(Dropped, "bound to nothing: blueprints of a Policy name a kind, PLURAL.GROUP")
		return
	case len(c.policies) == 0:
		s.drop(Dropped, "bound to nothing: there is no policy to which it belongs")
		return
	}
	bound := 0
	for i := range c.policies {
		bound += b.bind(c.policies[i])
	}
	if bound == 0 {
		s.tell("spec.resources", Dropped, "", "no policy takes these namespaces by their names")
		return
	}
	name.kept("blueprints of " + plenty(bound, "source"))
	c.step("Have the Blueprint %s in namespace %s; `backstay blueprint validate` tells whether it runs here.", printable(b.blueprint), c.namespace)
}

// binding is a BlueprintBinding under conversion.
type binding struct {
	*conversion
	source     *source
	blueprint  string
	kinds      []string
	selector   *metav1.LabelSelector
	namespaces []string // none for all
	unclear    bool
}

// requirement reads one of what is bound all has to be.
func (b *binding) requirement(s *source) {
	b.types(s)
	if annotation := s.take("annotations.key"); annotation.there {
		operator := s.take("annotations.operator")
		if annotation.text() == v1alpha1.AnnotationBlueprint && operator.text() == "DoesNotExist" {
			annotation.needless("an object's own annotation wins")
		} else {
			annotation.dropped("objects are chosen by kind, labels and namespace only")
			b.unclear = true
		}
	}
	if label := s.take("labels.key"); label.there {
		b.label(metav1.LabelSelectorRequirement{
			Key: label.text(), Operator: metav1.LabelSelectorOperator(s.take("labels.operator").text()), Values: s.take("labels.values").texts(),
		})
		label.kept("blueprints.selector")
	}
	if names := s.take("namespace.values"); names.there {
		if operator := s.take("namespace.operator"); operator.text() != "In" {
			operator.dropped("namespaces are named, by In")
			b.unclear = true
		}
		b.namespaces = append(b.namespaces, names.texts()...)
		names.kept("namespaces")
	}
	if len(leaves(s.tree, "")) > 0 {
		b.unclear = true // told as not known
	}
}

// types reads the kinds: a list by In, or one, as older documents have it.
func (b *binding) types(s *source) {
	if operator := s.take("type.operator"); operator.there && operator.text() != "In" {
		operator.dropped("kinds are named, by In")
		b.unclear = true
	}
	one := func(from *source, path string) {
		group, plural := from.take(path+"group"), from.take(path+"resource")
		from.take(path + "version").needless("kinds are captured in the version that the cluster prefers")
		if plural.text() == "" {
			return
		}
		plural.kept("blueprints.kind")
		b.kinds = append(b.kinds, dotted(plural.text(), group.text()))
		if name := from.take(path + "name"); name.there {
			name.dropped("objects are chosen by kind, labels and namespace only")
			b.unclear = true
		}
	}
	s.each("type.values", func(value *source) { one(value, "") })
	one(s, "type.")
}

func (b *binding) label(r metav1.LabelSelectorRequirement) {
	if b.selector == nil {
		b.selector = &metav1.LabelSelector{}
	}
	b.selector.MatchExpressions = append(b.selector.MatchExpressions, r)
	if _, err := metav1.LabelSelectorAsSelector(b.selector); err != nil {
		b.unclear = true
	}
}

// bind adds the Blueprint to the sources of a policy within its namespaces, and counts them.
func (b *binding) bind(p made[*v1alpha1.Policy]) int {
	all, inside := p.object.Spec.Sources, []int{}
	for i := range all {
		inside = append(inside, i)
	}
	if len(b.namespaces) > 0 {
		var ok bool
		if all, inside, ok = within(all, b.namespaces); !ok {
			b.source.tell("spec.resources", Dropped, "", "not bound in "+p.object.Name+", which does not choose its namespaces by their names")
			return 0
		}
	}
	for _, i := range inside {
		a := all[i].Applications
		for _, kind := range b.kinds {
			a.Blueprints = append(slices.Clone(a.Blueprints), v1alpha1.BlueprintBinding{Name: b.blueprint, Kind: kind, Selector: b.selector})
		}
	}
	p.object.Spec.Sources = all
	return len(inside)
}
