package v1alpha1_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/api/v1alpha1"
)

var update = flag.Bool("update", false, "write schema.json, the reference in docs/files.md, and deploy/crds")

// TestSchemaIsOfTheTypes makes the schema and the reference of the types and their comments, and compares them with what is there.
func TestSchemaIsOfTheTypes(t *testing.T) {
	types := parseTypes(t)
	schema, err := json.MarshalIndent(schemaOf(types), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	written(t, "schema.json", append(schema, '\n'))

	page := filepath.Join("..", "..", "docs", "files.md")
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- reference: made by go test ./api/v1alpha1 -update -->\n", "<!-- end of reference -->"
	before, rest, found := strings.Cut(string(text), begin)
	_, after, foundEnd := strings.Cut(rest, end)
	if !found || !foundEnd {
		t.Fatal("docs/files.md: no place for the reference")
	}
	written(t, page, []byte(before+begin+"\n"+referenceOf(types)+end+after))
}

// written compares a file with what is made of the types, or writes it.
func written(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is stale: go test ./api/v1alpha1 -update (%v)", path, err)
	}
}

type object = map[string]any

// metadata is what files say of an object.
func metadata() object {
	name, free := object{"type": "string", "pattern": namePattern}, object{"type": "object", "additionalProperties": object{"type": "string"}}
	describe := func(of object, doc string) object {
		d := object{"description": doc}
		for key, value := range of {
			d[key] = value
		}
		return d
	}
	return object{
		"type": "object", "description": "Metadata names an object.", "additionalProperties": false, "required": []string{"name"},
		"properties": object{
			"name":        describe(name, "Lowercase letters, digits and dashes; unique among objects of its kind."),
			"namespace":   describe(name, "On a cluster: where it lives."),
			"labels":      describe(free, "Free for use; off a cluster Backstay reads none."),
			"annotations": describe(free, "Free for use; off a cluster Backstay reads none."),
		},
	}
}

// labelSelector is Kubernetes' own.
func labelSelector() object {
	text := object{"type": "string"}
	texts := object{"type": "array", "items": text}
	return object{
		"type": "object", "additionalProperties": false, "description": "Labels that are looked for, all of them.",
		"properties": object{
			"matchLabels": object{"type": "object", "additionalProperties": text, "description": "Labels with their values."},
			"matchExpressions": object{
				"type": "array", "description": "Conditions on labels.",
				"items": object{
					"type": "object", "additionalProperties": false, "required": []string{"key", "operator"},
					"properties": object{
						"key": text, "values": texts,
						"operator": object{"type": "string", "enum": []string{"In", "NotIn", "Exists", "DoesNotExist"}},
					},
				},
			},
		},
	}
}

func schemaOf(types model) object {
	definitions := object{"Metadata": metadata(), "LabelSelector": labelSelector()}
	for _, s := range types.inFiles() {
		definitions[s.name] = definition(s, types)
	}
	var choices []object
	for _, kind := range kinds {
		properties := definitions[kind].(object)["properties"].(object)
		properties["apiVersion"] = object{"const": v1alpha1.APIVersion}
		properties["kind"] = object{"const": kind}
		choices = append(choices, object{
			"if":   object{"properties": object{"kind": object{"const": kind}}},
			"then": object{"$ref": "#/definitions/" + kind},
		})
	}
	return object{
		"$schema": "http://json-schema.org/draft-07/schema#", "title": "Backstay, " + v1alpha1.APIVersion, "type": "object",
		"required":   []string{"apiVersion", "kind"},
		"properties": object{"kind": object{"enum": kinds}},
		"allOf":      choices, "definitions": definitions,
	}
}

func definition(s structType, types model) object {
	properties, groups := object{}, map[string][]object{}
	d := object{"type": "object", "description": s.doc, "additionalProperties": false, "properties": properties}
	var required []string
	for _, f := range types.flat(s) {
		if f.status() {
			continue
		}
		properties[f.name] = types.property(f)
		if f.required {
			required = append(required, f.name)
		}
		if group := f.tag.Get("oneof"); group != "" {
			groups[group] = append(groups[group], object{"required": []string{f.name}})
		}
	}
	if slices.Contains(kinds, s.name) {
		required = append([]string{"apiVersion", "kind"}, required...)
	}
	if len(required) > 0 {
		d["required"] = required
	}
	for _, group := range groups { // no struct has two
		d["oneOf"] = group
	}
	return d
}

// property is the schema of a field.
func (m model) property(f structField) object {
	p := m.kindSchema(f.kind, f)
	if _, isReference := p["$ref"]; isReference { // beside which draft 7 reads nothing
		p = object{"allOf": []object{p}}
	}
	p["description"] = f.doc
	if f.required && p["type"] == "array" {
		p["minItems"] = 1
	}
	return p
}

func (m model) kindSchema(kind ast.Expr, f structField) object {
	switch kind := kind.(type) {
	case *ast.ArrayType:
		return object{"type": "array", "items": m.kindSchema(kind.Elt, f)}
	case *ast.MapType:
		return object{"type": "object", "additionalProperties": m.kindSchema(kind.Value, structField{})}
	}
	switch name := typeName(kind); name {
	case "string":
		return stringSchema(f)
	case "bool":
		return object{"type": "boolean"}
	case "int", "int64":
		p := object{"type": "integer"}
		if f.tag.Get("check") == "count" {
			p["minimum"] = 0
		}
		return p
	case "metav1.Time":
		return object{"type": "string", "format": "date-time"}
	case "metav1.ObjectMeta":
		return object{"$ref": "#/definitions/Metadata"}
	case "metav1.LabelSelector":
		return object{"$ref": "#/definitions/LabelSelector"}
	default:
		if m.find(name).name == "" {
			panic("no schema for " + name)
		}
		return object{"$ref": "#/definitions/" + name}
	}
}

const namePattern = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"

// patterns of the checks that one can say.
var patterns = map[string]string{
	"name":        namePattern,
	"duration":    "^([0-9]+y)?([0-9]+m)?([0-9]+w)?([0-9]+d)?([0-9]+h)?$",
	"span":        `^([0-9]+(\.[0-9]+)?(h|m|s|ms))+$`,
	"pointer":     `^(/([^/~]|~[01])*)+$`,
	"object":      `^[^*/\s.][^*/\s]*/[^/\s]+$`,
	"objects":     `^[^*/\s.][^*/\s]*(/[^/\s]+)?$`,
	"every":       `^(\*|[^*/\s.][^*/\s]*(/[^/\s]+)?)$`,
	"deployments": `^[^/\s]+(/[^/\s]+)?$`,
	"size":        `^[1-9][0-9]{0,8}[KMGT]i?B?$`,
	"host":        `^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$`,
	"kinds":       `^(\*\.)?[^*/\s.][^*/\s]*$`,
}

func stringSchema(f structField) object {
	p := object{"type": "string"}
	if f.required || f.tag.Get("check") == "glob" {
		p["minLength"] = 1
	}
	if enum := f.tag.Get("enum"); enum != "" {
		p["enum"] = strings.Split(enum, ",")
	}
	if pattern := patterns[f.tag.Get("check")]; pattern != "" {
		p["pattern"] = pattern
	}
	return p
}

// referenceOf writes a section with a table for each struct that files know by itself.
func referenceOf(types model) string {
	var b strings.Builder
	writeMetadata(&b)
	for _, s := range types.inFiles() {
		if s.name == "Layout" || s.name == "Capture" {
			continue
		}
		fmt.Fprintf(&b, "### %s\n\n%s\n\n| field | value | means |\n|---|---|---|\n", s.name, s.doc)
		for _, f := range s.fields {
			switch name := typeName(f.kind); {
			case f.status():
			case name == "metav1.TypeMeta":
				fmt.Fprintf(&b, "| `apiVersion`, required | text | %s |\n| `kind`, required | text | %s |\n", v1alpha1.APIVersion, s.name)
			case f.inline && name == "Access":
				fmt.Fprintf(&b, "| | | the fields of [%s](#%s) |\n", name, strings.ToLower(name))
			case f.inline:
				for _, inner := range types.flat(types.find(name)) {
					writeRow(&b, inner)
				}
			default:
				writeRow(&b, f)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// writeMetadata has what files say of Kubernetes' metadata.
func writeMetadata(b *strings.Builder) {
	m := metadata()
	fmt.Fprintf(b, "### Metadata\n\n%s\n\n| field | value | means |\n|---|---|---|\n", m["description"])
	for _, row := range [][2]string{{"name", "`name`, required | name"}, {"namespace", "`namespace` | name"}, {"labels", "`labels` | names with text"}, {"annotations", "`annotations` | names with text"}} {
		fmt.Fprintf(b, "| %s | %s |\n", row[1], m["properties"].(object)[row[0]].(object)["description"])
	}
	b.WriteString("\n")
}

func writeRow(b *strings.Builder, f structField) {
	name := "`" + f.name + "`"
	if f.required {
		name += ", required"
	}
	fmt.Fprintf(b, "| %s | %s | %s |\n", name, kindWords(f.kind, f), strings.ReplaceAll(f.doc, "|", `\|`))
}

// kindWords says what stands after a field.
func kindWords(kind ast.Expr, f structField) string {
	switch kind := kind.(type) {
	case *ast.ArrayType:
		return "list of " + kindWords(kind.Elt, f)
	case *ast.MapType:
		return "names with " + kindWords(kind.Value, structField{})
	}
	switch name := typeName(kind); name {
	case "string":
		if check := f.tag.Get("check"); check != "" {
			return check
		}
		return "text"
	case "bool":
		return "true, false"
	case "int", "int64":
		return "number"
	case "metav1.Time":
		return "time: `2026-03-01T02:30:00Z`"
	case "metav1.LabelSelector":
		return "labels, as in Kubernetes: `matchLabels`, `matchExpressions`"
	case "metav1.ObjectMeta":
		return "[Metadata](#metadata)"
	default:
		return fmt.Sprintf("[%s](#%s)", name, strings.ToLower(name))
	}
}
