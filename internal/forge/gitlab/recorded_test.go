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
	"github.com/backstay/backstay/internal/forge/archive"
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

// Everything that was recorded of what a project has beside its code gets a name, and is read.
func TestRecordedMetadata(t *testing.T) {
	p := newProvider(t, "https://git.example.com")
	byName := map[string]func(thing) string{"releases": byTag, "rules": byName, "tag-rules": byName, "issues": byIID, "pulls": byIID}
	for _, test := range []struct {
		collection, parent, files string
		keys                      []string
		least                     int
	}{
		{"labels", "", "labels_test.go", []string{"id", "name", "color", "description"}, 2},
		{"milestones", "", "*milestones_test.go", []string{"id", "iid", "title"}, 3},
		{"issues", "", "*_test.go", []string{"id", "iid", "title", "author", "state"}, 3},
		{"pulls", "", "testdata/get_merge_request*.json", []string{"id", "iid", "source_branch", "target_branch"}, 3},
		{"comments", "issues/1", "notes_test.go", []string{"id", "body", "author"}, 3},
		{"review-comments", "pulls/1", "discussions_test.go", []string{"id", "body", "author"}, 3},
		{"timeline", "issues/1", "resource_*_events_test.go", []string{"id", "user", "resource_type"}, 3},
		{"reactions", "issues/1", "award_emojis_test.go", []string{"id", "name", "user"}, 2},
		{"links", "issues/1", "issue_links_test.go", []string{"id", "iid", "link_type"}, 1},
		{"reviews", "pulls/1", "merge_request_approvals_test.go", []string{"id", "iid", "approved_by"}, 1},
		{"releases", "", "*_test.go", []string{"tag_name", "description", "created_at"}, 2},
		{"rules", "", "protected_branches_test.go", []string{"id", "name", "push_access_levels"}, 2},
		{"tag-rules", "", "protected_tags_test.go", []string{"name", "create_access_levels"}, 2},
		{"hooks", "", "projects_test.go", []string{"id", "url", "push_events"}, 1},
		{"keys", "", "deploy_keys_test.go", []string{"id", "title", "key"}, 2},
		{"collaborators", "", "project_members_test.go", []string{"id", "username", "access_level"}, 1},
	} {
		all := objects(t, test.files, test.keys...)
		if len(all) < test.least {
			t.Errorf("only %d of %s were recorded", len(all), test.collection)
		}
		parents := []archive.Record{recordOf("issues", "1", "", `{"id":1,"iid":1}`), recordOf("pulls", "1", "", `{"id":2,"iid":1}`)}
		for _, raw := range all {
			id := byName[test.collection]
			if id == nil {
				id = byID
			}
			l := listing{name: test.collection, id: id}
			record, err := l.record(raw)
			if err != nil {
				t.Errorf("%s: %v\n%.300s", test.collection, err, raw)
				continue
			}
			record.Parent = recordOf("", "", test.parent, "").Parent
			p.FileURLs(record)
			if _, _, err := everything(t, archived(t, append(parents, record)...)); err != nil {
				t.Errorf("%s: %v\n%.300s", test.collection, err, raw)
			}
		}
	}
}

func TestRecordedThreads(t *testing.T) {
	notes := 0
	for _, raw := range objects(t, "discussions_test.go", "id", "individual_note", "notes") {
		l := listing{name: "comments", id: byID}
		more, err := l.thread(raw, func(r archive.Record) bool {
			notes++
			return r.ID != "" && strings.Contains(string(r.Raw), `"discussion_id"`) != field[bool](t, raw, "individual_note")
		})
		if err != nil || !more {
			t.Errorf("%v: %.300s", err, raw)
		}
	}
	if notes < 3 {
		t.Errorf("only %d notes were recorded", notes)
	}
}
