package convert

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// source is an object that is converted, or fields within it. Whatever is read is taken out of its tree: what is still there in the end
// was read by nobody, and is told as dropped. So nothing is lost in silence.
type source struct {
	Object

	place  string // of the tree within the object: spec.actions[0]
	tree   map[string]any
	result *Result
}

func (c *conversion) source(o Object) *source {
	tree := copied(o)
	// What every object has, and no tool reads.
	for _, key := range []string{"apiVersion", "kind", "metadata", "status"} {
		delete(tree, key)
	}
	return &source{Object: o, tree: tree, result: c.result}
}

// copied is a copy of fields.
func copied(fields map[string]any) map[string]any {
	all := make(map[string]any, len(fields))
	for key, inner := range fields {
		all[key] = copiedValue(inner)
	}
	return all
}

func copiedValue(value any) any {
	switch value := value.(type) {
	case map[string]any:
		return copied(value)
	case []any:
		all := make([]any, len(value))
		for i, inner := range value {
			all[i] = copiedValue(inner)
		}
		return all
	default:
		return value
	}
}

func (s *source) name() string      { return s.metadata("name") }
func (s *source) namespace() string { return s.metadata("namespace") }

func (s *source) metadata(key string) string {
	meta, _ := s.Object["metadata"].(map[string]any)
	text, _ := meta[key].(string)
	return text
}

// marked returns a label or annotation.
func (s *source) marked(in, key string) string {
	meta, _ := s.Object["metadata"].(map[string]any)
	all, _ := meta[in].(map[string]any)
	text, _ := all[key].(string)
	return text
}

// status returns a text of the status.
func (s *source) status(key string) string {
	status, _ := s.Object["status"].(map[string]any)
	text, _ := status[key].(string)
	return text
}

func (s *source) tell(field string, fate Fate, becomes, why string) {
	if s.place != "" && field != "" {
		field = s.place + "." + field
	}
	s.result.Entries = append(s.result.Entries, Entry{s.String(), field, fate, becomes, why})
}

// tellRest tells what nobody has read.
func (s *source) tellRest() {
	for _, path := range leaves(s.tree, "") {
		s.tell(path, Dropped, "", "not known here")
	}
	s.tree = nil
}

// leaves are the places of values, in order. Empty lists and maps say nothing.
func leaves(value any, path string) []string {
	var all []string
	switch value := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			all = append(all, leaves(value[key], strings.TrimPrefix(path+"."+key, "."))...)
		}
	case []any:
		if len(value) > 0 {
			all = []string{path}
		}
	case nil:
	default:
		all = []string{path}
	}
	return all
}

// value is a field that was taken out of a source. Of one that is not there nothing is told, whatever is called.
type value struct {
	from  *source
	path  string
	raw   any
	there bool
}

// take takes the field at a path of keys: spec.template.ttl.
func (s *source) take(path string) *value {
	v := &value{from: s, path: path}
	tree, keys := s.tree, strings.Split(path, ".")
	for _, key := range keys[:len(keys)-1] {
		tree, _ = tree[key].(map[string]any)
	}
	last := keys[len(keys)-1]
	v.raw = tree[last]
	v.there = v.raw != nil && !isEmpty(v.raw)
	delete(tree, last)
	return v
}

func isEmpty(raw any) bool {
	switch raw := raw.(type) {
	case string:
		return raw == ""
	case []any:
		return len(raw) == 0
	case map[string]any:
		return len(raw) == 0
	}
	return false
}

func (v *value) kept(becomes string) {
	if v.there {
		v.from.tell(v.path, Kept, becomes, "")
	}
}

func (v *value) changed(becomes, why string) {
	if v.there {
		v.from.tell(v.path, Changed, becomes, why)
	}
}

func (v *value) dropped(why string) {
	if v.there {
		v.from.tell(v.path, Dropped, "", why)
	}
}

func (v *value) needless(why string) {
	if v.there {
		v.from.tell(v.path, Needless, "", why)
	}
}

// wrong drops a value that is of another kind than its field.
func (v *value) wrong(expected string) {
	v.dropped(expected + " is expected")
	v.there = false
}

// text returns the field's text; "" where it has none.
func (v *value) text() string {
	text, is := v.raw.(string)
	if v.there && !is {
		v.wrong("text")
	}
	return text
}

// flag returns the field's truth value.
func (v *value) flag() bool {
	flag, is := v.raw.(bool)
	if v.there && !is {
		v.wrong("true or false")
	}
	return flag
}

// count returns the field's number, which is whole and not negative.
func (v *value) count() int {
	const most = 1_000_000
	number := math.NaN()
	switch raw := v.raw.(type) {
	case int64:
		number = float64(raw)
	case float64:
		number = raw
	}
	if !v.there {
		return 0
	}
	if number != math.Trunc(number) || !(number >= 0 && number <= most) {
		v.wrong("a number")
		return 0
	}
	return int(number)
}

// counts returns the field's list of numbers.
func (v *value) counts(least, most int) []int {
	list, _ := v.raw.([]any)
	var all []int
	for _, raw := range list {
		one := &value{from: v.from, path: v.path, raw: raw, there: true}
		n := one.count()
		if !one.there || n < least || n > most {
			v.there = v.there && one.there // told already
			v.wrong(fmt.Sprintf("numbers from %d to %d", least, most))
			return nil
		}
		all = append(all, n)
	}
	if v.there && len(all) == 0 {
		v.wrong("a list of numbers")
	}
	return all
}

// texts returns the field's list of text.
func (v *value) texts() []string {
	list, _ := v.raw.([]any)
	var all []string
	for _, raw := range list {
		text, is := raw.(string)
		if !is {
			v.wrong("a list of text")
			return nil
		}
		all = append(all, text)
	}
	if v.there && len(all) == 0 {
		v.wrong("a list of text")
	}
	return all
}

// words returns the field's map of text to text.
func (v *value) words() map[string]string {
	fields, _ := v.raw.(map[string]any)
	all := map[string]string{}
	for key, raw := range fields {
		text, is := raw.(string)
		if !is {
			v.wrong("a map of text")
			return nil
		}
		all[key] = text
	}
	if v.there && len(all) == 0 {
		v.wrong("a map of text")
	}
	return all
}

// selector returns the field's label selector; nil where it has none, or none that Kubernetes takes.
func (v *value) selector() *metav1.LabelSelector {
	if !v.there {
		return nil
	}
	var found metav1.LabelSelector
	fields, _ := v.raw.(map[string]any)
	err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(fields, &found, true)
	if err == nil {
		_, err = metav1.LabelSelectorAsSelector(&found)
	}
	if err != nil || fields == nil {
		v.wrong("a label selector")
		return nil
	}
	return &found
}

// each calls read with the fields of each item of the list at a path, and tells what it leaves.
func (s *source) each(path string, read func(*source)) int {
	v := s.take(path)
	list, is := v.raw.([]any)
	if v.there && !is {
		v.wrong("a list")
	}
	for i, raw := range list {
		place := strings.TrimPrefix(fmt.Sprintf("%s.%s[%d]", s.place, path, i), ".")
		item, is := raw.(map[string]any)
		if !is {
			s.result.Entries = append(s.result.Entries, Entry{s.String(), place, Dropped, "", "fields are expected"})
			continue
		}
		one := &source{Object: s.Object, place: place, tree: item, result: s.result}
		read(one)
		one.tellRest()
	}
	return len(list)
}

// drop drops everything of a source that is not read yet.
func (s *source) drop(fate Fate, why string) {
	s.tree = nil
	s.result.Entries = append(s.result.Entries, Entry{s.String(), s.place, fate, "", why})
}
