package gitlab_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/gitlab"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// capture reads all that a project has, as an engine does: parents, then what belongs to them.
func (b *bench) capture(t *testing.T, r forge.Repository) *archive.Reader {
	t.Helper()
	var all []archive.Record
	by := map[string][]archive.Record{}
	for _, c := range b.Collections(r) {
		queries := []forge.Query{{Repository: r}}
		if c.Of != "" {
			queries = nil
			for batch := range slices.Chunk(by[c.Of], max(c.Batch, 1)) {
				queries = append(queries, forge.Query{Repository: r, Parents: batch})
			}
		}
		for _, q := range queries {
			for record, err := range c.Read(t.Context(), q) {
				if err != nil {
					t.Fatalf("%s: %v", c.Name, err)
				}
				by[record.Collection] = append(by[record.Collection], record)
				all = append(all, record)
			}
		}
	}
	archived, err := archive.Of(archive.Header{
		Version: 1, Dialect: b.Dialect(), Host: b.Host(), Repository: r.FullName(), Account: "tester",
	}, all...)
	if err != nil {
		t.Fatal(err)
	}
	return archived
}

// furnished is a bench with a project that has some of everything.
func furnished(t *testing.T) (*bench, forge.Repository) {
	t.Helper()
	b := newBench(t)
	made := b.world.Add(forgetest.Repo{Owner: "acme", Name: "api", Description: "an API", Wiki: true, Private: true})
	b.fake.furnish(made)
	r, err := b.Find(t.Context(), forge.Repository{Owner: "acme", Name: "api"})
	if err != nil {
		t.Fatal(err)
	}
	return b, r
}

func items(t *testing.T, s neutral.Source) (all []*neutral.Item) {
	t.Helper()
	for item, err := range s.Items(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, item)
	}
	return all
}

func TestCapturedMetadata(t *testing.T) {
	b, r := furnished(t)
	archived := b.capture(t, r)
	want := map[string]int{
		"settings": 1, "labels": 2, "milestones": 1, "issues": 3, "pulls": 2, "comments": 4, "review-comments": 3, "timeline": 4,
		"reactions": 1, "links": 1, "commits-of-pulls": 1, "reviews": 2, "releases": 1, "rules": 1, "tag-rules": 1, "hooks": 1, "keys": 1,
		"collaborators": 1, "snippets": 1, "boards": 1,
	}
	for name, n := range want {
		if got := archived.Count(name); got != n {
			t.Errorf("%d of %s, want %d", got, name, n)
		}
	}
	for _, of := range []struct{ child, parent string }{{"comments", "issues/1"}, {"review-comments", "pulls/1"}, {"reviews", "pulls/2"}} {
		collection, id, _ := strings.Cut(of.parent, "/")
		n := 0
		for _, err := range archived.Children(t.Context(), archive.Key{Collection: collection, ID: id}, of.child) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n == 0 {
			t.Errorf("no %s of %s", of.child, of.parent)
		}
	}
	totals, err := b.Totals(t.Context(), r)
	if err != nil || totals["issues"] != 3 || totals["pulls"] != 2 {
		t.Errorf("totals %v, %v", totals, err)
	}
	for record, err := range archived.All(t.Context(), "hooks") {
		if err != nil || strings.Contains(string(record.Raw), "geheim") || strings.Contains(string(record.Raw), "pw") {
			t.Errorf("%s, %v", record.Raw, err)
		}
	}
}

func TestDecodedMetadata(t *testing.T) {
	b, r := furnished(t)
	s, err := gitlab.Decode(b.capture(t, r))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, item := range items(t, s) {
		sign := "#"
		if item.Pull != nil {
			sign = "!"
		}
		got = append(got, sign+string(rune('0'+item.Number)))
	}
	if want := []string{"#1", "!1", "#2", "!2", "#7"}; !slices.Equal(got, want) {
		t.Errorf("items %v, want %v", got, want)
	}
	all := items(t, s)
	issue, draft, merged := all[0], all[1], all[3]
	if issue.Author.Login != "ada" || !issue.Closed || issue.ClosedBy.Login != "bob" || !issue.Locked || issue.Milestone != "v1" ||
		!slices.Equal(issue.Labels, []string{"bug", "prio::high"}) || issue.Due.Format(time.DateOnly) != "2026-01-20" ||
		!issue.Created.Equal(time.Date(2026, 1, 10, 10, 0, 0, 0, time.UTC)) {
		t.Errorf("issue %+v", issue)
	}
	if len(issue.Comments) != 2 || issue.Comments[0].Body != "me too" || len(issue.Comments[1].Replies) != 1 || issue.Comments[1].Replies[0].Body != "because" {
		t.Errorf("comments %+v", issue.Comments)
	}
	if !issue.Comments[0].Internal || issue.Comments[1].Internal || issue.Confidential || !all[2].Confidential {
		t.Error("what is for members only is not known, or what is not")
	}
	var kinds []string
	for _, e := range issue.Events {
		kinds = append(kinds, e.Kind)
	}
	if want := []string{"labeled", "unlabeled", "milestoned", "cross-referenced", "closed"}; !slices.Equal(kinds, want) {
		t.Errorf("events %v, want %v", kinds, want)
	}
	if len(issue.Reactions) != 1 || issue.Reactions[0].Content != "+1" || !slices.Equal(issue.Links, []neutral.Link{{Kind: "blocked_by", To: "acme/api#2"}}) {
		t.Errorf("reactions %+v, links %+v", issue.Reactions, issue.Links)
	}
	if draft.Title != "mend it" || !draft.Pull.Draft || draft.Pull.BaseOID != strings.Repeat("a", 40) || draft.Pull.HeadRepository != "acme/api" ||
		len(draft.Pull.Reviews) != 1 || len(draft.Comments) != 1 {
		t.Fatalf("merge request %+v, %+v", draft, draft.Pull)
	}
	code := draft.Pull.Reviews[0].Comments[0].Code
	if code.Path != "main.go" || code.Line != 12 || code.Side != "right" || !code.Resolved || code.ResolvedBy.Login != "ada" ||
		len(draft.Pull.Reviews[0].Comments[0].Replies) != 1 {
		t.Errorf("on code: %+v", code)
	}
	if !merged.Pull.Merged || merged.Pull.MergedBy.Login != "cy" || merged.Pull.HeadRepository != "" || len(merged.Pull.Reviews) != 1 ||
		merged.Pull.Reviews[0].State != "approved" || merged.Pull.Reviews[0].Created.IsZero() {
		t.Errorf("merged %+v", merged.Pull)
	}
	if issue.ID == all[2].ID || issue.ID == draft.ID {
		t.Errorf("IDs %s, %s, %s", issue.ID, draft.ID, all[2].ID)
	}

	o, err := s.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if o.Items != 5 || o.Settings.Description != "an API" || !o.Settings.Private || len(o.Labels) != 2 || o.Labels[0].Color != "ff0000" || !o.Labels[1].Exclusive {
		t.Errorf("overview %+v", o)
	}
	if m := o.Milestones[0]; m.Title != "v1" || !m.Closed || m.Due.IsZero() {
		t.Errorf("milestone %+v", m)
	}
	if rel := o.Releases[0]; rel.Tag != "v1.0" || rel.Published.Day() != 17 || len(rel.Assets) != 2 || rel.Assets[1].Reason == "" {
		t.Errorf("release %+v", rel)
	}
	if len(o.Rules) != 2 || !slices.Equal(o.Rules[0].PushBy, []string{"Maintainers"}) || !o.Rules[1].Tags || !slices.Equal(o.Rules[1].PushBy, []string{"No one"}) {
		t.Errorf("rules %+v", o.Rules)
	}
	if h := o.Hooks[0]; h.URL != "https://ci.example.com/hook" || !slices.Equal(h.Events, []string{"note", "push"}) {
		t.Errorf("hook %+v", h)
	}
	if !o.Keys[0].ReadOnly || o.Collaborators[0].Permission != "maintain" {
		t.Errorf("keys %+v, collaborators %+v", o.Keys[0], o.Collaborators[0])
	}
}

// What changed is read by its time: each thing once, however many were made in one instant, and what changes meanwhile is not missed.
func TestChangedSince(t *testing.T) {
	b := newBench(t)
	made := b.world.Add(forgetest.Repo{Owner: "acme", Name: "api"})
	r := forge.Repository{ID: "1002", Owner: "acme", Name: "api"}
	if r2, err := b.Find(t.Context(), forge.Repository{Owner: "acme", Name: "api"}); err == nil {
		r = r2
	}
	instant := "2026-01-01T00:00:00.000Z"
	for i := range 730 {
		more := object{"created_at": instant}
		if i >= 350 {
			more = nil
		}
		b.fake.item(made.ID, "issues", i+1, more)
	}
	issues := collection(t, b.Collections(r), "issues")
	seen := map[string]int{}
	for record, err := range issues.Read(t.Context(), forge.Query{Repository: r}) {
		if err != nil {
			t.Fatal(err)
		}
		if len(seen) == 400 {
			b.fake.mu.Lock()
			b.fake.touch(made.ID, "issues/399")
			b.fake.mu.Unlock()
		}
		seen[record.ID]++
	}
	if len(seen) != 730 || seen["399"] != 2 || seen["1"] != 1 || seen["730"] != 1 {
		t.Errorf("%d issues, the changed one %d times", len(seen), seen["399"])
	}
	b.server.Mend()
	since, _ := time.Parse(time.RFC3339Nano, b.fake.shelves[made.ID].one("issues/399")["updated_at"].(string))
	n := 0
	for record, err := range issues.Read(t.Context(), forge.Query{Repository: r, Since: since}) {
		if err != nil || record.ID != "399" {
			t.Errorf("%s, %v", record.ID, err)
		}
		n++
	}
	if requests := len(b.server.Requests()); n != 1 || requests != 1 {
		t.Errorf("%d records by %d requests", n, requests)
	}
}

func collection(t *testing.T, all []forge.Collection, name string) forge.Collection {
	t.Helper()
	i := slices.IndexFunc(all, func(c forge.Collection) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no %s", name)
	}
	return all[i]
}

func TestWhatIsNotThereOrNotSeen(t *testing.T) {
	b, r := furnished(t)
	comments := collection(t, b.Collections(r), "comments")
	gone := archive.Record{Key: archive.Key{Collection: "issues", ID: "99"}}
	for record, err := range comments.Read(t.Context(), forge.Query{Repository: r, Parents: []archive.Record{gone}}) {
		t.Errorf("of an issue that was removed: %s, %v", record.ID, err)
	}
	b.fake.hidden["hooks"] = true
	for _, err := range collection(t, b.Collections(r), "hooks").Read(t.Context(), forge.Query{Repository: r}) {
		if !errors.Is(err, fault.ErrDenied) || !strings.Contains(strings.Join(fault.Hints(err), " "), "Maintainer") {
			t.Errorf("got %v, %s", err, strings.Join(fault.Hints(err), " "))
		}
	}
	r.Raw = []byte(`{"issues_access_level":"disabled","snippets_access_level":"disabled","releases_access_level":"private"}`)
	var names []string
	for _, c := range b.Collections(r) {
		names = append(names, c.Name)
		if c.Of == "issues" {
			t.Errorf("%s are asked for without issues", c.Name)
		}
	}
	if slices.Contains(names, "issues") || slices.Contains(names, "snippets") || slices.Contains(names, "boards") ||
		!slices.Contains(names, "releases") || !slices.Contains(names, "pulls") {
		t.Errorf("of what is switched off, or not, it asks for %q", names)
	}
}

func TestMetadataMarks(t *testing.T) {
	b, r := furnished(t)
	other := b.world.Add(forgetest.Repo{Owner: "acme", Name: "bare"})
	all := []forge.Repository{r, {ID: "snippet-4"}, {ID: fmt.Sprint(other.ID)}}
	marks := func() map[string]string {
		t.Helper()
		found, err := b.MetadataMarks(t.Context(), all)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if got := marks(); got[r.ID] != "" || got[fmt.Sprint(other.ID)] == "" {
		t.Errorf("just after a change: %v", got)
	}
	b.clock.Advance(time.Hour)
	first := marks()
	if first[r.ID] == "" || marks()[r.ID] != first[r.ID] {
		t.Errorf("marks %v", first)
	}
	for name, change := range map[string]func(){
		"a note":         func() { b.fake.thread(other.ID-1, "issues/2", object{"body": "new"}) },
		"an issue less":  func() { b.fake.shelves[other.ID-1]["issues"] = b.fake.shelves[other.ID-1]["issues"][:2] },
		"a release more": func() { b.fake.add(other.ID-1, "releases", object{"tag_name": "v2"}) },
	} {
		before := marks()
		change()
		b.clock.Advance(time.Hour)
		if after := marks(); after[r.ID] == before[r.ID] || after[fmt.Sprint(other.ID)] != first[fmt.Sprint(other.ID)] {
			t.Errorf("%s: %v, then %v", name, before, after)
		}
	}
	b.fake.old = true
	if got := marks(); len(got) > 0 {
		t.Errorf("of an old server: %v", got)
	}
}
