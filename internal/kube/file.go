package kube

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Bounds of the files of objects.
const (
	maxNesting  = 50        // levels of an object that is written as YAML, whose lines are indented by each; deeper ones are JSON
	maxYAML     = 256 << 10 // bytes, likewise: nobody reads that, and JSON takes a tenth of the time
	maxFileName = 200       // bytes; file systems take 255
	maxObject   = 64 << 20  // bytes of a file that is read
	maxObjects  = 1_000_000 // in a part
	maxPart     = 2 << 30   // bytes of a part's files
)

// filePath is where an object is in its part: PLURAL.GROUP/NAME.yaml.
func filePath(r schema.GroupResource, name string) string {
	return escape(r.String()) + "/" + escape(name) + ".yaml"
}

// escape makes a name fit to be one of a file: bytes that may mean something there become %XX, and a name that is too long is cut, with
// a hash of the whole behind ~. What the object is called is read from its content.
func escape(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == ':', c == '@', c == '+', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	if b.Len() <= maxFileName {
		return b.String()
	}
	sum := sha256.Sum256([]byte(name))
	end := "~" + hex.EncodeToString(sum[:16])
	return b.String()[:maxFileName-len(end)] + end
}

// encode writes an object as YAML, or as JSON, which YAML includes, where YAML would not give it back as it is. The same object always
// gives the same bytes.
func encode(u *unstructured.Unstructured) ([]byte, error) {
	content, err := json.Marshal(u.Object)
	if err != nil {
		return nil, err
	}
	if len(content) < maxYAML && nesting(u.Object, maxNesting) < maxNesting {
		if text, err := yaml.JSONToYAML(content); err == nil && saysTheSame(text, content) {
			return text, nil
		}
	}
	return append(content, '\n'), nil
}

// saysTheSame reports whether YAML is read as the JSON it was made of.
func saysTheSame(text, content []byte) bool {
	u, err := decode(text)
	if err != nil {
		return false
	}
	back, err := json.Marshal(u.Object)
	return err == nil && bytes.Equal(back, content)
}

// decode reads what encode wrote.
func decode(content []byte) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{}
	if !bytes.HasPrefix(content, []byte("{")) {
		var err error
		if content, err = yaml.YAMLToJSONStrict(content); err != nil {
			return nil, err
		}
	}
	if err := utiljson.Unmarshal(content, &u.Object); err != nil {
		return nil, err
	}
	return u, nil
}

// nesting is how deep v goes, up to limit.
func nesting(v any, limit int) int {
	deepest := 0
	deeper := func(inner any) {
		if limit > 1 {
			deepest = max(deepest, nesting(inner, limit-1))
		}
	}
	switch v := v.(type) {
	case map[string]any:
		for _, inner := range v {
			deeper(inner)
		}
	case []any:
		for _, inner := range v {
			deeper(inner)
		}
	default:
		return 0
	}
	return deepest + 1
}

// ReadObjects reads the objects of a part, which r is rooted at, in the order of their files. A file that holds none gives
// fault.ErrCorrupt, as does a part with more or larger files than a capture writes.
func ReadObjects(ctx context.Context, r point.Reader) ([]unstructured.Unstructured, error) {
	const op = "read objects"
	directories, err := r.List(ctx, ".")
	if errors.Is(err, fault.ErrNotFound) { // the part was stored with nothing in it
		return nil, nil
	}
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	var objects []unstructured.Unstructured
	left := int64(maxPart)
	for _, d := range directories {
		if !d.Mode.IsDir() {
			return nil, fault.New(fmt.Sprintf("%s: %q", op, d.Name), fault.ErrCorrupt, "it is not the directory of a kind", "")
		}
		files, err := r.List(ctx, d.Name)
		if err != nil {
			return nil, fault.Wrap(op, nil, err, "")
		}
		for _, f := range files {
			name := path.Join(d.Name, f.Name)
			u, size, err := readObject(ctx, r, name, left)
			if err != nil {
				return nil, fault.Wrap(fmt.Sprintf("%s: %q", op, name), nil, err, "")
			}
			if left -= size; len(objects) == maxObjects {
				return nil, fault.New(op, fault.ErrCorrupt, fmt.Sprintf("there are more than %d", maxObjects), "")
			}
			objects = append(objects, *u)
		}
	}
	return objects, nil
}

// readObject reads one file of at most left bytes.
func readObject(ctx context.Context, r point.Reader, name string, left int64) (*unstructured.Unstructured, int64, error) {
	f, err := r.Open(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	limit := min(maxObject, left)
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, 0, err
	}
	if int64(len(content)) > limit {
		return nil, 0, fault.New("", fault.ErrCorrupt, fmt.Sprintf("it has more than %d bytes", limit), "")
	}
	u, err := decode(content)
	if err != nil {
		return nil, 0, fault.Wrap("", fault.ErrCorrupt, err, "")
	}
	if u.GetKind() == "" || u.GetAPIVersion() == "" || u.GetName() == "" {
		return nil, 0, fault.New("", fault.ErrCorrupt, "it holds no object with apiVersion, kind and name", "")
	}
	return u, int64(len(content)), nil
}
