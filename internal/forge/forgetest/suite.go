package forgetest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// Dialect is one forge: how it renders a World, and what its API has.
type Dialect struct {
	// Handler serves the world in the forge's API. It accepts Token alone (401 for others), and paginates as the forge does.
	Handler func(w *World) http.Handler
	// New makes the provider for the server at o.Base, with Token. It hands o.Transport, Budget, Cache, Clock and Sleep on to its Client.
	New func(o forge.ClientOptions) (forge.Provider, error)
	// Selection names an owner of the world; nil for its Organization.
	Selection func(owner string) forge.Selection
	// Owners of the world that the suite makes. Nil for "acme" and "umbrella"; a forge with subgroups adds "acme/team".
	Owners []string
	// Listing tells the requests that page through repositories; nil for all GETs whose answers lead to repositories of an
	// Organization.
	Listing func(r *http.Request) bool
	// PerOwner is how many repositories each owner gets; it should fill two pages and begin a third. 0 for 250.
	PerOwner int

	// Tells names what the listing tells of a repository and is compared: "private archived fork empty wiki stars description branch".
	Tells string

	ETags    bool   // the API answers conditional requests
	Scope    string // a scope that Inspect finds missing when the World's token has none; "" where the API does not tell
	Expiry   bool   // Inspect finds when the token expires
	Circular bool   // a repeated page leads on to itself, or cannot be told: the suite leaves that out
	Unmarked bool   // the listing says nothing of pushes: no repository has a mark
	Nameless bool   // repositories of old names are not found by Find, as of forges without redirects and IDs
	Untold   bool   // the API gives no issues
}

func (d Dialect) withDefaults() Dialect {
	if d.Selection == nil {
		d.Selection = func(owner string) forge.Selection { return forge.Selection{Organization: owner, Wikis: true} }
	}
	if d.Owners == nil {
		d.Owners = []string{"acme", "umbrella"}
	}
	if d.Listing == nil {
		d.Listing = func(r *http.Request) bool { return r.Method == http.MethodGet }
	}
	if d.PerOwner == 0 {
		d.PerOwner = 250
	}
	return d
}

// Run is the conformance suite.
func Run(t *testing.T, d Dialect) {
	d = d.withDefaults()
	for _, test := range []struct {
		name string
		run  func(*testing.T, *bench)
	}{
		{"complete", testComplete},
		{"marks", testMarks},
		{"bursts are survived", testBursts},
		{"failing for ever", testFailing},
		{"a page that repeats", testRepeat},
		{"waits as asked", testWaits},
		{"no request before the limit resets", testMaxWait},
		{"refusals have classes", testRefusals},
		{"redirects", testRedirects},
		{"not modified", testNotModified},
		{"find", testFind},
		{"inspect", testInspect},
		{"issues", testIssues},
		{"interrupted", testInterrupted},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, newBench(t, d)) })
	}
}

// bench is one test's world, server and provider.
type bench struct {
	Dialect
	world    *World
	server   *Server
	clock    *Clock
	provider forge.Provider
	owner    string
}

func newBench(t *testing.T, d Dialect) *bench {
	t.Helper()
	b := &bench{Dialect: d, clock: NewClock(), owner: d.Owners[0]}
	b.world = NewWorld(b.clock.Now)
	for _, owner := range d.Owners {
		b.world.AddOwner(owner)
	}
	b.server = NewServer(t, d.Handler(b.world), d.ETags, b.clock.Now)
	b.provider = b.connect(t, nil)
	t.Cleanup(func() { b.checkRequests(t) })
	return b
}

func (b *bench) connect(t *testing.T, cache *forge.Cache) forge.Provider {
	t.Helper()
	p, err := b.New(forge.ClientOptions{
		Base: b.server.URL, Budget: &forge.Budget{}, Cache: cache, Clock: b.clock.Now, Sleep: b.clock.Sleep, MaxWait: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// grow fills the world.
func (b *bench) grow(t *testing.T) {
	t.Helper()
	for _, owner := range b.Owners {
		b.world.Grow(owner, b.PerOwner)
	}
}

// list collects a listing.
func (b *bench) list(t *testing.T, p forge.Provider) ([]forge.Repository, error) {
	t.Helper()
	var all []forge.Repository
	for r, err := range p.Repositories(t.Context(), b.Selection(b.owner)) {
		if err != nil {
			return all, b.checkError(t, err)
		}
		all = append(all, r)
	}
	return all, nil
}

// checkError looks for the token in an error, and for a class.
func (b *bench) checkError(t *testing.T, err error) error {
	t.Helper()
	text := err.Error() + strings.Join(fault.Hints(err), " ")
	if holdsToken(text) {
		t.Errorf("the token shows in: %s", text)
	}
	if fault.Of(err).Exit == 1 {
		t.Errorf("no class: %v", err)
	}
	return err
}

func holdsToken(text string) bool {
	return strings.Contains(text, Token) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(Token))) ||
		strings.Contains(text, url.QueryEscape(Token))
}

// checkRequests looks for the token in the addresses that were asked for.
func (b *bench) checkRequests(t *testing.T) {
	for _, r := range b.server.Requests() {
		if holdsToken(r.Path + r.Query) {
			t.Errorf("the token is in the address %s?%s", r.Path, r.Query)
		}
	}
}

// compare sets a listing against the world.
func (b *bench) compare(t *testing.T, got []forge.Repository) {
	t.Helper()
	want := map[string]Repo{}
	for _, r := range b.world.Of(b.owner, true) {
		want[r.FullName()] = r
	}
	ids := map[string]string{}
	for _, r := range got {
		w, ok := want[r.FullName()]
		if !ok {
			t.Errorf("listed %s, which is not there or was listed before", r.FullName())
			continue
		}
		delete(want, r.FullName())
		b.compareOne(t, r, w)
		if before := ids[r.ID]; r.ID == "" || before != "" {
			t.Errorf("%s has ID %q, as has %q", r.FullName(), r.ID, before)
		}
		ids[r.ID] = r.FullName()
	}
	for name := range want {
		t.Errorf("not listed: %s", name)
	}
}

func (b *bench) compareOne(t *testing.T, r forge.Repository, w Repo) {
	t.Helper()
	got, want := b.told(attributesOf(r)), b.told(map[string]string{
		"private": fmt.Sprint(w.Private), "archived": fmt.Sprint(w.Archived), "fork": fmt.Sprint(w.Fork), "empty": fmt.Sprint(w.Empty),
		"wiki": fmt.Sprint(w.Wiki), "stars": fmt.Sprint(w.Stars), "description": w.Description, "branch": w.DefaultBranch,
	})
	if w.Empty {
		delete(got, "branch")
		delete(want, "branch")
	}
	if !maps.Equal(got, want) {
		t.Errorf("%s is %v, in the world %v", r.FullName(), got, want)
	}
	u, err := url.Parse(r.HTTPURL)
	if err != nil || u.Host == "" || u.User != nil || !strings.Contains(u.Path, w.Name) {
		t.Errorf("%s: git at %q", r.FullName(), r.HTTPURL)
	}
	if !json.Valid(r.Raw) {
		t.Errorf("%s: raw answer %.80q", r.FullName(), r.Raw)
	}
}

func attributesOf(r forge.Repository) map[string]string {
	return map[string]string{
		"private": fmt.Sprint(r.Private), "archived": fmt.Sprint(r.Archived), "fork": fmt.Sprint(r.Fork), "empty": fmt.Sprint(r.Empty),
		"wiki": fmt.Sprint(r.WikiHTTPURL != ""), "stars": fmt.Sprint(r.Stars), "description": r.Description, "branch": r.DefaultBranch,
	}
}

// told is what the forge's listing tells of these attributes.
func (b *bench) told(attributes map[string]string) map[string]string {
	told := strings.Fields(b.Tells)
	maps.DeleteFunc(attributes, func(name, _ string) bool { return !slices.Contains(told, name) })
	return attributes
}

// after breaks so many of the listing's requests that follow on its first pages.
func (b *bench) after(pages int, f Fault, times int) {
	b.server.Break(Break{Match: b.Listing, After: pages, Times: times, Fault: f})
}

func testComplete(t *testing.T, b *bench) {
	b.grow(t)
	got, err := b.list(t, b.provider)
	if err != nil {
		t.Fatal(err)
	}
	b.compare(t, got)
	if n := b.server.Count(func(r Request) bool { return r.Status >= 400 }); n > 0 {
		t.Errorf("%d requests were refused", n)
	}
}

func testMarks(t *testing.T, b *bench) {
	quiet, busy := b.world.Add(Repo{Owner: b.owner, Name: "quiet"}), b.world.Add(Repo{Owner: b.owner, Name: "busy"})
	marks := func() map[string]string {
		all, err := b.list(t, b.provider)
		if err != nil {
			t.Fatal(err)
		}
		marks := map[string]string{}
		for _, r := range all {
			marks[r.Name] = r.Mark
		}
		return marks
	}
	first := marks()
	b.clock.Advance(time.Hour)
	b.world.Push(busy.ID)
	b.clock.Advance(10 * time.Second)
	second := marks()
	b.clock.Advance(time.Hour)
	third := marks()
	switch {
	case b.Unmarked:
		for _, marks := range []map[string]string{first, second, third} {
			if marks[quiet.Name]+marks[busy.Name] != "" {
				t.Errorf("there are marks: %v", marks)
			}
		}
	case first[quiet.Name] == "" || first[quiet.Name] != third[quiet.Name]:
		t.Errorf("the mark of a repository that nobody pushed to went from %q to %q", first[quiet.Name], third[quiet.Name])
	case second[busy.Name] != "":
		t.Errorf("ten seconds after a push the mark is trusted: %q", second[busy.Name])
	case third[busy.Name] == "" || third[busy.Name] == first[busy.Name]:
		t.Errorf("the mark before a push is %q, after it %q", first[busy.Name], third[busy.Name])
	}
}

func testBursts(t *testing.T, b *bench) {
	b.grow(t)
	for name, f := range map[string]Fault{
		"503": Answer(503, "upstream is away"), "502 in HTML": Answer(502, "<html>bad gateway</html>", "Content-Type: text/html"),
		"hang up": HangUp, "broken off": Truncate, "half an answer": Halve,
	} {
		t.Run(name, func(t *testing.T) {
			b.server.Mend()
			b.after(1, f, 2)
			got, err := b.list(t, b.provider)
			if err != nil {
				t.Fatal(err)
			}
			b.compare(t, got)
		})
	}
}

func testFailing(t *testing.T, b *bench) {
	b.grow(t)
	for name, f := range map[string]Fault{
		"500": Answer(500, `{"message":"boom"}`), "hang up": HangUp, "broken off": Truncate, "half an answer": Halve,
		"not what was asked for": Answer(200, `"hello"`),
	} {
		t.Run(name, func(t *testing.T) {
			b.server.Mend()
			b.after(1, f, 0)
			got, err := b.list(t, b.provider)
			if err == nil {
				t.Fatalf("counts as complete with %d of %d", len(got), len(b.world.Of(b.owner, true)))
			}
			if !errors.Is(err, fault.ErrUnavailable) {
				t.Errorf("got %v", err)
			}
			if n := len(b.server.Requests()); n > 40 {
				t.Errorf("%d requests to a server that fails", n)
			}
		})
	}
}

func testRepeat(t *testing.T, b *bench) {
	if b.Circular {
		t.Skip("the forge's pages cannot tell")
	}
	b.grow(t)
	b.after(1, Repeat, 0)
	if got, err := b.list(t, b.provider); err == nil {
		t.Fatalf("counts as complete with %d of %d", len(got), len(b.world.Of(b.owner, true)))
	}
}

func testWaits(t *testing.T, b *bench) {
	b.grow(t)
	for _, test := range []struct {
		name  string
		fault Fault
		least time.Duration
	}{
		{"Retry-After of a 429", Answer(429, `{"message":"slow down"}`, "Retry-After: 97"), 97 * time.Second},
		{"Retry-After of a 503", Answer(503, `{"message":"busy"}`, "Retry-After: 98"), 98 * time.Second},
		{"Retry-After as a date", Answer(429, `{}`, "Retry-After: "+b.clock.Now().Add(100*time.Second).Format(http.TimeFormat)), 99 * time.Second},
		{"secondary limit with Retry-After", Secondary("99"), 99 * time.Second},
		{"secondary limit without", Secondary(""), time.Minute},
		{"429 without", Answer(429, `{}`), time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			b.clock = NewClock()
			b.server.date = b.clock.Now
			b.server.Mend()
			b.after(1, test.fault, 1)
			got, err := b.list(t, b.connect(t, nil))
			if err != nil {
				t.Fatal(err)
			}
			b.compare(t, got)
			if longest := b.clock.Longest(); longest < test.least {
				t.Errorf("waited for %s only", longest)
			}
		})
	}
}

func testMaxWait(t *testing.T, b *bench) {
	b.grow(t)
	b.after(1, Answer(429, `{}`, "Retry-After: 7200"), 0)
	_, err := b.list(t, b.provider)
	if !errors.Is(err, fault.ErrThrottled) {
		t.Fatalf("got %v", err)
	}
	until := b.clock.Now().Add(2 * time.Hour).Format(time.DateTime)
	if hints := strings.Join(fault.Hints(err), "; "); !strings.Contains(hints, until) {
		t.Errorf("the hint %q does not name %s", hints, until)
	}
	before := len(b.server.Requests())
	if _, err := b.list(t, b.provider); !errors.Is(err, fault.ErrThrottled) || len(b.server.Requests()) != before {
		t.Errorf("asked again before the time: %v", err)
	}
}

func testRefusals(t *testing.T, b *bench) {
	b.grow(t)
	for _, test := range []struct {
		name  string
		fault Fault
		want  error
		says  string
	}{
		{"401", Answer(401, `{"message":"Bad credentials `+Token+`"}`), fault.ErrDenied, "expired"},
		{"403", Answer(403, `{"message":"no"}`), fault.ErrDenied, ""},
		{"422 on a deep page", Answer(422, `{"message":"In order to keep the API fast, pagination is limited for this resource."}`), nil, "pagination is limited"},
		{"451", Answer(451, `{"message":"Repository access blocked"}`), fault.ErrDenied, "legal reasons"},
		{"500 with the token", Answer(500, `{"message":"`+Token+`\u001b[31m"}`), fault.ErrUnavailable, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			b.server.Mend()
			b.after(1, test.fault, 0)
			got, err := b.list(t, b.provider)
			switch {
			case err == nil:
				t.Fatalf("counts as complete with %d", len(got))
			case test.want != nil && !errors.Is(err, test.want):
				t.Errorf("got %v, want it to be %v", err, test.want)
			case !strings.Contains(err.Error(), test.says):
				t.Errorf("%q does not say %q", err, test.says)
			case strings.ContainsRune(err.Error(), '\x1b'):
				t.Errorf("control characters in %q", err)
			}
		})
	}
}

func testRedirects(t *testing.T, b *bench) {
	b.grow(t)
	elsewhere := NewServer(t, b.Handler(b.world), false, b.clock.Now)
	b.server.Break(Break{After: 1, Fault: func(w http.ResponseWriter, r *http.Request, _, _ *httptest.ResponseRecorder) {
		http.Redirect(w, r, elsewhere.URL+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	}})
	if _, err := b.list(t, b.provider); err == nil {
		t.Error("a listing that another host gave counts as complete")
	}
	for _, r := range elsewhere.Requests() {
		if holdsToken(fmt.Sprint(r.Header, r.Body, r.Query, r.Path)) {
			t.Errorf("another host got the token: %s %s", r.Method, r.Path)
		}
	}
}

func testNotModified(t *testing.T, b *bench) {
	if !b.ETags {
		t.Skip("the API answers no conditional requests")
	}
	b.grow(t)
	cache, err := forge.NewCache(filepath.Join(t.TempDir(), "answers"), 0)
	if err != nil {
		t.Fatal(err)
	}
	for run := range 2 {
		b.server.Mend()
		got, err := b.list(t, b.connect(t, cache))
		if err != nil {
			t.Fatal(err)
		}
		b.compare(t, got)
		fresh := b.server.Count(func(r Request) bool { return r.Method == http.MethodGet && r.Status == http.StatusOK })
		if run == 1 && fresh > 0 {
			t.Errorf("%d pages were sent again though nothing changed", fresh)
		}
	}
	b.server.Mend()
	b.world.Add(Repo{Owner: b.owner, Name: "zz-new"})
	got, err := b.list(t, b.connect(t, cache))
	if err != nil {
		t.Fatal(err)
	}
	b.compare(t, got)
}

func testInterrupted(t *testing.T, b *bench) {
	b.grow(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range b.provider.Repositories(ctx, b.Selection(b.owner)) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		return
	}
	t.Error("an interrupted listing counts as complete")
}
