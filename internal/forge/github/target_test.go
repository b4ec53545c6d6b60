package github_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"reflect"
	"slices"
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

// differences lists where two things are not alike, by the names of their fields in JSON.
func differences(t *testing.T, before, after any) (found []string) {
	t.Helper()
	compare("", plainOf(t, before), plainOf(t, after), func(at string, a, b any) {
		found = append(found, fmt.Sprintf("%s: %v → %v", strings.Trim(at, "."), a, b))
	})
	slices.Sort(found)
	return found
}

// plainOf is a thing as JSON has it.
func plainOf(t *testing.T, v any) (out any) {
	t.Helper()
	raw, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func compare(at string, a, b any, differ func(at string, a, b any)) {
	switch a := a.(type) {
	case map[string]any:
		if b, ok := b.(map[string]any); ok {
			both := maps.Clone(a)
			maps.Copy(both, b)
			for key := range both {
				compare(at+"."+key, a[key], b[key], differ)
			}
			return
		}
	case []any:
		if b, ok := b.([]any); ok && len(a) == len(b) {
			for i := range a {
				compare(fmt.Sprintf("%s.%d", at, i), a[i], b[i], differ)
			}
			return
		}
	}
	if !reflect.DeepEqual(a, b) && !(isNothing(a) && isNothing(b)) {
		differ(at, a, b)
	}
}

// isNothing reports whether a value stands for an empty list.
func isNothing(v any) bool {
	list, isList := v.([]any)
	return v == nil || isList && len(list) == 0
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

// TestRestoredIsCapturedAlike restores everything into a new repository, captures that, and finds what it was.
func TestRestoredIsCapturedAlike(t *testing.T) {
	b := newRestoring(t, whole())
	from := b.captured(t, b.from)
	report, err := b.restore(t, from, b.to)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(report.Notes)
	before, after := itemsOf(t, from), itemsOf(t, b.captured(t, b.to))
	for i := range min(len(before), len(after)) {
		for _, d := range differences(t, before[i], after[i]) {
			t.Errorf("item %d: %s", i, d)
		}
	}
	for _, d := range differences(t, discussionsOf(t, from), discussionsOf(t, b.captured(t, b.to))) {
		t.Errorf("discussions: %s", d)
	}
	was, err := from.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	is, err := b.captured(t, b.to).Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range differences(t, was, is) {
		t.Errorf("overview: %s", d)
	}
}

var _ = iter.Seq[int](nil)
var _ = http.MethodGet
