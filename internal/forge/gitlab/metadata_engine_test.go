package gitlab_test

import (
	"context"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/gitlab"
	"github.com/backstay/backstay/internal/point/memory"
)

// codeless is a GitLab whose projects have no address for git: their parts fail, and their metadata is captured.
type codeless struct{ *gitlab.Provider }

func (c codeless) Repositories(ctx context.Context, s forge.Selection) iter.Seq2[forge.Repository, error] {
	return func(yield func(forge.Repository, error) bool) {
		for r, err := range c.Provider.Repositories(ctx, s) {
			r.HTTPURL, r.SSHURL, r.WikiHTTPURL = "", "", ""
			if !yield(r, err) {
				return
			}
		}
	}
}

// point makes a restore point an hour later, and opens the archive that the only project has in it. asked is what the API was asked
// for the project alone.
func (b *bench) point(t *testing.T, store *memory.Store) (r *archive.Reader, asked []string) {
	t.Helper()
	b.clock.Advance(time.Hour)
	b.server.Mend()
	a, err := forge.NewAccount(forge.AccountOptions{
		Provider: codeless{b.Provider}, Name: "gitlab/tester", Clock: b.clock.Now, Metadata: &forge.MetadataOptions{},
	})
	if err != nil {
		t.Fatal(err)
	}
	d, err := store.Begin(t.Context(), a.Subject(), "daily")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Capture(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	receipt, err := d.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name := ""
	for _, p := range receipt.Point.Parts {
		if p.Kind != "metadata" {
			continue
		}
		for _, n := range p.Counts {
			if !n.Closes() {
				t.Errorf("%s does not close: %+v", n.Of, n)
			}
		}
		if len(p.Notes) > 0 {
			t.Errorf("notes %q", p.Notes)
		}
		name = p.Name
	}
	for _, request := range b.server.Requests() {
		if strings.Contains(request.Path, "/projects/") {
			asked = append(asked, request.Path[strings.Index(request.Path, "/projects/")+len("/projects/1003"):])
		}
	}
	next, err := store.Begin(t.Context(), a.Subject(), "daily")
	if err != nil {
		t.Fatal(err)
	}
	w, err := next.Part(t.Context(), name, "metadata")
	if err != nil {
		t.Fatal(err)
	}
	if r, err = archive.Open(t.Context(), w.Prior()); err != nil {
		t.Fatal(err)
	}
	return r, asked
}

// An unchanged project costs nothing, and an edited note what belongs to its issue.
func TestCaptureCostsWhatChanged(t *testing.T) {
	b := newBench(t)
	made := b.world.Add(forgetest.Repo{Owner: "acme", Name: "api", Private: true})
	b.fake.furnish(made)
	store := memory.New(b.clock.Now)
	first, asked := b.point(t, store)
	if first.Count("issues") != 3 || first.Count("comments") != 4 || first.Count("pulls") != 2 || first.Count("reviews") != 2 {
		t.Errorf("%d issues, %d comments", first.Count("issues"), first.Count("comments"))
	}
	if h := first.Header(); h.Account != "tester" || h.Dialect != "gitlab" || h.ID == "" {
		t.Errorf("header %+v", h)
	}
	_, sum := forge.Estimate(b.Collections(forge.Repository{ID: "1"}), map[string]int64{"issues": 3, "pulls": 2})
	if n := int64(len(asked)); n > sum || sum > n+8 {
		t.Errorf("the first reading took %d requests, and %d were foreseen", n, sum)
	}
	if _, asked = b.point(t, store); len(asked) > 0 {
		t.Errorf("unchanged, it asks %q", asked)
	}

	note := b.fake.shelves[made.ID]["issues/1/discussions"][0]["notes"].([]object)[0]
	note["body"] = "not me"
	b.fake.tick += 7200
	b.fake.touch(made.ID, "issues/1")
	b.clock.Advance(3 * time.Hour)
	after, asked := b.point(t, store)
	if len(asked) > 9 {
		t.Errorf("an edited note costs %d requests: %q", len(asked), asked)
	}
	for record, err := range after.All(t.Context(), "comments") {
		if err == nil && strings.Contains(string(record.Raw), "not me") {
			return
		}
	}
	t.Error("the note is as it was")
}
