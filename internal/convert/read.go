package convert

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/internal/fault"
)

// Limits of what is read.
const (
	mostBytes   = 16 << 20 // of one file
	mostObjects = 5000     // of one file, those in lists among them
	mostDepth   = 40       // of one object
)

// Object is an object of Kubernetes as JSON has it: maps, lists, text, numbers and truth values.
type Object map[string]any

// String is KIND NAMESPACE/NAME.
func (o Object) String() string {
	meta, _ := o["metadata"].(map[string]any)
	name, _ := meta["name"].(string)
	if name == "" {
		name, _ = meta["generateName"].(string)
	}
	if namespace, _ := meta["namespace"].(string); namespace != "" {
		name = namespace + "/" + name
	}
	return strings.TrimSpace(o.text("kind") + " " + name)
}

func (o Object) text(key string) string {
	text, _ := o[key].(string)
	return text
}

func (o Object) group() string {
	group, _, found := strings.Cut(o.text("apiVersion"), "/")
	if !found {
		return ""
	}
	return group
}

// Read reads the objects of a file of YAML or JSON documents, and those in its lists. Errors are fault.ErrInvalid, or those of r.
func Read(r io.Reader) ([]Object, error) {
	const op = "read documents"
	limited := &io.LimitedReader{R: r, N: mostBytes + 1}
	documents := utilyaml.NewYAMLReader(bufio.NewReader(limited))
	var all []Object
	for i := 1; ; i++ {
		text, err := documents.Read()
		switch {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fault.Wrap(op, nil, err, "")
		case limited.N == 0:
			return nil, fault.New(op, fault.ErrInvalid, fmt.Sprintf("more than %d MiB", mostBytes>>20), "")
		}
		var content any
		if err := yaml.Unmarshal(text, &content); err != nil {
			return nil, fault.Wrap(fmt.Sprintf("%s: document %d", op, i), fault.ErrInvalid, plainError(err), "")
		}
		if all, err = collect(all, content, 0); err != nil {
			return nil, fault.Wrap(fmt.Sprintf("%s: document %d", op, i), fault.ErrInvalid, err, "")
		}
	}
}

// plainError leaves the piece of the file out that a parser quotes: it may be of a Secret.
func plainError(err error) error {
	text, _, _ := strings.Cut(err.Error(), "`")
	return errors.New(strings.TrimRight(text, " :"))
}

// collect adds an object, or those of a list.
func collect(all []Object, content any, depth int) ([]Object, error) {
	switch content := content.(type) {
	case nil:
		return all, nil
	case map[string]any:
		if tooDeep(content, mostDepth) {
			return nil, errors.New("nested too deeply")
		}
		items, is := content["items"].([]any)
		if kind, _ := content["kind"].(string); is && strings.HasSuffix(kind, "List") {
			var err error
			for _, item := range items {
				if all, err = collect(all, item, depth+1); err != nil {
					return nil, err
				}
			}
			return all, nil
		}
		if len(all) == mostObjects {
			return nil, fmt.Errorf("more than %d objects", mostObjects)
		}
		return append(all, Object(content)), nil
	default:
		return nil, errors.New("no object of Kubernetes")
	}
}

func tooDeep(value any, left int) bool {
	if left == 0 {
		return true
	}
	switch value := value.(type) {
	case map[string]any:
		for _, inner := range value {
			if tooDeep(inner, left-1) {
				return true
			}
		}
	case []any:
		for _, inner := range value {
			if tooDeep(inner, left-1) {
				return true
			}
		}
	}
	return false
}
