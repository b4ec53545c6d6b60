package bitbucket_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/bitbucket"
	"github.com/backstay/backstay/internal/forge/forgetest"
)

func itoa(v any) string { return fmt.Sprint(v) }

// furnished is a bench with a repository that has something beside its code.
func furnished(t *testing.T) (*bench, *forgetest.Capturing) {
	t.Helper()
	b := newBench(t, account())
	b.fake.member = []string{"acme"}
	b.world.Add(forgetest.Repo{Owner: "acme", Name: "api", Private: true})
	b.fake.furnish(b.server.URL)
	return b, &forgetest.Capturing{Provider: b.Provider, Clock: b.clock, Files: true}
}

// asked are the requests for the repository since the server was mended.
func (b *bench) asked() (all []string) {
	for _, r := range b.server.Requests() {
		if at, ok := strings.CutPrefix(r.Path, "/2.0/repositories/acme/api/"); ok {
			all = append(all, at)
		}
	}
	return all
}

func TestPullRequestsComeBackWhole(t *testing.T) {
	_, c := furnished(t)
	made := c.Run(t)
	if len(made.Open) > 0 || len(made.Notes) > 0 {
		t.Errorf("does not close: %q, notes %q", made.Open, made.Notes)
	}
	items, _ := forgetest.Decoded(t, bitbucket.Decode, made.Reader)
	pull := items[3]
	if pull == nil || len(items) != 2 {
		t.Fatalf("%d items", len(items))
	}
	if pull.Author.Login != "jo" || !pull.Closed || pull.ClosedBy.Login != "ada" || pull.ClosedAt.Day() != 5 || pull.Title != "Fix it" {
		t.Errorf("%+v", pull)
	}
	p := pull.Pull
	if !p.Merged || p.MergeOID != "3333" || p.Head != "fix" || p.HeadRepository != "" || p.HeadOID != headOID || p.Base != "main" {
		t.Errorf("%+v", p)
	}
	if len(p.RequestedReviewers) != 1 || p.RequestedReviewers[0].Login != "eve" {
		t.Errorf("asked for a review: %+v", p.RequestedReviewers)
	}
	var comments, reviews, events []string
	for _, c := range pull.Comments {
		comments = append(comments, c.Author.Login+": "+c.Body)
	}
	for _, r := range p.Reviews {
		reviews = append(reviews, r.Author.Login+" "+r.State)
		for _, c := range r.Comments {
			reviews = append(reviews, fmt.Sprintf("%s:%d %s, resolved %v, %d answer by %s", c.Code.Path, c.Code.Line, c.Body, c.Code.Resolved,
				len(c.Replies), c.Replies[0].Author.Login))
		}
	}
	for _, e := range pull.Events {
		events = append(events, e.Actor.Login+" "+e.Text)
	}
	for _, test := range []struct{ got, want []string }{
		{comments, []string{"ada: Why?", "ada: - [x] a test"}},
		{reviews, []string{"ada commented", "a.go:7 This line, resolved true, 1 answer by jo", "ada approved"}},
		{events, []string{"jo committed " + headOID, `jo renamed from "Fix" to "Fix it"`, "ada approved", "ada merged"}},
	} {
		if !slices.Equal(test.got, test.want) {
			t.Errorf("got  %q\nwant %q", test.got, test.want)
		}
	}
}

func TestWhatARepositoryHasBesidePullRequests(t *testing.T) {
	_, c := furnished(t)
	made := c.Run(t)
	_, o := forgetest.Decoded(t, bitbucket.Decode, made.Reader)
	if len(o.Rules) != 1 || o.Rules[0].Pattern != "main" || o.Rules[0].ForcePush || !o.Rules[0].Delete || o.Rules[0].Approvals != 2 {
		t.Errorf("rules %+v", o.Rules[0])
	}
	if len(o.Hooks) != 1 || o.Hooks[0].URL != "https://ci.example.com/hook" {
		t.Errorf("hooks %+v", o.Hooks[0])
	}
	if len(o.Keys) != 1 || o.Keys[0].Key != "ssh-ed25519 AAAA ci@example.com" || !o.Keys[0].ReadOnly {
		t.Errorf("keys %+v", o.Keys[0])
	}
	if len(o.Collaborators) != 2 || o.Collaborators[0].Permission != "admin" || o.Collaborators[1].Login != "acme/devs" {
		t.Errorf("collaborators %+v", o.Collaborators)
	}
	if len(o.Releases) != 1 || !o.Releases[0].Draft || len(o.Releases[0].Assets) != 1 || o.Releases[0].Assets[0].SHA256 == "" {
		t.Fatalf("downloads %+v", o.Releases)
	}
	for collection, n := range map[string]int{
		"settings": 1, "pulls": 2, "comments": 3, "statuses": 1, "commits-of-pulls": 1, "patches": 1, "default-reviewers": 1, "pipelines": 2, "rules": 3,
	} {
		if made.Count(collection) != n {
			t.Errorf("%d %s, want %d", made.Count(collection), collection, n)
		}
	}
	for _, collection := range []string{"hooks", "pipelines"} {
		for r, err := range made.All(t.Context(), collection) {
			if err != nil || strings.Contains(string(r.Raw), "sesame") {
				t.Errorf("%s: %s, %v", r.Key, r.Raw, err)
			}
		}
	}
	patch, err := made.Get(t.Context(), archive.Key{Collection: "patches", ID: "3"})
	if err != nil || !strings.Contains(string(patch.Raw), "Subject: [PATCH] Fix") {
		t.Errorf("the patch: %s, %v", patch.Raw, err)
	}
}

func TestCaptureCostsWhatChanged(t *testing.T) {
	b, c := furnished(t)
	c.Run(t)
	b.server.Mend()
	second := c.Run(t)
	if asked := b.asked(); len(asked) > 12 || slices.ContainsFunc(asked, func(at string) bool { return strings.HasPrefix(at, "pullrequests/") }) {
		t.Errorf("unchanged, %d requests: %q", len(asked), asked)
	}
	if !second.Part.Unchanged {
		t.Error("what did not change counts as changed")
	}

	b.server.Mend()
	b.fake.shelf["pullrequests"][0]["updated_on"] = b.clock.Now().Format("2006-01-02T15:04:05.000000-07:00")
	comments := b.fake.shelf["pullrequests/3/comments"]
	comments[0]["content"] = object{"raw": "Never mind"}
	comments[1]["deleted"], comments[1]["content"] = true, object{"raw": ""}
	third := c.Run(t)
	items, _ := forgetest.Decoded(t, bitbucket.Decode, third.Reader)
	if got := items[3].Comments[0].Body; got != "Never mind" {
		t.Errorf("an edited comment: %q", got)
	}
	if third.Count("comments") != 2 {
		t.Errorf("%d comments live after one was deleted", third.Count("comments"))
	}
	if n := len(b.asked()); n > 19 {
		t.Errorf("one pull request that changed costs %d requests: %q", n, b.asked())
	}

	// An approval that moves no time is seen as long as the pull request is open.
	b.fake.shelf["pullrequests"][1]["participants"] = []object{{"user": person("ada"), "state": "changes_requested", "participated_on": "2026-02-01T00:00:00+00:00"}}
	items, _ = forgetest.Decoded(t, bitbucket.Decode, c.Run(t).Reader)
	if r := items[4].Pull.Reviews; len(r) != 1 || r[0].State != "changes_requested" {
		t.Errorf("reviews of the open one: %+v", r)
	}
}

// What changes while pages are read moves to their end, and the others up: none of them is missed, in the first reading or a later one.
func TestAPullRequestThatMovesHidesNoOther(t *testing.T) {
	b, c := furnished(t)
	b.fake.shelf = shelf{}
	for n := range 170 {
		at := time.Date(2025, 1, 1, 0, n/40, 0, 0, time.UTC).Format("2006-01-02T15:04:05.000000-07:00") // forty of one moment
		b.fake.shelf["pullrequests"] = append(b.fake.shelf["pullrequests"], object{
			"id": n + 1, "state": "MERGED", "created_on": at, "updated_on": at, "participants": []object{}, "comment_count": 0, "task_count": 0, "title": "x",
		})
	}
	moved, listed := 0, 0
	b.fake.shift = func() {
		if listed++; listed > 2 && moved < 3 {
			b.fake.shelf["pullrequests"][moved]["updated_on"] = b.clock.Now().Add(time.Duration(moved) * time.Second).Format("2006-01-02T15:04:05.000000-07:00")
			moved++
		}
	}
	if made := c.Run(t); made.Count("pulls") != 170 || len(made.Open) > 0 || moved != 3 {
		t.Errorf("%d pull requests, open %q, %d moved", made.Count("pulls"), made.Open, moved)
	}
	for n, o := range b.fake.shelf["pullrequests"] {
		o["title"], o["updated_on"] = "y", b.clock.Now().Add(time.Duration(n/40+1)*time.Minute).Format("2006-01-02T15:04:05.000000-07:00")
	}
	moved, listed = 0, 0
	items, _ := forgetest.Decoded(t, bitbucket.Decode, c.Run(t).Reader)
	for n, i := range items {
		if i.Title != "y" {
			t.Errorf("the change of %d was not seen", n)
		}
	}
}

func TestListsWithoutParticipantsCostARequestEach(t *testing.T) {
	b, c := furnished(t)
	b.fake.forgets = true
	items, _ := forgetest.Decoded(t, bitbucket.Decode, c.Run(t).Reader)
	if len(items[3].Pull.Reviews) != 2 || !slices.Contains(b.asked(), "pullrequests/3") {
		t.Errorf("reviews %+v after %q", items[3].Pull.Reviews, b.asked())
	}
}

func TestWhatIsNotThereIsNamed(t *testing.T) {
	b, c := furnished(t)
	b.fake.tracker = true
	b.fake.denied = map[string]bool{"hooks": true}
	made := c.Run(t)
	notes := strings.Join(made.Notes, "\n")
	if !strings.Contains(notes, "issues: not read: gone at source") || !strings.Contains(notes, "hooks: not read") || len(made.Open) > 0 {
		t.Errorf("notes %q, open %q", notes, made.Open)
	}
}

// Bitbucket answers 555 where a patch takes it too long: that is the end of it, and the rest is there.
func TestAPatchThatCannotBeMade(t *testing.T) {
	for name, test := range map[string]struct {
		patch  string
		status int
		want   string
	}{
		"too long to make": {"x", 555, "takes Bitbucket too long"},
		"no text":          {"\x00\xff", 0, `"binary":"AP8="`},
		"too long":         {strings.Repeat("x", 16<<20+1), 0, "longer than 16 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			b, c := furnished(t)
			b.fake.patches["3"] = test.patch
			if test.status != 0 {
				b.server.Break(forgetest.Break{Match: pathEnds("/patch"), Fault: forgetest.Answer(test.status, "<html>")})
			}
			made := c.Run(t)
			patch, err := made.Get(t.Context(), archive.Key{Collection: "patches", ID: "3"})
			if err != nil || !strings.Contains(string(patch.Raw), test.want) || len(made.Open) > 0 {
				t.Errorf("%.200s, %v, open %q", patch.Raw, err, made.Open)
			}
		})
	}
}

func TestItemsWithoutNamesAreNoRecords(t *testing.T) {
	for path, item := range map[string]object{
		"pullrequests/3/comments": {"id": -1}, "pullrequests/3/activity": {"other": 1}, "pullrequests/3/statuses": {}, "pullrequests/3/commits": {"hash": 5},
		"hooks": {"uuid": "{x}", "url": 7}, "branch-restrictions": {"id": "x"}, "downloads": {}, "pipelines_config/variables": {"key": ""},
	} {
		t.Run(path, func(t *testing.T) {
			b, c := furnished(t)
			b.fake.shelf[path] = append(b.fake.shelf[path], item)
			if made := c.Run(t); !slices.Contains(made.Open, "collections") {
				t.Errorf("counts as whole: %+v", made.Part.Counts)
			}
		})
	}
}

func FuzzDecodeArchive(f *testing.F) {
	for _, seed := range []string{
		`{"id":7,"state":"MERGED","participants":[{"user":null,"state":"approved"}],"source":{"commit":null}}`, `{"id":-1}`, `null`, `[]`,
		`{"id":7,"inline":{"path":"a","to":1},"parent":{"id":7},"deleted":false}`, `{"update":{"date":"x"}}`, `{"approval":{"user":null}}`,
		`{"kind":"push","users":[{}],"groups":[{}],"value":-3}`, `{"links":{"self":{"href":":"}},"name":"x"}`, `{"url":"x","sha256":"zz"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		forgetest.DecodeHostile(t, bitbucket.Decode, archive.Header{Dialect: "bitbucket", Repository: "acme/api"}, raw,
			"settings/repository", "downloads/x", "rules/1", "hooks/1", "keys/1", "collaborators/1", "teams/1", "pulls/7", "comments/1 in pulls/7",
			"comments/2 in pulls/7", "tasks/1 in pulls/7", "timeline/1 in pulls/7", "files/x")
	})
}
