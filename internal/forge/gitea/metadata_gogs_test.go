package gitea_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/gitea"
)

// gogs is a repository as Gogs shows it.
func gogs(issues []any) routes {
	who := func(name string) map[string]any {
		return map[string]any{"id": len(name), "login": name, "username": name, "full_name": name}
	}
	api := map[string]any{"id": 1, "name": "api", "full_name": "acme/api", "owner": who("acme"), "description": "an API", "default_branch": "main", "updated_at": "2026-01-01T00:00:00Z"}
	labels := []any{map[string]any{"id": 1, "name": "bug", "color": "#FF0000"}}
	at := "/repos/acme/api/"
	return routes{
		"GET /user":                says(200, who("acme")),
		"GET /user/repos":          says(200, []any{api}),
		"GET /repos/acme/api":      says(200, api),
		"GET " + at + "labels":     says(200, labels),
		"GET " + at + "releases":   says(200, []any{map[string]any{"id": 1, "tag_name": "v1", "name": "First", "body": "x", "author": who("jo"), "created_at": "2026-01-01T00:00:00Z"}}),
		"GET " + at + "milestones": says(200, []any{map[string]any{"id": 3, "title": "v1", "state": "closed", "due_on": "2026-02-01T00:00:00Z"}}),
		"GET " + at + "hooks":      says(200, []any{map[string]any{"id": 1, "type": "gogs", "config": map[string]string{"url": "https://ci.example.com/?k=sesame"}, "events": []string{"push"}, "active": true}}),
		"GET " + at + "keys":       says(200, []any{map[string]any{"id": 2, "key": "ssh-ed25519 AAAA", "title": "ci", "read_only": true}}),
		"GET " + at + "collaborators": says(200, []any{
			map[string]any{"id": 4, "login": "ada", "permissions": map[string]bool{"admin": false, "push": true, "pull": true}},
		}),
		"GET " + at + "issues": func(w http.ResponseWriter, r *http.Request) {
			var all []any
			for _, i := range issues {
				if i.(map[string]any)["state"] == r.FormValue("state") {
					all = append(all, i)
				}
			}
			answer(w, http.StatusOK, all)
		},
		"GET " + at + "issues/1/comments": says(200, []any{map[string]any{"id": 9, "user": who("ada"), "body": "Me too", "created_at": "2026-01-02T00:00:00Z"}}),
	}
}

func TestGogsIsCapturedAsFarAsItsAPIGoes(t *testing.T) {
	var asked []string
	issues := []any{
		map[string]any{
			"id": 11, "number": 1, "title": "It breaks", "body": "x", "state": "closed", "comments": 1, "user": map[string]any{"id": 2, "login": "jo"},
			"assignee": map[string]any{"id": 4, "login": "ada"}, "labels": []any{map[string]any{"id": 1, "name": "bug", "color": "FF0000"}},
			"milestone": map[string]any{"id": 3, "title": "v1"}, "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-03T00:00:00Z",
		},
		map[string]any{"id": 12, "number": 2, "title": "Another", "state": "open", "comments": 0, "updated_at": "2026-01-01T00:00:00Z"},
	}
	handler := gogs(issues)
	p := serve(t, gitea.Options{Gogs: true}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, strings.TrimPrefix(r.URL.Path, "/api/v1/repos/acme/api/"))
		handler.ServeHTTP(w, r)
	}))
	c := &forgetest.Capturing{Provider: p, Clock: forgetest.NewClock()}
	made := c.Run(t)
	if len(made.Open) > 0 || len(made.Notes) > 0 {
		t.Errorf("does not close: %q, notes %q", made.Open, made.Notes)
	}
	s, err := gitea.Decode(made.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Collaborators) != 1 || o.Collaborators[0].Permission != "write" || len(o.Keys) != 1 || o.Hooks[0].URL != "https://ci.example.com/" || o.Releases[0].Tag != "v1" {
		t.Errorf("%+v", o)
	}
	items := forgetest.Items(t, s)
	i := items[1]
	if i == nil || !i.Closed || i.Milestone != "v1" || len(i.Assignees) != 1 || i.Assignees[0].Login != "ada" || len(i.Comments) != 1 || i.Comments[0].Author.Login != "ada" {
		t.Fatalf("%+v", i)
	}
	if len(items) != 2 || slices.Contains(asked, "issues/2/comments") {
		t.Errorf("%d items after %q", len(items), asked)
	}
	asked = nil
	if second := c.Run(t); !second.Part.Unchanged || slices.Contains(asked, "issues/1/comments") {
		t.Errorf("unchanged, it asks %q", asked)
	}
}
