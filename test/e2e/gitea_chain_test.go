//go:build e2e

package e2e

import (
	"bytes"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/forgetest"
	githubforge "github.com/backstay/backstay/internal/forge/github"
	"github.com/backstay/backstay/internal/forge/github/githubtest"
	"github.com/backstay/backstay/internal/forge/neutral"
)

var update = flag.Bool("update", false, "write anew what other tests read of real servers")

// TestGitHubComesToGitea takes what people leave on a GitHub to a real Gitea. What that answers then has all of it still. The test of
// three forges in internal/forge/gitlab goes on from there, with what is written here.
func TestGitHubComesToGitea(t *testing.T) {
	first := sampleOfGitHub(t)
	g := startGitea(t)
	g.people(t)
	g.createFor(t, "alpha", "api", true, true)
	p := g.provider(t)
	to, err := p.Find(t.Context(), forge.Repository{Owner: "alpha", Name: "api"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = forge.RestoreMetadata(t.Context(), forge.MetadataRestoreOptions{From: first, Host: "github.com", Repository: "tester/api", Target: p.Target(), To: to})
	if err != nil {
		t.Fatal(err)
	}
	there, header := g.metadata(t, "alpha/api")
	before, after := forgetest.Items(t, first), forgetest.Items(t, there)
	if len(before) != len(after) {
		t.Fatalf("there were %d items, and are %d", len(before), len(after))
	}
	for number := range before {
		// Its API says that whoever locks by it is the owner, so that this lock looks like somebody else's, and later.
		after[number].Events = slices.DeleteFunc(after[number].Events, func(e *neutral.Event) bool { return e.Actor.Login == "alpha" })
		for _, difference := range forgetest.Differences(t, before[number], after[number]) {
			if !strings.HasPrefix(difference, "was: ") {
				t.Errorf("item %d: %s", number, difference)
			}
		}
	}
	// What differs of the rest stands in what Gitea says of itself. The owners are a team of every organisation.
	told := map[string]string{"Milestones.0.Created": "milestone.created", "Milestones.0.Updated": "milestone.updated", "Collaborators": "collaborator"}
	for _, difference := range forgetest.Differences(t, overviewOf(t, first), overviewOf(t, there)) {
		name, _, _ := strings.Cut(difference, ":")
		if field, known := told[name]; !known || p.Target().Keeps().Of(field).State == neutral.Kept {
			t.Errorf("the plan says nothing of %s", difference)
		}
	}
	if *update {
		writeArchive(t, header, readMetadata(t, p, to), g.url)
	}
}

// sampleOfGitHub is what a GitHub for tests answers of the sample.
func sampleOfGitHub(t *testing.T) neutral.Source {
	t.Helper()
	clock := forgetest.NewClock()
	api := &githubtest.API{World: forgetest.NewWorld(clock.Now), Users: []string{"tester"}, Metadata: map[int64]*githubtest.Metadata{}}
	api.Metadata[api.World.Add(forgetest.Repo{Owner: "tester", Name: "api", Private: true}).ID] = githubtest.Sample()
	p, err := githubforge.New(githubforge.Options{
		Token: forgetest.Token, Client: forge.ClientOptions{Clock: clock.Now, Sleep: clock.Sleep, Transport: served{api}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.Find(t.Context(), forge.Repository{Owner: "tester", Name: "api"})
	if err != nil {
		t.Fatal(err)
	}
	header := archive.Header{Version: archive.Version, Dialect: p.Dialect(), Host: p.Host(), Repository: r.FullName(), Account: "tester"}
	a, err := archive.Of(header, readMetadata(t, p, r)...)
	if err != nil {
		t.Fatal(err)
	}
	s, err := githubforge.Decode(a)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// served answers without a network.
type served struct{ http.Handler }

// RoundTrip implements http.RoundTripper.
func (s served) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result(), nil
}

// writeArchive writes what a Gitea answered as a segment, as if it were at gitea.example.com.
func writeArchive(t *testing.T, h archive.Header, records []archive.Record, address string) {
	t.Helper()
	slices.SortStableFunc(records, func(a, b archive.Record) int { return strings.Compare(a.Collection, b.Collection) })
	var segment []byte
	for _, r := range records {
		var err error
		if segment, err = archive.Append(segment, r); err != nil {
			t.Fatal(err)
		}
	}
	segment = bytes.ReplaceAll(segment, []byte(address), []byte("https://gitea.example.com"))
	segment = bytes.ReplaceAll(segment, []byte(h.Host), []byte("gitea.example.com"))
	file := filepath.FromSlash("../../internal/forge/gitlab/testdata/gitea.ndjson")
	if err := os.WriteFile(file, segment, 0o644); err != nil {
		t.Fatal(err)
	}
}
