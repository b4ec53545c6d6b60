package github_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
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

// metadataOf serves a repository with metadata, and finds it.
func metadataOf(t *testing.T, m *githubtest.Metadata) (*served, *github.Provider, forge.Repository) {
	t.Helper()
	s := serve(t, &githubtest.API{Users: []string{"tester"}, Metadata: map[int64]*githubtest.Metadata{}})
	made := s.World.Add(forgetest.Repo{Owner: "acme", Name: "api", Description: "an <API>", Wiki: true})
	s.Metadata[made.ID] = m
	p := s.connect(t, github.Options{})
	r, err := p.Find(t.Context(), forge.Repository{Owner: "acme", Name: "api"})
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
	r, err := archive.Of(archive.Header{Dialect: "github", Host: "github.com", Repository: "acme/api", Account: account}, records...)
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

var (
	day   = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	sha   = "0123456789abcdef0123456789abcdef01234567"
	later = func(hours int) time.Time { return day.Add(time.Duration(hours) * time.Hour) }
)

// everything has one of each, and what is hard about it: who left, what is gone, text that is HTML.
func everything() *githubtest.Metadata {
	comment := func(id, on int64, user, body string, hour int) githubtest.Comment {
		return githubtest.Comment{ID: id, On: on, User: user, Body: body, Created: later(hour), Updated: later(hour)}
	}
	first := comment(101, 1, "", "<script>alert(1)</script> see https://github.com/user-attachments/assets/1-2", 2)
	first.Reactions = []githubtest.Reaction{{ID: 2, Content: "heart", User: "ada", Created: later(3)}}
	onLine := githubtest.ReviewComment{
		Comment: comment(301, 2, "ada", "why?", 6), Review: 201, Path: "a.go", Hunk: "@@ -1 +1 @@", OID: sha, Line: 7, OriginalLine: 7,
	}
	onLine.Reactions = []githubtest.Reaction{{ID: 3, Content: "-1", User: "", Created: later(7)}}
	reply := githubtest.ReviewComment{Comment: comment(302, 2, "grace", "because", 7), Review: 202, ReplyTo: 301, Path: "a.go", OID: sha, OriginalLine: 7}
	orphan := githubtest.ReviewComment{Comment: comment(303, 2, "linus", "hm", 8), Review: 999, Path: "b.go", OID: sha, Left: true, Start: 2, Line: 3}
	named := map[string]any{"__typename": "Label", "name": "bug"}
	return &githubtest.Metadata{
		Labels:     []githubtest.Label{{Name: "bug", Color: "D73A4A", Description: "it does not work"}},
		Milestones: []githubtest.Milestone{{Number: 4, Title: "1.0", Description: "soon", Closed: true, Due: later(100), Created: day, Updated: later(50)}},
		Topics:     []string{"backup", "go"},
		Items: []*githubtest.Item{
			{
				Number: 1, Title: "it <b>breaks</b>", Body: "badly", User: "ada", Closed: true, Reason: "not_planned", Locked: true, LockReason: "too heated",
				Labels: []string{"bug"}, Milestone: 4, Assignees: []string{"grace"}, Created: day, Updated: later(5), ClosedAt: later(5), Parent: 2,
				Reactions: []githubtest.Reaction{{ID: 1, Content: "+1", User: "grace", Created: later(1)}},
				Timeline: []githubtest.Event{
					{Type: "LabeledEvent", Actor: "ada", Created: later(1), Fields: map[string]any{"label": named}},
					{Type: "SubscribedEvent", Actor: "ada", Created: later(1)},
					{Type: "CrossReferencedEvent", Actor: "", Created: later(4), Fields: map[string]any{"willCloseTarget": false, "source": map[string]any{
						"__typename": "PullRequest", "number": 2, "repository": map[string]any{"__typename": "Repository", "nameWithOwner": "acme/api"},
					}}},
					{Type: "ClosedEvent", Actor: "linus", Created: later(5), Fields: map[string]any{"closer": nil}},
				},
			},
			{
				Number: 2, Title: "a fix", User: "", Closed: true, Created: later(1), Updated: later(9), ClosedAt: later(9),
				Timeline: []githubtest.Event{{
					Type: "HeadRefForcePushedEvent", Actor: "ada", Created: later(8), Fields: map[string]any{
						"beforeCommit": map[string]any{"__typename": "Commit", "oid": sha}, "afterCommit": nil,
					},
				}},
				Pull: &githubtest.Pull{
					Base: "main", Head: "fix", BaseOID: sha, HeadOID: sha, MergedAt: later(9), MergedBy: "grace", MergeOID: sha, Reviewers: []string{"linus"},
					Reviews: []githubtest.Review{
						{ID: 201, User: "ada", Body: "look", State: "CHANGES_REQUESTED", OID: sha, Submitted: later(6)},
						{ID: 202, User: "grace", State: "COMMENTED", OID: sha, Submitted: later(7)},
						{ID: 203, User: "linus", Body: "", State: "APPROVED", Submitted: later(8)},
					},
					Threads: []githubtest.Thread{{First: 301, ResolvedBy: "grace"}, {First: 303}},
				},
			},
		},
		Comments:       []*githubtest.Comment{&first},
		ReviewComments: []*githubtest.ReviewComment{&onLine, &reply, &orphan},
		CommitComments: []*githubtest.CommitComment{{Comment: comment(401, 0, "ada", "nice", 3), OID: sha}},
		Releases: []*githubtest.Release{
			{
				ID: 501, Tag: "v1", Target: "main", Name: "One", Body: "first", User: "ada", Created: day, Updated: later(1), Published: later(1),
				Assets: []githubtest.Asset{{ID: 601, Name: "a.tgz", Label: "all", Type: "application/gzip", Digest: "sha256:00", Content: []byte("asset"), Downloads: 3, Created: day, Updated: day}},
			},
			{ID: 502, Tag: "v2", Target: "main", User: "ada", Draft: true, Created: later(2), Updated: later(2)},
		},
		Discussions: []*githubtest.Discussion{{
			Number: 3, Title: "how?", Body: "tell", Category: "Q&A", User: "ada", Created: day, Updated: later(4), Votes: 2, Answer: 701, Labels: []string{"bug"},
			Reactions: []githubtest.Reaction{{ID: 4, Content: "eyes", User: "ada", Created: day}},
			Comments: []githubtest.DiscussionComment{{ID: 701, User: "grace", Body: "so", Created: later(1), Updated: later(1), Replies: []githubtest.DiscussionComment{
				{ID: 702, User: "ada", Body: "thanks", Created: later(2), Updated: later(2)},
			}}},
		}},
		Rules: []githubtest.Rule{{ID: 1, Pattern: "release/*", Approvals: 2, Checks: []string{"ci"}, PushBy: []string{"ada"}, Linear: true, Admins: true}},
		Rulesets: []githubtest.Ruleset{
			{ID: 801, Name: "tags", Patterns: []string{"refs/tags/v*"}, Tags: true, Updated: day, Rules: []map[string]any{{"type": "deletion"}}},
			{ID: 802, Name: "off", Patterns: []string{"~ALL"}, Disabled: true, Updated: day},
		},
		Hooks:         []githubtest.Hook{{ID: 901, URL: "https://ci:pw@ci.example.com/hook", Events: []string{"push"}, Active: true}},
		Keys:          []githubtest.Key{{ID: 11, Title: "deploy", Key: "ssh-ed25519 AAAA", ReadOnly: true}},
		Collaborators: []githubtest.Collaborator{{User: "grace", Permission: "write"}},
		Teams:         []githubtest.Team{{ID: 12, Slug: "core", Permission: "pull"}},
		Projects:      []*githubtest.Project{plan()},
		Pinned:        []int64{1},
	}
}

// plan is a project with a field of each type, and an item of each sort.
func plan() *githubtest.Project {
	return &githubtest.Project{
		ID: 21, Number: 4, Title: "Plan", Description: "what comes", Readme: "see #1", Owner: "acme", Public: true, Created: day, Updated: later(3),
		Fields: []githubtest.ProjectField{
			{Name: "Title", Type: "TITLE"},
			{Name: "Labels", Type: "LABELS"},
			{Name: "Status", Type: "SINGLE_SELECT", Options: []string{"Todo", "Done"}},
			{Name: "Points", Type: "NUMBER"},
			{Name: "Start", Type: "DATE"},
			{Name: "Sprint", Type: "ITERATION", Iterations: []string{"Sprint 1"}},
		},
		Views: []githubtest.ProjectView{{Name: "Board", Layout: "BOARD_LAYOUT", Filter: "-status:Done"}},
		Items: []githubtest.ProjectItem{
			{ID: 31, Number: 1, Repository: "acme/api", Title: "it <b>breaks</b>", Created: later(1), Updated: later(3), Values: map[string]any{
				"Title": "it <b>breaks</b>", "Status": "Done", "Points": 2.5, "Start": "2026-01-02", "Sprint": "Sprint 1", "Linked": nil,
			}},
			{ID: 32, Number: 5, Repository: "acme/web", Pull: true, Title: "elsewhere", Archived: true, Created: later(2), Updated: later(2)},
			{ID: 33, Title: "think", Body: "first", Assignees: []string{"ada"}, Created: later(3), Updated: later(3), Values: map[string]any{"Status": "Todo"}},
			{ID: 34, Created: later(4), Updated: later(4)},
		},
	}
}

// TestEverythingInTheNeutralModel captures one of each, and says what it comes down to.
func TestEverythingInTheNeutralModel(t *testing.T) {
	s, p, r := metadataOf(t, everything())
	records, failed := capture(t.Context(), p, r, time.Time{})
	wantAll(t, failed)
	o, items, source := decoded(t, records, "")
	web := s.Server.URL
	person := func(login string) neutral.User { return neutral.User{Login: login, URL: web + "/" + login} }
	ghost := neutral.User{Login: "ghost"}
	origin := func(id, page string, author neutral.User, created, updated int) neutral.Origin {
		return neutral.Origin{Forge: "github.com", URL: web + "/acme/api/" + page, ID: id, Author: author, Created: later(created), Updated: later(updated)}
	}
	issueID := func(n int64) string { return fmt.Sprint(mustID(t, r)*1000 + n) }

	want := []*neutral.Item{
		{
			Origin: origin(issueID(1), "issues/1", person("ada"), 0, 5), Number: 1, Title: "it <b>breaks</b>", Body: "badly", Closed: true, ClosedAt: later(5),
			ClosedBy: person("linus"), Reason: "not_planned", Locked: true, LockReason: "too heated", Pinned: true, Labels: []string{"bug"}, Milestone: "1.0",
			Assignees: []neutral.User{person("grace")}, Links: []neutral.Link{{Kind: "parent", To: "acme/api#2"}},
			Reactions: []neutral.Reaction{{Content: "+1", User: person("grace"), Created: later(1)}},
			Comments: []*neutral.Comment{{
				Origin: origin("101", "issues/1#issuecomment-101", ghost, 2, 2), Item: 1,
				Body:      "<script>alert(1)</script> see https://github.com/user-attachments/assets/1-2",
				Reactions: []neutral.Reaction{{Content: "heart", User: person("ada"), Created: later(3)}},
			}},
			Events: []*neutral.Event{
				{Kind: "labeled", Actor: person("ada"), Created: later(1), Text: "labeled bug"},
				{Kind: "cross-referenced", Actor: ghost, Created: later(4), Text: "cross-referenced in acme/api#2"},
				{Kind: "closed", Actor: person("linus"), Created: later(5), Text: "closed"},
			},
		},
		{
			Origin: origin(issueID(2), "pull/2", ghost, 1, 9), Number: 2, Title: "a fix", Closed: true, ClosedAt: later(9),
			Events: []*neutral.Event{{Kind: "head_ref_force_pushed", Actor: person("ada"), Created: later(8), Text: "head ref force pushed from " + sha}},
			Pull: &neutral.Pull{
				Base: "main", Head: "fix", BaseOID: sha, HeadOID: sha, Merged: true, MergedAt: later(9), MergedBy: person("grace"), MergeOID: sha,
				RequestedReviewers: []neutral.User{{Login: "linus"}},
				Reviews: []*neutral.Review{
					{
						Origin: origin("201", "pull/2#pullrequestreview-201", person("ada"), 6, 6), Item: 2, State: "changes_requested", OID: sha, Body: "look",
						Comments: []*neutral.Comment{{
							Origin: origin("301", "pull/2#discussion_r301", person("ada"), 6, 6), Item: 2, Body: "why?",
							Reactions: []neutral.Reaction{{Content: "-1", User: ghost, Created: later(7)}},
							Replies: []*neutral.Comment{{
								Origin: origin("302", "pull/2#discussion_r302", person("grace"), 7, 7), Item: 2, Body: "because",
								Code: &neutral.Code{Path: "a.go", OID: sha, OriginalOID: sha, Side: "right", OriginalLine: 7},
							}},
							Code: &neutral.Code{
								Path: "a.go", OID: sha, OriginalOID: sha, Side: "right", Line: 7, OriginalLine: 7, Hunk: "@@ -1 +1 @@", Resolved: true,
								ResolvedBy: person("grace"),
							},
						}},
					},
					{Origin: origin("203", "pull/2#pullrequestreview-203", person("linus"), 8, 8), Item: 2, State: "approved"},
					{
						Origin: neutral.Origin{Forge: "github.com", ID: "999", Author: person("linus"), Created: later(8)}, Item: 2, State: "commented", OID: sha,
						Comments: []*neutral.Comment{{
							Origin: origin("303", "pull/2#discussion_r303", person("linus"), 8, 8), Item: 2, Body: "hm",
							Code: &neutral.Code{Path: "b.go", OID: sha, OriginalOID: sha, Side: "left", Line: 3, StartLine: 2},
						}},
					},
				},
			},
		},
	}
	same(t, "items", items, want)
	same(t, "overview", o, &neutral.Overview{
		Settings: neutral.Settings{
			Description: "an <API>", Topics: []string{"backup", "go"}, DefaultBranch: "main", HasIssues: true, HasWiki: true, HasProjects: true,
			Merges: []string{"merge", "rebase"}, DeleteBranch: true,
		},
		Labels: []*neutral.Label{{Name: "bug", Color: "d73a4a", Description: "it does not work"}},
		Milestones: []*neutral.Milestone{{
			Number: 4, Title: "1.0", Description: "soon", Closed: true, Due: later(100), ClosedAt: later(50), Created: day, Updated: later(50),
		}},
		Releases: []*neutral.Release{
			{
				Origin: origin("501", "releases/tag/v1", person("ada"), 0, 1), Tag: "v1", Target: "main", Name: "One", Body: "first", Published: later(1),
				Assets: []*neutral.Asset{{
					File: neutral.File{
						URL: web + "/api/v3/repos/acme/api/releases/assets/601", Name: "a.tgz", Type: "application/gzip", Size: 5, Reason: "its bytes were not captured",
					},
					Release: "v1", Label: "all", Downloads: 3, Created: day,
				}},
			},
			{Origin: origin("502", "releases/tag/v2", person("ada"), 2, 2), Tag: "v2", Target: "main", Draft: true},
		},
		Rules: []*neutral.Rule{
			{Name: "release/*", Pattern: "release/*", Approvals: 2, Checks: []string{"ci"}, PushBy: []string{"ada"}, Linear: true, Admins: true},
			{Name: "tags", Pattern: "v*", Tags: true, ForcePush: true, Admins: true},
		},
		Hooks: []*neutral.Hook{{URL: "https://ci.example.com/hook", Events: []string{"push"}, ContentType: "json", Active: true}},
		Keys:  []*neutral.DeployKey{{Title: "deploy", Key: "ssh-ed25519 AAAA", ReadOnly: true}},
		Collaborators: []*neutral.Collaborator{
			{User: person("grace"), Permission: "write"}, {User: neutral.User{Login: "acme/core"}, Permission: "read"},
		},
		Projects: []*neutral.Project{{
			Title: "Plan", Description: "what comes", Readme: "see #1", Owner: neutral.User{Login: "acme"}, URL: web + "/orgs/acme/projects/4", Public: true,
			Created: day, Updated: later(3),
			Fields: []neutral.ProjectField{
				{Name: "Title", Type: "title"},
				{Name: "Labels", Type: "labels"},
				{Name: "Status", Type: "single_select", Options: []string{"Todo", "Done"}},
				{Name: "Points", Type: "number"},
				{Name: "Start", Type: "date"},
				{Name: "Sprint", Type: "iteration", Options: []string{"Sprint 1"}},
			},
			Views: []string{"Board"},
			Items: []*neutral.ProjectItem{
				{To: "acme/api#1", Title: "it <b>breaks</b>", Created: later(1), Values: []neutral.ProjectValue{
					{Field: "Points", Value: "2.5"},
					{Field: "Sprint", Value: "Sprint 1"},
					{Field: "Start", Value: "2026-01-02"},
					{Field: "Status", Value: "Done"},
					{Field: "Title", Value: "it <b>breaks</b>"},
				}},
				{To: "acme/web#5", Title: "elsewhere", Archived: true, Created: later(2)},
				{Title: "think", Body: "first", Draft: true, Created: later(3), Values: []neutral.ProjectValue{{Field: "Status", Value: "Todo"}}},
				{Created: later(4)},
			},
		}},
		Items: 2, Discussions: 1,
	})
	var discussions []*neutral.Discussion
	for d, err := range source.Discussions(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		discussions = append(discussions, d)
	}
	same(t, "discussions", discussions, []*neutral.Discussion{{
		Item: neutral.Item{
			Origin: origin(issueID(3), "discussions/3", person("ada"), 0, 4), Number: 3, Title: "how?", Body: "tell", Labels: []string{"bug"},
			Reactions: []neutral.Reaction{{Content: "eyes", User: person("ada"), Created: day}},
			Comments: []*neutral.Comment{{
				Origin: origin("701", "discussions/3#discussioncomment-701", person("grace"), 1, 1), Item: 3, Body: "so", Answer: true,
				Replies: []*neutral.Comment{{Origin: origin("702", "discussions/3#discussioncomment-702", person("ada"), 2, 2), Item: 3, Body: "thanks"}},
			}},
		},
		Category: "Q&A", Answered: true, Votes: 2,
	}})
	if n := count(records); n["commit-comments"] != 1 || n["assets"] != 1 {
		t.Errorf("captured %v", n)
	}
}

func mustID(t *testing.T, r forge.Repository) int64 {
	t.Helper()
	id, err := strconv.ParseInt(r.ID, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// same compares by JSON, which has everything of the model.
func same(t *testing.T, what string, got, want any) {
	t.Helper()
	a, errA := json.MarshalIndent(got, "", " ")
	b, errB := json.MarshalIndent(want, "", " ")
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	if bytes.Equal(a, b) {
		return
	}
	x, y := strings.Split(string(a), "\n"), strings.Split(string(b), "\n")
	for i := range x {
		if i >= len(y) || x[i] != y[i] {
			t.Errorf("%s differ from line %d on:\n got %s\nwant %s", what, i+1, strings.Join(x[i:min(i+8, len(x))], "\n     "), strings.Join(y[min(i, len(y)):min(i+8, len(y))], "\n     "))
			return
		}
	}
	t.Errorf("%s: want further\n%s", what, strings.Join(y[len(x):], "\n"))
}
