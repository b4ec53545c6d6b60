package gitlab_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/gitlab"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// withFiles is a source that has some files, too.
type withFiles struct {
	neutral.Source
	files []*neutral.File
}

func (s withFiles) Files(context.Context) iter.Seq2[*neutral.File, error] {
	return func(yield func(*neutral.File, error) bool) {
		for _, f := range s.files {
			if !yield(f, nil) {
				return
			}
		}
	}
}

// Overview has the bytes of the first asset, too.
func (s withFiles) Overview(ctx context.Context) (*neutral.Overview, error) {
	o, err := s.Source.Overview(ctx)
	if err == nil && len(o.Releases) > 0 && len(o.Releases[0].Assets) > 0 {
		a := o.Releases[0].Assets[0]
		a.SHA256, a.Size = strings.Repeat("cd", 32), int64(len("bytes of "+a.Name))
	}
	return o, err
}

func (s withFiles) Open(_ context.Context, f *neutral.File) (io.ReadSeekCloser, error) {
	return nopCloser{strings.NewReader("bytes of " + f.Name)}, nil
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

const shot = "/uploads/0123456789abcdef0123456789abcdef/shot.png"

// source is what the furnished project has, with the files that it refers to.
func (b *bench) source(t *testing.T, r forge.Repository) neutral.Source {
	t.Helper()
	s, err := gitlab.Decode(b.capture(t, r))
	if err != nil {
		t.Fatal(err)
	}
	file := &neutral.File{URL: shot, Name: "shot.png", Size: int64(len("bytes of shot.png")), SHA256: strings.Repeat("ab", 32)}
	return withFiles{s, []*neutral.File{file}}
}

// empty is a project to restore into.
func (b *bench) empty(t *testing.T) forge.Repository {
	t.Helper()
	b.world.Add(forgetest.Repo{Owner: "acme", Name: "copy", Wiki: true, Private: true})
	r, err := b.Find(t.Context(), forge.Repository{Owner: "acme", Name: "copy"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (b *bench) restore(t *testing.T, from neutral.Source, to forge.Repository) (*forge.MetadataRestored, error) {
	t.Helper()
	return forge.RestoreMetadata(t.Context(), forge.MetadataRestoreOptions{
		From: from, Host: b.Host(), Repository: "acme/api", Target: b.Target(), To: to,
	})
}

// What is restored with the rights of an owner, and captured again, is what it was, but for what the target says of itself.
func TestRestoredMetadataIsCapturedAlike(t *testing.T) {
	b, r := furnished(t)
	b.fake.owner50 = true
	b.fake.branches["main"], b.fake.branches["feature"] = strings.Repeat("d", 40), strings.Repeat("c", 40)
	from, to := b.source(t, r), b.empty(t)
	report, err := b.restore(t, from, to)
	if err != nil {
		t.Fatal(err)
	}
	if notes := strings.Join(report.Notes, "; "); len(report.Notes) != 2 || !strings.Contains(notes, "hook") || !strings.Contains(notes, "key") {
		t.Errorf("notes %q", report.Notes)
	}
	before, after := items(t, from), items(t, b.source(t, to))
	if len(before) != len(after) {
		t.Fatalf("%d items, want %d", len(after), len(before))
	}
	// The merge request whose branch is gone became an issue with a number of its own, which texts refer to.
	after = append(after[:3:3], after[4], after[3])
	for i, want := range [][]string{
		{"Body: it breaks, see !1 and ![shot](" + shot + ") → it breaks, see !1 and ![shot](/uploads/X/shot.png)", "was: <nil> → 1"},
		{"was: <nil> → 1"},
		{"was: <nil> → 2"},
		{"Number: 2 → 8", "Pull.Reviews.0.Item: 2 → 8", "was: <nil> → 2"},
		{"was: <nil> → 7"},
	} {
		got := forgetest.Differences(t, before[i], after[i])
		for j := range got {
			got[j] = regexp.MustCompile(`/uploads/0{20}[0-9a-f]{12}/`).ReplaceAllString(got[j], "/uploads/X/")
		}
		if !slices.Equal(got, want) {
			t.Errorf("item %d: %s\nwant %s", i, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	overview(t, from, b.source(t, to), b.fake)
}

// overview compares what is not numbered.
func overview(t *testing.T, before, after neutral.Source, f *fake) {
	t.Helper()
	was, err := before.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	is, err := after.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	app := is.Releases[0].Assets[0]
	if _, path, _ := strings.Cut(app.URL, "/projects/"); app.Name != "app.tar.gz" || f.uploads[path] != "bytes of app.tar.gz" {
		t.Errorf("asset %+v", app)
	}
	was.Releases[0].Assets, is.Releases[0].Assets, was.Collaborators, was.Hooks, was.Keys = nil, nil, nil, nil, nil
	for _, m := range []*neutral.Milestone{was.Milestones[0], is.Milestones[0]} {
		m.Created, m.Updated = time.Time{}, time.Time{}
	}
	if got := forgetest.Differences(t, was, is); len(got) > 0 {
		t.Error(strings.Join(got, "\n"))
	}
	for path, content := range f.uploads {
		if strings.HasSuffix(path, "/shot.png") && content != "bytes of shot.png" {
			t.Errorf("%s: %q", path, content)
		}
	}
}

// writes counts what was sent to be changed.
func (b *bench) writes() int {
	return b.server.Count(func(r forgetest.Request) bool { return r.Method != http.MethodGet })
}

// However often a restore is killed, nothing comes twice, and in the end all is there.
func TestRestoreKilledAtEachWrite(t *testing.T) {
	var whole []string
	for kill := 0; kill < 100; kill++ {
		b, r := furnished(t)
		b.fake.owner50 = true
		b.fake.branches["main"], b.fake.branches["feature"] = strings.Repeat("d", 40), strings.Repeat("c", 40)
		from, to := b.source(t, r), b.empty(t)
		b.server.Mend()
		if kill > 0 {
			b.server.Break(forgetest.Break{
				Match: func(r *http.Request) bool { return r.Method != http.MethodGet }, After: kill - 1, Fault: forgetest.Answer(http.StatusUnauthorized, "{}"),
			})
		}
		_, err := b.restore(t, from, to)
		killed := err != nil
		b.server.Mend()
		if _, err := b.restore(t, from, to); err != nil {
			t.Fatal(err)
		}
		got := texts(b.fake.shelves[mustInt(to.ID)])
		if kill == 0 {
			whole = got
			if n := b.writes(); n > 2 { // settings, and the try to protect the default branch
				t.Errorf("restored again, %d things are written", n)
			}
			continue
		}
		if !slices.Equal(got, whole) {
			t.Fatalf("killed at write %d: %s", kill, strings.Join(forgetest.Differences(t, whole, got), "\n"))
		}
		if !killed {
			if kill < 25 {
				t.Errorf("%d writes were all", kill)
			}
			return
		}
	}
	t.Error("there is no end to it")
}

func mustInt(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

// texts is all that somebody reads on a shelf.
func texts(s shelf) (all []string) {
	for path, things := range s {
		if strings.HasSuffix(path, "_events") {
			continue
		}
		for _, o := range things {
			all = append(all, fmt.Sprint(path, " ", o["iid"], o["name"], o["title"], o["tag_name"], o["state"]))
			if notes, ok := o["notes"].([]object); ok {
				for _, n := range notes {
					text, m, _ := neutral.Unmark(n["body"].(string))
					all = append(all, fmt.Sprint(path, " ", m.Sort, m.ID, text))
				}
			}
			if assets, ok := o["assets"].(object); ok {
				all = append(all, fmt.Sprint(path, " ", len(assets["links"].([]object)), " assets"))
			}
		}
	}
	slices.Sort(all)
	return all
}

// given is a source that a test makes up: of another forge, where issues and pull requests share their numbers.
type given struct {
	overview neutral.Overview
	items    []*neutral.Item
}

func (g given) Overview(context.Context) (*neutral.Overview, error) { return &g.overview, nil }

func (g given) Items(context.Context) iter.Seq2[*neutral.Item, error] {
	return func(yield func(*neutral.Item, error) bool) {
		for _, i := range g.items {
			if !yield(i, nil) {
				return
			}
		}
	}
}

func (given) Discussions(context.Context) iter.Seq2[*neutral.Discussion, error] {
	return func(func(*neutral.Discussion, error) bool) {}
}

func (given) Files(context.Context) iter.Seq2[*neutral.File, error] {
	return func(func(*neutral.File, error) bool) {}
}

func (given) Open(context.Context, *neutral.File) (io.ReadSeekCloser, error) {
	return nil, fault.New("", fault.ErrNotFound, "no file", "")
}

// closing is when somebody closed a pull request of fromGitHub's.
var closing = time.Date(2021, 2, 3, 4, 5, 6, 0, time.UTC)

// fromGitHub has an issue, a pull request whose branches are there, one whose branch is gone, and an issue that refers to them.
func fromGitHub() given {
	origin := func(n int64) neutral.Origin {
		return neutral.Origin{
			Forge: "github.com", ID: fmt.Sprint(7000 + n), Author: neutral.User{Login: "octo"}, Created: time.Date(2020, 1, int(n), 0, 0, 0, 0, time.UTC),
		}
	}
	pull := func(head string) *neutral.Pull {
		return &neutral.Pull{Base: "main", Head: head, HeadRepository: "acme/api", HeadOID: strings.Repeat("c", 40)}
	}
	return given{items: []*neutral.Item{
		{Origin: origin(1), Number: 1, Title: "one", Body: "see #2, #3 and #4", Labels: []string{"a, b"}},
		{Origin: origin(2), Number: 2, Title: "two", Body: "closes #1", Pull: pull("feature"), Closed: true, ClosedAt: closing, ClosedBy: neutral.User{Login: "hubot"}},
		{Origin: origin(3), Number: 3, Title: "three", Body: "as #2", Pull: pull("gone")},
		{Origin: origin(4), Number: 4, Title: strings.Repeat("long ", 60), Body: "> quoted\n\n/assign @root\n"},
	}}
}

// Numbers of one row become two; texts refer to what is there. What looks like a command is none.
func TestRestoreFromAnotherForge(t *testing.T) {
	for name, test := range map[string]struct {
		owner   bool
		numbers []int // of issues
		text    string
		created string
	}{
		"by an owner":            {true, []int{1, 3, 4}, "see !1, #3 and #4", "2020-01-01T00:00:00Z"},
		"by somebody who is not": {false, []int{1, 2, 3}, "see !1, #2 and #3", "2026-"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.fake.owner50 = test.owner
			b.fake.branches["main"], b.fake.branches["feature"] = strings.Repeat("d", 40), strings.Repeat("c", 40)
			to := b.empty(t)
			target := b.Target()
			report, err := forge.RestoreMetadata(t.Context(), forge.MetadataRestoreOptions{
				From: fromGitHub(), Host: "github.com", Repository: "acme/api", Target: target, To: to,
			})
			if err != nil || len(report.Notes) > 0 {
				t.Fatalf("%+v, %v", report, err)
			}
			made := b.fake.shelves[mustInt(to.ID)]
			var numbers []int
			for _, o := range made["issues"] {
				numbers = append(numbers, o["iid"].(int))
			}
			if !slices.Equal(numbers, test.numbers) || len(made["merge_requests"]) != 1 || made["merge_requests"][0]["state"] != "closed" {
				t.Errorf("issues %v, merge requests %+v", numbers, made["merge_requests"])
			}
			first, last := made["issues"][0], made["issues"][2]
			text, mark, ok := neutral.Unmark(first["description"].(string))
			if !ok || text != test.text || mark.Was != 1 || !strings.HasPrefix(first["created_at"].(string), test.created) {
				t.Errorf("%s, %+v: %s", text, mark, first["created_at"])
			}
			if labels := first["labels"].([]string); !slices.Equal(labels, []string{"a; b"}) {
				t.Errorf("labels %q", labels)
			}
			if body := last["description"].(string); !strings.Contains(body, "\n\u200d/assign") || len([]rune(last["title"].(string))) != 255 {
				t.Errorf("%q: %s", last["title"], body)
			}
			if got := target.Keeps().Of("item.created").State; (got == neutral.Kept) != test.owner {
				t.Errorf("created is %s", got)
			}
			// The second hop has what the first had.
			again := items(t, b.source(t, to))
			back := again[len(again)-1]
			if back.Body != "> quoted\n\n/assign @root\n" || back.Forge != "github.com" || back.Author.Login != "octo" || back.Created.Year() != 2020 {
				t.Errorf("%+v", back)
			}
			at := slices.IndexFunc(again, func(i *neutral.Item) bool { return i.Title == "two" })
			if two := again[at]; two.Pull == nil || !two.Closed || !two.ClosedAt.Equal(closing) || two.ClosedBy.Login != "hubot" {
				t.Errorf("%+v", two)
			}
		})
	}
}

// Where the package registry is switched off, assets are attachments.
func TestAssetsWithoutPackages(t *testing.T) {
	b, r := furnished(t)
	b.fake.owner50, b.fake.hidden["packages"] = true, true
	from, to := b.source(t, r), b.empty(t)
	if _, err := b.restore(t, from, to); err != nil {
		t.Fatal(err)
	}
	o, err := b.source(t, to).Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, path, _ := strings.Cut(o.Releases[0].Assets[0].URL, "/-/project/")
	if b.fake.uploads[path] != "bytes of app.tar.gz" {
		t.Errorf("%s: %q", o.Releases[0].Assets[0].URL, b.fake.uploads[path])
	}
}
