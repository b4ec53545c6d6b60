package forgetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Differences lists where two things are not alike, by the names of their fields in JSON. An empty list is as good as none.
func Differences(t *testing.T, before, after any) (found []string) {
	t.Helper()
	compare("", plain(t, before), plain(t, after), func(at string, a, b any) {
		found = append(found, fmt.Sprintf("%s: %v → %v", strings.Trim(at, "."), a, b))
	})
	slices.Sort(found)
	return found
}

// plain is a thing as JSON has it.
func plain(t *testing.T, v any) (out any) {
	t.Helper()
	raw, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func compare(at string, a, b any, differ func(at string, a, b any)) {
	switch a := a.(type) {
	case map[string]any:
		if b, ok := b.(map[string]any); ok {
			both := maps.Clone(a)
			maps.Copy(both, b)
			for key := range both {
				compare(at+"."+key, a[key], b[key], differ)
			}
			return
		}
	case []any:
		if b, ok := b.([]any); ok && len(a) == len(b) {
			for i := range a {
				compare(fmt.Sprintf("%s.%d", at, i), a[i], b[i], differ)
			}
			return
		}
	}
	if !reflect.DeepEqual(a, b) && !(isNothing(a) && isNothing(b)) {
		differ(at, a, b)
	}
}

// isNothing reports whether a value stands for an empty list.
func isNothing(v any) bool {
	list, isList := v.([]any)
	return v == nil || isList && len(list) == 0
}
