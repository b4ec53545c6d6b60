package restore

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// transform is a JSON Patch for some objects.
type transform struct {
	selector
	patch  jsonpatch.Patch
	tests  bool // it says itself which objects it fits
	number int
}

func parseTransforms(all []v1alpha1.Transform) ([]transform, error) {
	parsed := make([]transform, 0, len(all))
	for i, t := range all {
		op := fmt.Sprintf("read transform %d", i+1)
		s, err := parseSelector(t.Objects, true)
		if err != nil {
			return nil, fault.Wrap(op, nil, err, "")
		}
		patch, err := parsePatch(t.Patch)
		if err != nil {
			return nil, fault.Wrap(op, fault.ErrInvalid, err, "value holds JSON text: '\"blue\"', '3', '{\"a\":1}'")
		}
		tests := slices.ContainsFunc(t.Patch, func(o v1alpha1.PatchOperation) bool { return o.Op == "test" })
		parsed = append(parsed, transform{selector: s, patch: patch, tests: tests, number: i + 1})
	}
	return parsed, nil
}

// parsePatch makes a patch of its operations. What would change an object's kind is refused.
func parsePatch(operations []v1alpha1.PatchOperation) (jsonpatch.Patch, error) {
	if len(operations) == 0 {
		return nil, fmt.Errorf("it has no operations")
	}
	document := make([]map[string]any, 0, len(operations))
	for i, o := range operations {
		one := map[string]any{"op": o.Op, "path": o.Path}
		if err := checkPointers(o); err != nil {
			return nil, fmt.Errorf("operation %d: %w", i+1, err)
		}
		switch o.Op {
		case "add", "replace", "test":
			if !json.Valid([]byte(o.Value)) {
				return nil, fmt.Errorf("operation %d: its value is no JSON", i+1)
			}
			one["value"] = json.RawMessage(o.Value)
		case "move", "copy":
			one["from"] = o.From
		case "remove":
		default:
			return nil, fmt.Errorf("operation %d: %q is not add, remove, replace, move, copy or test", i+1, o.Op)
		}
		document = append(document, one)
	}
	text, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	return jsonpatch.DecodePatch(text)
}

func checkPointers(o v1alpha1.PatchOperation) error {
	if !strings.HasPrefix(o.Path, "/") {
		return fmt.Errorf("path %q does not begin with /", o.Path)
	}
	if (o.Op == "move" || o.Op == "copy") && !strings.HasPrefix(o.From, "/") {
		return fmt.Errorf("from %q does not begin with /", o.From)
	}
	return nil
}

// apply patches u. Where the patch does not fit, u stays as it is; why says so, unless the patch has a test.
func (t transform) apply(u *unstructured.Unstructured) (why string) {
	before, err := u.MarshalJSON()
	if err != nil {
		return fmt.Sprintf("transform %d does not fit", t.number)
	}
	options := jsonpatch.NewApplyOptions()
	options.AccumulatedCopySizeLimit = maxObject
	after, err := t.patch.ApplyWithOptions(before, options)
	if err == nil {
		var changed unstructured.Unstructured
		if err = changed.UnmarshalJSON(after); err == nil {
			var c *unstructured.Unstructured
			if c, why = copyOf(&changed); c != nil {
				u.Object = c.Object
				return ""
			}
			return fmt.Sprintf("transform %d is not applied: %s", t.number, why)
		}
	}
	if t.tests {
		return ""
	}
	return fmt.Sprintf("transform %d does not fit", t.number) // the library's message may hold what stands in the object
}
