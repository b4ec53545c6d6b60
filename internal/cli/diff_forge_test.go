package cli

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/github"
	"github.com/backstay/backstay/internal/forge/github/githubtest"
	"github.com/backstay/backstay/internal/forge/neutral"
	"github.com/backstay/backstay/internal/protect"
)

// hub is an account of a GitHub, captured point after point.
type hub struct {
	*testing.T
	*fixture
	clock    *forgetest.Clock
	world    *forgetest.World
	api, web *githubtest.Metadata // of two repositories
	apiID    int64
	provider forge.Provider
}

// metadataOnly lists repositories without addresses for git: their code fails, and their metadata is captured.
type metadataOnly struct{ *github.Provider }

func (p metadataOnly) Repositories(ctx context.Context, s forge.Selection) iter.Seq2[forge.Repository, error] {
	return func(yield func(forge.Repository, error) bool) {
		for r, err := range p.Provider.Repositories(ctx, s) {
			r.HTTPURL, r.SSHURL = "", ""
			if !yield(r, err) {
				return
			}
		}
	}
}

type transport func(r *http.Request) *http.Response

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r), nil }

func newHub(t *testing.T) *hub {
	t.Helper()
	clock := forgetest.NewClock()
	day := clock.Now().Add(-24 * time.Hour)
	h := &hub{T: t, fixture: newFixture(t), clock: clock, world: forgetest.NewWorld(clock.Now), web: &githubtest.Metadata{}, api: &githubtest.Metadata{
		Items: []*githubtest.Item{
			{Number: 1, Title: "It breaks", Body: "at once", User: "ada", Created: day, Updated: day},
			{Number: 2, Title: "Mend it", User: "ada", Created: day, Updated: day, Pull: &githubtest.Pull{
				Base: "main", Head: "fix", HeadRepository: "tester/api", BaseOID: strings.Repeat("a", 40), HeadOID: strings.Repeat("b", 40),
			}},
			{Number: 3, Title: "To go elsewhere", User: "ada", Created: day, Updated: day},
		},
		Comments: []*githubtest.Comment{{ID: 11, On: 2, User: "ada", Body: "as it was said", Created: day, Updated: day}},
		Releases: []*githubtest.Release{{ID: 21, Tag: "v1", Name: "One", User: "ada", Created: day, Updated: day, Published: day, Assets: []githubtest.Asset{
			{ID: 31, Name: "a.tgz", Content: []byte("the first bytes"), Created: day, Updated: day},
		}}},
	}}
	fake := &githubtest.API{World: h.world, Metadata: map[int64]*githubtest.Metadata{}}
	h.apiID = h.world.Add(forgetest.Repo{Owner: "tester", Name: "api"}).ID
	fake.Metadata[h.apiID] = h.api
	fake.Metadata[h.world.Add(forgetest.Repo{Owner: "tester", Name: "web"}).ID] = h.web
	p, err := github.New(github.Options{Token: forgetest.Token, Client: forge.ClientOptions{Clock: clock.Now, Sleep: clock.Sleep, Transport: transport(func(r *http.Request) *http.Response {
		w := httptest.NewRecorder()
		w.Header().Set("Date", clock.Now().UTC().Format(http.TimeFormat))
		fake.ServeHTTP(w, r)
		return w.Result()
	})}})
	if err != nil {
		t.Fatal(err)
	}
	h.provider = metadataOnly{p}
	return h
}

// capture makes a point an hour later.
func (h *hub) capture() (id string) {
	h.Helper()
	h.clock.Advance(time.Hour)
	a, err := forge.NewAccount(forge.AccountOptions{
		Provider: h.provider, Name: "github.com/tester", Clock: h.clock.Now, Metadata: &forge.MetadataOptions{Files: true},
	})
	if err != nil {
		h.Fatal(err)
	}
	d, err := h.store.Begin(h.Context(), a.Subject(), "daily")
	if err != nil {
		h.Fatal(err)
	}
	if err := a.Capture(h.Context(), d); err != nil {
		h.Fatal(err)
	}
	receipt, err := d.Commit(h.Context())
	if err != nil {
		h.Fatal(err)
	}
	return receipt.Point.ID
}

// decoded is what a point has of a repository, as a restore reads it.
func (h *hub) decoded(id, repository string) (o *neutral.Overview, items map[int64]*neutral.Item, s neutral.Source) {
	h.Helper()
	_, from, err := h.store.Open(h.Context(), id)
	if err != nil {
		h.Fatal(err)
	}
	options, _, err := sourceOf(h.Context(), protect.Within(from, "forge/github.com/tester/"+repository+"/metadata"))
	if err != nil {
		h.Fatal(err)
	}
	if o, err = options.From.Overview(h.Context()); err != nil {
		h.Fatal(err)
	}
	items = map[int64]*neutral.Item{}
	for item, err := range options.From.Items(h.Context()) {
		if err != nil {
			h.Fatal(err)
		}
		items[item.Number] = item
	}
	return o, items, options.From
}

// asset is what the bytes of the first asset are.
func (h *hub) asset(id string) string {
	h.Helper()
	o, _, s := h.decoded(id, "api")
	f, err := s.Open(h.Context(), &o.Releases[0].Assets[0].File)
	if err != nil {
		h.Fatal(err)
	}
	defer f.Close()
	content, err := io.ReadAll(f)
	if err != nil {
		h.Fatal(err)
	}
	return string(content)
}

// What people do at a forge is told by diff, and the point before has what was.
func TestWhatIsDoneAtAForgeIsToldAndNothingIsLost(t *testing.T) {
	const api, web, backend = "forge/github.com/tester/api/metadata", "forge/github.com/tester/web/metadata", "forge/github.com/tester/backend/metadata"
	h := newHub(t)
	before := h.capture()
	for _, step := range []struct {
		name   string
		change func(now time.Time)
		want   []protect.Change // Before and After are pieces of what is told
		old    func(t *testing.T, before, after string)
	}{
		{"an edited comment", func(now time.Time) {
			h.api.Edit(func(m *githubtest.Metadata) {
				m.Comments[0].Body, m.Comments[0].Updated, m.Items[1].Updated = "as it was never said", now, now
			})
		}, []protect.Change{{Part: api, Item: "comments/11", What: "changed", Before: `body: "as it was said"`, After: `body: "as it was never said"`}}, func(t *testing.T, before, after string) {
			_, was, _ := h.decoded(before, "api")
			_, is, _ := h.decoded(after, "api")
			if was[2].Comments[0].Body != "as it was said" || is[2].Comments[0].Body != "as it was never said" {
				t.Errorf("it was %q, and is %q", was[2].Comments[0].Body, is[2].Comments[0].Body)
			}
		}},
		{"a force push", func(now time.Time) {
			h.api.Edit(func(m *githubtest.Metadata) {
				m.Items[1].Pull.HeadOID, m.Items[1].Updated = strings.Repeat("c", 40), now
			})
		}, []protect.Change{{Part: api, Item: "pulls/2", What: "changed", Before: strings.Repeat("b", 40), After: strings.Repeat("c", 40)}}, func(t *testing.T, before, after string) {
			_, was, _ := h.decoded(before, "api")
			_, is, _ := h.decoded(after, "api")
			if was[2].Pull.HeadOID != strings.Repeat("b", 40) || is[2].Pull.HeadOID != strings.Repeat("c", 40) {
				t.Errorf("the head was %s, and is %s", was[2].Pull.HeadOID, is[2].Pull.HeadOID)
			}
		}},
		{"a replaced asset", func(now time.Time) {
			h.api.Edit(func(m *githubtest.Metadata) {
				m.Releases[0].Assets[0] = githubtest.Asset{ID: 32, Name: "a.tgz", Content: []byte("other bytes"), Created: now, Updated: now}
			})
		}, []protect.Change{
			{Part: api, Item: "assets/31", What: "removed", Before: "a.tgz"}, {Part: api, Item: "assets/32", What: "added", After: "a.tgz"},
		}, func(t *testing.T, before, after string) {
			if was, is := h.asset(before), h.asset(after); was != "the first bytes" || is != "other bytes" {
				t.Errorf("the asset was %q, and is %q", was, is)
			}
		}},
		{"a transferred issue", func(now time.Time) {
			h.api.Edit(func(m *githubtest.Metadata) {
				m.Items = slices.DeleteFunc(m.Items, func(i *githubtest.Item) bool { return i.Number == 3 })
			})
			h.web.Edit(func(m *githubtest.Metadata) {
				m.Items = append(m.Items, &githubtest.Item{Number: 1, Title: "To go elsewhere", User: "ada", Created: now.Add(-48 * time.Hour), Updated: now})
			})
		}, []protect.Change{
			{Part: api, Item: "issues/3", What: "removed", Before: "To go elsewhere"}, {Part: web, Item: "issues/1", What: "added", After: "To go elsewhere"},
		}, func(t *testing.T, before, after string) {
			_, was, _ := h.decoded(before, "api")
			_, is, _ := h.decoded(after, "api")
			_, there, _ := h.decoded(after, "web")
			if was[3] == nil || is[3] != nil || there[1] == nil {
				t.Errorf("it was %v, is %v, and %v elsewhere", was[3], is[3], there[1])
			}
		}},
		{"a deleted issue", func(time.Time) {
			h.api.Edit(func(m *githubtest.Metadata) { m.Items = m.Items[1:] })
		}, []protect.Change{{Part: api, Item: "issues/1", What: "removed", Before: "It breaks"}}, func(t *testing.T, before, after string) {
			_, was, _ := h.decoded(before, "api")
			_, is, _ := h.decoded(after, "api")
			if was[1] == nil || was[1].Body != "at once" || was[1].Author.Login != "ada" || is[1] != nil {
				t.Errorf("it was %+v, and is %v", was[1], is[1])
			}
		}},
		{"a renamed repository", func(time.Time) { h.world.Rename(h.apiID, "backend") }, []protect.Change{
			{Part: api, What: "removed"}, {Part: backend, What: "added"},
		}, func(t *testing.T, before, after string) {
			was, items, _ := h.decoded(before, "api")
			is, same, _ := h.decoded(after, "backend")
			if len(was.Releases) != 1 || len(is.Releases) != 1 || len(items) != 1 || len(same) != 1 {
				t.Errorf("there were %d releases and %d items, and are %d and %d", len(was.Releases), len(items), len(is.Releases), len(same))
			}
		}},
	} {
		h.clock.Advance(time.Hour)
		step.change(h.clock.Now())
		after := h.capture()
		t.Run(step.name, func(t *testing.T) {
			h.told(t, before, after, step.want)
			step.old(t, before, after)
		})
		before = after
	}
}

// told checks that diff tells of changes, as JSON and as text.
func (h *hub) told(t *testing.T, before, after string, want []protect.Change) {
	t.Helper()
	var doc diffDocument
	if status := h.run(t.Context(), "diff", before, after, "--json"); status != 0 {
		t.Fatalf("%d %s", status, &h.stderr)
	}
	if err := json.Unmarshal(h.stdout.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if status := h.run(t.Context(), "diff", before, after); status != 0 {
		t.Fatalf("%d %s", status, &h.stderr)
	}
	text := strings.Split(h.stdout.String(), "\n")
	for _, w := range want {
		told := slices.IndexFunc(doc.Changes, func(c protect.Change) bool {
			return c.Part == w.Part && c.Item == w.Item && c.What == w.What && strings.Contains(c.Before, w.Before) && strings.Contains(c.After, w.After)
		})
		if told < 0 || !slices.Contains(text, printable(changeLine(doc.Changes[max(told, 0)]))) {
			t.Errorf("nothing tells of %+v:\n%s", w, strings.Join(text, "\n"))
		}
	}
}
