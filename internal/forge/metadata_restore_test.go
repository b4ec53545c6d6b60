package forge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// inMemory is a neutral.Source in memory.
type inMemory struct {
	overview    neutral.Overview
	items       []*neutral.Item
	discussions []*neutral.Discussion
	files       map[*neutral.File]string
}

func (h *inMemory) Overview(context.Context) (*neutral.Overview, error) { return &h.overview, nil }

func (h *inMemory) Items(context.Context) iter.Seq2[*neutral.Item, error] { return eachOf(h.items) }

func (h *inMemory) Discussions(context.Context) iter.Seq2[*neutral.Discussion, error] {
	return eachOf(h.discussions)
}

func (h *inMemory) Files(context.Context) iter.Seq2[*neutral.File, error] {
	var all []*neutral.File
	for f := range h.files {
		all = append(all, f)
	}
	return eachOf(all)
}

func (h *inMemory) Open(_ context.Context, f *neutral.File) (io.ReadSeekCloser, error) {
	for have, content := range h.files {
		if have.URL == f.URL {
			return nopCloser{strings.NewReader(content)}, nil
		}
	}
	return nil, fault.New("open", fault.ErrNotFound, f.URL, "")
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

func eachOf[T any](all []*T) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		for _, thing := range all {
			if !yield(thing, nil) {
				return
			}
		}
	}
}

// board is a MetadataTarget that keeps what it was given, as the account "robot". It begins to fail after some writes.
type board struct {
	labels, milestones []string
	items              []*neutral.Item
	states             map[int64]string
	releases           []*neutral.Release
	published          map[string]bool
	files              map[string]string
	reviews            bool // it takes reviews
	writes, killed     int
}

func (m *board) alive() error {
	if m.writes++; m.killed > 0 && m.writes > m.killed {
		return fault.New("write", fault.ErrUnavailable, "killed", "")
	}
	return nil
}

func (m *board) Keeps() neutral.Fidelity {
	return neutral.Fidelity{
		"item": {State: neutral.Kept}, "item.author": {State: neutral.Changed, How: "in the text"}, "item.reactions": {State: neutral.Changed, How: "in the text"},
		"item.closedAt": {State: neutral.Changed, How: "in the text"}, "comment.body": {State: neutral.Kept}, "label": {State: neutral.Kept},
		"item.number": {State: neutral.Changed, How: "in their order, without gaps"}, "release": {State: neutral.Kept}, "asset": {State: neutral.Kept},
	}
}

func (m *board) Begin(context.Context, forge.Repository) (neutral.Restored, error) {
	there := neutral.Restored{Things: map[string]neutral.Written{}, Next: int64(len(m.items)) + 1}
	find := func(body string, w neutral.Written) {
		if _, mark, ok := neutral.Unmark(body); ok {
			w.Pending = mark.Pending
			there.Things[mark.Key()] = w
		}
	}
	for _, name := range m.labels {
		there.Things["label "+name] = neutral.Written{}
	}
	for _, title := range m.milestones {
		there.Things["milestone "+title] = neutral.Written{}
	}
	for _, item := range m.items {
		find(item.Body, neutral.Written{ID: fmt.Sprint("item ", item.Number), Number: item.Number, State: m.states[item.Number]})
		for i, c := range item.Comments {
			find(c.Body, neutral.Written{ID: fmt.Sprint("comment ", item.Number, " ", i)})
		}
		if item.Pull != nil {
			for _, r := range item.Pull.Reviews {
				find(r.Body, neutral.Written{})
			}
		}
	}
	for _, release := range m.releases {
		state := ""
		if m.published[release.Tag] {
			state = "published"
		}
		find(release.Body, neutral.Written{ID: "release " + release.Tag, State: state})
		for _, a := range release.Assets {
			there.Things[neutral.KeyOf(a)] = neutral.Written{}
		}
	}
	return there, nil
}

func (m *board) Write(_ context.Context, _ forge.Repository, thing neutral.Thing) (neutral.Written, error) {
	if err := m.alive(); err != nil {
		return neutral.Written{}, err
	}
	switch t := thing.(type) {
	case *neutral.Settings:
	case *neutral.Label:
		m.labels = append(m.labels, t.Name)
	case *neutral.Milestone:
		m.milestones = append(m.milestones, t.Title)
	case *neutral.Item:
		item := *t
		item.Number = int64(len(m.items)) + 1
		m.items = append(m.items, &item)
		return neutral.Written{ID: fmt.Sprint("item ", item.Number), Number: item.Number}, nil
	case *neutral.Comment:
		item := m.items[t.Item-1]
		of := *t
		of.On = neutral.Written{}
		item.Comments = append(item.Comments, &of)
		return neutral.Written{ID: fmt.Sprint("comment ", item.Number, " ", len(item.Comments)-1)}, nil
	case *neutral.Review:
		if !m.reviews {
			return neutral.Written{}, fault.New("review", fault.ErrUnsupported, "", "")
		}
		pull := m.items[t.Item-1].Pull
		of := *t
		of.On = neutral.Written{}
		pull.Reviews = append(pull.Reviews, &of)
	case *neutral.Release:
		release := *t
		release.Assets = nil
		m.releases = append(m.releases, &release)
	case *neutral.Asset:
		content, err := io.ReadAll(t.Content)
		if err != nil {
			return neutral.Written{}, err
		}
		i := slices.IndexFunc(m.releases, func(r *neutral.Release) bool { return r.Tag == t.Release })
		m.releases[i].Assets = append(m.releases[i].Assets, &neutral.Asset{File: neutral.File{Name: t.Name, SHA256: string(content)}, Release: t.Release})
	case *neutral.State:
		if t.Release != nil {
			m.published[t.Release.Tag] = true
			return neutral.Written{}, nil
		}
		m.states[t.Written.Number] = "closed"
		if t.Item.Locked {
			m.states[t.Written.Number] = "locked"
		}
	default:
		return neutral.Written{}, fault.New("write", fault.ErrUnsupported, "", "")
	}
	return neutral.Written{}, nil
}

func (m *board) Upload(context.Context, forge.Repository, archive.File, io.Reader) (string, error) {
	return "", fault.New("upload", fault.ErrUnsupported, "", "")
}

func (m *board) Attach(_ context.Context, _ forge.Repository, to neutral.Written, f archive.File, content io.Reader) (string, error) {
	if err := m.alive(); err != nil {
		return "", err
	}
	raw, err := io.ReadAll(content)
	address := "https://new.example/" + strings.ReplaceAll(to.ID, " ", "-") + "/" + f.Name
	m.files[address] = string(raw)
	return address, err
}

func (m *board) Rewrite(_ context.Context, _ forge.Repository, w neutral.Written, text string) error {
	if err := m.alive(); err != nil {
		return err
	}
	var item, comment int
	if n, _ := fmt.Sscanf(w.ID, "comment %d %d", &item, &comment); n == 2 {
		m.items[item-1].Comments[comment].Body = text
		return nil
	}
	if _, err := fmt.Sscanf(w.ID, "item %d", &item); err != nil {
		return err
	}
	m.items[item-1].Body = text
	return nil
}

func (m *board) Finish(context.Context, forge.Repository) error { return m.alive() }

func newBoard() *board {
	return &board{states: map[int64]string{}, published: map[string]bool{}, files: map[string]string{}}
}

// source is what the board holds, as a decoder gives it: by robot, but for what the marks say.
func (m *board) source() *inMemory {
	robot := neutral.User{Login: "robot"}
	h := &inMemory{files: map[*neutral.File]string{}}
	for address, content := range m.files {
		h.files[&neutral.File{URL: address, Name: address[strings.LastIndex(address, "/")+1:], SHA256: "x"}] = content
	}
	for i, item := range m.items {
		of := *item
		of.Origin = neutral.Origin{Forge: "new.example", ID: fmt.Sprint(i), Author: robot}
		of.Closed, of.Locked = m.states[of.Number] != "", m.states[of.Number] == "locked"
		of.Reactions, of.ClosedAt = nil, time.Time{}
		of.Comments = nil
		for j, c := range item.Comments {
			of.Comments = append(of.Comments, &neutral.Comment{Origin: neutral.Origin{Forge: "new.example", ID: fmt.Sprint(i, j), Author: robot}, Body: c.Body})
		}
		of.Pull = nil // it has no pull requests
		neutral.Recall(&of, "Robot")
		h.items = append(h.items, &of)
	}
	for _, r := range m.releases {
		of := *r
		of.Origin = neutral.Origin{Forge: "new.example", ID: r.Tag, Author: robot}
		of.Draft = !m.published[r.Tag]
		of.Assets = nil
		for _, a := range r.Assets {
			a.URL = "https://new.example/" + a.Name
			h.files[&a.File] = a.SHA256
			of.Assets = append(of.Assets, a)
		}
		neutral.RecallRelease(&of, "robot")
		h.overview.Releases = append(h.overview.Releases, &of)
	}
	for _, name := range m.labels {
		h.overview.Labels = append(h.overview.Labels, &neutral.Label{Name: name})
	}
	return h
}

var day = time.Date(2024, 3, 1, 12, 0, 0, 0, time.UTC)

func originOf(id, login string, after int) neutral.Origin {
	return neutral.Origin{
		Forge: "github.com", ID: id, URL: "https://github.com/acme/api/issues/" + id, Author: neutral.User{Login: login}, Created: day.Add(time.Duration(after) * time.Minute),
	}
}

// richSource has something of everything, and gaps in its numbers.
func richSource() *inMemory {
	picture := &neutral.File{URL: "https://github.com/user-attachments/assets/1", Name: "p.png", SHA256: "a"}
	binary := &neutral.Asset{File: neutral.File{URL: "https://github.com/acme/api/releases/download/v1/api", Name: "api", SHA256: "b"}, Release: "v1"}
	return &inMemory{
		overview: neutral.Overview{
			Labels: []*neutral.Label{{Name: "bug"}}, Milestones: []*neutral.Milestone{{Title: "1.0"}}, Hooks: []*neutral.Hook{{URL: "https://ci.example"}},
			Releases: []*neutral.Release{{Origin: originOf("r1", "ada", 0), Tag: "v1", Body: "See #7", Assets: []*neutral.Asset{binary}}},
		},
		files: map[*neutral.File]string{picture: "PNG", &binary.File: "ELF"},
		items: []*neutral.Item{
			{
				Origin: originOf("102", "ada", 1), Number: 2, Title: "first", Body: "Later is #7, gone is #3, @bob!\n\n![](https://github.com/user-attachments/assets/1)",
				Closed: true, ClosedAt: day.Add(time.Hour), Reactions: []neutral.Reaction{{Content: "+1", User: neutral.User{Login: "eve"}}},
				Comments: []*neutral.Comment{
					{Origin: originOf("c1", "eve", 2), Body: "![](https://github.com/user-attachments/assets/1) by acme/api#4"},
					{Origin: originOf("c2", "mallory", 3), Body: markBy("102")},
				},
			},
			{
				Origin: originOf("107", "bob", 4), Number: 7, Title: "pull", Body: "Fixes https://github.com/acme/api/issues/2#issuecomment-1, not x/y#2", Locked: true, Closed: true,
				Pull: &neutral.Pull{Head: "fix", Base: "main", Merged: true, MergedAt: day, Reviews: []*neutral.Review{{
					Origin: originOf("v1", "ada", 5), State: "changes_requested", Body: "hm", Comments: []*neutral.Comment{{
						Origin: originOf("k1", "ada", 5), Body: "why?", Code: &neutral.Code{Path: "a.go", Line: 3, Hunk: "@@ -1 +1 @@\n-a\n+b"},
						Replies: []*neutral.Comment{{Origin: originOf("k2", "bob", 6), Body: "so"}},
					}},
				}}},
			},
		},
		discussions: []*neutral.Discussion{{Category: "Ideas", Item: neutral.Item{Origin: originOf("d4", "eve", 9), Number: 4, Title: "talk", Comments: []*neutral.Comment{
			{Origin: originOf("dc1", "ada", 10), Body: "yes", Replies: []*neutral.Comment{{Origin: originOf("dc2", "bob", 11), Body: "no"}}},
		}}}},
	}
}

// markBy is a mark that somebody forged.
func markBy(id string) string {
	return neutral.Mark{Sort: neutral.SortIssue, Origin: originOf(id, "mallory", 0)}.Write("forged")
}

func restoreInto(t *testing.T, from neutral.Source, m *board) (*forge.MetadataRestored, error) {
	t.Helper()
	return forge.RestoreMetadata(t.Context(), forge.MetadataRestoreOptions{
		From: from, Host: "github.com", Repository: "acme/api", Target: m, To: forge.Repository{Owner: "new", Name: "api", WebURL: "https://new.example/new/api"},
	})
}

func TestRestoreMetadata(t *testing.T) {
	m := newBoard()
	report, err := restoreInto(t, richSource(), m)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"1 hook not restored: the forge takes none by its API"}; !slices.Equal(report.Notes, want) {
		t.Errorf("notes are %q", report.Notes)
	}
	text := func(marked string) string {
		body, _, ok := neutral.Unmark(marked)
		if !ok {
			t.Errorf("no mark in %q", marked)
		}
		return body
	}
	for what, texts := range map[string][2]string{
		"references to what comes later and what is gone, attachment": {
			text(m.items[0].Body), "Later is #3, gone is https://github.com/acme/api/issues/3, @bob!\n\n![](https://new.example/item-1/p.png)",
		},
		"comment":  {text(m.items[0].Comments[0].Body), "![](https://new.example/comment-1-0/p.png) by #2"},
		"forgery":  {text(m.items[0].Comments[1].Body), markBy("102")},
		"pull":     {text(m.items[2].Body), "Fixes https://new.example/new/api/issues/1, not x/y#2"},
		"release":  {text(m.releases[0].Body), "See #3"},
		"the file": {m.files["https://new.example/item-1/p.png"], "PNG"},
		"asset":    {m.releases[0].Assets[0].SHA256, "ELF"},
	} {
		if texts[0] != texts[1] {
			t.Errorf("%s: got %q, want %q", what, texts[0], texts[1])
		}
	}
	if !m.published["v1"] || m.states[1] != "closed" || m.states[2] != "" || m.states[3] != "locked" {
		t.Errorf("published %v, states %v", m.published, m.states)
	}
	var heads []string
	for _, c := range m.items[2].Comments {
		head, _, _ := strings.Cut(c.Body, "\n\n")
		heads = append(heads, head)
	}
	want := []string{
		"> by **ada** on 2024-03-01 12:05 UTC, originally https://github.com/acme/api/issues/v1\n>\n> review: changes requested",
		"> by **ada** on 2024-03-01 12:05 UTC, originally https://github.com/acme/api/issues/k1\n>\n> on a.go line 3\n>\n> ```diff\n> @@ -1 +1 @@\n> -a\n> +b\n> ```",
		"> by **bob** on 2024-03-01 12:06 UTC, originally https://github.com/acme/api/issues/k2",
	}
	if !slices.Equal(heads, want) {
		t.Errorf("the review became %q", heads)
	}
	if strings.Contains(m.items[0].Body, "@bob") {
		t.Error("bob is notified")
	}
}

func TestARestoreThatIsKilledAtAnyWriteGoesOn(t *testing.T) {
	whole := newBoard()
	if _, err := restoreInto(t, richSource(), whole); err != nil {
		t.Fatal(err)
	}
	all := whole.writes
	for kill := 1; kill < all; kill++ {
		m := newBoard()
		m.killed = kill
		if _, err := restoreInto(t, richSource(), m); err == nil {
			t.Fatalf("killed at write %d, it did not fail", kill)
		}
		m.killed = 0
		if _, err := restoreInto(t, richSource(), m); err != nil {
			t.Fatalf("after a kill at write %d: %v", kill, err)
		}
		m.writes = whole.writes
		if got, want := asJSON(t, m), asJSON(t, whole); got != want {
			t.Fatalf("killed at write %d, it is\n%s\nnot\n%s", kill, got, want)
		}
		before := m.writes
		report, err := restoreInto(t, richSource(), m)
		if err != nil || m.writes-before > 4 || asJSON(t, m) == "" { // settings, the hook, nothing else but the end
			t.Fatalf("a run that finds everything there: %d writes, %+v, %v", m.writes-before, report, err)
		}
	}
}

func asJSON(t *testing.T, m *board) string {
	t.Helper()
	return asText(t, []any{m.labels, m.milestones, m.items, m.states, m.releases, m.published, m.files})
}

func asText(t *testing.T, v any) string {
	t.Helper()
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestARestoreOfARestoreKeepsTheFirstOrigin(t *testing.T) {
	first, second := newBoard(), newBoard()
	if _, err := restoreInto(t, richSource(), first); err != nil {
		t.Fatal(err)
	}
	if _, err := restoreInto(t, first.source(), second); err != nil {
		t.Fatal(err)
	}
	got, want := second.source(), first.source()
	for i := range want.items {
		if g, w := *got.items[i], *want.items[i]; !reflect.DeepEqual(g.Origin, w.Origin) || g.Title != w.Title || !reflect.DeepEqual(g.Reactions, w.Reactions) {
			t.Errorf("after the second restore\n%+v\nafter the first\n%+v", g, w)
		}
	}
	original := richSource()
	pull := got.items[2]
	pull.Pull.Reviews[0].Item = 0
	g, w := asText(t, pull.Pull), asText(t, original.items[1].Pull)
	if g != w || pull.Was != 7 || pull.Author.Login != "bob" {
		t.Errorf("the pull request of %s, %d before, became\n%s\nnot\n%s", pull.Author.Login, pull.Was, g, w)
	}
	if o := got.overview.Releases[0].Origin; !reflect.DeepEqual(o, original.overview.Releases[0].Origin) {
		t.Errorf("the release is of %+v", o)
	}
}

func TestNumbersAreKeptByPlaceholders(t *testing.T) {
	restore := func(m *board) error {
		_, err := forge.RestoreMetadata(t.Context(), forge.MetadataRestoreOptions{
			From: richSource(), Host: "github.com", Repository: "acme/api", Target: m, KeepNumbers: true,
		})
		return err
	}
	whole := newBoard()
	if err := restore(whole); err != nil {
		t.Fatal(err)
	}
	var titles []string
	for _, item := range whole.items {
		titles = append(titles, item.Title+" "+whole.states[item.Number])
	}
	want := []string{"(no issue) closed", "first closed", "(no issue) closed", "talk ", "(no issue) closed", "(no issue) closed", "pull locked"}
	if !slices.Equal(titles, want) {
		t.Errorf("got %q", titles)
	}
	if body, _, _ := neutral.Unmark(whole.items[1].Body); !strings.HasPrefix(body, "Later is #7, gone is #3,") {
		t.Errorf("references changed: %q", body)
	}
	for kill := 1; kill < whole.writes; kill++ {
		m := newBoard()
		m.killed = kill
		if err := restore(m); err == nil {
			t.Fatalf("killed at write %d, it did not fail", kill)
		}
		m.killed = 0
		if err := restore(m); err != nil || len(m.items) != 7 || !maps.Equal(m.states, whole.states) {
			t.Fatalf("after a kill at write %d: %d items, states %v, %v", kill, len(m.items), m.states, err)
		}
	}
	taken := newBoard()
	taken.items = []*neutral.Item{{}, {}, {}}
	if err := restore(taken); fault.Of(err).Reason != "Refused" {
		t.Errorf("numbers that are taken: %v", err)
	}
}

func TestPlanMetadata(t *testing.T) {
	p, err := forge.PlanMetadata(t.Context(), richSource(), newBoard().Keeps())
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, l := range p.Lines {
		lines = append(lines, l.String())
	}
	for _, want := range []string{
		"item.author: changed (in the text) 2", "item.closedAt: changed (in the text) 1", "comment.author: lost (the forge takes none by its API) 4",
		"discussion.category: changed (becomes an issue) 1", "item.reactions: changed (in the text) 1", "review-comment.code: lost (the forge takes none by its API) 1",
		"asset.name: kept 1", "hook.url: lost (the forge takes none by its API) 1",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %q in\n%s", want, strings.Join(lines, "\n"))
		}
	}
}
