package gitlab

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/forgetest"
)

// recordings is the directory of GitLab's Go client, whose tests carry answers of GitLab's.
func recordings(t *testing.T) string {
	t.Helper()
	return forgetest.Recordings(t, "BACKSTAY_TEST_GITLAB_RECORDINGS")
}

// objects finds the JSON objects that have all of some keys, at any depth, in files and in the string literals of Go files.
func objects(t *testing.T, files string, keys ...string) []json.RawMessage {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(recordings(t), files))
	if err != nil {
		t.Fatal(err)
	}
	var found []json.RawMessage
	for _, name := range names {
		if filepath.Ext(name) == ".json" {
			document, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, objectsIn(document, keys)...)
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			literal, ok := n.(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, objectsIn([]byte(text), keys)...)
			return true
		})
	}
	return found
}

func objectsIn(document []byte, keys []string) (found []json.RawMessage) {
	var object map[string]json.RawMessage
	var list []json.RawMessage
	if json.Unmarshal(document, &object) == nil {
		if !slices.ContainsFunc(keys, func(key string) bool { return object[key] == nil }) {
			found = append(found, document)
		}
		for _, inner := range object {
			found = append(found, objectsIn(inner, keys)...)
		}
	} else if json.Unmarshal(document, &list) == nil {
		for _, inner := range list {
			found = append(found, objectsIn(inner, keys)...)
		}
	}
	return found
}

// field reads one field of an object.
func field[T any](t *testing.T, raw json.RawMessage, name string) (value T) {
	t.Helper()
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil {
		t.Fatal(err)
	}
	if object[name] == nil {
		return value
	}
	if err := json.Unmarshal(object[name], &value); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return value
}

func TestRecordedProjects(t *testing.T) {
	p := newProvider(t, "https://git.example.com")
	all := objects(t, "*_test.go", "id", "path_with_namespace")
	all = slices.DeleteFunc(all, func(raw json.RawMessage) bool { // some were simplified too much
		return !strings.Contains(field[string](t, raw, "path_with_namespace"), "/")
	})
	for _, raw := range all {
		r, err := p.decodeProject(raw, true)
		if err != nil {
			t.Errorf("%v\n%.300s", err, raw)
			continue
		}
		path := field[string](t, raw, "path_with_namespace")
		if want := fmt.Sprint(field[int64](t, raw, "id")); r.ID != want || r.FullName() != path {
			t.Errorf("ID %s is %s, want %s %s", r.ID, r.FullName(), want, path)
		}
		if !strings.HasPrefix(r.HTTPURL, "https://git.example.com/") || !strings.HasSuffix(r.HTTPURL, ".git") {
			t.Errorf("git at %s", r.HTTPURL)
		}
		if r.SSHURL != field[string](t, raw, "ssh_url_to_repo") || r.DefaultBranch != field[string](t, raw, "default_branch") ||
			r.Archived != field[bool](t, raw, "archived") || r.Stars != field[int](t, raw, "star_count") {
			t.Errorf("%+v is not what was answered: %.900s", r, raw)
		}
		if wiki := field[bool](t, raw, "wiki_enabled"); wiki && r.WikiHTTPURL == "" {
			t.Errorf("%s has no wiki", r.FullName())
		}
	}
	if len(all) < 20 {
		t.Errorf("only %d projects were recorded", len(all))
	}
}

func TestRecordedSnippets(t *testing.T) {
	p := newProvider(t, "")
	all := objects(t, "snippets_test.go", "id", "title", "author")
	all = append(all, objects(t, "project_snippets_test.go", "id", "title", "author")...)
	for _, raw := range all {
		r, err := p.decodeSnippet(raw)
		if err != nil || r.Name != fmt.Sprint(field[int64](t, raw, "id")) {
			t.Errorf("%+v, %v: %.500s", r, err, raw)
		}
	}
	if len(all) < 3 {
		t.Errorf("only %d snippets were recorded", len(all))
	}
}

func TestRecordedIssues(t *testing.T) {
	keys := []string{"iid", "created_at", "updated_at", "state"} // those of merge requests are alike in what is read
	all := append(objects(t, "*_test.go", keys...), objects(t, "testdata/*.json", keys...)...)
	for _, raw := range all {
		l := issueList{seen: map[int64]bool{}, yield: func(forge.Issue) bool { return true }}
		last, err := l.take([]json.RawMessage{raw})
		if err != nil || last.IsZero() || !l.seen[field[int64](t, raw, "iid")] {
			t.Errorf("%v, made %s: %.300s", err, last, raw)
		}
	}
	if len(all) < 10 {
		t.Errorf("only %d issues were recorded", len(all))
	}
}

func TestRecordedPullMirrors(t *testing.T) {
	all := objects(t, "projects_test.go", "update_status", "url", "enabled")
	for _, raw := range all {
		var m pullMirror
		if err := json.Unmarshal(raw, &m); err != nil || m.URL == "" || m.Status == "" {
			t.Errorf("%+v, %v", m, err)
		}
	}
	if len(all) == 0 {
		t.Error("no pull mirrors were recorded")
	}
}

func TestRecordedToken(t *testing.T) {
	dir := filepath.Join(recordings(t), "testdata")
	mux := http.NewServeMux()
	for path, file := range map[string]string{
		"/api/v4/user":                        "get_user.json",
		"/api/v4/personal_access_tokens/self": "list_personal_access_tokens_single.json",
	} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, filepath.Join(dir, file)) })
	}
	server := httptest.NewServer(mux)
	defer server.Close()
	p, err := New(Options{URL: server.URL, Token: "some-token"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.Inspect(t.Context())
	if err != nil || c.Account != "john_smith" || len(c.Missing) > 0 || !c.Expires.IsZero() {
		t.Errorf("got %+v, %v", c, err)
	}
}
