package offline_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/neutral"
	"github.com/backstay/backstay/internal/forge/offline"
)

// site writes a site of one repository, and returns its pages by their places.
func site(t *testing.T, source neutral.Source) (pages map[string]string, dir string, counts offline.Counts) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "site")
	s, err := offline.NewSite(dir, "acme")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Add(t.Context(), offline.Repository{Name: "github.com/acme/api", Source: source}); err != nil {
		t.Fatal(err)
	}
	if counts, err = s.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	pages = map[string]string{}
	err = filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(name)
		place, _ := filepath.Rel(dir, name)
		pages[filepath.ToSlash(place)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages, dir, counts
}

// checkPages fails where a page could do something, or leads nowhere.
func checkPages(t *testing.T, pages map[string]string) {
	t.Helper()
	for place, text := range pages {
		if !strings.HasSuffix(place, ".html") {
			continue
		}
		root, err := html.Parse(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		for n := range root.Descendants() {
			if n.Type != html.ElementNode {
				continue
			}
			if strings.Contains(" script iframe object embed svg math base template style form ", " "+n.Data+" ") &&
				n.Data != "style" && place != "search.html" {
				t.Errorf("%s has an element %s", place, n.Data)
			}
			for _, a := range n.Attr {
				switch {
				case strings.HasPrefix(a.Key, "on"), a.Key == "srcset", a.Key == "style" && n.Data != "span":
					t.Errorf("%s has an attribute %s=%q", place, a.Key, a.Val)
				case a.Key == "src":
					checkLocal(t, pages, place, a.Val)
				case a.Key == "href":
					if strings.HasPrefix(a.Val, "https://") || strings.HasPrefix(a.Val, "http://") || strings.HasPrefix(a.Val, "mailto:") {
						if !slices.Contains(n.Attr, html.Attribute{Key: "rel", Val: "noreferrer noopener nofollow"}) {
							t.Errorf("%s leads to %s with a referrer", place, a.Val)
						}
						continue
					}
					checkLocal(t, pages, place, a.Val)
				}
			}
		}
	}
}

// checkLocal fails for an address that is of no file of the site.
func checkLocal(t *testing.T, pages map[string]string, from, address string) {
	t.Helper()
	base := &url.URL{Path: "/" + from}
	u, err := base.Parse(address)
	if err != nil || u.Host != "" || u.Scheme != "" {
		t.Errorf("%s has the address %q", from, address)
		return
	}
	if _, ok := pages[strings.TrimPrefix(u.Path, "/")]; !ok {
		t.Errorf("%s leads to %q, which is not there", from, address)
	}
}

func TestASiteHasEverything(t *testing.T) {
	pages, _, counts := site(t, small())
	checkPages(t, pages)
	want := offline.Counts{Repositories: 1, Issues: 1, Pulls: 1, Discussions: 1, Comments: 4, Reviews: 1, Releases: 1, Projects: 1, Files: 3, Missing: 1}
	if counts != want {
		t.Errorf("counts %+v, want %+v", counts, want)
	}
	const at = "github.com/acme/api/"
	for place, wants := range map[string][]string{
		"index.html": {`href="github.com/acme/api/index.html"`, "An API"},
		at + "index.html": {
			"1 issue</a>, 0 open", `<a href="projects/1.html"><bdi>Plan &lt;1&gt;</bdi></a>, 4 items`, "bug",
			`search.html#label=bug&amp;repository=github.com%2Facme%2Fapi">find</a>`, "background:#ff0000;color:#fff", "2024-03-09", "go</div><div>http", "too large",
		},
		at + "issues.html":        {`href="issues/1.html"`, "It breaks", "closed"},
		at + "pulls.html":         {`href="pulls/2.html"`, "merged"},
		at + "discussions.html":   {`href="discussions/3.html"`},
		at + "issues/1.html":      {`<a href="../pulls/2.html">#2</a> and #99`, `/u1.png" alt="shot"`, `/trace.html.bin">trace</a>`, "<strong>deadlock</strong>", "closed this", "bob (Bob)", "👍 1", "❤️ 1"},
		at + "pulls/2.html":       {`<a href="../issues/1.html">https://github.com/acme/api/issues/1</a>`, "a.go, line 7", "x := &lt;-c", "Why?", "So.", "changes requested"},
		at + "discussions/3.html": {"Q&amp;A", "the answer", "Like this"},
		at + "releases.html":      {"First", `/_.._api_1.0.tar.gz"`, "gone.zip", "not in the point: 404", `<a href="issues/1.html">#1</a>`},
		at + "projects/1.html": {
			"<th><bdi>Status</bdi><th><bdi>Points</bdi></tr>", `<td><a href="../issues/1.html">acme/api#1</a><td><bdi dir="auto">It breaks</bdi><td dir="auto">Done<td dir="auto">2.5</tr>`,
			`<td>acme/web#1, archived<td><bdi dir="auto">Elsewhere</bdi><td dir="auto"><td dir="auto">&lt;b&gt;</tr>`, "<td>draft<td>", "<strong>zebras</strong>",
			`<a href="../pulls/2.html">#2</a>`, "not shown to the account that captured it", "field Status<td dir=\"auto\"><div>single_select: Todo, Done</div>",
			`href="https://github.com/orgs/acme/projects/4"`,
		},
		"search/00001.js": {`"t":"It breaks"`, "deadlock", `"p":"github.com/acme/api/pulls/2.html"`, "zebras", `"p":"github.com/acme/api/projects/1.html"`},
		"search.html":     {`data-chunks="1"`, "<option>github.com/acme/api</option>"},
	} {
		for _, piece := range wants {
			if !strings.Contains(pages[place], piece) {
				t.Errorf("%s does not have %s:\n%s", place, piece, pages[place])
			}
		}
	}
}

// A page may run nothing but the search, which is known by its digest.
func TestPagesMayDoNothing(t *testing.T) {
	pages, _, _ := site(t, small())
	for place, text := range pages {
		if !strings.HasSuffix(place, ".html") {
			continue
		}
		_, policy, _ := strings.Cut(text, `<meta http-equiv="Content-Security-Policy" content="`)
		policy, _, _ = strings.Cut(policy, `"`)
		want := "default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
		if _, script, found := strings.Cut(text, "<script>"); found {
			script, _, _ = strings.Cut(script, "</script>")
			sum := sha256.Sum256([]byte(script))
			want += "; script-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "' 'strict-dynamic'"
		}
		if html.UnescapeString(policy) != want {
			t.Errorf("%s: %s, want %s", place, html.UnescapeString(policy), want)
		}
	}
}

func TestListsArePagedNewestFirst(t *testing.T) {
	h := &held{}
	for n := range 250 {
		h.items = append(h.items, &neutral.Item{Number: int64(n + 1), Title: fmt.Sprint("issue ", n+1)})
	}
	pages, _, _ := site(t, h)
	checkPages(t, pages)
	link := regexp.MustCompile(`issues/(\d+)\.html`)
	for place, want := range map[string][2]string{"issues.html": {"250", "151"}, "issues-2.html": {"150", "51"}, "issues-3.html": {"50", "1"}} {
		all := link.FindAllStringSubmatch(pages["github.com/acme/api/"+place], -1)
		if len(all) == 0 || all[0][1] != want[0] || all[len(all)-1][1] != want[1] {
			t.Errorf("%s has %v, want from %s to %s", place, all, want[0], want[1])
		}
	}
}

func TestInterruptedNothingIsLeft(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	err := offline.Stage(filepath.Join(dir, "site"), func(tmp string) error {
		s, err := offline.NewSite(tmp, "acme")
		if err != nil {
			return err
		}
		if err := s.Add(ctx, offline.Repository{Name: "github.com/acme/api", Source: small()}); err != nil {
			return err
		}
		cancel()
		return s.Add(ctx, offline.Repository{Name: "github.com/acme/web", Source: small()})
	})
	entries, _ := os.ReadDir(dir)
	if fault.Of(err).Exit != 130 || len(entries) > 0 {
		t.Errorf("%v, left %v", err, entries)
	}
}

func TestStageWritesNothingOver(t *testing.T) {
	write := func(tmp string) error { return os.WriteFile(tmp, []byte("new"), 0o600) }
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	for _, make := range []func() error{
		func() error { return os.WriteFile(there, []byte("old"), 0o600) },
		func() error {
			return errors.Join(os.Mkdir(there, 0o700), os.WriteFile(filepath.Join(there, "a"), nil, 0o600))
		},
		func() error { return os.Symlink("nowhere", there) },
	} {
		if err := errors.Join(os.RemoveAll(there), make()); err != nil {
			t.Fatal(err)
		}
		if err := offline.Stage(there, write); !errors.Is(err, fault.ErrExists) {
			t.Errorf("%v, want %v", err, fault.ErrExists)
		}
	}
	for _, make := range []func() error{func() error { return nil }, func() error { return os.Mkdir(there, 0o700) }, func() error { return os.WriteFile(there, nil, 0o600) }} {
		if err := errors.Join(os.RemoveAll(there), make(), offline.Stage(there, write)); err != nil {
			t.Error(err)
		}
		if text, _ := os.ReadFile(there); string(text) != "new" {
			t.Errorf("%q is there", text)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left %v", entries)
	}
}
