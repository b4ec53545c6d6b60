package v1alpha1_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/api/v1alpha1"
)

// kinds are those that users write, in the order of the pages.
var kinds = []string{v1alpha1.KindLocation, v1alpha1.KindPolicy, v1alpha1.KindBackup, v1alpha1.KindRestorePoint, v1alpha1.KindRestore, v1alpha1.KindGate, v1alpha1.KindDrill}

// model is the types of this package as their source says them: comments and tags are the one place where a field is described.
type model struct {
	structs []structType // as they are declared
	texts   []string     // names of types that are strings
}

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

// status reports whether a field is the controller's, and no file has it.
func (f structField) status() bool { return f.tag.Get("file") == "-" }

func parseTypes(t *testing.T) model {
	t.Helper()
	var m model
	for _, name := range []string{"types.go", "application.go", "gitops.go", "database.go", "drill.go", "drill_kind.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.TYPE {
				m.add(t, g.Doc.Text(), g.Specs[0].(*ast.TypeSpec))
			}
		}
	}
	return m
}

func (m *model) add(t *testing.T, doc string, spec *ast.TypeSpec) {
	t.Helper()
	switch kind := spec.Type.(type) {
	case *ast.StructType:
		m.structs = append(m.structs, structType{spec.Name.Name, words(doc), fieldsOf(t, spec.Name.Name, kind)})
	case *ast.Ident:
		if kind.Name != "string" {
			t.Fatalf("%s: no schema for a type of %s", spec.Name.Name, kind.Name)
		}
		m.texts = append(m.texts, spec.Name.Name)
	}
}

// words puts a comment on one line, without what it says to generators.
func words(comment string) string {
	var lines []string
	for line := range strings.Lines(comment) {
		if !strings.HasPrefix(line, "+") {
			lines = append(lines, line)
		}
	}
	return strings.Join(strings.Fields(strings.Join(lines, "")), " ")
}

func fieldsOf(t *testing.T, of string, s *ast.StructType) []structField {
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
		field := structField{name, words(f.Doc.Text()), kind, options == "inline", options == "", tag}
		if field.doc == "" && !field.inline {
			t.Errorf("%s.%s has no comment", of, name)
		}
		all = append(all, field)
	}
	return all
}

func (m model) find(name string) structType {
	at := slices.IndexFunc(m.structs, func(s structType) bool { return s.name == name })
	if at < 0 {
		return structType{}
	}
	return m.structs[at]
}

// flat lists the fields of a struct with those of our structs inlined into it. What Kubernetes inlines (TypeMeta) is left out.
func (m model) flat(s structType) []structField {
	var all []structField
	for _, f := range s.fields {
		if !f.inline {
			all = append(all, f)
			continue
		}
		all = append(all, m.flat(m.find(typeName(f.kind)))...)
	}
	return all
}

// inFiles lists the structs that files can have, as they are declared.
func (m model) inFiles() []structType {
	seen := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		for _, f := range m.find(name).fields {
			if !f.status() {
				visit(typeName(element(f.kind)))
			}
		}
	}
	for _, kind := range kinds {
		visit(kind)
	}
	return slices.DeleteFunc(slices.Clone(m.structs), func(s structType) bool { return !seen[s.name] })
}

// element is what a list or map is of, or the type itself.
func element(kind ast.Expr) ast.Expr {
	switch kind := kind.(type) {
	case *ast.ArrayType:
		return element(kind.Elt)
	case *ast.MapType:
		return element(kind.Value)
	default:
		return kind
	}
}

// typeName is "Secret", "string", or "metav1.Time".
func typeName(kind ast.Expr) string {
	switch kind := kind.(type) {
	case *ast.Ident:
		return kind.Name
	case *ast.SelectorExpr:
		return kind.X.(*ast.Ident).Name + "." + kind.Sel.Name
	default:
		return ""
	}
}
