package blueprint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"regexp/syntax"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig/v3"
)

// Limits of what one function of a template is given.
const (
	mostNodes    = 200_000 // values in lists and maps of any depth
	mostGiven    = 4 << 20 // bytes
	deepest      = 1000    // lists in lists; what holds itself is deeper
	widest       = 4096    // columns, where a number says how many
	farthest     = 1 << 30 // numbers that loops count to, so that sums of them stay in range
	mostMatching = 1 << 27 // steps of a regular expression's machine
)

// blocked are functions of sprig's that templates do without: weak or slow ciphers, as in Kanister; and what tells of the process that
// renders: its environment, and what names it can look up.
var blocked = []string{"bcrypt", "derivePassword", "htpasswd", "env", "expandenv", "getHostByName"} //nolint:gochecknoglobals // a constant list

// bounds hold one rendering within its limits. Templates have no other functions than those that bounds give.
type bounds struct {
	stop  func() error // says why to stop, if so
	steps int
	calls int
	made  int
}

// functions are those of sprig and of text/template that templates have.
func (b *bounds) functions() template.FuncMap {
	functions := sprig.TxtFuncMap()
	for _, name := range blocked {
		delete(functions, name)
	}
	// Those of text/template that make text.
	maps.Copy(functions, template.FuncMap{
		"print": fmt.Sprint, "printf": fmt.Sprintf, "println": fmt.Sprintln,
		"html": template.HTMLEscaper, "js": template.JSEscaper, "urlquery": template.URLQueryEscaper,
	})
	for _, name := range []string{"toPrettyJson", "mustToPrettyJson"} {
		functions[name] = prettyJSON
	}
	for name, f := range functions {
		functions[name] = b.bounded(name, reflect.ValueOf(f))
	}
	functions[stepFunction] = func() (string, error) { return "", b.step() }
	functions[callFunction] = func() (string, error) {
		if b.calls++; b.calls > mostCalls {
			return "", fmt.Errorf("%w: more than %d templates called", errTooMuch, mostCalls)
		}
		return "", b.step()
	}
	functions[printFunction] = func(v any) (any, error) {
		_, err := weigh(reflect.ValueOf(v))
		return v, err
	}
	return functions
}

// step counts something that is done once more.
func (b *bounds) step() error {
	if b.steps++; b.steps > mostSteps {
		return fmt.Errorf("%w: more than %d steps", errTooMuch, mostSteps)
	}
	if err := b.stop(); err != nil {
		return fmt.Errorf("%w: %w", errTooMuch, err)
	}
	return nil
}

// make counts what a function makes.
func (b *bounds) make(bytes int) error {
	if b.made += bytes; b.made > mostMade || bytes > mostGiven {
		return fmt.Errorf("%w: it makes more than %d MiB", errTooMuch, mostMade>>20)
	}
	return nil
}

// bounded is f, refused where what it would take or make is too much.
func (b *bounds) bounded(name string, f reflect.Value) any {
	in := make([]reflect.Type, f.Type().NumIn())
	for i := range in {
		in[i] = f.Type().In(i)
	}
	errorType := reflect.TypeFor[error]()
	signature := reflect.FuncOf(in, []reflect.Type{f.Type().Out(0), errorType}, f.Type().IsVariadic())
	return reflect.MakeFunc(signature, func(args []reflect.Value) []reflect.Value {
		refused := func(err error) []reflect.Value {
			return []reflect.Value{reflect.Zero(f.Type().Out(0)), reflect.ValueOf(&err).Elem()}
		}
		if err := b.allow(name, args); err != nil {
			return refused(err)
		}
		var out []reflect.Value
		if f.Type().IsVariadic() {
			out = f.CallSlice(args)
		} else {
			out = f.Call(args)
		}
		if err := b.make(shallow(out[0])); err != nil {
			return refused(err)
		}
		if len(out) == 1 {
			out = append(out, reflect.Zero(errorType))
		}
		return out
	}).Interface()
}

// allow says whether a function may be called with these arguments.
func (b *bounds) allow(name string, args []reflect.Value) error {
	if err := b.step(); err != nil {
		return err
	}
	given := 0
	for _, a := range args {
		weight, err := weigh(a)
		if err != nil {
			return err
		}
		given += weight
	}
	if given > mostGiven {
		return fmt.Errorf("%w: %s is given more than %d MiB", errTooMuch, name, mostGiven>>20)
	}
	if strings.HasPrefix(name, "merge") || strings.HasPrefix(name, "mustMerge") {
		unshare(args)
	}
	size, special := sizes[name]
	if !special {
		return nil
	}
	makes, err := size(spread(args))
	if err == nil && makes > mostGiven {
		err = fmt.Errorf("%w: it makes more than %d MiB", errTooMuch, mostGiven>>20)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// unshare makes copies of the maps that are merged into the first: the first may be in them.
func unshare(args []reflect.Value) {
	sources := args[len(args)-1]
	copies := reflect.MakeSlice(sources.Type(), sources.Len(), sources.Len())
	for i := range sources.Len() {
		if m, is := sources.Index(i).Interface().(map[string]any); is {
			copies.Index(i).Set(reflect.ValueOf(copyMap(m)))
		}
	}
	args[len(args)-1] = copies
}

// spread is a function's arguments as the template gives them, those of a variadic one in a row.
func spread(args []reflect.Value) []any {
	var all []any
	for i, a := range args {
		if i == len(args)-1 && a.Kind() == reflect.Slice {
			for j := range a.Len() {
				all = append(all, a.Index(j).Interface())
			}
			continue
		}
		all = append(all, a.Interface())
	}
	return all
}

// shallow is about how many bytes a value takes, without what is in its elements.
func shallow(v reflect.Value) int {
	const element = 32
	for v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.String:
		return v.Len()
	case reflect.Slice, reflect.Map:
		return v.Len() * element
	}
	return element
}

// weigh is about how many bytes a value takes, with all that is in it; an error if that is too much, or never ends.
func weigh(v reflect.Value) (int, error) {
	nodes, bytes := 0, 0
	var walk func(v reflect.Value, depth int) error
	walk = func(v reflect.Value, depth int) error {
		if nodes++; nodes > mostNodes || bytes > mostGiven {
			return fmt.Errorf("%w: a value of more than %d elements, or %d MiB", errTooMuch, mostNodes, mostGiven>>20)
		}
		if depth > deepest {
			return fmt.Errorf("%w: a value %d deep, or in itself", errTooMuch, deepest)
		}
		switch v.Kind() {
		case reflect.String:
			bytes += v.Len()
		case reflect.Interface, reflect.Pointer:
			if !v.IsNil() {
				return walk(v.Elem(), depth+1)
			}
		case reflect.Slice, reflect.Array:
			if v.Type().Elem().Kind() == reflect.Uint8 {
				bytes += v.Len()
				return nil
			}
			for i := range v.Len() {
				if err := walk(v.Index(i), depth+1); err != nil {
					return err
				}
			}
		case reflect.Map:
			for entries := v.MapRange(); entries.Next(); {
				if err := errors.Join(walk(entries.Key(), depth+1), walk(entries.Value(), depth+1)); err != nil {
					return err
				}
			}
		case reflect.Struct:
			for i := range v.NumField() {
				if !v.Type().Field(i).IsExported() {
					continue
				}
				if err := walk(v.Field(i), depth+1); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := walk(v, 0); err != nil {
		return 0, err
	}
	return bytes + nodes, nil
}

// sizes are of functions that make far more than they are given: how many bytes it would be, or why they are refused.
var sizes = map[string]func(args []any) (int, error){ //nolint:gochecknoglobals // a constant table
	"repeat":  func(a []any) (int, error) { return times(number(a, 0), len(text(a, 1))), nil },
	"indent":  indented,
	"nindent": indented,
	"replace": func(a []any) (int, error) {
		return len(text(a, 2)) + times(strings.Count(text(a, 2), text(a, 0)), len(text(a, 1))), nil
	},
	"join":      func(a []any) (int, error) { return times(length(a, 1), len(text(a, 0))), nil },
	"wrapWith":  func(a []any) (int, error) { return times(len(text(a, 2))+1, len(text(a, 1))+1), columns(a[:1]) },
	"wrap":      func(a []any) (int, error) { return 2 * len(text(a, 1)), columns(a[:1]) },
	"until":     counted(2),
	"untilStep": counted(2),
	"seq":       counted(1),
	"printf":    formatted,

	"randAlphaNum": drawn, "randAlpha": drawn, "randAscii": drawn, "randNumeric": drawn, "randBytes": drawn,

	"split": pieces, "splitList": pieces, "splitn": pieces,

	"regexMatch": matched, "mustRegexMatch": matched, "regexFind": matched, "mustRegexFind": matched,
	"regexFindAll": matched, "mustRegexFindAll": matched, "regexSplit": matched, "mustRegexSplit": matched,
	"regexReplaceAll": replaced, "mustRegexReplaceAll": replaced,
	"regexReplaceAllLiteral": replaced, "mustRegexReplaceAllLiteral": replaced,

	"genPrivateKey": func(a []any) (int, error) {
		if text(a, 0) == "dsa" {
			return 0, errors.New("dsa keys are not made")
		}
		return 0, nil
	},
}

// times is a product that does not overflow: factors that would are enough to refuse.
func times(a, b int) int {
	const most = math.MaxInt32
	return min(max(a, 0), most) * min(max(b, 0), most)
}

func text(args []any, i int) string {
	if i < len(args) {
		s, _ := args[i].(string)
		return s
	}
	return ""
}

func number(args []any, i int) int {
	if i < len(args) {
		n, _ := args[i].(int)
		return n
	}
	return 0
}

func length(args []any, i int) int {
	if i < len(args) {
		if v := reflect.ValueOf(args[i]); v.Kind() == reflect.Slice || v.Kind() == reflect.Array {
			return v.Len()
		}
	}
	return 0
}

func columns(args []any) error {
	if n := number(args, 0); n > widest || n < -widest {
		return fmt.Errorf("%w: more than %d columns", errTooMuch, widest)
	}
	return nil
}

func indented(args []any) (int, error) {
	s := text(args, 1)
	return len(s) + times(number(args, 0), strings.Count(s, "\n")+1), columns(args)
}

func drawn(args []any) (int, error) { return max(number(args, 0), 0), nil }

func pieces(args []any) (int, error) {
	const entry = 64 // of a map
	return times(strings.Count(text(args, len(args)-1), text(args, 0))+1, entry), nil
}

// counted is of functions that list numbers, in steps that the argument stepAt says; of 1 where there is none.
func counted(stepAt int) func(args []any) (int, error) {
	return func(args []any) (int, error) {
		const entry = 24
		low, high, step := 0, 0, 1
		for i := range args {
			n := number(args, i)
			if n > farthest || n < -farthest {
				return 0, fmt.Errorf("%w: it counts too far", errTooMuch)
			}
			if i == stepAt && len(args) > 2 {
				step = max(n, -n, 1)
				continue
			}
			low, high = min(low, n), max(high, n)
		}
		return times((high-low)/step+1, entry), nil
	}
}

var wideVerb = regexp.MustCompile(`%[^a-zA-Z%]*([0-9]{4}|\*|\[)`) //nolint:gochecknoglobals // a constant

// formatted refuses widths that make text of nothing.
func formatted(args []any) (int, error) {
	if wideVerb.MatchString(text(args, 0)) {
		return 0, fmt.Errorf("%w: widths of more than 3 digits, of arguments, or arguments by number", errTooMuch)
	}
	return 0, nil
}

// matched refuses expressions that take too long: an expression takes as many steps as its machine and the text are long.
func matched(args []any) (int, error) {
	machine, err := machineOf(text(args, 0))
	if err != nil {
		return 0, nil //nolint:nilerr // the function itself says what is wrong
	}
	if times(machine, len(text(args, 1))) > mostMatching {
		return 0, fmt.Errorf("%w: a long expression on a long text", errTooMuch)
	}
	return 0, nil
}

func replaced(args []any) (int, error) {
	_, err := matched(args)
	return times(len(text(args, 1))+1, len(text(args, 2))+1), err
}

func machineOf(expression string) (int, error) {
	parsed, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return 0, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return 0, err
	}
	return len(program.Inst), nil
}

// prettyJSON is a value as indented JSON. Indentation of what is deep is most of it.
func prettyJSON(v any) (string, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	depth, size := 0, len(plain)
	for _, c := range plain {
		switch c {
		case '{', '[':
			depth++
			size += 2 * depth
		case '}', ']':
			depth--
			size += 2 * max(depth, 0)
		case ',':
			size += 2 * depth
		}
	}
	if size > 4*mostGiven {
		return "", fmt.Errorf("%w: a value of too great a depth", errTooMuch)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, plain, "", "  "); err != nil {
		return "", err
	}
	return out.String(), nil
}
