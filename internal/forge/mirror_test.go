package forge_test

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/protect"
)

// depot is a forge whose repositories are bare ones on the local disk.
type depot struct {
	t      *testing.T
	root   string
	repos  map[string]forge.Repository
	made   []string
	owners []string
	pulls  []forge.PullMirror
}

func newDepot(t *testing.T) *depot {
	return &depot{t: t, root: t.TempDir(), repos: map[string]forge.Repository{}}
}

func (d *depot) Host() string { return "depot" }

func (d *depot) Repositories(context.Context, forge.Selection) iter.Seq2[forge.Repository, error] {
	return func(func(forge.Repository, error) bool) {}
}

func (d *depot) Make(_ context.Context, n forge.NewRepository) (forge.Repository, error) {
	full := strings.TrimPrefix(n.Owner+"/"+n.Name, "/")
	if r, there := d.repos[full]; there {
		return r, nil
	}
	d.made = append(d.made, full)
	d.repos[full] = forge.Repository{
		Owner: n.Owner, Name: n.Name, Description: n.Description, DefaultBranch: n.DefaultBranch, HTTPURL: d.bare(full, n.DefaultBranch),
		Private: n.Visibility != "public",
	}
	return d.repos[full], nil
}

func (d *depot) MakeOwner(_ context.Context, name, visibility string) error {
	d.owners = append(d.owners, name+" "+visibility)
	return nil
}

// bare makes an empty repository, and returns where.
func (d *depot) bare(name, branch string) string {
	d.t.Helper()
	dir := filepath.Join(d.root, filepath.FromSlash(name)+".git")
	for _, sub := range []string{"objects/pack", "refs/heads"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			d.t.Fatal(err)
		}
	}
	for file, content := range map[string]string{"HEAD": "ref: refs/heads/" + branch + "\n", "config": "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			d.t.Fatal(err)
		}
	}
	return dir
}

// refs are those of a repository, by name.
func (d *depot) refs(name string) map[string]string {
	d.t.Helper()
	u, err := git.ParseURL(filepath.Join(d.root, filepath.FromSlash(name)+".git"))
	if err != nil {
		d.t.Fatal(err)
	}
	remote, err := git.Dial(d.t.Context(), u, git.Options{})
	if err != nil {
		d.t.Fatal(err)
	}
	defer remote.Close()
	l, err := remote.ListRefs(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	found := map[string]string{}
	for _, r := range l.Refs {
		found[r.Name] = r.OID
	}
	return found
}

// pulling is a depot that pulls by itself.
type pulling struct{ *depot }

func (p pulling) PullMirror(_ context.Context, m forge.PullMirror) error {
	p.pulls = append(p.pulls, m)
	return nil
}

// withWikis is a depot that begins each wiki with a page on a branch of its own choosing.
type withWikis struct {
	*depot
	source *forgetest.Git
}

func (w withWikis) MakeWiki(_ context.Context, r forge.Repository) (forge.NewWiki, error) {
	at := filepath.Join(w.root, r.Owner, r.Name+".wiki.git")
	if _, err := os.Stat(at); err == nil {
		return forge.NewWiki{HTTPURL: at, Branch: "shown"}, nil
	}
	w.bare(r.Owner+"/"+r.Name+".wiki", "shown")
	other := captured(w.t, w.source, "begun/wiki", "git/x/begun/wiki.git")
	_, err := git.Push(w.t.Context(), other.reader, at, git.PushOptions{Rename: map[string]string{"refs/heads/main": "refs/heads/shown"}})
	return forge.NewWiki{HTTPURL: at, Branch: "shown", Fresh: true}, err
}

// part is a repository in a point.
type part struct {
	reader point.Reader
	part   point.Part
}

// captured makes a point of a repository of the git server, under the given name.
func captured(t *testing.T, from *forgetest.Git, repository, name string) part {
	t.Helper()
	o := git.SourceOptions{Name: strings.TrimSuffix(strings.TrimPrefix(name, "git/"), ".git"), Scratch: t.TempDir()}
	o.NetrcFile = os.DevNull
	source, err := git.NewSource(from.URL+"/"+repository+".git", o)
	if err != nil {
		t.Fatal(err)
	}
	store := memory.New(time.Now)
	receipt, err := protect.Backup(t.Context(), store, source, "")
	if err != nil {
		t.Fatal(err)
	}
	record, tree, err := store.Open(t.Context(), receipt.Point.ID)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(record.Point.Parts, func(p point.Part) bool { return p.Name == name })
	if i < 0 {
		t.Fatalf("no part %s in %+v", name, record.Point.Parts)
	}
	return part{protect.Within(tree, name), record.Point.Parts[i]}
}

func newMirror(t *testing.T, o forge.MirrorOptions) *forge.Mirror {
	t.Helper()
	m, err := forge.NewMirror(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMirrorNamesCopiesAfterTheirSources(t *testing.T) {
	source := forgetest.NewGit(t, "")
	source.Commit(t, "a/a", "f", "1")
	p := captured(t, source, "a/a", "git/h/a/a.git")
	for _, test := range []struct {
		part string
		o    forge.MirrorOptions
		want string // owner and name
	}{
		{"git/github.com/acme/api.git", forge.MirrorOptions{Owner: "copies"}, "copies/api"},
		{"git/github.com/acme/api.git", forge.MirrorOptions{}, "api"},
		{"git/github.com/acme/api.git", forge.MirrorOptions{Owner: "copies", Structured: true}, "acme/api"},
		{"git/gitlab.com/acme/team/api.git", forge.MirrorOptions{Structured: true}, "acme-team/api"},
		{"git/gitlab.com/acme/team/api.git", forge.MirrorOptions{Structured: true, Nested: true}, "acme/team/api"},
		{"git/git.sr.ht/~acme/api.git", forge.MirrorOptions{Structured: true}, "acme/api"},
		{"git/host_3000/api.git", forge.MirrorOptions{Owner: "copies", Structured: true}, "copies/api"},
		{"git/github.com/acme/gists/1f2e.git", forge.MirrorOptions{Owner: "copies"}, "copies/gist-1f2e"},
		{"git/host/acme/%2E%2E.git", forge.MirrorOptions{Owner: "copies"}, "copies/-"},
		{"git/host/acme/a%3Ab.git", forge.MirrorOptions{Owner: "copies"}, "copies/a-b"},
		{"git/host/srv/git/été.git", forge.MirrorOptions{Owner: "copies"}, "copies/-t-"},
	} {
		d := newDepot(t)
		test.o.To = d
		p.part.Name = test.part
		if _, err := newMirror(t, test.o).Push(t.Context(), p.reader, p.part); err != nil {
			t.Errorf("%s: %v", test.part, err)
		}
		if !slices.Equal(d.made, []string{test.want}) {
			t.Errorf("%s went to %q, want %q", test.part, d.made, test.want)
		}
	}
	p.part.Name = "forge/github.com/acme/listing"
	if _, err := newMirror(t, forge.MirrorOptions{To: newDepot(t)}).Push(t.Context(), p.reader, p.part); !errors.Is(err, fault.ErrUnsupported) {
		t.Errorf("a listing: %v", err)
	}
}

func TestMirrorFollowsItsSource(t *testing.T) {
	const name = "git/github.com/acme/api.git"
	source := forgetest.NewGit(t, "")
	source.Commit(t, "acme/api", "f", "1")
	d := newDepot(t)
	push := func(o forge.MirrorOptions) (*forge.MirrorReport, error) {
		t.Helper()
		o.To, o.Owner = d, "copies"
		p := captured(t, source, "acme/api", name)
		return newMirror(t, o).Push(t.Context(), p.reader, p.part)
	}
	is := func(what string) {
		t.Helper()
		if got, want := d.refs("copies/api")["refs/heads/main"], source.Head(t, "acme/api"); got != want {
			t.Errorf("%s: the copy is at %s, the source at %s", what, got, want)
		}
	}
	if report, err := push(forge.MirrorOptions{}); err != nil || report.Unchanged {
		t.Fatalf("the first: %+v, %v", report, err)
	}
	is("new")
	if report, err := push(forge.MirrorOptions{}); err != nil || !report.Unchanged {
		t.Errorf("nothing new: %+v, %v", report, err)
	}
	source.Commit(t, "acme/api", "g", "2")
	if _, err := push(forge.MirrorOptions{}); err != nil {
		t.Error(err)
	}
	is("one commit more")
	before := d.refs("copies/api")["refs/heads/main"]
	source.Delete(t, "acme/api")
	source.Commit(t, "acme/api", "f", "another history")
	_, err := push(forge.MirrorOptions{})
	if !errors.Is(err, fault.ErrIncomplete) || !strings.Contains(strings.Join(fault.Hints(err), " "), "force") {
		t.Errorf("a source that was rewritten: %v, hints %q", err, fault.Hints(err))
	}
	if d.refs("copies/api")["refs/heads/main"] != before {
		t.Error("the copy was overwritten without force")
	}
	if _, err := push(forge.MirrorOptions{Force: true}); err != nil {
		t.Error(err)
	}
	is("forced")
}

func TestMirrorsOfOneNameAreRefused(t *testing.T) {
	source := forgetest.NewGit(t, "")
	source.Commit(t, "a/api", "f", "1")
	source.Commit(t, "b/api", "f", "2")
	one, two := captured(t, source, "a/api", "git/github.com/a/api.git"), captured(t, source, "b/api", "git/github.com/b/API.git")
	d := newDepot(t)
	o := forge.MirrorOptions{To: d, Owner: "copies", Force: true}
	m := newMirror(t, o)
	if _, err := m.Push(t.Context(), one.reader, one.part); err != nil {
		t.Fatal(err)
	}
	head := d.refs("copies/api")["refs/heads/main"]
	_, err := m.Push(t.Context(), two.reader, two.part)
	if !errors.Is(err, fault.ErrExists) || !strings.Contains(err.Error(), "github.com/a/api") || !strings.Contains(err.Error(), "github.com/b/API") {
		t.Errorf("in one run: %v", err)
	}
	two = captured(t, source, "b/api", "git/github.com/b/api.git")
	if _, err := newMirror(t, o).Push(t.Context(), two.reader, two.part); !errors.Is(err, fault.ErrExists) {
		t.Errorf("in the next run, where it comes first: %v", err)
	}
	if d.refs("copies/api")["refs/heads/main"] != head {
		t.Error("the copy was overwritten")
	}
	o.Structured = true
	if _, err := newMirror(t, o).Push(t.Context(), two.reader, two.part); err != nil {
		t.Errorf("owners kept apart: %v", err)
	}
}

func TestMirrorMakesEachOwnerOnce(t *testing.T) {
	source := forgetest.NewGit(t, "")
	d := newDepot(t)
	m := newMirror(t, forge.MirrorOptions{To: d, Structured: true, MakeOwners: true, OwnerVisibility: "limited"})
	for _, name := range []string{"acme/api", "acme/web", "umbrella/api"} {
		source.Commit(t, name, "f", name)
		p := captured(t, source, name, "git/github.com/"+name+".git")
		if _, err := m.Push(t.Context(), p.reader, p.part); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"acme limited", "umbrella limited"}; !slices.Equal(d.owners, want) {
		t.Errorf("made %q, want %q", d.owners, want)
	}
}

func TestMirrorOfAWiki(t *testing.T) {
	const name = "git/github.com/acme/api.wiki.git"
	source := forgetest.NewGit(t, "")
	source.Commit(t, "acme/api.wiki", "Home.md", "1")
	source.Commit(t, "begun/wiki", "Home.md", "a page that the forge made")
	p := captured(t, source, "acme/api.wiki", name)

	plain := newDepot(t)
	report, err := newMirror(t, forge.MirrorOptions{To: plain, Owner: "copies"}).Push(t.Context(), p.reader, p.part)
	if err != nil || len(report.Notes) != 1 || !slices.Equal(plain.made, []string{"copies/api"}) {
		t.Errorf("a forge without wikis: %+v, %v; made %q", report, err, plain.made)
	}

	d := newDepot(t)
	for range 2 {
		if _, err := newMirror(t, forge.MirrorOptions{To: withWikis{d, source}, Owner: "copies"}).Push(t.Context(), p.reader, p.part); err != nil {
			t.Fatal(err)
		}
	}
	refs := d.refs("copies/api.wiki")
	if refs["refs/heads/shown"] != source.Head(t, "acme/api.wiki") || refs["refs/heads/main"] != "" {
		t.Errorf("the wiki has %v, want the source's page on the branch that is shown", refs)
	}
}

func TestMirrorByPulling(t *testing.T) {
	d := newDepot(t)
	m := newMirror(t, forge.MirrorOptions{To: pulling{d}, Owner: "copies", LFS: true, Interval: time.Hour, Visibility: "public"})
	r := forge.Repository{Owner: "acme", Name: "api", HTTPURL: "https://github.com/acme/api.git", WikiHTTPURL: "https://github.com/acme/api.wiki.git"}
	if _, err := m.Pull(t.Context(), "github.com", r, "x", "hunter22"); err != nil {
		t.Fatal(err)
	}
	want := forge.PullMirror{
		NewRepository: forge.NewRepository{Owner: "copies", Name: "api", Description: "Mirror of github.com/acme/api", Visibility: "public"},
		From:          r.HTTPURL, Username: "x", Password: "hunter22", Interval: time.Hour, LFS: true, Wiki: true,
	}
	if len(d.pulls) != 1 || d.pulls[0] != want {
		t.Errorf("asked for %+v", d.pulls)
	}
	r.Owner = "umbrella"
	if _, err := m.Pull(t.Context(), "github.com", r, "", ""); !errors.Is(err, fault.ErrExists) {
		t.Errorf("another source of the name: %v", err)
	}
	r.Name, r.HTTPURL = "web", ""
	if _, err := m.Pull(t.Context(), "github.com", r, "", ""); !errors.Is(err, fault.ErrUnsupported) {
		t.Errorf("a source without https: %v", err)
	}
	if _, err := newMirror(t, forge.MirrorOptions{To: d}).Pull(t.Context(), "github.com", r, "", ""); !errors.Is(err, fault.ErrUnsupported) {
		t.Errorf("a forge that does not pull: %v", err)
	}
}

// What is private must not get into a repository that somebody made public under the copy's name.
func TestMirrorIntoAPublicRepository(t *testing.T) {
	source := forgetest.NewGit(t, "")
	source.Commit(t, "acme/api", "f", "1")
	p := captured(t, source, "acme/api", "git/github.com/acme/api.git")
	for _, test := range []struct {
		visibility string
		private    bool // of the repository that is there
		refused    bool
	}{
		{"", false, true},
		{"private", false, true},
		{"internal", false, true},
		{"public", false, false},
		{"", true, false},
		{"public", true, false},
	} {
		d := newDepot(t)
		d.repos["copies/api"] = forge.Repository{Owner: "copies", Name: "api", Private: test.private, HTTPURL: d.bare("copies/api", "main")}
		_, err := newMirror(t, forge.MirrorOptions{To: d, Owner: "copies", Visibility: test.visibility}).Push(t.Context(), p.reader, p.part)
		if errors.Is(err, fault.ErrRefused) != test.refused || (err != nil) != test.refused {
			t.Errorf("%+v: %v", test, err)
		}
		if came := d.refs("copies/api")["refs/heads/main"] != ""; came == test.refused {
			t.Errorf("%+v: the code came there: %v", test, came)
		}
	}
}
