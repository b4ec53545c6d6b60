package function

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"k8s.io/client-go/util/jsonpath"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

// mostConditions is how many conditions one phase waits for.
const mostConditions = 100

// waitFunctions are Wait and WaitV2. They look, and do nothing.
func (o Options) waitFunctions() []blueprint.Function {
	wait := blueprint.Function{
		Interrupted: blueprint.Repeats, Required: []string{"timeout", "conditions"}, Raw: []string{"conditions"},
	}
	first, second := wait, wait
	first.Name, first.Run = "Wait", o.waitFor(withPaths)
	second.Name, second.Run = "WaitV2", o.waitFor(withFields)
	return []blueprint.Function{first, second}
}

// conditions are what is waited for: all of some, and one of others, where there are any.
type conditions struct {
	AllOf []condition `json:"allOf"`
	AnyOf []condition `json:"anyOf"`
}

// condition is a template that says true of an object. The fields of the reference are templates too.
type condition struct {
	Condition string                    `json:"condition"`
	Object    blueprint.ObjectReference `json:"objectReference"`
}

// say renders a condition on an object.
type say func(c blueprint.Call, text string, object map[string]any) (string, error)

// waitFor is a function that waits until its conditions hold.
func (o Options) waitFor(render say) func(context.Context, blueprint.Call) (map[string]any, error) {
	return func(ctx context.Context, c blueprint.Call) (map[string]any, error) {
		args := arguments(c.Args)
		text, err := args.text("timeout")
		if err != nil {
			return nil, err
		}
		timeout, err := time.ParseDuration(text)
		if err != nil || timeout <= 0 {
			return nil, args.wrong("timeout", "a duration such as 5m")
		}
		var all conditions
		if err := args.into("conditions", &all); err != nil {
			return nil, args.wrong("conditions", "a map of allOf and anyOf")
		}
		if n := len(all.AllOf) + len(all.AnyOf); n == 0 || n > mostConditions {
			return nil, fault.New("argument conditions", fault.ErrInvalid, fmt.Sprintf("it has %d conditions, not 1 to %d", n, mostConditions), "")
		}
		return nil, o.wait(ctx, c, all, timeout, render)
	}
}

func (o Options) wait(ctx context.Context, c blueprint.Call, all conditions, timeout time.Duration, render say) error {
	limit := o.Now().Add(timeout)
	var last error
	return o.await(ctx, func(ctx context.Context) (bool, error) {
		met, err := o.met(ctx, c, all, render)
		if met || ctx.Err() != nil {
			return met, nil
		}
		if err != nil {
			last = err // it counts once time is over: an object may yet be made, or get the field that is asked for
		}
		if o.Now().Before(limit) {
			return false, nil
		}
		text := fmt.Sprintf("the conditions did not hold within %s", timeout)
		if last != nil {
			return false, fault.Wrap("", fault.ErrRefused, fmt.Errorf("%s; last: %w", text, last), "")
		}
		return false, fault.New("", fault.ErrRefused, text, "")
	})
}

// met reports whether one of anyOf holds, or all of allOf, as published.
func (o Options) met(ctx context.Context, c blueprint.Call, all conditions, render say) (bool, error) {
	for _, one := range all.AnyOf {
		if holds, err := o.holds(ctx, c, one, render); holds || err != nil {
			return holds, err
		}
	}
	for _, one := range all.AllOf {
		if holds, err := o.holds(ctx, c, one, render); !holds || err != nil {
			return false, err
		}
	}
	return len(all.AllOf) > 0, nil
}

// holds reports whether a condition holds now.
func (o Options) holds(ctx context.Context, c blueprint.Call, one condition, render say) (bool, error) {
	ref := one.Object
	for _, field := range []*string{&ref.APIVersion, &ref.Group, &ref.Resource, &ref.Kind, &ref.Name, &ref.Namespace} {
		var err error
		if *field, err = c.Render(*field, nil); err != nil {
			return false, err
		}
	}
	u, err := o.object(ref, c.Namespace)
	if err != nil {
		return false, err
	}
	if err := o.read(ctx, u); err != nil {
		return false, err
	}
	said, err := render(c, one.Condition, u.Object)
	return strings.TrimSpace(said) == "true", err
}

// withFields renders a condition of WaitV2, a template on the object: $.status.phase.
func withFields(c blueprint.Call, text string, object map[string]any) (string, error) {
	return c.Render(text, object)
}

// fieldPath is a field of the object in a condition of Wait: { $.status.phase }.
var fieldPath = regexp.MustCompile(`\{\s*\$([^{}]*)\}`)

// withPaths renders a condition of Wait: a template in which paths stand for what the object has there.
func withPaths(c blueprint.Call, text string, object map[string]any) (string, error) {
	var failed error
	filled := fieldPath.ReplaceAllStringFunc(text, func(found string) string {
		value, err := valueAt(object, "{"+strings.TrimSpace(fieldPath.FindStringSubmatch(found)[1])+"}")
		if err != nil && failed == nil {
			failed = fault.Wrap("path "+found, fault.ErrInvalid, err, "")
		}
		return value
	})
	if failed != nil {
		return "", failed
	}
	return c.Render(filled, nil)
}

// valueAt is what an object has at a path, as it may stand in a template: in quotes or, a number, without. What an object says shall not
// become a part of the template.
func valueAt(object map[string]any, at string) (string, error) {
	p := jsonpath.New("condition")
	if err := p.Parse(at); err != nil {
		return "", err
	}
	var value strings.Builder
	if err := p.Execute(&value, object); err != nil {
		return "", err
	}
	text := value.String()
	if strings.Contains(text, "{{") || strings.Contains(text, "}}") || strings.ContainsRune(text, '`') {
		return "", fault.New("", fault.ErrInvalid, "its value cannot stand in a template", "")
	}
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`).Replace(text), nil
}
