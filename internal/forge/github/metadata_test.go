package github_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/github"
	"github.com/backstay/backstay/internal/forge/github/githubtest"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// metadataOf serves a repository with metadata, and finds it.
func metadataOf(t *testing.T, m *githubtest.Metadata) (*served, *github.Provider, forge.Repository) {
	t.Helper()
	s := serve(t, &githubtest.API{Users: []string{"tester"}, Metadata: map[int64]*githubtest.Metadata{}})
	made := s.World.Add(forgetest.Repo{Owner: "tester", Name: "api", Description: "an <API>", Wiki: true})
	s.Metadata[made.ID] = m
	p := s.connect(t, github.Options{})
	r, err := p.Find(t.Context(), forge.Repository{Owner: "tester", Name: "api"})
	if err != nil {
		t.Fatal(err)
	}
	return s, p, r
}

// capture reads all collections as the engine does: parents first, and children in batches.
func capture(ctx context.Context, p forge.MetadataReader, r forge.Repository, since time.Time) (all []archive.Record, failed map[string]error) {
	failed = map[string]error{}
	for _, c := range p.Collections(r) {
		queries := []forge.Query{{Repository: r}}
		if c.Since {
			queries[0].Since = since
		}
		if c.Of != "" {
			queries = nil
			parents := slices.DeleteFunc(slices.Clone(all), func(parent archive.Record) bool { return parent.Collection != c.Of })
			for batch := range slices.Chunk(parents, max(c.Batch, 1)) {
				queries = append(queries, forge.Query{Repository: r, Parents: batch})
			}
		}
		for _, q := range queries {
			for record, err := range c.Read(ctx, q) {
				if err != nil {
					failed[c.Name] = err
					break
				}
				if record.Collection != c.Name && !slices.Contains(c.Also, record.Collection) {
					failed[c.Name] = fmt.Errorf("%s yields %s", c.Name, record.Key)
				}
				all = append(all, record)
			}
		}
	}
	return all, failed
}

// decoded is what a repository's metadata is in the neutral model.
func decoded(t *testing.T, records []archive.Record, account string) (*neutral.Overview, []*neutral.Item, neutral.Source) {
	t.Helper()
	r, err := archive.Of(archive.Header{Dialect: "github", Host: "github.com", Repository: "tester/api", Account: account}, records...)
	if err != nil {
		t.Fatal(err)
	}
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
	return o, items, s
}

func wantAll(t *testing.T, failed map[string]error) {
	t.Helper()
	for collection, err := range failed {
		t.Errorf("%s: %v", collection, err)
	}
}

func count(records []archive.Record) map[string]int {
	n := map[string]int{}
	for _, r := range records {
		n[r.Collection]++
	}
	return n
}

// TestEveryRecordOnce reads lists of many pages, of which some have one time for hundreds of records.
func TestEveryRecordOnce(t *testing.T) {
	m := githubtest.Grow(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), 230, 1234)
	for i, c := range m.Comments[500:850] {
		c.Updated = m.Comments[500].Updated
		if i > 300 {
			c.Updated = c.Updated.Add(time.Second)
		}
	}
	_, p, r := metadataOf(t, m)
	before := p.Requests()
	records, failed := capture(t.Context(), p, r, time.Time{})
	wantAll(t, failed)
	seen := map[archive.Key]bool{}
	for _, record := range records {
		if seen[record.Key] {
			t.Errorf("%s came twice", record.Key)
		}
		seen[record.Key] = true
	}
	if n := count(records); n["issues"] != 230 || n["comments"] != 1234 || n["labels"] != 2 || n["milestones"] != 1 {
		t.Errorf("got %v", n)
	}
	t.Logf("%d requests", p.Requests()-before)
	totals, err := p.Totals(t.Context(), r)
	if err != nil || totals["issues"] != 230 || totals["labels"] != 2 {
		t.Errorf("the totals are %v, %v", totals, err)
	}
}
