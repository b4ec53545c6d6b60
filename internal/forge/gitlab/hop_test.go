package gitlab_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/github"
	"github.com/backstay/backstay/internal/forge/github/githubtest"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// hub is a GitHub, as another forge that things come from and go to.
type hub struct {
	*github.Provider
	api *githubtest.API
}

type served struct{ http.Handler }

// RoundTrip implements http.RoundTripper.
func (s served) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result(), nil
}

func newHub(t *testing.T) hub {
	t.Helper()
	clock := forgetest.NewClock()
	api := &githubtest.API{World: forgetest.NewWorld(clock.Now), Users: []string{"tester"}, Metadata: map[int64]*githubtest.Metadata{}}
	p, err := github.New(github.Options{
		Token: forgetest.Token, Client: forge.ClientOptions{Clock: clock.Now, Sleep: clock.Sleep, Transport: served{api}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return hub{p, api}
}

// repository makes one with metadata.
func (h hub) repository(t *testing.T, name string, m *githubtest.Metadata) forge.Repository {
	t.Helper()
	h.api.Metadata[h.api.World.Add(forgetest.Repo{Owner: "tester", Name: name, Private: true}).ID] = m
	r, err := h.Find(t.Context(), forge.Repository{Owner: "tester", Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// source is what a repository has.
func (h hub) source(t *testing.T, r forge.Repository) neutral.Source {
	t.Helper()
	var all []archive.Record
	for _, c := range h.Collections(r) {
		q := forge.Query{Repository: r}
		for _, record := range all {
			if record.Collection == c.Of {
				q.Parents = append(q.Parents, record)
			}
		}
		if c.Of != "" && len(q.Parents) == 0 {
			continue
		}
		for record, err := range c.Read(t.Context(), q) {
			if err != nil {
				t.Fatalf("%s: %v", c.Name, err)
			}
			all = append(all, record)
		}
	}
	a, err := archive.Of(archive.Header{Dialect: "github", Host: "github.com", Repository: r.FullName(), Account: "tester"}, all...)
	if err != nil {
		t.Fatal(err)
	}
	s, err := github.Decode(a)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestThreeForges takes issues from GitHub to GitLab and back to another GitHub: nothing of them is lost on the way.
func TestThreeForges(t *testing.T) {
	h, b := newHub(t), newBench(t)
	b.fake.owner50 = true
	first := h.source(t, h.repository(t, "api", githubtest.Sample()))
	there := b.empty(t)
	_, err := forge.RestoreMetadata(t.Context(), forge.MetadataRestoreOptions{
		From: first, Host: "github.com", Repository: "tester/api", Target: b.Target(), To: there,
	})
	if err != nil {
		t.Fatal(err)
	}
	back := h.repository(t, "back", &githubtest.Metadata{})
	_, err = forge.RestoreMetadata(t.Context(), forge.MetadataRestoreOptions{
		From: b.source(t, there), Host: b.Host(), Repository: there.FullName(), Target: h.Target(), To: back,
	})
	if err != nil {
		t.Fatal(err)
	}
	before, after := items(t, first), items(t, h.source(t, back))
	if len(before) != len(after) {
		t.Fatalf("there were %d items, and are %d", len(before), len(after))
	}
	for i := range before {
		if got, want := forgetest.Differences(t, before[i], after[i]), []string{fmt.Sprintf("was: <nil> → %d", i+1)}; !slices.Equal(got, want) {
			t.Errorf("item %d:\n%s", i+1, strings.Join(got, "\n"))
		}
	}
}
