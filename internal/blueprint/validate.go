package blueprint

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// Validate returns every fault of a Blueprint that shows without a cluster, in order. Each is fault.ErrInvalid, or fault.ErrUnsupported
// for a function that is not among fns.
func Validate(b *Blueprint, fns []Function) []error {
	op := "Blueprint " + b.Name
	faults := validateExtensions(b)
	if len(b.Actions) == 0 {
		faults = append(faults, errors.New("it has no actions"))
	}
	for _, name := range slices.Sorted(maps.Keys(b.Actions)) {
		for _, err := range validateAction(b.Actions[name], fns) {
			faults = append(faults, fmt.Errorf("action %s: %w", name, err))
		}
	}
	for i, err := range faults {
		kind := fault.ErrInvalid
		if errors.Is(err, fault.ErrUnsupported) {
			kind = nil
		}
		faults[i] = fault.Wrap(op, kind, err, "")
	}
	return faults
}

// validateAction returns the faults of one action.
func validateAction(a *Action, fns []Function) []error {
	if a == nil || len(a.Phases) == 0 {
		return []error{errors.New("it has no phases")}
	}
	var faults []error
	scope := scope{deferred: a.DeferPhase}
	for i, p := range a.all() {
		isDefer := i == len(a.Phases)
		kind := "phase "
		if isDefer {
			kind = "deferPhase "
		}
		for _, err := range scope.phase(p, isDefer, fns) {
			faults = append(faults, fmt.Errorf("%s%s: %w", kind, p.Name, err))
		}
		if !isDefer {
			scope.phases = append(scope.phases, p)
		}
	}
	scope.current = ""
	for _, name := range slices.Sorted(maps.Keys(a.OutputArtifacts)) {
		artifact := a.OutputArtifacts[name]
		found := scope.template(artifact.KopiaSnapshot)
		for _, key := range slices.Sorted(maps.Keys(artifact.KeyValue)) {
			found = append(found, scope.template(artifact.KeyValue[key])...)
		}
		for _, err := range found {
			faults = append(faults, fmt.Errorf("output artifact %s: %w", name, err))
		}
	}
	return faults
}

// scope is what the templates of a phase can see.
type scope struct {
	phases   []Phase // that ran before
	current  string  // the phase itself
	now      Phase
	deferred *Phase
}

// phase returns the faults of a phase.
func (s *scope) phase(p Phase, isDefer bool, fns []Function) []error {
	var faults []error
	if p.Name == "" {
		faults = append(faults, errors.New("it has no name"))
	}
	if slices.ContainsFunc(s.phases, func(other Phase) bool { return other.Name == p.Name }) {
		faults = append(faults, errors.New("there are two of that name"))
	}
	s.current, s.now = p.Name, p
	if isDefer {
		s.current = ""
	}
	for _, name := range slices.Sorted(maps.Keys(p.Objects)) {
		ref := p.Objects[name]
		if !strings.EqualFold(ref.Kind, "secret") && !strings.EqualFold(ref.Kind, "configmap") {
			faults = append(faults, fmt.Errorf("object %s: it is of kind %q; templates see Secret and ConfigMap", name, ref.Kind))
		}
		for _, field := range []string{ref.Name, ref.Namespace} {
			for _, err := range s.template(field) {
				faults = append(faults, fmt.Errorf("object %s: %w", name, err))
			}
		}
	}
	i := slices.IndexFunc(fns, func(f Function) bool { return f.Name == p.Func })
	if i < 0 {
		return append(faults, unknown(p.Func, fns))
	}
	return append(faults, s.arguments(p, fns[i])...)
}

// unknown says that there is no function of a name, and which is meant.
func unknown(name string, fns []Function) error {
	hint := ""
	for _, f := range fns {
		if strings.EqualFold(f.Name, name) {
			hint = "it is written " + f.Name
		}
	}
	return fault.New("", fault.ErrUnsupported, fmt.Sprintf("there is no function %q", name), hint)
}

func (s *scope) arguments(p Phase, f Function) []error {
	var faults []error
	for _, name := range f.Required {
		if _, given := p.Args[name]; !given {
			faults = append(faults, fmt.Errorf("%s needs argument %s", f.Name, name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Args)) {
		switch {
		case !slices.Contains(f.Required, name) && !slices.Contains(f.Optional, name):
			faults = append(faults, fmt.Errorf("%s has no argument %s", f.Name, name))
		case !slices.Contains(f.Raw, name):
			faults = append(faults, s.argument(name, p.Args[name])...)
		}
	}
	return faults
}

// argument returns the faults of all templates in an argument.
func (s *scope) argument(at string, arg any) []error {
	var faults []error
	switch arg := arg.(type) {
	case string:
		for _, err := range s.template(arg) {
			faults = append(faults, fmt.Errorf("argument %s: %w", at, err))
		}
	case []any:
		for i := range arg {
			faults = append(faults, s.argument(fmt.Sprintf("%s[%d]", at, i), arg[i])...)
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(arg)) {
			faults = append(faults, s.argument(at, k)...)
			faults = append(faults, s.argument(at+"."+k, arg[k])...)
		}
	}
	return faults
}

// template returns the faults of one template: that it cannot be parsed, or what it refers to that cannot be there.
func (s *scope) template(text string) []error {
	references, err := referencesOf(text)
	if err != nil {
		return []error{err}
	}
	var faults []error
	for _, chain := range references {
		if err := s.reference(chain); err != nil {
			faults = append(faults, fmt.Errorf(".%s: %w", strings.Join(chain, "."), err))
		}
	}
	return faults
}

// reference checks a chain of names that begins at what templates see.
func (s *scope) reference(chain []string) error {
	if err := inType(reflect.TypeFor[Params](), chain); err != nil {
		return err
	}
	switch {
	case chain[0] == "Phases" && len(chain) > 1:
		return s.ofPhase(chain[1], chain[2:])
	case chain[0] == "DeferPhase" && s.deferred == nil:
		return errors.New("the action has no deferPhase")
	case chain[0] == "DeferPhase" && s.current != "":
		return errors.New("deferPhase runs later")
	}
	return nil
}

// ofPhase checks a reference to a phase by its name.
func (s *scope) ofPhase(name string, rest []string) error {
	p := s.now
	if name != s.current || s.current == "" {
		i := slices.IndexFunc(s.phases, func(p Phase) bool { return p.Name == name })
		if i < 0 {
			return fmt.Errorf("no phase %s runs before", name)
		}
		p = s.phases[i]
	} else if len(rest) > 1 && rest[0] == "Output" {
		return errors.New("the phase has put out nothing yet")
	}
	if len(rest) < 2 || rest[0] == "Output" {
		return nil
	}
	kind := strings.TrimSuffix(rest[0], "s")
	if ref, given := p.Objects[rest[1]]; !given || !strings.EqualFold(ref.Kind, kind) {
		return fmt.Errorf("phase %s has no %s %s among its objects", name, kind, rest[1])
	}
	return nil
}

// inType follows names through a type, as a template does, as far as it is known.
func inType(t reflect.Type, chain []string) error {
	for i, name := range chain {
		if _, is := t.MethodByName(name); is {
			return nil
		}
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch t.Kind() {
		case reflect.Struct:
			field, found := t.FieldByName(name)
			if !found {
				where := "templates"
				if i > 0 {
					where = "." + strings.Join(chain[:i], ".")
				}
				return fmt.Errorf("there is no %s in %s", name, where)
			}
			t = field.Type
		case reflect.Map:
			t = t.Elem()
		case reflect.Interface:
			return nil
		default:
			return fmt.Errorf("%s has nothing in it", strings.Join(chain[:i], "."))
		}
	}
	return nil
}
