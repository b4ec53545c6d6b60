package github_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/github"
	"github.com/backstay/backstay/internal/forge/github/githubtest"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// restoring is a GitHub with what is restored, and a new repository to restore into.
type restoring struct {
	*served
	p    *github.Provider
	from forge.Repository
	to   forge.Repository
	into *githubtest.Metadata
}

// newRestoring serves metadata, and a repository that is new but for its branches and the labels that GitHub makes.
func newRestoring(t *testing.T, m *githubtest.Metadata) *restoring {
	t.Helper()
	s, p, from := metadataOf(t, m)
	made := s.World.Add(forgetest.Repo{Owner: "acme", Name: "copy", Private: true, Empty: false})
	into := &githubtest.Metadata{
		Labels: []githubtest.Label{{Name: "bug", Color: "ffffff", Description: "Something isn't working"}}, Defaults: 1,
		Branches: map[string]string{"main": strings.Repeat("d", 40), "topic": sha},
	}
	s.Metadata[made.ID] = into
	to, err := p.Find(t.Context(), forge.Repository{Owner: "acme", Name: "copy"})
	if err != nil {
		t.Fatal(err)
	}
	return &restoring{s, p, from, to, into}
}

// captured is what a repository has, read and decoded as by its account, with the bytes of assets.
func (b *restoring) captured(t *testing.T, r forge.Repository) neutral.Source {
	t.Helper()
	records, failed := capture(t.Context(), b.p, r, time.Time{})
	wantAll(t, failed)
	from, err := archive.Of(archive.Header{Dialect: "github", Host: b.p.Host(), Repository: r.FullName(), Account: "tester"}, records...)
	if err != nil {
		t.Fatal(err)
	}
	s, err := github.Decode(from)
	if err != nil {
		t.Fatal(err)
	}
	return withBytes{s, b}
}

// withBytes is a source that has the bytes of all assets.
type withBytes struct {
	neutral.Source
	b *restoring
}

// Overview implements neutral.Source.
func (s withBytes) Overview(ctx context.Context) (*neutral.Overview, error) {
	o, err := s.Source.Overview(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range o.Releases {
		for _, a := range r.Assets {
			a.SHA256, a.Reason = strings.Repeat("ab", 32), ""
		}
	}
	return o, nil
}

// Open implements neutral.Source.
func (s withBytes) Open(_ context.Context, f *neutral.File) (io.ReadSeekCloser, error) {
	return nopCloser{strings.NewReader("asset")}, nil
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

func (b *restoring) restore(t *testing.T, from neutral.Source, to forge.Repository) (*forge.MetadataRestored, error) {
	t.Helper()
	return forge.RestoreMetadata(t.Context(), forge.MetadataRestoreOptions{
		From: from, Host: b.p.Host(), Repository: "acme/api", Target: b.p.Target(), To: to,
	})
}

func itemsOf(t *testing.T, s neutral.Source) (items []*neutral.Item) {
	t.Helper()
	for i, err := range s.Items(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, i)
	}
	return items
}

func discussionsOf(t *testing.T, s neutral.Source) (all []*neutral.Discussion) {
	t.Helper()
	for d, err := range s.Discussions(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	return all
}

// whole is everything, with a pull request that is open and whose branch is there, one of a branch that moved, and a reference.
func whole() *githubtest.Metadata {
	m := everything()
	m.Discussions[0].Number = 5
	m.Items = append(m.Items, &githubtest.Item{
		Number: 3, Title: "a feature", Body: "closes #1, see #4 and @ada", User: "grace", Labels: []string{"bug"}, Milestone: 4, Created: later(10), Updated: later(12),
		Pull: &githubtest.Pull{
			Base: "main", Head: "topic", BaseOID: sha, HeadOID: sha, HeadRepository: "acme/api", Draft: true,
			Reviews: []githubtest.Review{{ID: 211, User: "ada", Body: "nice", State: "APPROVED", OID: sha, Submitted: later(11)}},
			Threads: []githubtest.Thread{{First: 311}},
		},
	}, &githubtest.Item{
		Number: 4, Title: "another", Body: "as #3", User: "ada", Closed: true, Created: later(11), Updated: later(13), ClosedAt: later(13),
		Pull: &githubtest.Pull{Base: "main", Head: "topic", HeadOID: strings.Repeat("9", 40), BaseOID: sha, HeadRepository: "acme/api"},
	})
	m.ReviewComments = append(m.ReviewComments,
		&githubtest.ReviewComment{
			Comment: githubtest.Comment{ID: 311, On: 3, User: "ada", Body: "here", Created: later(11), Updated: later(11)}, Review: 211, Path: "a.go", OID: sha,
			Line: 5, Start: 2, OriginalLine: 5, Hunk: "@@ -1 +1 @@",
		},
		&githubtest.ReviewComment{
			Comment: githubtest.Comment{ID: 312, On: 3, User: "grace", Body: "yes", Created: later(12), Updated: later(12)}, Review: 211, ReplyTo: 311, Path: "a.go",
			OID: sha, Line: 5, Start: 2, OriginalLine: 5, Hunk: "@@ -1 +1 @@",
		})
	m.Comments = append(m.Comments, &githubtest.Comment{ID: 111, On: 3, User: "linus", Body: "when?", Created: later(11), Updated: later(11)})
	return m
}

// TestRestoredIsCapturedAlike restores everything into a new repository, captures that, and finds what it was, but for what the target says
// that it does not keep.
func TestRestoredIsCapturedAlike(t *testing.T) {
	for name, categories := range map[string][]string{"with discussions": {"General", "Q&A"}, "without": nil} {
		t.Run(name, func(t *testing.T) {
			b := newRestoring(t, whole())
			b.into.Categories = categories
			from := b.captured(t, b.from)
			report, err := b.restore(t, from, b.to)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"1 hook not restored: it would be without its secret: make it again", "1 key not restored: who has access is not restored"}
			if !slices.Equal(report.Notes, want) {
				t.Errorf("notes %q", report.Notes)
			}
			after := b.captured(t, b.to)
			items, discussions := itemsOf(t, after), discussionsOf(t, after)
			if categories == nil {
				asIssue(t, discussionsOf(t, from)[0], items[4])
				items = items[:4]
			} else if d := forgetest.Differences(t, discussionsOf(t, from), discussions); !slices.Equal(d, []string{"0.Votes: 2 → 0", "0.was: <nil> → 5"}) {
				t.Errorf("discussions: %s", strings.Join(d, "\n"))
			}
			for i, item := range itemsOf(t, from) {
				if d := forgetest.Differences(t, item, items[i]); !slices.Equal(d, []string{fmt.Sprintf("was: <nil> → %d", item.Number)}) {
					t.Errorf("item %d: %s", i+1, strings.Join(d, "\n"))
				}
			}
			b.overview(t, from, after)
		})
	}
}

// asIssue holds an issue against the discussion that it was.
func asIssue(t *testing.T, was *neutral.Discussion, is *neutral.Item) {
	t.Helper()
	first, reply := is.Comments[0], is.Comments[1]
	if is.ID != was.ID || is.Body != was.Body || !first.Answer || first.Body != "so" || reply.Body != "thanks" || !reply.Created.Equal(later(2)) {
		t.Errorf("the discussion became %+v", is)
	}
}

// overview compares what is not numbered.
func (b *restoring) overview(t *testing.T, before, after neutral.Source) {
	t.Helper()
	was, err := before.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	is, err := after.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	was.Items, is.Items, was.Discussions, is.Discussions = 0, 0, 0, 0
	keeps := b.p.Target().Keeps()
	for _, d := range forgetest.Differences(t, was, is) {
		at, _, _ := strings.Cut(d, ":")
		parts := strings.Split(at, ".")
		sort := strings.TrimSuffix(strings.ToLower(parts[0]), "s")
		if len(parts) > 3 {
			sort = strings.TrimSuffix(strings.ToLower(parts[2]), "s")
		}
		field := parts[len(parts)-1]
		if keeps.Of(sort+"."+strings.ToLower(field[:1])+field[1:]).State == neutral.Kept && field != "URL" && at != "Milestones.0.Number" {
			t.Errorf("it says that it keeps %s", d)
		}
	}
	if got := b.into.Releases[0].Assets[0]; string(got.Content) != "asset" || got.Type != "application/gzip" {
		t.Errorf("the asset is %+v", got)
	}
	if b.into.Releases[0].Draft || !b.into.Releases[1].Draft {
		t.Error("the published release must be so, and the draft a draft")
	}
}

// What GitHub has is dated as it was, and its pull request is one whose review is at its place.
func TestRestoredAsItWasWritten(t *testing.T) {
	b := newRestoring(t, whole())
	if _, err := b.restore(t, b.captured(t, b.from), b.to); err != nil {
		t.Fatal(err)
	}
	first := b.into.Items[0]
	if !first.Created.Equal(day) || !first.Closed || !first.ClosedAt.Equal(later(5)) || !first.Locked || first.LockReason != "too heated" || first.Milestone != 1 {
		t.Errorf("the first issue is %+v", first)
	}
	if c := b.into.Comments[0]; c.On != 1 || !c.Created.Equal(later(2)) || !strings.HasPrefix(c.Body, "> by **ghost** on 2026-01-01 02:00 UTC") {
		t.Errorf("the first comment is %+v", c)
	}
	if !slices.Equal(b.into.Pinned, []int64{1}) || b.into.Labels[0].Color != "d73a4a" {
		t.Errorf("pinned are %v, labels %v", b.into.Pinned, b.into.Labels)
	}
	pull := b.into.Items[2]
	if pull.Pull == nil || !pull.Pull.Draft || !slices.Equal(pull.Labels, []string{"bug"}) || pull.Milestone != 1 || pull.Closed || len(pull.Pull.Reviews) != 1 {
		t.Fatalf("the pull request is %+v", pull)
	}
	if c := b.into.ReviewComments[0]; c.Path != "a.go" || c.Line != 5 || c.Start != 2 || c.Review != pull.Pull.Reviews[0].ID {
		t.Errorf("the comment on code is %+v", c)
	}
	if text := pull.Body; !strings.Contains(text, "closes #1, see #4 and @\u200dada") {
		t.Errorf("the pull request says %s", text)
	}
	if other := b.into.Items[3]; other.Pull != nil || !other.Closed || !strings.Contains(other.Body, "pull request from topic of acme/api into main") {
		t.Errorf("the one whose branch moved is %+v", other)
	}
}

// TestSecondHop restores what was restored, which changes nothing of what it was.
func TestSecondHop(t *testing.T) {
	b := newRestoring(t, whole())
	first := b.captured(t, b.from)
	if _, err := b.restore(t, first, b.to); err != nil {
		t.Fatal(err)
	}
	made := b.World.Add(forgetest.Repo{Owner: "acme", Name: "third", Private: true})
	b.Metadata[made.ID] = &githubtest.Metadata{} // without the branch: the pull request becomes an issue
	to, err := b.p.Find(t.Context(), forge.Repository{Owner: "acme", Name: "third"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = forge.RestoreMetadata(t.Context(), forge.MetadataRestoreOptions{
		From: b.captured(t, b.to), Host: b.p.Host(), Repository: "acme/copy", Target: b.p.Target(), To: to,
	})
	if err != nil {
		t.Fatal(err)
	}
	third := itemsOf(t, b.captured(t, to))
	for i, item := range itemsOf(t, first) {
		if d := forgetest.Differences(t, item, third[i]); !slices.Equal(d, []string{fmt.Sprintf("was: <nil> → %d", item.Number)}) {
			t.Errorf("item %d: %s", i+1, strings.Join(d, "\n"))
		}
	}
}

// killing lets some writes through, and then loses one: before it comes to the forge, or its answer. It refuses all further ones.
type killing struct {
	left  int // -1 for no end
	after bool
	seen  int
}

// RoundTrip implements http.RoundTripper.
func (k *killing) RoundTrip(r *http.Request) (*http.Response, error) {
	body := []byte{}
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	if r.Method == http.MethodGet || strings.HasSuffix(r.URL.Path, "/graphql") && !bytes.Contains(body, []byte(`"mutation(`)) {
		return http.DefaultTransport.RoundTrip(r)
	}
	if k.seen++; k.left < 0 || k.seen <= k.left {
		return http.DefaultTransport.RoundTrip(r)
	}
	if k.after && k.seen == k.left+1 {
		answer, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		answer.Body.Close()
	}
	w := httptest.NewRecorder()
	w.WriteHeader(http.StatusUnauthorized)
	return w.Result(), nil
}

// interrupted restores, loses a write, and restores again. It returns what is other than it was then, and what there is.
func interrupted(t *testing.T, k *killing) (changed, frame []string) {
	t.Helper()
	b := newRestoring(t, whole())
	b.into.Categories = []string{"General", "Q&A"}
	from := b.captured(t, b.from)
	p, err := github.New(github.Options{
		Token: forgetest.Token, URL: b.Server.URL, Client: forge.ClientOptions{Clock: b.clock.Now, Sleep: b.clock.Sleep, Transport: k},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.p, p = p, b.p
	if _, err := b.restore(t, from, b.to); (err != nil) != (k.left >= 0 && k.seen > k.left) {
		t.Fatalf("killed at %d: %v", k.left, err)
	}
	b.p = p
	if _, err := b.restore(t, from, b.to); err != nil {
		t.Fatalf("killed at %d: %v", k.left, err)
	}
	to := b.captured(t, b.to)
	changed = append(forgetest.Differences(t, itemsOf(t, from), itemsOf(t, to)), forgetest.Differences(t, discussionsOf(t, from), discussionsOf(t, to))...)
	return changed, b.frame()
}

// TestKilledAtEachWrite loses each write of a restore, or its answer, and runs it again: nothing comes twice, and in the end all is there.
func TestKilledAtEachWrite(t *testing.T) {
	k := &killing{left: -1}
	changed, frame := interrupted(t, k)
	if k.seen < 20 {
		t.Errorf("%d writes were all", k.seen)
	}
	for _, after := range []bool{false, true} {
		for n := range k.seen {
			c, f := interrupted(t, &killing{left: n, after: after})
			if d := append(forgetest.Differences(t, changed, c), forgetest.Differences(t, frame, f)...); len(d) > 0 {
				t.Errorf("killed at write %d (%v): %s", n, after, strings.Join(d, "\n"))
			}
		}
	}
}

// frame is what there is beside items, without dates and numbers.
func (b *restoring) frame() (all []string) {
	for _, l := range b.into.Labels {
		all = append(all, fmt.Sprint("label ", l))
	}
	for _, m := range b.into.Milestones {
		all = append(all, fmt.Sprint("milestone ", m.Title, m.Closed))
	}
	for _, r := range b.into.Releases {
		all = append(all, fmt.Sprint("release ", r.Tag, r.Draft, len(r.Assets)))
	}
	for _, s := range b.into.Rulesets {
		all = append(all, fmt.Sprint("ruleset ", s.Name, s.Patterns, s.Rules))
	}
	return append(all, fmt.Sprint(len(b.into.Items), len(b.into.Comments), b.into.Pinned, b.into.Topics))
}

// TestRestoredTwice finds all that is there: only settings are written again.
func TestRestoredTwice(t *testing.T) {
	b := newRestoring(t, whole())
	from := b.captured(t, b.from)
	if _, err := b.restore(t, from, b.to); err != nil {
		t.Fatal(err)
	}
	b.Server.Mend()
	report, err := b.restore(t, from, b.to)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range b.Server.Requests() {
		if r.Method != http.MethodGet && !strings.HasSuffix(r.Path, "/graphql") && !strings.HasSuffix(r.Path, "/acme/copy") && !strings.HasSuffix(r.Path, "/topics") {
			t.Errorf("%s %s", r.Method, r.Path)
		}
	}
	if report.Written != 1 { // settings
		t.Errorf("%d written, %d there", report.Written, report.There)
	}
}

// made is a source that a test makes up.
type made struct {
	overview neutral.Overview
	items    []*neutral.Item
}

func (s made) Overview(context.Context) (*neutral.Overview, error) { return &s.overview, nil }

func (s made) Items(context.Context) iter.Seq2[*neutral.Item, error] {
	return func(yield func(*neutral.Item, error) bool) {
		for _, i := range s.items {
			if !yield(i, nil) {
				return
			}
		}
	}
}

func (made) Discussions(context.Context) iter.Seq2[*neutral.Discussion, error] {
	return func(func(*neutral.Discussion, error) bool) {}
}

func (made) Files(context.Context) iter.Seq2[*neutral.File, error] {
	return func(func(*neutral.File, error) bool) {}
}

func (made) Open(context.Context, *neutral.File) (io.ReadSeekCloser, error) {
	return nopCloser{strings.NewReader("asset")}, nil
}

func originOf(id string) neutral.Origin {
	return neutral.Origin{Forge: "git.example.org", ID: id, Author: neutral.User{Login: "ada"}, Created: day}
}

// with is a restore of something that is made up into a repository of its own.
func with(t *testing.T, s neutral.Source, change func(b *restoring)) (*restoring, *forge.MetadataRestored, error) {
	t.Helper()
	b := newRestoring(t, &githubtest.Metadata{})
	if change != nil {
		change(b)
	}
	report, err := forge.RestoreMetadata(t.Context(), forge.MetadataRestoreOptions{
		From: s, Host: "git.example.org", Repository: "acme/api", Target: b.p.Target(), To: b.to,
	})
	return b, report, err
}

// Where GitHub has no import of issues any more, they are made by what it documents, of now, and their marks know when they were.
func TestWithoutImports(t *testing.T) {
	b := newRestoring(t, whole())
	b.NoImports = true
	from := b.captured(t, b.from)
	if _, err := b.restore(t, from, b.to); err != nil {
		t.Fatal(err)
	}
	if i := b.into.Items[0]; i.Created.Equal(day) || !i.Closed {
		t.Errorf("the first issue is %+v", i)
	}
	after := itemsOf(t, b.captured(t, b.to))
	for i, item := range itemsOf(t, from) {
		if d := forgetest.Differences(t, item, after[i]); !slices.Equal(d, []string{fmt.Sprintf("was: <nil> → %d", item.Number)}) {
			t.Errorf("item %d: %s", i+1, strings.Join(d, "\n"))
		}
	}
}

// Texts that are too long are cut before their marks, and what is too much for one import follows it.
func TestLongTexts(t *testing.T) {
	item := &neutral.Item{Origin: originOf("1"), Number: 1, Title: strings.Repeat("ä", 300), Body: strings.Repeat("ä", 70_000)}
	for i := range 12 {
		item.Comments = append(item.Comments, &neutral.Comment{Origin: originOf(fmt.Sprint(10 + i)), Body: fmt.Sprint(i, strings.Repeat("x", 60_000))})
	}
	b, report, err := with(t, made{items: []*neutral.Item{item}}, nil)
	if err != nil || report.Written != 14 { // with the settings
		t.Fatalf("%+v, %v", report, err)
	}
	is := b.into.Items[0]
	text, mark, ok := neutral.Unmark(is.Body)
	if len([]rune(is.Body)) > 65_536 || !ok || mark.ID != "1" || !strings.Contains(text, "cut: GitHub takes no longer text") || len([]rune(is.Title)) != 256 {
		t.Errorf("the text has %d characters, ends with %q; its mark is %+v", len([]rune(is.Body)), text[len(text)-80:], mark)
	}
	for i, c := range b.into.Comments {
		text, mark, _ := neutral.Unmark(c.Body)
		if mark.ID != fmt.Sprint(10+i) || !strings.HasPrefix(text, fmt.Sprint(i, "x")) {
			t.Errorf("comment %d is %.20q of %+v", i, text, mark)
		}
		if imported := c.Created.Equal(day); imported != (i < 8) {
			t.Errorf("comment %d was imported: %v", i, imported)
		}
	}
}

// What GitHub does not take is named, and the rest is restored.
func TestRefusedByGitHub(t *testing.T) {
	release := &neutral.Release{Origin: originOf("5"), Tag: "v1", Name: "one", Published: day}
	rule := &neutral.Rule{Name: "main", Pattern: "main", Signed: true}
	next := &neutral.Item{Origin: originOf("2"), Number: 2, Title: "the next"}
	for name, test := range map[string]struct {
		from   made
		change func(b *restoring)
		want   []string
	}{
		"the tag of an immutable release": {
			made{overview: neutral.Overview{Releases: []*neutral.Release{release}}, items: []*neutral.Item{next}},
			func(b *restoring) { b.into.Burned = []string{"v1"} },
			[]string{"release v1", "was used by an immutable release"},
		},
		"rules in a plan without them": {
			made{overview: neutral.Overview{Rules: []*neutral.Rule{rule}}, items: []*neutral.Item{next}},
			func(b *restoring) { b.into.Free = true },
			[]string{"rule main", "Upgrade to GitHub Pro"},
		},
		"an import that fails": {
			made{items: []*neutral.Item{{Origin: originOf("1"), Number: 1, Title: "bad"}, next}},
			func(b *restoring) { b.into.Refused = "bad" },
			[]string{"issue #1", "did not import it"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, _, err := with(t, test.from, test.change)
			if !errors.Is(err, fault.ErrIncomplete) {
				t.Fatalf("got %v", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
			}
			if len(b.into.Items) != 1 || b.into.Items[0].Title != "the next" {
				t.Errorf("there are %+v", b.into.Items)
			}
		})
	}
}

// GitHub wants some writes later. They are done then, once.
func TestWritesAreLimited(t *testing.T) {
	s := made{}
	for n := range int64(20) {
		s.items = append(s.items, &neutral.Item{Origin: originOf(fmt.Sprint(n + 1)), Number: n + 1, Title: "one of many"})
	}
	var began time.Time
	b, _, err := with(t, s, func(b *restoring) {
		began = b.clock.Now()
		b.into.Limit, b.into.LimitFor = 8, 10*time.Minute
	})
	if err != nil || len(b.into.Items) != 20 {
		t.Fatalf("%d issues, %v", len(b.into.Items), err)
	}
	if waited := b.clock.Now().Sub(began); waited < 20*time.Minute {
		t.Errorf("it was done after %s", waited)
	}
}

// An asset whose upload broke off is sent again; one whose name GitHub does not take keeps it as its label.
func TestAssetsAgain(t *testing.T) {
	content := neutral.File{Size: 5, SHA256: strings.Repeat("ab", 32)}
	named := func(name string) *neutral.Asset {
		a := &neutral.Asset{File: content}
		a.Name = name
		return a
	}
	release := &neutral.Release{Origin: originOf("5"), Tag: "v1", Assets: []*neutral.Asset{named("a.tgz"), named("für alle.txt")}}
	s := made{overview: neutral.Overview{Releases: []*neutral.Release{release}}}
	b, _, err := with(t, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.into.Releases[0].Assets[0].Starter = true
	b.into.Releases[0].Assets[0].Content = nil
	report, err := forge.RestoreMetadata(t.Context(), forge.MetadataRestoreOptions{
		From: s, Host: "git.example.org", Repository: "acme/api", Target: b.p.Target(), To: b.to,
	})
	assets := b.into.Releases[0].Assets
	if err != nil || report.Written != 2 || len(assets) != 2 { // with the settings
		t.Fatalf("%+v, %v: %+v", report, err, assets)
	}
	if odd, again := assets[0], assets[1]; odd.Name != "f.r.alle.txt" || odd.Label != "für alle.txt" || string(again.Content) != "asset" || again.Starter {
		t.Errorf("the assets are %+v", assets)
	}
}

// Marks of other accounts are nobody's.
func TestWhoseMarks(t *testing.T) {
	item := &neutral.Item{Origin: originOf("1"), Number: 1, Title: "an issue"}
	forged := neutral.Mark{Sort: neutral.SortIssue, Origin: originOf("1")}.Write("")
	b, _, err := with(t, made{items: []*neutral.Item{item}}, func(b *restoring) {
		b.into.Items = []*githubtest.Item{{Number: 7, Title: "spam", Body: forged, User: "mallory", Created: day, Updated: day}}
	})
	if err != nil || len(b.into.Items) != 2 || b.into.Items[1].Number != 8 {
		t.Errorf("%+v, %v", b.into.Items, err)
	}
}

// TestMutationsFitTheSchema holds the mutations of a restore, with their inputs, against GitHub's schema.
func TestMutationsFitTheSchema(t *testing.T) {
	types := graphSchema(t)
	m := whole()
	m.Discussions[0].Closed, m.Discussions[0].Locked = true, true
	b := newRestoring(t, m)
	b.into.Categories = []string{"Q&A"}
	if _, err := b.restore(t, b.captured(t, b.from), b.to); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, r := range b.Server.Requests() {
		var asked struct {
			Query     string
			Variables struct{ Input map[string]any }
		}
		if !strings.HasSuffix(r.Path, "/graphql") || json.Unmarshal([]byte(r.Body), &asked) != nil || !strings.HasPrefix(asked.Query, "mutation") {
			continue
		}
		declared, selection, _ := strings.Cut(asked.Query, ")")
		if _, err := checkQuery(types, "Mutation", graphToken.FindAllString(selection, -1)); err != nil {
			t.Errorf("%v in %s", err, asked.Query)
		}
		_, input, _ := strings.Cut(declared, "$input: ")
		input = strings.TrimSuffix(input, "!")
		seen[input] = true
		for name := range asked.Variables.Input {
			if !slices.ContainsFunc(types[input].InputFields, func(f struct{ Name string }) bool { return f.Name == name }) {
				t.Errorf("%s has no field %s", input, name)
			}
		}
	}
	if len(seen) != 7 {
		t.Errorf("seen were %v", slices.Sorted(maps.Keys(seen)))
	}
}

// Originals on github.com are not told of their copies there, and a mark has their address all the same. Assets go to another host.
func TestOnGitHubItself(t *testing.T) {
	api := &githubtest.API{World: forgetest.NewWorld(forgetest.NewClock().Now), Metadata: map[int64]*githubtest.Metadata{}}
	into, uploads := &githubtest.Metadata{}, []string{}
	api.Metadata[api.World.Add(forgetest.Repo{Owner: "tester", Name: "copy"}).ID] = into
	p, err := github.New(github.Options{Token: forgetest.Token, Client: forge.ClientOptions{
		Sleep: func(context.Context, time.Duration) error { return nil },
		Transport: roundTrip(func(r *http.Request) *http.Response {
			if strings.HasSuffix(r.URL.Path, "/assets") && r.Method == http.MethodPost {
				uploads = append(uploads, r.URL.Host)
			}
			w := httptest.NewRecorder()
			api.ServeHTTP(w, r)
			return w.Result()
		}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	asset := &neutral.Asset{File: neutral.File{Name: "a.tgz", Size: 5, SHA256: strings.Repeat("ab", 32)}}
	releases := []*neutral.Release{{Origin: originOf("5"), Tag: "v1", Assets: []*neutral.Asset{asset}}}
	item := &neutral.Item{Origin: originOf("1"), Number: 1, Title: "an issue", Body: "as it was"}
	item.URL = "https://github.com/acme/api/issues/1"
	_, err = forge.RestoreMetadata(t.Context(), forge.MetadataRestoreOptions{
		From: made{overview: neutral.Overview{Releases: releases}, items: []*neutral.Item{item}}, Host: "github.com", Repository: "acme/api", Target: p.Target(),
		To: forge.Repository{Owner: "tester", Name: "copy", WebURL: "https://github.com/tester/copy"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(uploads, []string{"uploads.github.com"}) {
		t.Errorf("assets went to %q", uploads)
	}
	text, mark, _ := neutral.Unmark(into.Items[0].Body)
	if body := into.Items[0].Body; !strings.Contains(body, "originally https://redirect.github.com/acme/api/issues/1\n") || text != "as it was" || mark.URL != item.URL {
		t.Errorf("the issue says %s", body)
	}
}

// What a ruleset can say of a rule is read from it again.
func TestRulesAsRulesets(t *testing.T) {
	rules := []*neutral.Rule{
		{Name: "main", Pattern: "main", Approvals: 2, Checks: []string{"ci", "lint"}, Signed: true, Linear: true, Admins: true},
		{Name: "main", Pattern: "release/*", ForcePush: true, Delete: true, PushBy: []string{"ada"}},
		{Name: "all", Pattern: "*", Signed: true},
		{Name: "tags", Pattern: "v*", Tags: true, ForcePush: true, PushBy: []string{}, Admins: true},
	}
	b, _, err := with(t, made{overview: neutral.Overview{Rules: rules}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	o, err := b.captured(t, b.to).Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rules[1].Name, rules[1].PushBy = "main (release/*)", nil
	if d := forgetest.Differences(t, rules, o.Rules); len(d) > 0 {
		t.Error(strings.Join(d, "\n"))
	}
}

// With numbers kept, gaps are filled by issues that are closed.
func TestKeptNumbers(t *testing.T) {
	b := newRestoring(t, &githubtest.Metadata{})
	s := made{items: []*neutral.Item{
		{Origin: originOf("2"), Number: 2, Title: "two"}, {Origin: originOf("5"), Number: 5, Title: "five", Body: "as #2", Closed: true, ClosedAt: later(1)},
	}}
	_, err := forge.RestoreMetadata(t.Context(), forge.MetadataRestoreOptions{
		From: s, Host: "git.example.org", Repository: "acme/api", Target: b.p.Target(), To: b.to, KeepNumbers: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range b.into.Items {
		got = append(got, fmt.Sprint(i.Number, i.Title, i.Closed))
	}
	if want := []string{"1(no issue)true", "2twofalse", "3(no issue)true", "4(no issue)true", "5fivetrue"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// What people attached stays where it is, and is told once.
func TestAttachmentsStay(t *testing.T) {
	const shot = "https://git.example.org/attachments/1"
	item := &neutral.Item{Origin: originOf("1"), Number: 1, Title: "an issue", Body: "![](" + shot + ")"}
	item.Comments = []*neutral.Comment{{Origin: originOf("2"), Body: "again " + shot}}
	b, report, err := with(t, attached{made{items: []*neutral.Item{item}}, shot}, nil)
	if err != nil || !slices.Equal(report.Notes, []string{"1 file not restored: GitHub takes no attachments by its API: texts keep their addresses"}) {
		t.Fatalf("%+v, %v", report, err)
	}
	if !strings.Contains(b.into.Items[0].Body, shot) || !strings.Contains(b.into.Comments[0].Body, shot) {
		t.Errorf("the texts are %q, %q", b.into.Items[0].Body, b.into.Comments[0].Body)
	}
}

// attached is a source with a file.
type attached struct {
	made
	url string
}

// Files implements neutral.Source.
func (s attached) Files(context.Context) iter.Seq2[*neutral.File, error] {
	return func(yield func(*neutral.File, error) bool) {
		yield(&neutral.File{URL: s.url, Name: "shot.png", Size: 5, SHA256: strings.Repeat("ab", 32)}, nil)
	}
}

func TestPlansNameEveryField(t *testing.T) {
	p, err := github.New(github.Options{Token: forgetest.Token})
	if err != nil {
		t.Fatal(err)
	}
	if unnamed := forgetest.Unplanned(p.Target().Keeps()); len(unnamed) > 0 {
		t.Errorf("nothing is said of %q", unnamed)
	}
}
