package github_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/github/githubtest"
)

// graphQL counts the questions of the last run, but for the marks.
func (e *engine) graphQL() (n int) {
	for _, asked := range e.metadataRequests() {
		if strings.HasSuffix(asked, "/graphql") {
			n++
		}
	}
	return n
}

// A repository without projects costs nothing more, and one whose projects went says so.
func TestProjectsCostNothingWhereThereAreNone(t *testing.T) {
	m := everything()
	m.Projects = nil
	e := newEngine(t, m)
	e.good()
	without := e.graphQL()
	m = everything()
	e = newEngine(t, m)
	e.good()
	if with := e.graphQL(); with != without+2 {
		t.Errorf("a project cost %d requests, want one for its list and one for its items", with-without)
	}
	e.clock.Sleep(e.Context(), 24*time.Hour) //nolint:errcheck // it is a test's clock
	e.Edit(func(m *githubtest.Metadata) { m.Projects = nil })
	e.good()
	if !e.gone("projects", nodeOf("PVT", e.id, 21)) || !e.gone("project-items", nodeOf("PVTI", e.id, 31)) {
		t.Error("a project that is not linked any more is still there")
	}
}

// What changes in a project changes nothing of its repository: it is read once a day.
func TestProjectsAreReadOnceADay(t *testing.T) {
	e := newEngine(t, everything())
	e.good()
	e.good() // what changed within the last minute before a run is looked at again
	e.Edit(func(m *githubtest.Metadata) { m.Projects[0].Items[0].Values["Status"] = "Todo" })
	e.good()
	if asked := e.metadataRequests(); len(asked) > 0 {
		t.Errorf("a run within the day asked %q", asked)
	}
	e.clock.Sleep(e.Context(), 24*time.Hour) //nolint:errcheck // it is a test's clock
	e.good()
	r, err := e.archive().Get(t.Context(), archive.Key{Collection: "project-items", ID: nodeOf("PVTI", e.id, 31)})
	if err != nil || strings.Contains(string(r.Raw), `"Done"`) || !strings.Contains(string(r.Raw), `"Todo"`) {
		t.Errorf("the item is %s, %v", r.Raw, err)
	}
}

// GitHub refuses a question for projects as a whole to a token without their scope: the rest is there all the same, and what was read
// before stays.
func TestTokenThatMayNotSeeProjects(t *testing.T) {
	e := newEngine(t, everything())
	e.api.NoProjects = true
	open, notes := e.run()
	if len(open) > 0 || len(notes) != 1 || !strings.HasPrefix(notes[0], "projects: not read: ") || !strings.Contains(notes[0], "read:project") {
		t.Errorf("the counts of %q do not close; the notes are %q", open, notes)
	}
	if r := e.archive(); r.Count("settings") != 1 || r.Count("labels") != 1 || r.Count("projects") != 0 {
		t.Errorf("there are %d settings, %d labels, %d projects", r.Count("settings"), r.Count("labels"), r.Count("projects"))
	}
	e.api.NoProjects = false
	e.clock.Sleep(e.Context(), 24*time.Hour) //nolint:errcheck // it is a test's clock
	e.good()
	e.api.NoProjects = true
	e.clock.Sleep(e.Context(), 24*time.Hour) //nolint:errcheck // it is a test's clock
	open, notes = e.run()
	if n := e.archive().Count("project-items"); n != 4 || len(open) > 0 || len(notes) != 1 {
		t.Errorf("%d items are left, the counts of %q do not close, the notes are %q", n, open, notes)
	}
}

// A list of ever new projects ends.
func TestProjectsWithoutEnd(t *testing.T) {
	n := 0
	p := hostile(t, func(w http.ResponseWriter, _ *http.Request) {
		n++
		fmt.Fprintf(w, `{"data":{"repository":{"projects":{"pageInfo":{"hasNextPage":true,"endCursor":"%d"},"nodes":[{"node_id":"a%d"}%s]}}}}`,
			n, n, strings.Repeat(`,{"node_id":"b"}`, 99))
	})
	r := forge.Repository{Owner: "acme", Name: "api"}
	for _, c := range p.Collections(r) {
		if c.Name != "projects" {
			continue
		}
		var last error
		for _, err := range c.Read(t.Context(), forge.Query{Repository: r}) {
			last = err
		}
		if !errors.Is(last, fault.ErrUnavailable) || n > 11 {
			t.Errorf("after %d pages it ended with %v", n, last)
		}
	}
}
