package github_test

import (
	"context"
	"fmt"
	"iter"
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
	"github.com/backstay/backstay/internal/point/memory"
)

// codeless is a GitHub whose repositories have no address for git: their parts fail, and their metadata is captured.
type codeless struct{ *github.Provider }

func (c codeless) Repositories(ctx context.Context, s forge.Selection) iter.Seq2[forge.Repository, error] {
	return func(yield func(forge.Repository, error) bool) {
		for r, err := range c.Provider.Repositories(ctx, s) {
			r.HTTPURL, r.SSHURL = "", ""
			if !yield(r, err) {
				return
			}
		}
	}
}

// engine captures a GitHub's repository into a store, run after run.
type engine struct {
	*testing.T
	*githubtest.Metadata
	api      *githubtest.API
	id       int64 // of the repository
	clock    *forgetest.Clock
	store    *memory.Store
	asked    []string // since the last run began
	provider codeless
	files    bool // also assets and attachments
}

func newEngine(t *testing.T, m *githubtest.Metadata) *engine {
	t.Helper()
	clock := forgetest.NewClock()
	e := &engine{T: t, Metadata: m, clock: clock, store: memory.New(clock.Now)}
	e.api = &githubtest.API{World: forgetest.NewWorld(clock.Now), Metadata: map[int64]*githubtest.Metadata{}}
	e.id = e.api.World.Add(forgetest.Repo{Owner: "tester", Name: "api"}).ID
	e.api.Metadata[e.id] = m
	transport := roundTrip(func(r *http.Request) *http.Response {
		e.asked = append(e.asked, r.Method+" "+r.URL.String())
		w := httptest.NewRecorder()
		w.Header().Set("Date", clock.Now().UTC().Format(http.TimeFormat))
		e.api.ServeHTTP(w, r)
		return w.Result()
	})
	p, err := github.New(github.Options{
		Token: forgetest.Token, Client: forge.ClientOptions{Transport: transport, Clock: clock.Now, Sleep: clock.Sleep},
	})
	if err != nil {
		t.Fatal(err)
	}
	e.provider = codeless{p}
	return e
}

// run makes a point an hour later. It returns the counts that do not close, and the notes.
func (e *engine) run() (open []string, notes []string) {
	e.Helper()
	e.clock.Sleep(e.Context(), time.Hour) //nolint:errcheck // it is a test's clock
	e.asked = nil
	a, err := forge.NewAccount(forge.AccountOptions{
		Provider: e.provider, Name: "github.com/tester", Clock: e.clock.Now, Metadata: &forge.MetadataOptions{Files: e.files},
	})
	if err != nil {
		e.Fatal(err)
	}
	d, err := e.store.Begin(e.Context(), a.Subject(), "daily")
	if err != nil {
		e.Fatal(err)
	}
	if err := a.Capture(e.Context(), d); err != nil {
		e.Fatal(err)
	}
	receipt, err := d.Commit(e.Context())
	if err != nil {
		e.Fatal(err)
	}
	for _, p := range receipt.Point.Parts {
		if p.Kind != "metadata" {
			continue
		}
		for _, n := range p.Counts {
			if !n.Closes() {
				open = append(open, n.Of)
			}
		}
		notes = p.Notes
	}
	return open, notes
}

// good is run, and everything must be there.
func (e *engine) good() {
	e.Helper()
	if open, notes := e.run(); len(open) > 0 || len(notes) > 0 {
		e.Fatalf("the counts of %q do not close; notes %q", open, notes)
	}
}

// metadataRequests are those of the last run but for the listing and the marks, which an account shares.
func (e *engine) metadataRequests() []string {
	marked := false
	return slices.DeleteFunc(slices.Clone(e.asked), func(r string) bool {
		if strings.Contains(r, "/user") {
			return true
		}
		if strings.HasPrefix(r, "POST") && !marked { // the marks are the first that GraphQL is asked
			marked = true
			return true
		}
		return false
	})
}

// archive opens what the last run has.
func (e *engine) archive() *archive.Reader {
	e.Helper()
	a, err := forge.NewAccount(forge.AccountOptions{Provider: e.provider, Name: "github.com/tester", Clock: e.clock.Now})
	if err != nil {
		e.Fatal(err)
	}
	d, err := e.store.Begin(e.Context(), a.Subject(), "daily")
	if err != nil {
		e.Fatal(err)
	}
	w, err := d.Part(e.Context(), "forge/github.com/tester/api/metadata", "metadata")
	if err != nil {
		e.Fatal(err)
	}
	r, err := archive.Open(e.Context(), w.Prior())
	if err != nil {
		e.Fatal(err)
	}
	return r
}

func TestBudget(t *testing.T) { budget(t, 1_000, 5_000) }

// budget captures a repository of a size, and then what changes.
func budget(t *testing.T, issues, comments int) {
	t.Helper()
	m := githubtest.Grow(forgetest.NewClock().Now().Add(-time.Hour), issues, comments)
	e := newEngine(t, m)
	e.good()
	r := e.archive()
	if r.Count("issues") != issues || r.Count("comments") != comments || r.Count("timeline") != issues || r.Count("pulls") != issues/10 {
		t.Errorf("stored are %d issues, %d comments, %d events, %d pull requests", r.Count("issues"), r.Count("comments"), r.Count("timeline"), r.Count("pulls"))
	}
	repository := forge.Repository{Owner: "tester", Name: "api"}
	totals, err := e.provider.Totals(t.Context(), repository)
	if err != nil {
		t.Fatal(err)
	}
	totals["comments"] = int64(comments) // GitHub does not count them
	_, budget := forge.Estimate(e.provider.Collections(repository), totals)
	if n := int64(len(e.asked)); n > budget {
		t.Errorf("the first capture took %d requests, the budget is %d", n, budget)
	}
	t.Logf("%d requests of %d", len(e.asked), budget)

	e.good() // what changed within the last minute before a run is looked at again
	e.good()
	if asked := e.metadataRequests(); len(asked) != 0 {
		t.Errorf("a run that found nothing new asked %q", asked)
	}
	e.Edit(func(m *githubtest.Metadata) {
		c := m.Comments[77]
		c.Body, c.Updated = "edited", e.clock.Now()
		m.Items[c.On-1].Updated = e.clock.Now()
	})
	e.good()
	if asked := e.metadataRequests(); len(asked) > 4 {
		t.Errorf("an edited comment cost %d requests beside the marks: %q", len(asked), asked)
	}
	record, err := e.archive().Get(t.Context(), archive.Key{Collection: "comments", ID: "1000077"})
	if err != nil || !strings.Contains(string(record.Raw), `"edited"`) {
		t.Errorf("the comment is %s, %v", record.Raw, err)
	}
}

// gone reports whether the archive has a tombstone of a record, with what it was.
func (e *engine) gone(collection, id string) bool {
	e.Helper()
	r, err := e.archive().Get(e.Context(), archive.Key{Collection: collection, ID: id})
	if err != nil {
		e.Fatal(err)
	}
	return !r.Gone.IsZero() && len(r.Raw) > 2
}

func TestWhatChangesIsInTheArchive(t *testing.T) {
	m := everything()
	e := newEngine(t, m)
	e.good()
	for _, test := range []struct {
		name     string
		requests int
		change   func(m *githubtest.Metadata, now time.Time)
		check    func(t *testing.T, items []*neutral.Item, o *neutral.Overview)
	}{
		{"a new review, and a thread resolved", 5, func(m *githubtest.Metadata, now time.Time) {
			m.Items[1].Updated = now
			m.Items[1].Pull.Threads[1].ResolvedBy = "ada"
			m.Items[1].Pull.Reviews = append(m.Items[1].Pull.Reviews, githubtest.Review{ID: 204, User: "ada", Body: "good", State: "APPROVED", Submitted: now})
		}, func(t *testing.T, items []*neutral.Item, _ *neutral.Overview) {
			reviews := items[1].Pull.Reviews
			if len(reviews) != 4 || reviews[3].Body != "good" || !reviews[2].Comments[0].Code.Resolved {
				t.Errorf("the reviews are %+v", reviews)
			}
		}},
		{"a force push", 5, func(m *githubtest.Metadata, now time.Time) {
			m.Items[1].Updated, m.Items[1].Pull.HeadOID = now, strings.Repeat("f", 40)
		}, func(t *testing.T, items []*neutral.Item, _ *neutral.Overview) {
			if items[1].Pull.HeadOID != strings.Repeat("f", 40) {
				t.Errorf("the head is %s", items[1].Pull.HeadOID)
			}
		}},
		{"a reaction is taken back", 4, func(m *githubtest.Metadata, now time.Time) {
			m.Items[0].Updated, m.Items[0].Reactions = now, nil
		}, func(t *testing.T, items []*neutral.Item, _ *neutral.Overview) {
			if len(items[0].Reactions) != 0 || !e.gone("reactions", nodeOf("REA", e.id, 1)) {
				t.Errorf("the reactions are %v", items[0].Reactions)
			}
		}},
		{"an asset is replaced", 2, func(m *githubtest.Metadata, now time.Time) {
			m.Releases[0].Assets[0] = githubtest.Asset{ID: 602, Name: "a.tgz", Content: []byte("other"), Created: now, Updated: now}
		}, func(t *testing.T, _ []*neutral.Item, o *neutral.Overview) {
			if a := o.Releases[0].Assets; len(a) != 1 || !strings.HasSuffix(a[0].URL, "/602") || !e.gone("assets", "601") {
				t.Errorf("the assets are %+v", a)
			}
		}},
		{"a label is renamed", 2, func(m *githubtest.Metadata, _ time.Time) { m.Labels[0].Name = "fault" }, func(t *testing.T, _ []*neutral.Item, o *neutral.Overview) {
			if len(o.Labels) != 1 || o.Labels[0].Name != "fault" || !e.gone("labels", "bug") {
				t.Errorf("the labels are %+v", o.Labels[0])
			}
		}},
		{"an issue is deleted", 6, func(m *githubtest.Metadata, _ time.Time) {
			m.Items, m.Comments = m.Items[1:], nil
		}, func(t *testing.T, items []*neutral.Item, _ *neutral.Overview) {
			if len(items) != 1 || !e.gone("issues", "1") || !e.gone("comments", "101") {
				t.Errorf("there are %d items", len(items))
			}
		}},
	} {
		e.Edit(func(m *githubtest.Metadata) { test.change(m, e.clock.Now()) })
		e.good()
		r := e.archive()
		s, err := github.Decode(r)
		if err != nil {
			t.Fatal(err)
		}
		o, err := s.Overview(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var items []*neutral.Item
		for item, err := range s.Items(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			items = append(items, item)
		}
		t.Run(test.name, func(t *testing.T) { test.check(t, items, o) })
		if n := len(e.metadataRequests()); n > test.requests {
			t.Errorf("%s: %d requests beside the marks, want at most %d", test.name, n, test.requests)
		}
	}
}

func nodeOf(kind string, repository, id int64) string {
	return fmt.Sprintf("%s_%d_%d", kind, repository, id)
}

// TestLimitedView captures what there is where issues are switched off, and the token is of nobody who administers.
func TestLimitedView(t *testing.T) {
	e := newEngine(t, everything())
	e.api.Issueless, e.api.NoAdmin = []int64{e.id}, []int64{e.id}
	open, notes := e.run()
	all := strings.Join(notes, "; ")
	if len(open) > 0 || !strings.Contains(all, "rules: not read: ") || !strings.Contains(all, "hooks: not read: ") || strings.Contains(all, "issues") {
		t.Errorf("the counts of %q do not close; the notes are %q", open, notes)
	}
	r := e.archive()
	if r.Count("issues") != 1 || r.Count("pulls") != 1 || r.Count("reviews") != 3 || r.Count("rules") != 0 {
		t.Errorf("there are %d issues, %d pull requests, %d reviews", r.Count("issues"), r.Count("pulls"), r.Count("reviews"))
	}
	s, err := github.Decode(r)
	if err != nil {
		t.Fatal(err)
	}
	for item, err := range s.Items(t.Context()) {
		if err != nil || item.Pull == nil || !item.Pull.Merged || item.Pull.Base != "main" {
			t.Errorf("the pull request is %+v, %v", item, err)
		}
	}
}

func TestNothingThere(t *testing.T) {
	e := newEngine(t, &githubtest.Metadata{})
	e.good()
	if r := e.archive(); r.Count("settings") != 1 || r.Count("issues") != 0 {
		t.Errorf("an empty repository has %d issues", r.Count("issues"))
	}
}
