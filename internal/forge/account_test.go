package forge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
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

var _ protect.Source = (*forge.Account)(nil)

// estate is a forge of real git repositories, with API and git on one host, and a store that takes points of it.
type estate struct {
	t       *testing.T
	clock   *forgetest.Clock
	world   *forgetest.World
	git     *forgetest.Git
	api     *forgetest.Server
	url     string
	host    string
	store   *memory.Store
	account *forge.Account // of the newest run
	options func(*forge.AccountOptions)
	provide func(forge.Provider) forge.Provider
}

const gitPassword = "git-password-77e1"

func newEstate(t *testing.T) *estate {
	t.Helper()
	e := &estate{t: t, clock: forgetest.NewClock(), options: func(*forge.AccountOptions) {}, provide: func(p forge.Provider) forge.Provider { return p }}
	e.world = forgetest.NewWorld(e.clock.Now)
	e.world.AddOwner("acme")
	e.git = forgetest.NewGit(t, gitPassword)
	e.api = forgetest.NewServer(t, plainPages(e.world, 10), false, e.clock.Now)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, ".git/") {
			e.git.ServeHTTP(w, r)
			return
		}
		e.api.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	e.url, e.host = server.URL, strings.ReplaceAll(strings.TrimPrefix(server.URL, "http://"), ":", "_")
	e.store = memory.New(e.clock.Now)
	return e
}

// add makes a repository with one commit.
func (e *estate) add(r forgetest.Repo) forgetest.Repo {
	e.t.Helper()
	r = e.world.Add(r)
	if r.Empty {
		e.git.Create(e.t, r.FullName())
	} else {
		e.git.Commit(e.t, r.FullName(), "README.md", "this is "+r.FullName()+"\n")
	}
	return r
}

func (e *estate) connect() *forge.Account {
	e.t.Helper()
	p, err := newPlain(forge.ClientOptions{Base: e.url, Clock: e.clock.Now, Sleep: e.clock.Sleep})
	if err != nil {
		e.t.Fatal(err)
	}
	o := forge.AccountOptions{
		Provider: e.provide(p), Name: e.host + "/acme", Selection: forge.Selection{Organization: "acme", Wikis: true}, Clock: e.clock.Now,
		Git: func(context.Context, forge.Repository) (git.SourceOptions, error) {
			return git.SourceOptions{Options: git.Options{Password: gitPassword, NetrcFile: os.DevNull}, Scratch: e.t.TempDir()}, nil
		},
	}
	e.options(&o)
	a, err := forge.NewAccount(o)
	if err != nil {
		e.t.Fatal(err)
	}
	return a
}

// run makes a point, an hour and a bit after the one before, and returns its parts.
func (e *estate) run() (parts, error) {
	e.t.Helper()
	e.clock.Advance(70 * time.Minute)
	e.api.Mend()
	return e.runAsItIs()
}

func (e *estate) runAsItIs() (parts, error) {
	e.t.Helper()
	e.git.Forget()
	e.account = e.connect()
	receipt, err := protect.Backup(e.t.Context(), e.store, e.account, "nightly")
	if receipt == nil {
		return parts{e, point.Record{}}, err
	}
	return parts{e, receipt.Record}, err
}

// good is run, which must end well.
func (e *estate) good() parts {
	e.t.Helper()
	p, err := e.run()
	if err != nil {
		e.t.Fatal(err)
	}
	return p
}

type parts struct {
	e      *estate
	record point.Record
}

// git finds the part of a repository.
func (p parts) git(name string) point.Part { return p.named("git/" + p.e.host + "/" + name + ".git") }

func (p parts) named(name string) point.Part {
	for _, part := range p.record.Point.Parts {
		if part.Name == name {
			return part
		}
	}
	return point.Part{}
}

func (p parts) listing() point.Part { return p.named("forge/" + p.e.host + "/acme/listing") }

// states sums the parts up: "acme/api stored", in the order of names, without the listing.
func (p parts) states() string {
	var states []string
	for _, part := range p.record.Point.Parts {
		if part.Kind != point.KindListing {
			name := strings.TrimPrefix(strings.TrimPrefix(part.Name, "git/"+p.e.host+"/"), "forge/"+p.e.host+"/")
			states = append(states, fmt.Sprintf("%s %s", strings.TrimSuffix(name, ".git"), part.State))
		}
	}
	slices.Sort(states)
	return strings.Join(states, ", ")
}

func (p parts) want(t *testing.T, states string) {
	t.Helper()
	if got := p.states(); got != states {
		t.Errorf("got:  %s\nwant: %s", got, states)
	}
}

func TestAccountOfManyRepositoriesCostsWhatChanged(t *testing.T) {
	e := newEstate(t)
	const n = 25
	var all []forgetest.Repo
	for i := range n {
		all = append(all, e.add(forgetest.Repo{Owner: "acme", Name: fmt.Sprintf("r%03d", i), Empty: i == 7, Size: int64(i)}))
	}
	first := e.good()
	if l := first.record.Ledger; l.Stored != n+1 || !l.Closed {
		t.Fatalf("first run: %+v", l)
	}
	if c := first.listing().Counts; len(c) != 1 || c[0].Of != "repositories" || c[0].Stored != n || c[0].Expected != n {
		t.Errorf("the listing counts %+v", c)
	}

	quiet := e.good()
	if got := e.git.Total(); got.Total() != 0 {
		t.Errorf("nothing changed, and git was asked %+v", got)
	}
	if got := len(e.api.Requests()); got != 1+3 { // whose token, and three pages of ten
		t.Errorf("nothing changed, and the API was asked %d times", got)
	}
	if l := quiet.record.Ledger; l.Unchanged != n+1 || l.NewBytes != 0 {
		t.Errorf("nothing changed: %+v", l)
	}

	changed := all[17]
	e.git.Commit(t, changed.FullName(), "README.md", "new\n")
	e.world.Push(changed.ID)
	third := e.good()
	if got, want := e.git.Total(), (forgetest.Counts{Greetings: 1, Refs: 1, Fetches: 1}); got != want {
		t.Errorf("one repository changed, and git was asked %+v", got)
	}
	if got, want := e.account.Requests(), int64(1+3+3); got != want {
		t.Errorf("it counts %d requests, want %d", got, want)
	}
	part := third.git(changed.FullName())
	if part.State != point.Stored || part.Unchanged || part.Revision != e.git.Head(t, changed.FullName()) {
		t.Errorf("the changed one: %+v", part)
	}
	if l := third.record.Ledger; l.Unchanged != n-1 {
		t.Errorf("%d are unchanged", l.Unchanged)
	}

	e.clock.Advance(25 * time.Hour) // now marks are not enough
	e.good()
	if got := e.git.Total(); got.Refs != n || got.Fetches != 0 {
		t.Errorf("a day later git was asked %+v", got)
	}
}

func TestRenamedAndTransferredAreFollowed(t *testing.T) {
	e := newEstate(t)
	api, web := e.add(forgetest.Repo{Owner: "acme", Name: "api", Wiki: true}), e.add(forgetest.Repo{Owner: "acme", Name: "web"})
	e.git.Commit(t, "acme/api.wiki", "Home.md", "home\n")
	e.good().want(t, "acme/api stored, acme/api.wiki stored, acme/web stored")

	e.world.Rename(api.ID, "backend")
	e.git.Rename(t, "acme/api", "acme/backend")
	e.git.Rename(t, "acme/api.wiki", "acme/backend.wiki")
	e.world.Transfer(web.ID, "acme/team")
	e.git.Rename(t, "acme/web", "acme/team/web")
	p := e.good()
	p.want(t, "acme/backend stored, acme/backend.wiki stored, acme/team/web stored")
	if got := e.git.Total(); got.Fetches != 0 {
		t.Errorf("after renaming git was asked %+v", got)
	}
	if !p.git("acme/backend").Unchanged {
		t.Error("the renamed repository counts as changed")
	}
	e.good().want(t, "acme/backend stored, acme/backend.wiki stored, acme/team/web stored")
}

func TestVanishedIsAlarmedAndHeldOnce(t *testing.T) {
	e := newEstate(t)
	gone := e.add(forgetest.Repo{Owner: "acme", Name: "gone"})
	e.add(forgetest.Repo{Owner: "acme", Name: "stays"})
	first := e.good()
	e.world.Delete(gone.ID)
	e.git.Delete(t, gone.FullName())
	p, err := e.run()
	if !errors.Is(err, fault.ErrIncomplete) {
		t.Errorf("got %v", err)
	}
	p.want(t, "acme/gone vanished, acme/stays stored")
	points := e.points()
	if i := slices.IndexFunc(points, func(p point.Point) bool { return p.ID == first.record.Point.ID }); len(points[i].Holds) != 1 {
		t.Errorf("the last point that has it: %+v", points[i].Holds)
	}
	e.good().want(t, "acme/stays stored")
}

func (e *estate) points() []point.Point {
	e.t.Helper()
	points, err := e.store.Points(e.t.Context(), point.Filter{})
	if err != nil {
		e.t.Fatal(err)
	}
	return points
}

func TestNameTakenByAnotherRepositoryIsAlarmed(t *testing.T) {
	e := newEstate(t)
	old := e.add(forgetest.Repo{Owner: "acme", Name: "api"})
	first := e.good()
	e.world.Delete(old.ID)
	e.git.Delete(t, "acme/api")
	e.add(forgetest.Repo{Owner: "acme", Name: "api"})
	e.git.Commit(t, "acme/api", "other", "quite another thing\n")
	p := e.good()
	if notes := strings.Join(p.git("acme/api").Notes, "\n"); !strings.Contains(notes, point.AlarmNote) || !strings.Contains(notes, "another one has it") {
		t.Errorf("notes: %s", notes)
	}
	for _, p := range e.points() {
		if p.ID == first.record.Point.ID && len(p.Holds) == 0 {
			t.Error("the last point of the one that is gone is not held")
		}
	}
	if notes := e.good().git("acme/api").Notes; strings.Contains(strings.Join(notes, "\n"), "another one has it") {
		t.Errorf("the alarm is raised again: %s", notes)
	}
}

// forgetful does not list some repositories.
type forgetful struct {
	*plain
	names []string
}

func (f *forgetful) Repositories(ctx context.Context, s forge.Selection) iter.Seq2[forge.Repository, error] {
	return func(yield func(forge.Repository, error) bool) {
		for r, err := range f.plain.Repositories(ctx, s) {
			if !slices.Contains(f.names, r.Name) && !yield(r, err) {
				return
			}
		}
	}
}

func TestUnlistedThoughThereIsCarried(t *testing.T) {
	e := newEstate(t)
	hidden, away := e.add(forgetest.Repo{Owner: "acme", Name: "hidden"}), e.add(forgetest.Repo{Owner: "acme", Name: "away"})
	e.add(forgetest.Repo{Owner: "acme", Name: "stays"})
	e.good()
	e.provide = func(p forge.Provider) forge.Provider { return &forgetful{p.(*plain), []string{"hidden"}} }
	e.world.Transfer(away.ID, "elsewhere")
	p, err := e.run()
	if !errors.Is(err, fault.ErrIncomplete) {
		t.Errorf("got %v", err)
	}
	p.want(t, "acme/away vanished, acme/hidden carried, acme/stays stored")
	if reason := p.git("acme/away").Reason; !strings.Contains(reason, "elsewhere/away") {
		t.Errorf("the reason does not say where it went: %s", reason)
	}

	e.world.Delete(hidden.ID)
	e.api.Mend()
	e.api.Break(forgetest.Break{
		Match: func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/repositories/") }, Fault: forgetest.Answer(500, "{}"),
	})
	p, _ = e.runAsItIs()
	p.want(t, "acme/hidden carried, acme/stays stored")
}

func TestListingThatBreaksOff(t *testing.T) {
	e := newEstate(t)
	for i := range 13 {
		e.add(forgetest.Repo{Owner: "acme", Name: fmt.Sprintf("r%03d", i), Empty: true})
	}
	e.good()
	late := e.add(forgetest.Repo{Owner: "acme", Name: "a-late-one"})
	e.api.Mend()
	e.api.Break(forgetest.Break{
		Match: func(r *http.Request) bool { return r.FormValue("page") == "2" }, Fault: forgetest.Answer(500, `{"message":"no"}`),
	})
	p, err := e.runAsItIs()
	if !errors.Is(err, fault.ErrIncomplete) {
		t.Fatalf("got %v", err)
	}
	if part := p.listing(); part.State != point.Carried || !strings.Contains(part.Reason, "500") {
		t.Errorf("the listing is %s: %s", part.State, part.Reason)
	}
	l := p.record.Ledger
	if l.Vanished != 0 || l.Stored != 10 || l.Carried != 3+1 {
		t.Errorf("got %+v", l)
	}
	if part := p.git("acme/r011"); !strings.Contains(part.Reason, "500") {
		t.Errorf("the reason of what is not known: %s", part.Reason)
	}
	p = e.good()
	if p.git(late.FullName()).State != point.Stored || p.record.Ledger.Stored != 15 {
		t.Errorf("the run after: %+v", p.record.Ledger)
	}
}

func TestListingIsKeptAsTheForgeAnswered(t *testing.T) {
	e := newEstate(t)
	lines := func(p parts) (segments, lines int) {
		t.Helper()
		_, tree, err := e.store.Open(t.Context(), p.record.Point.ID)
		if err != nil {
			t.Fatal(err)
		}
		files, err := tree.List(t.Context(), p.listing().Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			f, err := tree.Open(t.Context(), p.listing().Name+"/"+file.Name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for decoder := json.NewDecoder(f); ; lines++ {
				var repo forgetest.Repo
				if err := decoder.Decode(&repo); err != nil {
					break
				}
				if there, _, found := e.world.ByName(repo.FullName()); !found || repo != there {
					t.Errorf("%+v is kept, and is %+v", repo, there)
				}
			}
		}
		return len(files), lines
	}
	if segments, n := lines(e.good()); segments != 1 || n != 0 {
		t.Errorf("nothing is kept in %d segments, %d lines", segments, n)
	}
	for i := range 3 {
		e.add(forgetest.Repo{Owner: "acme", Name: fmt.Sprintf("r%d", i), Empty: true, Description: strings.Repeat("x", 1<<20)})
	}
	if segments, n := lines(e.good()); segments != 2 || n != 3 {
		t.Errorf("three are kept in %d segments, %d lines", segments, n)
	}
}

func TestNothingListedIsNoPoint(t *testing.T) {
	e := newEstate(t)
	e.add(forgetest.Repo{Owner: "acme", Name: "api"})
	e.good()
	for want, f := range map[error]forgetest.Fault{
		fault.ErrDenied: forgetest.Answer(401, `{"message":"Bad credentials"}`), fault.ErrUnavailable: forgetest.Answer(503, "{}"),
	} {
		e.api.Mend()
		e.api.Break(forgetest.Break{Fault: f})
		if _, err := e.runAsItIs(); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	if points := e.points(); len(points) != 1 {
		t.Errorf("there are %d points", len(points))
	}
}

func TestSameNamesUnderTwoOwners(t *testing.T) {
	e := newEstate(t)
	e.add(forgetest.Repo{Owner: "acme", Name: "api"})
	e.add(forgetest.Repo{Owner: "acme/team", Name: "api"})
	p := e.good()
	p.want(t, "acme/api stored, acme/team/api stored")
	if a, b := p.git("acme/api").Revision, p.git("acme/team/api").Revision; a == b || a == "" {
		t.Errorf("revisions %s and %s", a, b)
	}
}

// Most forges allow no such names; one that does, or says so, must not cost the account its point.
func TestARepositoryMayBeCalledAsADirectoryOfGit(t *testing.T) {
	e := newEstate(t)
	e.add(forgetest.Repo{Owner: "acme", Name: "api"})
	e.add(forgetest.Repo{Owner: "acme", Name: "api.git"})
	for range 2 {
		e.good().want(t, "acme/api stored, acme/api.git stored")
	}
}

func TestNamesThatCollideAreFailures(t *testing.T) {
	e := newEstate(t)
	e.add(forgetest.Repo{Owner: "acme", Name: "api"})
	e.add(forgetest.Repo{Owner: "acme", Name: "API"})
	e.add(forgetest.Repo{Owner: "acme", Name: "good"})
	e.add(forgetest.Repo{Owner: "acme", Name: "docs", Wiki: true})
	e.add(forgetest.Repo{Owner: "acme", Name: "docs.wiki"})
	p, err := e.run()
	if !errors.Is(err, fault.ErrIncomplete) {
		t.Errorf("got %v", err)
	}
	p.want(t, "acme/API failed, acme/api failed, acme/docs failed, acme/docs.wiki failed, acme/good stored")
	for _, name := range []string{"acme/api", "acme/API"} {
		if reason := p.git(name).Reason; !strings.Contains(reason, "acme/api") || !strings.Contains(reason, "acme/API") {
			t.Errorf("%s: %s", name, reason)
		}
	}
}

func TestLargeFilesOfWhatFailsAreCarried(t *testing.T) {
	e := newEstate(t)
	e.add(forgetest.Repo{Owner: "acme", Name: "api"})
	e.seed("git/" + e.host + "/acme/api.git")
	e.clock.Advance(time.Hour)
	e.add(forgetest.Repo{Owner: "acme", Name: "API"})
	p, err := e.run()
	if !errors.Is(err, fault.ErrIncomplete) {
		t.Errorf("got %v", err)
	}
	p.want(t, "acme/API failed, acme/api carried, acme/api.git/lfs carried")
}

// seed makes a point of a repository with LFS objects.
func (e *estate) seed(name string) {
	e.t.Helper()
	draft, err := e.store.Begin(e.t.Context(), point.Subject{Kind: point.SubjectAccount, Name: e.host + "/acme"}, "nightly")
	for _, part := range []struct{ name, kind string }{{name, point.KindGit}, {name + "/lfs", point.KindLFS}} {
		var w point.PartWriter
		if err == nil {
			w, err = draft.Part(e.t.Context(), part.name, part.kind)
		}
		if err == nil {
			err = w.Store(e.t.Context(), point.Part{})
		}
	}
	if err == nil {
		_, err = draft.Commit(e.t.Context())
	}
	if err != nil {
		e.t.Fatal(err)
	}
}

func TestFilteredAreSkippedWithReason(t *testing.T) {
	e := newEstate(t)
	e.add(forgetest.Repo{Owner: "acme", Name: "api"})
	e.add(forgetest.Repo{Owner: "acme", Name: "old", Archived: true, Wiki: true})
	e.git.Commit(t, "acme/old.wiki", "Home.md", "home\n")
	e.good().want(t, "acme/api stored, acme/old stored, acme/old.wiki stored")
	filter, err := forge.NewFilter(forge.Rules{ExcludeArchived: true})
	if err != nil {
		t.Fatal(err)
	}
	e.options = func(o *forge.AccountOptions) { o.Filter = filter }
	p := e.good()
	p.want(t, "acme/api stored, acme/old skipped, acme/old.wiki skipped")
	if reason := p.git("acme/old").Reason; reason != "archived" {
		t.Errorf("skipped because %q", reason)
	}
	e.good().want(t, "acme/api stored, acme/old skipped")
}

func TestWikis(t *testing.T) {
	e := newEstate(t)
	api := e.add(forgetest.Repo{Owner: "acme", Name: "api", Wiki: true})
	e.good().want(t, "acme/api stored, acme/api.wiki skipped")
	e.good().want(t, "acme/api stored, acme/api.wiki skipped")
	if n := e.git.Total().Total(); n != 0 {
		t.Errorf("%d requests for a wiki that was not there an hour ago, in a repository that did not change", n)
	}
	e.git.Commit(t, "acme/api.wiki", "Home.md", "home\n")
	e.world.Push(api.ID)
	e.good().want(t, "acme/api stored, acme/api.wiki stored")
	e.git.Commit(t, "acme/api.wiki", "Home.md", "edited\n") // of which the listing says nothing
	if part := e.good().git("acme/api.wiki"); part.Unchanged || part.Revision != e.git.Head(t, "acme/api.wiki") {
		t.Errorf("an edited wiki: %+v", part)
	}
	if got := e.git.Asked("acme/api").Total(); got != 0 {
		t.Errorf("the repository itself was asked %d times", got)
	}

	e.world.Change(api.ID, func(r *forgetest.Repo) { r.Wiki = false })
	p, err := e.run()
	if !errors.Is(err, fault.ErrIncomplete) {
		t.Errorf("got %v", err)
	}
	p.want(t, "acme/api stored, acme/api.wiki vanished")
	e.good().want(t, "acme/api stored")
}

// withIssues also reads issues: of each repository as many as the world has.
type withIssues struct {
	*plain
	world *forgetest.World
	err   error // in the middle of them
}

func (w *withIssues) Issues(_ context.Context, r forge.Repository) iter.Seq2[forge.Issue, error] {
	return func(yield func(forge.Issue, error) bool) {
		repo, _, _ := w.world.ByName(r.FullName())
		issues := w.world.Issues(repo.ID)
		if issues == nil {
			yield(forge.Issue{}, fault.New("issues", fault.ErrNotFound, "", ""))
			return
		}
		for _, i := range issues {
			raw := fmt.Appendf(nil, `{"number":%d,"body":%q}`, i.Number, i.Body)
			if !yield(forge.Issue{Number: i.Number, Updated: i.Updated, Raw: raw}, nil) {
				return
			}
		}
		if w.err != nil {
			yield(forge.Issue{}, w.err)
		}
	}
}

func TestIssues(t *testing.T) {
	e := newEstate(t)
	provider := &withIssues{world: e.world}
	e.provide = func(p forge.Provider) forge.Provider {
		provider.plain = p.(*plain)
		return provider
	}
	e.options = func(o *forge.AccountOptions) { o.Issues = true }
	busy := e.add(forgetest.Repo{Owner: "acme", Name: "listing"}) // its issues lie where the account's listing is
	e.add(forgetest.Repo{Owner: "acme", Name: "quiet"})
	e.world.AddIssues(busy.ID, 3)
	const all = "acme/listing stored, acme/listing/issues stored, acme/quiet stored, acme/quiet/issues skipped"
	p := e.good()
	p.want(t, all)
	name := "forge/" + e.host + "/acme/listing/issues"
	if c := p.named(name).Counts; len(c) != 1 || c[0].Stored != 3 {
		t.Errorf("counted %+v", c)
	}
	_, tree, err := e.store.Open(t.Context(), p.record.Point.ID)
	if err != nil {
		t.Fatal(err)
	}
	f, err := tree.Open(t.Context(), name+"/2.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if text, err := io.ReadAll(f); err != nil || string(text) != `{"number":2,"body":"it does not work"}` {
		t.Errorf("%v: %s", err, text)
	}
	if part := e.good().named(name); !part.Unchanged || part.NewBytes != 0 {
		t.Errorf("nothing changed: %+v", part)
	}

	e.world.AddIssues(busy.ID, 1)
	if part := e.good().named(name); part.Unchanged || part.Counts[0].Stored != 4 {
		t.Errorf("one more: %+v", part)
	}
	provider.err = fault.New("issues", fault.ErrUnavailable, "broke off", "")
	p, err = e.run()
	if part := p.named(name); !errors.Is(err, fault.ErrIncomplete) || part.State != point.Carried || !strings.Contains(part.Reason, "broke off") {
		t.Errorf("%v: %+v", err, part)
	}
	provider.err = nil
	e.options = func(*forge.AccountOptions) {}
	e.good().want(t, "acme/listing stored, acme/listing/issues skipped, acme/quiet stored")
}

func TestFailedRepositoryLeavesTheOthersAlone(t *testing.T) {
	e := newEstate(t)
	bad := e.add(forgetest.Repo{Owner: "acme", Name: "bad"})
	e.add(forgetest.Repo{Owner: "acme", Name: "good"})
	e.git.Delete(t, bad.FullName())
	p, err := e.run()
	if !errors.Is(err, fault.ErrIncomplete) {
		t.Errorf("got %v", err)
	}
	p.want(t, "acme/bad failed, acme/good stored")
}

func TestTokens(t *testing.T) {
	e := newEstate(t)
	e.add(forgetest.Repo{Owner: "acme", Name: "api"})
	e.world.SetToken(forgetest.Credentials{Expires: e.clock.Now().Add(10 * 24 * time.Hour)})
	e.good()
	warnings := strings.Join(e.account.Warnings(), "\n")
	for _, want := range []string{"the token expires on 2026-03-11, in 9 days", "the token lacks repo"} {
		if !strings.Contains(warnings, want) {
			t.Errorf("no %q in:\n%s", want, warnings)
		}
	}
	e.clock.Advance(11 * 24 * time.Hour)
	if _, err := e.run(); !errors.Is(err, fault.ErrDenied) || !strings.Contains(err.Error(), "expired on 2026-03-11") {
		t.Errorf("got %v", err)
	}
}

func TestCredentialsStayOnTheForgesHost(t *testing.T) {
	e := newEstate(t)
	e.add(forgetest.Repo{Owner: "acme", Name: "api"})
	e.provide = func(p forge.Provider) forge.Provider {
		p.(*plain).git = strings.Replace(e.git.URL, "127.0.0.1", "localhost", 1)
		return p
	}
	p, err := e.run()
	if !errors.Is(err, fault.ErrIncomplete) || p.git("acme/api").State != point.Failed {
		t.Errorf("got %v: %s", err, p.states())
	}
	e.provide = func(p forge.Provider) forge.Provider {
		p.(*plain).git = "file:///etc"
		return p
	}
	if p, _ = e.run(); !strings.Contains(p.git("acme/api").Reason, "scheme file") {
		t.Errorf("got %s", p.git("acme/api").Reason)
	}
}

func TestRepositoriesOneByOne(t *testing.T) {
	e := newEstate(t)
	e.add(forgetest.Repo{Owner: "acme", Name: "api", Wiki: true})
	e.git.Commit(t, "acme/api.wiki", "Home.md", "home\n")
	e.add(forgetest.Repo{Owner: "acme", Name: "old", Archived: true})
	filter, err := forge.NewFilter(forge.Rules{ExcludeArchived: true})
	if err != nil {
		t.Fatal(err)
	}
	e.options = func(o *forge.AccountOptions) { o.Filter = filter }
	account := e.connect()
	for range 2 { // listed once
		all, err := account.Repositories(t.Context())
		if err != nil || len(all) != 1 {
			t.Fatalf("%d repositories: %v", len(all), err)
		}
		receipt, err := protect.Backup(t.Context(), e.store, all[0], "")
		if err != nil {
			t.Fatal(err)
		}
		p := parts{e, receipt.Record}
		p.want(t, "acme/api stored, acme/api.wiki stored")
		if all[0].Subject().Name != e.host+"/acme/api" || all[0].PartName() != p.git("acme/api").Name {
			t.Errorf("it calls itself %s, %s", all[0].Subject().Name, all[0].PartName())
		}
	}
	if n := e.api.Count(func(r forgetest.Request) bool { return strings.HasPrefix(r.Path, "/orgs/") }); n != 1 {
		t.Errorf("listed %d times", n)
	}
}

func TestInterruptedRunIsNoPoint(t *testing.T) {
	e := newEstate(t)
	e.add(forgetest.Repo{Owner: "acme", Name: "api"})
	ctx, cancel := context.WithCancel(t.Context())
	e.options = func(o *forge.AccountOptions) {
		inner := o.Git
		o.Git = func(ctx context.Context, r forge.Repository) (git.SourceOptions, error) {
			cancel()
			return inner(ctx, r)
		}
	}
	if _, err := protect.Backup(ctx, e.store, e.connect(), ""); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
