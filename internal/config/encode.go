package config

import (
	"bytes"
	"reflect"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Encode writes objects of api/v1alpha1 as the documents of one YAML file that Load reads. What is left out when it is empty is left out.
func Encode(objects ...any) ([]byte, error) {
	var b bytes.Buffer
	to := yaml.NewEncoder(&b)
	to.SetIndent(2)
	for _, o := range objects {
		if err := to.Encode(nodeOf(reflect.ValueOf(o))); err != nil {
			return nil, err
		}
	}
	if err := to.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// nodeOf is the inverse of decode.
func nodeOf(v reflect.Value) *yaml.Node {
	switch v.Kind() {
	case reflect.Pointer:
		return nodeOf(v.Elem())
	case reflect.Struct:
		if t, ok := v.Interface().(metav1.Time); ok {
			return text(t.UTC().Format(time.RFC3339))
		}
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, f := range fieldsOf(v.Type()) {
			if value := v.FieldByIndex(f.index); f.required || !isEmpty(value) {
				n.Content = append(n.Content, text(f.name), nodeOf(value))
			}
		}
		return n
	case reflect.Map:
		n := &yaml.Node{Kind: yaml.MappingNode}
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return bytes.Compare([]byte(a.String()), []byte(b.String())) })
		for _, key := range keys {
			n.Content = append(n.Content, text(key.String()), nodeOf(v.MapIndex(key)))
		}
		return n
	case reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			n.Content = append(n.Content, nodeOf(v.Index(i)))
		}
		return n
	case reflect.Bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v.Bool())}
	case reflect.Int, reflect.Int64:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.FormatInt(v.Int(), 10)}
	default:
		return text(v.String())
	}
}

// isEmpty is encoding/json's rule for omitempty, and for structs that for omitzero.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	default:
		return v.IsZero()
	}
}

// text is a string, in quotes where it would be read as something else.
func text(s string) *yaml.Node {
	var n yaml.Node
	n.SetString(s)
	return &n
}
