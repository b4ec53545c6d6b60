package config_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/config"
)

// blocks returns the fenced blocks of a page in one language.
func blocks(t *testing.T, page, language string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, part := range strings.Split(string(text), "\n```"+language+"\n")[1:] {
		block, _, _ := strings.Cut(part, "\n```\n")
		all = append(all, block+"\n")
	}
	return all
}

// TestExamplesOfFiles reads the pages' examples as a user's files, and holds them to the schema.
func TestExamplesOfFiles(t *testing.T) {
	const ours = "apiVersion: backstay.io/"
	for page, least := range map[string]int{"files.md": 2, "exports.md": 1, "monitoring.md": 1} {
		examples := blocks(t, page, "yaml")
		if len(examples) < least || !strings.HasPrefix(examples[0], ours) {
			t.Fatalf("%s: %d examples", page, len(examples))
		}
		for i, example := range examples {
			if !strings.HasPrefix(example, ours) { // Prometheus' own
				continue
			}
			files := map[string]string{"x.yaml": example}
			if !strings.Contains(example, "kind: Location") {
				files["main.yaml"] = strings.Replace(vaultFile, "name: vault", "name: main", 1)
			}
			set, err := config.Load(write(t, files))
			if err != nil || len(set.Policies) == 0 || len(set.Notes) > 0 {
				t.Errorf("%s, example %d: %+v, %v", page, i+1, set, err)
			}
			for _, problem := range schemaProblems(t, example) {
				t.Errorf("%s, example %d: %s", page, i+1, problem)
			}
		}
	}
}

// TestSchemaAgreesWithReader has files that both refuse.
func TestSchemaAgreesWithReader(t *testing.T) {
	for _, text := range []string{
		policyFile("  locaton: vault\n  sources: [{directory: /etc}]\n"),
		policyFile("  location: vault\n  sources: []\n"),
		policyFile("  location: vault\n  sources: [{github: {}, gitlab: {}}]\n"),
		policyFile("  location: vault\n  sources: [{github: {token: clear}}]\n"),
		policyFile("  location: vault\n  sources: [{github: {user: 5}}]\n"),
		policyFile("  location: vault\n  sources: [{github: {stars: -5}}]\n"),
		policyFile("  location: vault\n  sources: [{directory: /etc}]\n  exports: [{local: {path: /b}, form: other}]\n"),
		strings.Replace(policyFile(plainSpec), "nightly", "Night", 1),
	} {
		if _, err := config.Load(write(t, map[string]string{"vault.yaml": vaultFile, "x.yaml": text})); err == nil {
			t.Errorf("the reader takes\n%s", text)
		}
		if problems := schemaProblems(t, text); len(problems) == 0 {
			t.Errorf("the schema takes\n%s", text)
		}
	}
}

// TestExamplesOfGickup reads the examples of docs/gickup.md.
func TestExamplesOfGickup(t *testing.T) {
	for _, example := range blocks(t, "gickup.md", "yaml") {
		g := readGickup(t, example, map[string]string{"GITHUB_TOKEN": "x"})
		if policies, err := g.Policies(); err != nil || len(policies) == 0 {
			t.Errorf("%+v, %v", policies, err)
		}
	}
}

// TestGickupPageNamesEverything: a key or rule without a word of documentation is a mistake.
func TestGickupPageNamesEverything(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "gickup.md"))
	if err != nil {
		t.Fatal(err)
	}
	sources, err := filepath.Glob("gickup*.go")
	if err != nil {
		t.Fatal(err)
	}
	rule := regexp.MustCompile(`(?:Warning|Error|Info), "([a-z0-9-]+)"|Rule: +"([a-z-]+)"`)
	key := regexp.MustCompile("`json:\"([a-z0-9_-]+),omitempty\"`")
	for _, name := range sources {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range rule.FindAllStringSubmatch(string(text), -1) {
			if found := m[1] + m[2]; !strings.Contains(string(page), "`"+found+"`") {
				t.Errorf("docs/gickup.md: no row for the rule %s", found)
			}
		}
		if name != "gickup_file.go" {
			continue
		}
		for _, m := range key.FindAllStringSubmatch(string(text), -1) {
			if !regexp.MustCompile(`\b` + m[1] + `\b`).Match(page) {
				t.Errorf("docs/gickup.md: no word of the key %s", m[1])
			}
		}
	}
}

// schemaProblems holds the documents of a file to as much of JSON Schema as the schema uses.
func schemaProblems(t *testing.T, text string) []string {
	t.Helper()
	var schema map[string]any
	if err := json.Unmarshal(v1alpha1.Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	var problems []string
	for _, part := range strings.Split(text, "\n---\n") {
		var value any
		if err := yaml.Unmarshal([]byte(part), &value); err != nil {
			t.Fatal(err)
		}
		problems = append(problems, validator{schema}.validate(schema, value, "")...)
	}
	return problems
}

type validator struct{ root map[string]any }

func (v validator) validate(schema map[string]any, value any, at string) []string {
	var problems []string
	wrong := func(format string, args ...any) { problems = append(problems, at+": "+fmt.Sprintf(format, args...)) }
	for keyword, rule := range schema {
		switch keyword {
		case "$ref":
			name := strings.TrimPrefix(rule.(string), "#/definitions/")
			problems = append(problems, v.validate(v.root["definitions"].(map[string]any)[name].(map[string]any), value, at)...)
		case "allOf":
			for _, one := range rule.([]any) {
				problems = append(problems, v.validate(one.(map[string]any), value, at)...)
			}
		case "oneOf":
			valid := 0
			for _, one := range rule.([]any) {
				if len(v.validate(one.(map[string]any), value, at)) == 0 {
					valid++
				}
			}
			if valid != 1 {
				wrong("%d of oneOf are valid", valid)
			}
		case "if":
			if len(v.validate(rule.(map[string]any), value, at)) == 0 {
				problems = append(problems, v.validate(schema["then"].(map[string]any), value, at)...)
			}
		case "const":
			if value != rule {
				wrong("not %v", rule)
			}
		case "enum":
			if !slices.Contains(rule.([]any), value) {
				wrong("not one of %v", rule)
			}
		case "pattern":
			if text, ok := value.(string); ok && !regexp.MustCompile(rule.(string)).MatchString(text) {
				wrong("does not match %s", rule)
			}
		case "minLength":
			if value == "" {
				wrong("empty")
			}
		case "minimum":
			if n, ok := value.(int); ok && float64(n) < rule.(float64) {
				wrong("too small")
			}
		case "minItems":
			if list, ok := value.([]any); ok && len(list) == 0 {
				wrong("empty")
			}
		case "type":
			kinds := map[string]any{"object": map[string]any{}, "array": []any{}, "string": "", "boolean": false, "integer": 0}
			if reflect.TypeOf(value) != reflect.TypeOf(kinds[rule.(string)]) {
				wrong("%T is no %s", value, rule)
			}
		case "items":
			list, _ := value.([]any)
			for i, item := range list {
				problems = append(problems, v.validate(rule.(map[string]any), item, fmt.Sprintf("%s[%d]", at, i))...)
			}
		case "required":
			fields, _ := value.(map[string]any)
			for _, name := range rule.([]any) {
				if _, found := fields[name.(string)]; !found {
					wrong("%s is missing", name)
				}
			}
		case "properties":
			fields, _ := value.(map[string]any)
			for name, field := range fields {
				if property, known := rule.(map[string]any)[name]; known {
					problems = append(problems, v.validate(property.(map[string]any), field, at+"."+name)...)
				} else if schema["additionalProperties"] == false {
					wrong("%s is not known", name)
				}
			}
		case "additionalProperties":
			inner, ok := rule.(map[string]any)
			fields, _ := value.(map[string]any)
			for name, field := range fields {
				if ok {
					problems = append(problems, v.validate(inner, field, at+"."+name)...)
				}
			}
		}
	}
	return problems
}
