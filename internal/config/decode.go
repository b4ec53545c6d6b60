package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
)

// decoder fills structs from YAML nodes, by the json tags of their fields, and remembers where each value stands. It goes on after a
// problem, so that one reading finds them all.
type decoder struct {
	file     string
	style    style
	problems Problems
	where    map[string]*yaml.Node // by path
	nodes    int
}

// style is what native and foreign files differ in.
type style interface {
	// unknown judges a key that the struct has not.
	unknown(d *decoder, key *yaml.Node, path string, known []string)
	// scalar fills into, a string, bool or integer, from a scalar that is not null.
	scalar(d *decoder, n *yaml.Node, into reflect.Value, path string)
	// null judges a value that is not there.
	null(d *decoder, n *yaml.Node, path string)
	// structure judges a struct that has been filled; set holds the keys that were there.
	structure(d *decoder, n *yaml.Node, of reflect.Value, set map[string]bool, path string)
}

func newDecoder(file string, s style) *decoder {
	return &decoder{file: file, style: s, where: map[string]*yaml.Node{}}
}

// problem notes what is wrong at n.
func (d *decoder) problem(n *yaml.Node, path, format string, args ...any) {
	d.problems = append(d.problems, d.at(n, path, fmt.Sprintf(format, args...)))
}

func (d *decoder) at(n *yaml.Node, path, message string) Problem {
	p := Problem{File: d.file, Path: path, Message: message}
	if n != nil {
		p.Line, p.Column = n.Line, n.Column
	}
	return p
}

// node finds the place of a path, or of the nearest one around it that is in the file.
func (d *decoder) node(path string) *yaml.Node {
	for {
		if n := d.where[path]; n != nil || path == "" {
			return n
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
}

// decode fills into from n. It reports whether the document is still within its limits.
func (d *decoder) decode(n *yaml.Node, into reflect.Value, path string, depth int) bool {
	if !d.count(n, path, 1, depth) {
		return false
	}
	if n.Kind == yaml.AliasNode {
		return d.decode(n.Alias, into, path, depth+1)
	}
	if _, seen := d.where[path]; !seen {
		d.where[path] = n
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		d.style.null(d, n, path)
		return true
	}
	if at, ok := into.Addr().Interface().(*metav1.Time); ok {
		d.time(n, at, path)
		return true
	}
	switch into.Kind() {
	case reflect.Pointer:
		into.Set(reflect.New(into.Type().Elem()))
		return d.decode(n, into.Elem(), path, depth+1)
	case reflect.Struct:
		return d.mapping(n, into, path, depth)
	case reflect.Map:
		return d.stringMap(n, into, path, depth)
	case reflect.Slice:
		return d.list(n, into, path, depth)
	default:
		if n.Kind != yaml.ScalarNode {
			d.problem(n, path, "%s where one value is expected", kindWords(n))
			return true
		}
		d.style.scalar(d, n, into, path)
		return true
	}
}

// time reads a moment as Kubernetes writes it.
func (d *decoder) time(n *yaml.Node, into *metav1.Time, path string) {
	t, err := time.Parse(time.RFC3339, n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		d.problem(n, path, "a time is expected: 2026-03-01T02:30:00Z")
		return
	}
	into.Time = t
}

// count reports whether the document is within its limits with so many nodes more.
func (d *decoder) count(n *yaml.Node, path string, more, depth int) bool {
	d.nodes += more
	if depth <= maxDepth && d.nodes <= maxNodes {
		return true
	}
	d.problem(n, path, "nested too deeply, or aliases that make the document too large")
	return false
}

func kindWords(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "fields"
	case yaml.SequenceNode:
		return "a list"
	default:
		return "one value"
	}
}

// join makes the path of a field.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func (d *decoder) mapping(n *yaml.Node, into reflect.Value, path string, depth int) bool {
	if n.Kind != yaml.MappingNode {
		if into.Type() == reflect.TypeFor[v1alpha1.Secret]() {
			d.problem(n, path, "a secret in clear: say where it is, as {env: NAME}, {file: PATH} or {command: COMMAND}")
			return true
		}
		d.problem(n, path, "%s where fields are expected", kindWords(n))
		return true
	}
	pairs, ok := d.pairs(n, path, depth)
	if !ok {
		return false
	}
	fields := fieldsOf(into.Type())
	set := map[string]bool{}
	for _, pair := range pairs {
		key := pair.key.Value
		at := slices.IndexFunc(fields, func(f field) bool { return f.name == key })
		if at < 0 {
			d.style.unknown(d, pair.key, join(path, key), namesOf(fields))
			continue
		}
		set[key] = true
		target := join(path, key)
		d.where[target] = pair.key
		if !d.decode(pair.value, into.FieldByIndex(fields[at].index), target, depth+1) {
			return false
		}
	}
	d.style.structure(d, n, into, set, path)
	return true
}

func (d *decoder) stringMap(n *yaml.Node, into reflect.Value, path string, depth int) bool {
	if n.Kind != yaml.MappingNode {
		d.problem(n, path, "%s where fields are expected", kindWords(n))
		return true
	}
	pairs, ok := d.pairs(n, path, depth)
	if !ok {
		return false
	}
	into.Set(reflect.MakeMap(into.Type()))
	for _, pair := range pairs {
		value := reflect.New(into.Type().Elem()).Elem()
		if !d.decode(pair.value, value, join(path, pair.key.Value), depth+1) {
			return false
		}
		into.SetMapIndex(reflect.ValueOf(pair.key.Value), value)
	}
	return true
}

func (d *decoder) list(n *yaml.Node, into reflect.Value, path string, depth int) bool {
	if n.Kind != yaml.SequenceNode {
		d.problem(n, path, "%s where a list is expected: each item begins with a dash", kindWords(n))
		return true
	}
	for i, item := range n.Content {
		value := reflect.New(into.Type().Elem()).Elem()
		if !d.decode(item, value, path+"["+strconv.Itoa(i)+"]", depth+1) {
			return false
		}
		into.Set(reflect.Append(into, value))
	}
	return true
}

type pair struct{ key, value *yaml.Node }

// pairs lists the keys of a mapping with what merge keys (<<) bring; a key that stands in the mapping itself wins.
func (d *decoder) pairs(n *yaml.Node, path string, depth int) ([]pair, bool) {
	if !d.count(n, path, len(n.Content)/2, depth) { // of each time that they are merged
		return nil, false
	}
	var all, merged []pair
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		switch {
		case key.Kind != yaml.ScalarNode:
			d.problem(key, path, "a key that is no word")
		case key.Tag == "!!merge":
			more, ok := d.merge(value, path, depth+1)
			if !ok {
				return nil, false
			}
			merged = append(merged, more...)
		case seen[key.Value]:
			d.problem(key, path, "%s is said twice", shorten(key.Value))
		default:
			seen[key.Value] = true
			all = append(all, pair{key, value})
		}
	}
	for _, p := range merged {
		if !seen[p.key.Value] {
			seen[p.key.Value] = true
			all = append(all, p)
		}
	}
	return all, true
}

// merge lists what the value of a merge key brings: a mapping, or a list of mappings of which the first wins.
func (d *decoder) merge(n *yaml.Node, path string, depth int) ([]pair, bool) {
	if !d.count(n, path, 1, depth) {
		return nil, false
	}
	switch n.Kind {
	case yaml.AliasNode:
		return d.merge(n.Alias, path, depth+1)
	case yaml.MappingNode:
		return d.pairs(n, path, depth)
	case yaml.SequenceNode:
		var all []pair
		for _, item := range n.Content {
			more, ok := d.merge(item, path, depth+1)
			if !ok {
				return nil, false
			}
			all = append(all, more...)
		}
		return all, true
	default:
		d.problem(n, path, "<< takes fields")
		return nil, true
	}
}

// field is one field of a struct as files name it.
type field struct {
	name     string
	index    []int
	required bool
	tag      reflect.StructTag
}

// Of what Kubernetes has in every object, files say no more than this.
const named = reflect.StructTag(`check:"name"`)

var ofObjects = map[reflect.Type]map[string]field{ //nolint:gochecknoglobals // a constant
	reflect.TypeFor[metav1.TypeMeta]():   {"Kind": {required: true}, "APIVersion": {required: true}},
	reflect.TypeFor[metav1.ObjectMeta](): {"Name": {required: true, tag: named}, "Namespace": {tag: named}, "Labels": {}, "Annotations": {}},
}

// fieldsOf lists the fields of a struct, those of inlined structs among them.
func fieldsOf(t reflect.Type) []field {
	var all []field
	allowed := ofObjects[t]
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if allowed != nil {
			if g, ok := allowed[f.Name]; ok {
				all = append(all, field{name, []int{i}, g.required, g.tag})
			}
			continue
		}
		switch {
		case name == "-", f.Tag.Get("file") == "-":
		case options == "inline":
			for _, inner := range fieldsOf(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				all = append(all, inner)
			}
		case name != "":
			all = append(all, field{name, []int{i}, options == "", f.Tag})
		}
	}
	return all
}

func namesOf(fields []field) []string {
	var names []string
	for _, f := range fields {
		names = append(names, f.name)
	}
	return names
}
