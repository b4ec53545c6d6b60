package github_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/forge/forgetest"
)

// description is GitHub's OpenAPI description, as far as it is read: parsed piece by piece, for the whole has 13 MB.
type description struct {
	Paths      map[string]map[string]json.RawMessage `json:"paths"`
	Components struct {
		Schemas    map[string]json.RawMessage `json:"schemas"`
		Parameters map[string]json.RawMessage `json:"parameters"`
		Responses  map[string]json.RawMessage `json:"responses"`
	} `json:"components"`

	mu      sync.Mutex
	schemas map[string]*schema
}

type operation struct {
	Parameters  []parameter        `json:"parameters"`
	RequestBody *content           `json:"requestBody"`
	Responses   map[string]content `json:"responses"`
}

type parameter struct {
	Ref    string  `json:"$ref"`
	Name   string  `json:"name"`
	In     string  `json:"in"`
	Schema *schema `json:"schema"`
}

type content struct {
	Ref     string `json:"$ref"`
	Content map[string]struct {
		Schema *schema `json:"schema"`
	} `json:"content"`
}

// schema is what the description uses of JSON schema.
type schema struct {
	Ref        string             `json:"$ref"`
	Type       string             `json:"type"`
	Nullable   bool               `json:"nullable"`
	Enum       []any              `json:"enum"`
	Format     string             `json:"format"`
	Pattern    string             `json:"pattern"`
	Properties map[string]*schema `json:"properties"`
	Required   []string           `json:"required"`
	Items      *schema            `json:"items"`
	Additional json.RawMessage    `json:"additionalProperties"` // true, false or a schema
	AllOf      []*schema          `json:"allOf"`
	AnyOf      []*schema          `json:"anyOf"`
	OneOf      []*schema          `json:"oneOf"` // taken as anyOf: which one it is, is told by discriminators
}

// errUnknownField is a field that the description does not have.
var errUnknownField = errors.New("is not described")

var readDescription = sync.OnceValues(func() (*description, error) {
	content, err := os.ReadFile(os.Getenv("BACKSTAY_TEST_GITHUB_OPENAPI"))
	if err != nil {
		return nil, err
	}
	d := &description{schemas: map[string]*schema{}}
	return d, json.Unmarshal(content, d)
})

// openAPI is the description that test/recordings.sh fetches.
func openAPI(t testing.TB) *description {
	t.Helper()
	forgetest.Recordings(t, "BACKSTAY_TEST_GITHUB_OPENAPI")
	d, err := readDescription()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// undocumented are paths that GitHub's own links and redirects lead to, and the paths whose answers they give.
var undocumented = []struct{ path, like string }{
	{"/organizations/{id}/repos", "/orgs/{org}/repos"},
	{"/user/{id}/repos", "/users/{username}/repos"},
	{"/repositories/{id}", "/repos/{owner}/{repo}"},
	{"/repositories/{id}/issues", "/repos/{owner}/{repo}/issues"},
}

// operation finds what the description says of a request.
func (d *description) operation(method, path string) (*operation, error) {
	method, template := strings.ToLower(method), ""
	for _, u := range undocumented {
		if matches(u.path, path) {
			template = u.like
		}
	}
	for _, candidate := range slices.Sorted(maps.Keys(d.Paths)) {
		if template == "" && d.Paths[candidate][method] != nil && matches(candidate, path) {
			template = candidate
		}
	}
	if d.Paths[path][method] != nil {
		template = path // /user/repos is no /user/{id}
	}
	if template == "" {
		return nil, fmt.Errorf("no %s %s is described", method, path)
	}
	o := &operation{}
	if err := json.Unmarshal(d.Paths[template][method], o); err != nil {
		return nil, err
	}
	for i, p := range o.Parameters {
		if p.Ref != "" {
			if err := json.Unmarshal(d.Components.Parameters[last(p.Ref)], &o.Parameters[i]); err != nil {
				return nil, err
			}
		}
	}
	return o, nil
}

func last(ref string) string { return ref[strings.LastIndex(ref, "/")+1:] }

// matches reports whether a path is one of a template such as /repos/{owner}/{repo}.
func matches(template, path string) bool {
	t, p := strings.Split(template, "/"), strings.Split(path, "/")
	if len(t) != len(p) {
		return false
	}
	for i := range t {
		if t[i] != p[i] && !strings.HasPrefix(t[i], "{") {
			return false
		}
	}
	return true
}

// exchange checks a request and its answer.
func (d *description) exchange(r *http.Request, body []byte, answer *httptest.ResponseRecorder) error {
	path := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/api/v3"), "/api/uploads")
	if strings.Contains(path, "/import/issues") {
		return nil // GitHub documents none of it
	}
	o, err := d.operation(r.Method, path)
	if err != nil {
		return err
	}
	var problems []error
	problems = append(problems, o.query(d, r.URL.Query()))
	if len(body) > 0 {
		if o.RequestBody == nil {
			return fmt.Errorf("%s %s has no body", r.Method, path)
		}
		problems = append(problems, d.check(o.RequestBody, body))
	}
	said, described := o.Responses[strconv.Itoa(answer.Code)]
	switch {
	case described && said.Ref != "":
		said = content{}
		ref := o.Responses[strconv.Itoa(answer.Code)].Ref
		if err := json.Unmarshal(d.Components.Responses[last(ref)], &said); err != nil {
			return err
		}
		fallthrough
	case described:
		problems = append(problems, d.check(&said, answer.Body.Bytes()))
	case !slices.Contains([]int{
		http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone,
		http.StatusUnavailableForLegalReasons,
	}, answer.Code): // these can happen everywhere
		problems = append(problems, fmt.Errorf("status %d is not described", answer.Code))
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("%s %s: %w", r.Method, path, err)
	}
	return nil
}

func (o *operation) query(d *description, query url.Values) error {
	for name, values := range query {
		i := slices.IndexFunc(o.Parameters, func(p parameter) bool { return p.In == "query" && p.Name == name })
		if i < 0 {
			return fmt.Errorf("no parameter %q is described", name)
		}
		var value any = values[0]
		if s := o.Parameters[i].Schema; s.Type == "integer" {
			number, err := strconv.Atoi(values[0])
			if err != nil {
				return err
			}
			value = float64(number)
		}
		if s := o.Parameters[i].Schema; s.Type == "boolean" && (values[0] == "true" || values[0] == "false") {
			value = values[0] == "true"
		}
		if err := d.valid(o.Parameters[i].Schema, value, name); err != nil {
			return err
		}
	}
	return nil
}

// check checks a body. It must have nothing that the description does not know, for the fake and we could agree on a mistake.
func (d *description) check(c *content, body []byte) error {
	described, isJSON := c.Content["application/json"]
	if !isJSON || described.Schema == nil {
		return nil
	}
	var value any
	if err := json.Unmarshal(body, &value); err != nil {
		return err
	}
	return d.valid(described.Schema, value, "")
}

// named finds a schema by its reference.
func (d *description) named(ref string) (*schema, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.schemas[ref]
	if s == nil {
		s = &schema{}
		if err := json.Unmarshal(d.Components.Schemas[last(ref)], s); err != nil {
			return nil, fmt.Errorf("schema %s: %w", ref, err)
		}
		d.schemas[ref] = s
	}
	return s, nil
}

// valid checks a value; at says where it is.
func (d *description) valid(s *schema, value any, at string) error {
	for s.Ref != "" {
		var err error
		if s, err = d.named(s.Ref); err != nil {
			return err
		}
	}
	if value == nil {
		if s.Nullable || (s.Type == "" && len(s.AllOf)+len(s.AnyOf)+len(s.OneOf) == 0) || slices.Contains(s.Enum, nil) {
			return nil
		}
		if len(s.AnyOf)+len(s.OneOf) == 0 {
			return fmt.Errorf("%s: null", at)
		}
	}
	for _, part := range s.AllOf { // what one of them does not describe, another one does
		if err := d.valid(part, value, at); err != nil && !errors.Is(err, errUnknownField) {
			return err
		}
	}
	if choices := slices.Concat(s.AnyOf, s.OneOf); len(choices) > 0 {
		var all []error
		if !slices.ContainsFunc(choices, func(c *schema) bool {
			err := d.valid(c, value, at)
			all = append(all, err)
			return err == nil
		}) {
			return fmt.Errorf("%s: none of %d: %w", at, len(choices), errors.Join(all...))
		}
	}
	if len(s.Enum) > 0 && !slices.Contains(s.Enum, value) {
		return fmt.Errorf("%s: %v is none of %v", at, value, s.Enum)
	}
	return d.ofType(s, value, at)
}

func (d *description) ofType(s *schema, value any, at string) error {
	wrong := fmt.Errorf("%s: %.60v is no %s", at, value, s.Type)
	switch s.Type {
	case "string":
		text, ok := value.(string)
		if !ok {
			return wrong
		}
		return s.text(text, at)
	case "integer":
		if n, ok := value.(float64); !ok || n != math.Trunc(n) {
			return wrong
		}
	case "number":
		if _, ok := value.(float64); !ok {
			return wrong
		}
	case "boolean":
		if _, ok := value.(bool); !ok {
			return wrong
		}
	case "array":
		list, ok := value.([]any)
		if !ok {
			return wrong
		}
		for i, item := range list {
			if err := d.valid(s.Items, item, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	case "object":
		object, ok := value.(map[string]any)
		if !ok {
			return wrong
		}
		return d.object(s, object, at)
	}
	return nil
}

func (s *schema) text(text, at string) error {
	var err error
	switch s.Format {
	case "date-time":
		_, err = time.Parse(time.RFC3339, text)
	case "uri":
		var u *url.URL
		if u, err = url.Parse(text); err == nil && u.Scheme == "" {
			err = fmt.Errorf("%q is no URI", text)
		}
	}
	if err == nil && s.Pattern != "" {
		var pattern *regexp.Regexp
		if pattern, err = regexp.Compile(s.Pattern); err == nil && !pattern.MatchString(text) {
			err = fmt.Errorf("%q does not match %q", text, s.Pattern)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	return nil
}

func (d *description) object(s *schema, object map[string]any, at string) error {
	for _, name := range s.Required {
		if _, there := object[name]; !there {
			return fmt.Errorf("%s: %s is missing", at, name)
		}
	}
	var unknown error
	for name, value := range object {
		property := s.Properties[name]
		if property == nil && len(s.Additional) > 1 && s.Additional[0] == '{' {
			property = &schema{}
			if err := json.Unmarshal(s.Additional, property); err != nil {
				return err
			}
		}
		switch {
		case property != nil:
			if err := d.valid(property, value, at+"."+name); err != nil {
				return err
			}
		case len(s.Properties) > 0 && string(s.Additional) != "true":
			unknown = fmt.Errorf("%s: %s %w", at, name, errUnknownField)
		}
	}
	return unknown
}

// described serves an API, and checks all that passes against the description, where there is one.
func described(t testing.TB, api http.Handler) http.Handler {
	t.Helper()
	if os.Getenv("BACKSTAY_TEST_GITHUB_OPENAPI") == "" && os.Getenv("CI") != "true" {
		return api
	}
	d := openAPI(t)
	var checked sync.Map // by all that was said: suites ask for the same pages again and again
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client went away
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		before := r.Clone(r.Context())
		answer := httptest.NewRecorder()
		maps.Copy(answer.Header(), w.Header())
		api.ServeHTTP(answer, r)
		said := fmt.Sprint(before.Method, before.URL, string(body), answer.Code, answer.Body)
		if _, again := checked.LoadOrStore(said, true); !again && !strings.HasSuffix(before.URL.Path, "/graphql") {
			if err := d.exchange(before, body, answer); err != nil {
				t.Error(err)
			}
		}
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		w.Write(answer.Body.Bytes()) //nolint:errcheck // the client may have gone away
	})
}

// TestDescriptionNotices plants mistakes: a check that finds none would prove nothing.
func TestDescriptionNotices(t *testing.T) {
	d := openAPI(t)
	for _, test := range []struct {
		method, path, body, answer string
		status                     int
		want                       string
	}{
		{"GET", "/rate_limits", "", "{}", 200, "is described"},
		{"GET", "/user/repos?affiliations=owner", "", "[]", 200, `"affiliations"`},
		{"GET", "/user/repos?sort=name", "", "[]", 200, "sort: name is none of"},
		{"GET", "/user/repos?per_page=all", "", "[]", 200, "invalid syntax"},
		{"POST", "/user/repos", `{"private":true}`, "{}", 201, "name is missing"},
		{"POST", "/user/repos", `{"name":"a","secret":true}`, "{}", 201, "secret is not described"},
		{"GET", "/user/repos", "", `{}`, 200, "is no array"},
		{"GET", "/user/repos", "", `[{"id":1}]`, 200, "is missing"},
		{"GET", "/repos/a/b/languages", "", `{"Go":"much"}`, 200, ".Go: much is no integer"},
		{"GET", "/repos/a/b/languages", "", `{"Go":null}`, 200, ".Go: null"},
		{"GET", "/user/repos", "", `[]`, 201, "status 201"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), test.method, test.path, nil)
		answer := httptest.NewRecorder()
		answer.WriteHeader(test.status)
		answer.WriteString(test.answer)
		err := d.exchange(r, []byte(test.body), answer)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %s %s: got %v, want %q", test.method, test.path, test.body, err, test.want)
		}
	}
}
