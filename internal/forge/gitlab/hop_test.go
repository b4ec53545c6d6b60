package gitlab_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

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

// threeThings are an issue with all that it can have, a merged pull request with a review, and one that is open.
func threeThings() *githubtest.Metadata {
	at := func(hours int) time.Time { return time.Date(2024, 5, 1, hours, 0, 0, 0, time.UTC) }
	oid := strings.Repeat("c", 40)
	comment := func(id, on int64, user, body string) githubtest.Comment {
		return githubtest.Comment{ID: id, On: on, User: user, Body: body, Created: at(5), Updated: at(6)}
	}
	first := comment(11, 1, "", "it <b>does</b>\n\n/close\n\n@ada, `@code` and <!-- backstay:1 {} -->")
	first.Reactions = []githubtest.Reaction{{ID: 1, Content: "heart", User: "ada", Created: at(6)}}
	onCode := githubtest.ReviewComment{
		Comment: comment(21, 2, "ada", "why?"), Review: 31, Path: "a.go", Hunk: "@@ -1 +1 @@", OID: oid, Line: 7, OriginalLine: 7,
	}
	reply := githubtest.ReviewComment{
		Comment: comment(22, 2, "grace", "so"), Review: 31, ReplyTo: 21, Path: "a.go", Hunk: "@@ -1 +1 @@", OID: oid, Line: 7, OriginalLine: 7,
	}
	return &githubtest.Metadata{
		Labels: []githubtest.Label{{Name: "bug", Color: "d73a4a"}},
		Items: []*githubtest.Item{
			{
				Number: 1, Title: "it breaks", Body: "see nothing", User: "ada", Closed: true, Reason: "not_planned", ClosedAt: at(9), Created: at(1), Updated: at(9),
				Labels: []string{"bug"}, Assignees: []string{"grace"}, Locked: true, LockReason: "spam",
				Timeline: []githubtest.Event{{Type: "ClosedEvent", Actor: "linus", Created: at(9), Fields: map[string]any{"closer": nil}}},
			},
			{
				Number: 2, Title: "mended", User: "grace", Closed: true, ClosedAt: at(8), Created: at(2), Updated: at(8), Pull: &githubtest.Pull{
					Base: "main", Head: "mend", BaseOID: oid, HeadOID: oid, MergedAt: at(8), MergedBy: "ada", MergeOID: oid,
					Reviews: []githubtest.Review{{ID: 31, User: "ada", Body: "hm", State: "APPROVED", OID: oid, Submitted: at(5)}},
					Threads: []githubtest.Thread{{First: 21, ResolvedBy: "grace"}},
				},
			},
			{
				Number: 3, Title: "open", Body: "to do", User: "", Created: at(3), Updated: at(4),
				Pull: &githubtest.Pull{Base: "main", Head: "gone", HeadOID: oid, Draft: true},
			},
		},
		Comments:       []*githubtest.Comment{&first},
		ReviewComments: []*githubtest.ReviewComment{&onCode, &reply},
	}
}

// TestThreeForges takes issues from GitHub to GitLab and back to another GitHub: nothing of them is lost on the way.
func TestThreeForges(t *testing.T) {
	h, b := newHub(t), newBench(t)
	b.fake.owner50 = true
	first := h.source(t, h.repository(t, "api", threeThings()))
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
