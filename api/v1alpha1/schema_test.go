package v1alpha1_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/backstay/backstay/api/v1alpha1"
)

var update = flag.Bool("update", false, "write schema.json, and the reference in docs/files.md")

// TestSchemaIsOfTheTypes makes the schema and the reference of the types and their comments, and compares them with what is there.
func TestSchemaIsOfTheTypes(t *testing.T) {
	types := parseTypes(t)
	schema, err := json.MarshalIndent(schemaOf(types), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	schema = append(schema, '\n')
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
	written := before + begin + "\n" + referenceOf(types) + end + after
	if *update {
		if err := os.WriteFile("schema.json", schema, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(page, []byte(written), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(schema, v1alpha1.Schema()) {
		t.Error("schema.json is stale: go test ./api/v1alpha1 -update")
	}
	if written != string(text) {
		t.Error("docs/files.md is stale: go test ./api/v1alpha1 -update")
	}
}

// structType is a struct of types.go.
type structType struct {
	name, doc string
	fields    []structField
}

type structField struct {
	name, doc string   // as files name it
	kind      ast.Expr // without a pointer
	inline    bool
	required  bool
	tag       reflect.StructTag
}

func parseTypes(t *testing.T) []structType {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "types.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var all []structType
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.TYPE {
			continue
		}
		for _, spec := range g.Specs {
			if s, ok := spec.(*ast.TypeSpec).Type.(*ast.StructType); ok {
				all = append(all, structType{spec.(*ast.TypeSpec).Name.Name, words(g.Doc.Text()), fieldsOf(t, s)})
			}
		}
	}
	return all
}

// words puts a comment on one line.
func words(comment string) string { return strings.Join(strings.Fields(comment), " ") }

func fieldsOf(t *testing.T, s *ast.StructType) []structField {
	t.Helper()
	var all []structField
	for _, f := range s.Fields.List {
		tag := reflect.StructTag(strings.Trim(f.Tag.Value, "`"))
		name, options, _ := strings.Cut(tag.Get("json"), ",")
		kind := f.Type
		if pointer, ok := kind.(*ast.StarExpr); ok {
			kind = pointer.X
		}
		if name == "-" {
			continue
		}
		field := structField{name, words(f.Doc.Text()), kind, options == "inline", options != "omitempty", tag}
		if field.doc == "" && !field.inline {
			t.Errorf("%s has no comment", f.Names[0].Name)
		}
		all = append(all, field)
	}
	return all
}

// flat lists the fields of a struct with those of the structs inlined into it.
func flat(s structType, types []structType) []structField {
	var all []structField
	for _, f := range s.fields {
		if !f.inline {
			all = append(all, f)
			continue
		}
		for _, inner := range types {
			if inner.name == f.kind.(*ast.Ident).Name {
				all = append(all, flat(inner, types)...)
			}
		}
	}
	return all
}

type object = map[string]any

func schemaOf(types []structType) object {
	definitions := object{}
	for _, s := range types {
		definitions[s.name] = definition(s, types)
	}
	var choices []object
	for _, kind := range []string{v1alpha1.KindLocation, v1alpha1.KindPolicy} {
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
		"properties": object{"kind": object{"enum": []string{v1alpha1.KindLocation, v1alpha1.KindPolicy}}},
		"allOf":      choices, "definitions": definitions,
	}
}

func definition(s structType, types []structType) object {
	properties, groups := object{}, []object{}
	d := object{"type": "object", "description": s.doc, "additionalProperties": false, "properties": properties}
	var required []string
	for _, f := range flat(s, types) {
		properties[f.name] = property(f)
		if f.required {
			required = append(required, f.name)
		}
		if f.tag.Get("oneof") != "" {
			groups = append(groups, object{"required": []string{f.name}})
		}
	}
	if len(required) > 0 {
		d["required"] = required
	}
	if len(groups) > 0 {
		d["oneOf"] = groups
	}
	return d
}

// property is the schema of a field.
func property(f structField) object {
	p := kindSchema(f.kind, f)
	if _, isReference := p["$ref"]; isReference { // beside which draft 7 reads nothing
		p = object{"allOf": []object{p}}
	}
	p["description"] = f.doc
	if f.required && p["type"] == "array" {
		p["minItems"] = 1
	}
	return p
}

func kindSchema(kind ast.Expr, f structField) object {
	switch kind := kind.(type) {
	case *ast.ArrayType:
		return object{"type": "array", "items": kindSchema(kind.Elt, f)}
	case *ast.MapType:
		return object{"type": "object", "additionalProperties": kindSchema(kind.Value, structField{})}
	case *ast.Ident:
		switch kind.Name {
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
		}
		return object{"$ref": "#/definitions/" + kind.Name}
	}
	panic(fmt.Sprintf("no schema for %T", kind))
}

func stringSchema(f structField) object {
	p := object{"type": "string"}
	if f.required {
		p["minLength"] = 1
	}
	if enum := f.tag.Get("enum"); enum != "" {
		p["enum"] = strings.Split(enum, ",")
	}
	switch f.tag.Get("check") {
	case "name":
		p["pattern"] = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
	case "duration":
		p["pattern"] = "^([0-9]+y)?([0-9]+m)?([0-9]+w)?([0-9]+d)?([0-9]+h)?$"
	case "span":
		p["pattern"] = `^([0-9]+(\.[0-9]+)?(h|m|s|ms))+$`
	}
	return p
}

// referenceOf writes a section with a table for each struct that files know by itself.
func referenceOf(types []structType) string {
	var b strings.Builder
	for _, s := range types {
		if s.name == "Layout" {
			continue
		}
		fmt.Fprintf(&b, "### %s\n\n%s\n\n| field | value | means |\n|---|---|---|\n", s.name, s.doc)
		for _, f := range s.fields {
			if f.inline {
				name := f.kind.(*ast.Ident).Name
				if name != "Layout" {
					fmt.Fprintf(&b, "| | | the fields of [%s](#%s) |\n", name, strings.ToLower(name))
					continue
				}
				for _, inner := range flat(structType{fields: []structField{f}}, types) {
					writeRow(&b, inner)
				}
				continue
			}
			writeRow(&b, f)
		}
		b.WriteString("\n")
	}
	return b.String()
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
	case *ast.Ident:
		switch kind.Name {
		case "string":
			if check := f.tag.Get("check"); check != "" {
				return check
			}
			return "text"
		case "bool":
			return "true, false"
		case "int", "int64":
			return "number"
		}
		return fmt.Sprintf("[%s](#%s)", kind.Name, strings.ToLower(kind.Name))
	}
	return ""
}
