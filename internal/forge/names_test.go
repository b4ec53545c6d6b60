package forge

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// hosted is a provider of no repositories.
type hosted string

func (h hosted) Host() string { return string(h) }

func (hosted) Repositories(context.Context, Selection) iter.Seq2[Repository, error] {
	return func(func(Repository, error) bool) {}
}

func accountOn(t testing.TB, host, name string) *Account {
	t.Helper()
	a, err := NewAccount(AccountOptions{Provider: hosted(host), Name: name, Clock: func() time.Time { return time.Time{} }})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestNamesOfParts(t *testing.T) {
	a := accountOn(t, "git.example.com_3000", "git.example.com_3000/acme")
	if got, want := a.listingName(), "forge/git.example.com_3000/acme/listing"; got != want {
		t.Errorf("listing: %s, want %s", got, want)
	}
	if got, want := accountOn(t, "github.com", "all of/mine: 1").listingName(), "forge/github.com/all of/mine%3A 1/listing"; got != want {
		t.Errorf("listing: %s, want %s", got, want)
	}
	tests := []struct {
		r    Repository
		want string
	}{
		{Repository{Owner: "acme", Name: "api"}, "acme/api"},
		{Repository{Owner: "group/sub group", Name: "api"}, "group/sub group/api"},
		{Repository{Owner: "acme", Name: "9f3a", Class: Gist}, "acme/gists/9f3a"},
		{Repository{Owner: "~acme", Name: "api"}, "~acme/api"},
		{Repository{Owner: "../..", Name: ".."}, "%2E%2E/%2E%2E/%2E%2E"},
		{Repository{Owner: "acme", Name: "a/b"}, "acme/a%2Fb"},
		{Repository{Owner: "acme", Name: "a\x00\n\\:"}, "acme/a%00%0A%5C%3A"},
		{Repository{Name: "api"}, "api"},
		{Repository{Owner: "acme.git", Name: "lfs"}, "acme.git/lfs"},
	}
	for _, test := range tests {
		if got, want := a.partName(test.r), "git/git.example.com_3000/"+test.want+".git"; got != want {
			t.Errorf("%q: %s, want %s", test.r.FullName(), got, want)
		}
		test.r.ID = "7"
		for name, id := range map[string]string{
			a.partName(test.r): a.partID(test.r, ""), a.partName(test.r) + "/lfs": "", a.wikiName(test.r): a.partID(test.r, ofWiki),
			a.issuesName(test.r): a.partID(test.r, ofIssues),
		} {
			kind := point.KindGit
			if id == "" {
				kind = point.KindLFS
			}
			r, ok := a.repositoryOf(point.Part{Name: name, Kind: kind, ID: id})
			if !ok || r.FullName() != test.r.FullName() || r.Class != test.r.Class || (id != "" && r.ID != "7") {
				t.Errorf("%s is of %+v, %v", name, r, ok)
			}
		}
	}
	called := Repository{ID: "8", Owner: "acme", Name: "api.wiki"} // it is no wiki
	if r, ok := a.repositoryOf(point.Part{Name: a.partName(called), Kind: point.KindGit, ID: a.partID(called, "")}); !ok || r.Name != called.Name {
		t.Errorf("%s is of %+v, %v", a.partName(called), r, ok)
	}
	for _, name := range []string{a.listingName(), "git/other.example/acme/api.git", "volumes/x"} {
		if r, ok := a.repositoryOf(point.Part{Name: name}); ok {
			t.Errorf("%s is of %+v", name, r)
		}
	}
}

func FuzzSegment(f *testing.F) {
	for _, seed := range []string{"api", "..", "", "a/b", "a%2Fb", "\xff", "con:", "a\u202eb", "über"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		segment := segmentOf(name)
		if unescaped(segment) != name {
			t.Errorf("%q becomes %q, and that %q", name, segment, unescaped(segment))
		}
		if name != "" && (!fs.ValidPath(segment) || segment == "." || strings.Contains(segment, "/")) {
			t.Errorf("%q becomes %q, which is no name of a directory", name, segment)
		}
	})
}

// endless is a forge whose listing does not end.
type endless struct{ hosted }

func (endless) Repositories(context.Context, Selection) iter.Seq2[Repository, error] {
	raw := make([]byte, 8<<20)
	return func(yield func(Repository, error) bool) {
		for n := 0; yield(Repository{ID: strconv.Itoa(n), Owner: "a", Name: strconv.Itoa(n), Raw: raw}, nil); n++ {
		}
	}
}

func TestAListingHasALongestLength(t *testing.T) {
	a, err := NewAccount(AccountOptions{Provider: endless{"h"}, Name: "h", Clock: func() time.Time { return time.Time{} }})
	if err != nil {
		t.Fatal(err)
	}
	all, err := a.Repositories(t.Context())
	if !errors.Is(err, fault.ErrUnsupported) || len(all) == 0 || len(all) > maxListing>>23 {
		t.Errorf("%d repositories, %v", len(all), err)
	}
}
