package restore

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/backstay/backstay/api/v1alpha1"
)

// Of the fields that differ, so many are named.
const maxFields = 8

// differences lists the fields in which two objects differ, by path, never by value.
func differences(point, live *unstructured.Unstructured) []string {
	p, l := comparable(point), comparable(live)
	if live.GetAnnotations()[v1alpha1.AnnotationScaled] != "" { // stopped by a restore: what it was held at says nothing
		for _, field := range []string{"replicas", "suspend"} {
			unstructured.RemoveNestedField(p, "spec", field)
			unstructured.RemoveNestedField(l, "spec", field)
		}
	}
	d := &differ{}
	d.compare("", p, l)
	if len(d.fields) > maxFields {
		return append(d.fields[:maxFields:maxFields], fmt.Sprintf("and %d more", len(d.fields)-maxFields))
	}
	return d.fields
}

// comparable is an object without what the server assigns, and owners without their uid.
func comparable(u *unstructured.Unstructured) map[string]any {
	c := u.DeepCopy()
	strip(c)
	dropNulls(c.Object)
	owners, _, _ := unstructured.NestedFieldNoCopy(c.Object, "metadata", "ownerReferences")
	if list, ok := owners.([]any); ok {
		for _, o := range list {
			if ref, ok := o.(map[string]any); ok {
				delete(ref, "uid")
			}
		}
		slices.SortStableFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	}
	return c.Object
}

// dropNulls removes fields that are null, which says the same as leaving them out.
func dropNulls(v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, inner := range v {
			if inner == nil {
				delete(v, k)
			}
			dropNulls(inner)
		}
	case []any:
		for _, inner := range v {
			dropNulls(inner)
		}
	}
}

type differ struct{ fields []string }

func (d *differ) note(sign, path string) {
	const limit = 120
	d.fields = append(d.fields, sign+" "+plain(strings.TrimPrefix(path, "."), limit))
}

// compare walks both values.
func (d *differ) compare(path string, point, live any) {
	switch {
	case reflect.DeepEqual(point, live):
		return
	case live == nil:
		d.note("+", path)
		return
	case point == nil:
		d.note("-", path)
		return
	}
	if p, ok := point.(map[string]any); ok {
		if l, ok := live.(map[string]any); ok {
			d.maps(path, p, l)
			return
		}
	}
	if p, ok := point.([]any); ok {
		if l, ok := live.([]any); ok && d.lists(path, p, l) {
			return
		}
	}
	d.note("~", path)
}

func (d *differ) maps(path string, point, live map[string]any) {
	keys := map[string]bool{}
	for k := range point {
		keys[k] = true
	}
	for k := range live {
		keys[k] = true
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		step := "." + k
		if strings.ContainsAny(k, "./[]") {
			step = "[" + k + "]"
		}
		d.compare(path+step, point[k], live[k])
	}
}

// lists compares lists of named things by name, and others of one length by position. It reports whether it could.
func (d *differ) lists(path string, point, live []any) bool {
	p, okPoint := byName(point)
	l, okLive := byName(live)
	if okPoint && okLive {
		known := len(d.fields)
		d.maps(path, p, l)
		if len(d.fields) == known {
			d.note("~", path+" (order)")
		}
		return true
	}
	if len(point) != len(live) {
		return false
	}
	for i := range point {
		d.compare(fmt.Sprintf("%s[%d]", path, i), point[i], live[i])
	}
	return true
}

// byName makes a map of a list whose elements all have a name of their own.
func byName(list []any) (map[string]any, bool) {
	named := make(map[string]any, len(list))
	for _, v := range list {
		m, _ := v.(map[string]any)
		name, ok := m["name"].(string)
		if _, again := named[name]; !ok || again {
			return nil, false
		}
		named[name] = v
	}
	return named, true
}
