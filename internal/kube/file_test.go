package kube_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/point"
)

// files is a part in memory: PLURAL/NAME.yaml to content.
type files map[string]string

func (f files) List(_ context.Context, p string) ([]point.Entry, error) {
	var entries []point.Entry
	seen := map[string]bool{}
	for name := range f {
		directory, file, nested := bytes.Cut([]byte(name), []byte("/"))
		switch {
		case p != "." && nested && string(directory) == p:
			entries = append(entries, point.Entry{Name: string(file)})
		case p == "." && !seen[string(directory)]:
			seen[string(directory)] = true
			e := point.Entry{Name: string(directory)}
			if nested {
				e.Mode = fs.ModeDir
			}
			entries = append(entries, e)
		}
	}
	return entries, nil
}

func (f files) Open(_ context.Context, p string) (io.ReadSeekCloser, error) {
	return nopCloser{bytes.NewReader([]byte(f[p]))}, nil
}

func (files) Extract(context.Context, string, string) error { return errors.ErrUnsupported }

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

func TestReadObjectsRefusesWhatIsNone(t *testing.T) {
	tests := map[string]files{
		"a file where a kind belongs": {"stray.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"},
		"no YAML":                     {"configmaps/a.yaml": "{"},
		"a list":                      {"configmaps/a.yaml": "- a\n"},
		"text":                        {"configmaps/a.yaml": "words\n"},
		"nothing":                     {"configmaps/a.yaml": ""},
		"no name":                     {"configmaps/a.yaml": "apiVersion: v1\nkind: ConfigMap\n"},
		"metadata that is none":       {"configmaps/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: none\n"},
		"no kind":                     {"configmaps/a.yaml": "apiVersion: v1\nmetadata: {name: a}\n"},
		"a key twice":                 {"configmaps/a.yaml": "apiVersion: v1\nkind: ConfigMap\nkind: Secret\nmetadata: {name: a}\n"},
		"nested without end":          {"configmaps/a.yaml": string(bytes.Repeat([]byte("["), 100_000))},
		"references that grow":        {"configmaps/a.yaml": bomb()},
	}
	for name, part := range tests {
		t.Run(name, func(t *testing.T) {
			if objects, err := kube.ReadObjects(t.Context(), part); !errors.Is(err, fault.ErrCorrupt) {
				t.Errorf("got %d objects and error %v, want corrupt", len(objects), err)
			}
		})
	}
}

// bomb is a small document that stands for a very large one.
func bomb() string {
	text := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		text += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	return text
}

// FuzzReadObjects: whatever is in a file, reading it ends, and what it gives can be read again.
func FuzzReadObjects(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  text: |\n    lines\n"))
	f.Add([]byte(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"data":{"k":"/wA="}}`))
	f.Add([]byte("apiVersion: v1\nkind: [ConfigMap]\nmetadata: {name: 7, labels: x, ownerReferences: [1, {uid: 2}]}\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte(bomb()))
	f.Fuzz(func(t *testing.T, content []byte) {
		objects, err := kube.ReadObjects(t.Context(), files{"configmaps/a.yaml": string(content)})
		if err != nil {
			if !errors.Is(err, fault.ErrCorrupt) {
				t.Errorf("error %v is not of what was read", err)
			}
			return
		}
		for _, u := range objects {
			if _, err := json.Marshal(u.Object); err != nil || u.GetName() == "" {
				t.Errorf("object %v: %v", u.Object, err)
			}
		}
	})
}

// FuzzObjectsComeBack: an object is read from its file as it was listed.
func FuzzObjectsComeBack(f *testing.F) {
	f.Add([]byte(`{"a": "yes", "b": "1e3", "c": "0x1F", "d": "~", "e": "12:30:45", "f": "\u0085\ufeff", "g": " \n\t ", "<<": "2001-01-01"}`))
	f.Add([]byte(`{"a": 9007199254740993, "b": 1.0, "c": -0.25, "d": 1e300, "e": [[], {}, null, true], "=": "=", "y": "n"}`))
	f.Add([]byte(`{"a": "- x: 1\n  y: |\n", "b": "\u0000\u001b\u007f", "c": "trailing \n", "d": "#", "e": "'\"", "f": "a: b"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var content any
		if err := utiljson.Unmarshal(data, &content); err != nil {
			return
		}
		u := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a"}, "data": content,
		}}
		text, err := kube.Encode(u)
		if err != nil {
			return
		}
		objects, err := kube.ReadObjects(t.Context(), files{"configmaps/a.yaml": string(text)})
		if err != nil || len(objects) != 1 {
			t.Fatalf("%s became %s, which is read as %d objects: %v", data, text, len(objects), err)
		}
		want, _ := json.Marshal(u.Object)
		if got, err := json.Marshal(objects[0].Object); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s became %s, which is read as %s: %v", data, text, got, err)
		}
	})
}
