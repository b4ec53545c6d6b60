package protect_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/policy"
	"github.com/backstay/backstay/internal/protect"
)

// account is a source of repositories, each one file in a git part.
type account struct {
	name         string
	repositories map[string]string // "owner/name" to content
	fails        map[string]error
	reads        *atomic.Int64 // how often a repository was captured
}

func (a account) Subject() point.Subject {
	return point.Subject{Kind: point.SubjectAccount, Name: "git.example.com/" + a.name}
}

func (a account) Capture(ctx context.Context, to point.Sink) error {
	for _, name := range a.names() {
		if err := (single{a, name}).Capture(ctx, to); err != nil {
			return err
		}
	}
	return nil
}

func (a account) names() []string {
	var names []string
	for name := range a.repositories {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (a account) list(context.Context) ([]protect.Repository, error) {
	var all []protect.Repository
	for _, name := range a.names() {
		owner, base, _ := strings.Cut(name, "/")
		all = append(all, protect.Repository{
			Source: single{a, name}, Part: "git/git.example.com/" + name + ".git", Host: "git.example.com", Owner: owner, Name: base,
		})
	}
	return all, nil
}

func (a account) planned() protect.PlannedSource {
	return protect.PlannedSource{Source: a, Type: "gitea", Repositories: a.list}
}

// single is one of an account's repositories.
type single struct {
	account
	repository string
}

func (s single) Subject() point.Subject {
	return point.Subject{Kind: point.SubjectRepository, Name: "git.example.com/" + s.repository}
}

func (s single) Capture(ctx context.Context, to point.Sink) error {
	if s.reads != nil {
		s.reads.Add(1)
	}
	w, err := to.Part(ctx, "git/git.example.com/"+s.repository+".git", point.KindGit)
	if err != nil {
		return err
	}
	if err := s.fails[s.repository]; err != nil {
		return w.Fail(ctx, err)
	}
	to.Skip("git/git.example.com/"+s.repository+".wiki.git", point.KindGit, "there is no wiki")
	if prior := w.Prior(); prior != nil && prior.Part.Revision == s.repositories[s.repository] {
		return errors.Join(w.Keep(ctx, "."), w.Store(ctx, point.Part{Revision: prior.Part.Revision, Unchanged: true}))
	}
	if _, err := w.Put(ctx, point.Entry{Name: "packed-refs"}, strings.NewReader(s.repositories[s.repository]), point.Text); err != nil {
		return err
	}
	return w.Store(ctx, point.Part{Revision: s.repositories[s.repository]})
}

// contents reads what copies of repositories lie in a store, by subject.
func contents(t *testing.T, store protect.Store) map[string]string {
	t.Helper()
	points, err := store.Points(t.Context(), point.Filter{})
	must(t, err)
	found := map[string]string{}
	for _, p := range slices.Backward(points) {
		_, tree, err := store.Open(t.Context(), p.ID)
		must(t, err)
		f, err := tree.Open(t.Context(), "git/"+p.Subject.Name+".git/packed-refs")
		must(t, err)
		b, err := io.ReadAll(f)
		must(t, err)
		found[p.Subject.Name] = string(b)
	}
	return found
}

func TestRunTakesEveryRepositoryToThePointAndToEveryDestination(t *testing.T) {
	clock := daily()
	var reads atomic.Int64
	a := account{name: "acme", repositories: map[string]string{"acme/api": "1", "acme/web": "2", "other/api": "3"}, reads: &reads}
	for _, withPoints := range []bool{true, false} {
		vault, copies := memory.New(clock), memory.New(clock)
		plan := protect.Plan{
			Policy: "nightly", Clock: clock, Sources: []protect.PlannedSource{a.planned()},
			Destinations: []protect.Destination{{Type: "local", Place: "/backups", Deliver: protect.Copies(copies, "nightly")}},
		}
		if withPoints {
			plan.Store = vault
		}
		reads.Store(0)
		report, err := protect.Run(t.Context(), plan)
		must(t, err)
		if report.State != point.Complete || len(report.Sources) != 1 || len(report.Sources[0].Repositories) != 3 {
			t.Fatalf("with points %v: report %+v", withPoints, report)
		}
		for _, r := range report.Sources[0].Repositories {
			if r.State != point.Stored || len(r.Deliveries) != 1 || r.Deliveries[0].State != point.Stored || r.LastGood == nil {
				t.Errorf("with points %v: %+v", withPoints, r)
			}
		}
		got := contents(t, copies)
		if len(got) != 3 || got["git.example.com/acme/api"] != "1" || got["git.example.com/other/api"] != "3" {
			t.Errorf("with points %v: copies %v", withPoints, got)
		}
		if withPoints {
			again, err := protect.Run(t.Context(), plan)
			must(t, err)
			for _, r := range again.Sources[0].Repositories {
				if !r.Unchanged {
					t.Errorf("changed, it is said: %+v", r)
				}
			}
			reads.Add(-3)
		}
		if n := reads.Load(); n != 3 {
			t.Errorf("with points %v: the repositories were captured %d times, want 3: copies come from the point", withPoints, n)
		}
	}
}

func TestRunGoesOnAfterWhatFails(t *testing.T) {
	gone := fault.New("fetch", fault.ErrUnavailable, "no route to host", "")
	clock := daily()
	vault, copies := memory.New(clock), memory.New(clock)
	first := account{name: "first", repositories: map[string]string{"first/api": "1"}, fails: map[string]error{"first/api": gone}}
	second := account{name: "second", repositories: map[string]string{"second/api": "2", "second/web": "3"}}
	full := fault.New("put", fault.ErrUnavailable, "the disk is full", "")
	var told []string
	report, err := protect.Run(t.Context(), protect.Plan{
		Policy: "nightly", Clock: clock, Store: vault, Sources: []protect.PlannedSource{first.planned(), second.planned()},
		Destinations: []protect.Destination{
			{Type: "s3", Place: "full", Deliver: func(context.Context, protect.Repository) (protect.Delivery, error) {
				return protect.Delivery{}, full
			}},
			{Type: "local", Place: "/backups", Deliver: protect.Copies(copies, "nightly")},
		},
		Tell: func(r protect.Remark) { told = append(told, r.Level+" "+r.Text) },
	})
	if !errors.Is(err, fault.ErrIncomplete) || !strings.Contains(err.Error(), "no route to host") {
		t.Errorf("error %v, want one that is incomplete and says why", err)
	}
	if report.State != point.Incomplete || report.Sources[0].State != point.Failed || report.Sources[1].State != point.Incomplete {
		t.Errorf("states %s: %s, %s", report.State, report.Sources[0].State, report.Sources[1].State)
	}
	if p := report.Sources[0].Problems; len(p) != 1 || p[0].Class != "Unavailable" {
		t.Errorf("problems %+v", p)
	}
	if got := contents(t, copies); len(got) != 2 {
		t.Errorf("copies %v, want both of the second account", got)
	}
	for _, r := range report.Sources[1].Repositories {
		if len(r.Deliveries) != 2 {
			t.Errorf("%s has %d deliveries, want 2", r.Name, len(r.Deliveries))
		}
	}
	if !slices.ContainsFunc(told, func(s string) bool { return strings.HasPrefix(s, "error ") && strings.Contains(s, "full") }) {
		t.Errorf("nobody was told of the full place: %q", told)
	}
}

func TestWhatLacksForOneReasonIsToldInAFewLines(t *testing.T) {
	a := account{name: "acme", repositories: map[string]string{}, fails: map[string]error{}}
	for i := range 100 {
		name := fmt.Sprintf("acme/r%d", i)
		a.repositories[name] = "one"
		if i > 0 {
			a.fails[name] = errors.New("the list broke off")
		}
	}
	var told []string
	report, err := protect.Run(t.Context(), protect.Plan{
		Policy: "p", Sources: []protect.PlannedSource{a.planned()}, Store: memory.New(daily()), Clock: daily(),
		Tell: func(r protect.Remark) {
			if r.Level == "error" {
				told = append(told, r.Repository+" "+r.Text)
			}
		},
	})
	if !errors.Is(err, fault.ErrIncomplete) || !strings.Contains(err.Error(), "and 94 more") || len(report.Sources[0].Repositories) != 100 {
		t.Errorf("%d repositories, %v", len(report.Sources[0].Repositories), err)
	}
	if len(told) != 6 || !strings.HasSuffix(told[0], " failed: the list broke off") || told[5] != " 94 more failed: the list broke off" {
		t.Errorf("told %q", told)
	}
}

func TestBackupNamesWhatVanishedAndAFewOfMany(t *testing.T) {
	store := memory.New(daily())
	src := func(capture func(to point.Sink) error) protect.Source { return captured{capture} }
	stored := func(to point.Sink, name string) error {
		w, err := to.Part(t.Context(), name, point.KindGit)
		if err != nil {
			return err
		}
		return w.Store(t.Context(), point.Part{})
	}
	if _, err := protect.Backup(t.Context(), store, src(func(to point.Sink) error {
		return errors.Join(stored(to, "git/a.git"), stored(to, "git/b.git"))
	}), "p"); err != nil {
		t.Fatal(err)
	}
	_, err := protect.Backup(t.Context(), store, src(func(to point.Sink) error {
		return errors.Join(stored(to, "git/a.git"), to.Vanish(t.Context(), "git/b.git", point.KindGit, "the forge has it no more"))
	}), "p")
	if !errors.Is(err, fault.ErrIncomplete) || !strings.Contains(err.Error(), "git/b.git vanished: the forge has it no more") {
		t.Errorf("got %v", err)
	}
	_, err = protect.Backup(t.Context(), store, src(func(to point.Sink) error {
		for i := range 100 {
			w, err := to.Part(t.Context(), fmt.Sprintf("git/%d.git", i), point.KindGit)
			if err != nil || w.Fail(t.Context(), errors.New("no route")) != nil {
				return errors.Join(err, errors.New("not failed"))
			}
		}
		return stored(to, "git/a.git")
	}), "p")
	if !errors.Is(err, fault.ErrIncomplete) || !strings.Contains(err.Error(), "and 95 more") {
		t.Errorf("got %v", err)
	}
}

// captured is a source of whatever a function puts into the sink.
type captured struct{ capture func(to point.Sink) error }

func (captured) Subject() point.Subject {
	return point.Subject{Kind: point.SubjectAccount, Name: "git.example.com/acme"}
}

func (c captured) Capture(_ context.Context, to point.Sink) error { return c.capture(to) }

func TestRunExpiresOnlyAfterANewPointAndOnlyItsOwn(t *testing.T) {
	clock := daily()
	vault := memory.New(clock)
	a := account{name: "acme", repositories: map[string]string{"acme/api": "1"}}
	for range 2 {
		_, err := protect.Backup(t.Context(), vault, a, "by hand")
		must(t, err)
	}
	plan := protect.Plan{
		Policy: "nightly", Clock: clock, Store: vault, Sources: []protect.PlannedSource{a.planned()}, Retention: policy.Retention{Last: 1},
	}
	for range 3 {
		_, err := protect.Run(t.Context(), plan)
		must(t, err)
	}
	if n := count(t, vault); n != 3 {
		t.Errorf("%d points are left, want the newest of the policy and two made by hand", n)
	}
	broken := a
	broken.fails = map[string]error{"acme/api": errors.New("gone")}
	plan.Sources = []protect.PlannedSource{broken.planned()}
	report, err := protect.Run(t.Context(), plan)
	if !errors.Is(err, fault.ErrIncomplete) || report.Expired != 0 || count(t, vault) != 3 {
		t.Errorf("a run without a point: error %v, %d expired", err, report.Expired)
	}
}

func TestInterruptedRunEndsAtOnce(t *testing.T) {
	clock := daily()
	ctx, stop := context.WithCancel(t.Context())
	a := account{name: "acme", repositories: map[string]string{"acme/api": "1", "acme/web": "2"}}
	delivered := 0
	_, err := protect.Run(ctx, protect.Plan{
		Policy: "nightly", Clock: clock, Store: memory.New(clock), Sources: []protect.PlannedSource{a.planned(), a.planned()}, Parallel: 1,
		Destinations: []protect.Destination{{Deliver: func(context.Context, protect.Repository) (protect.Delivery, error) {
			delivered++
			stop()
			return protect.Delivery{}, nil
		}}},
	})
	if fault.Of(err).Exit != 130 || delivered != 1 {
		t.Errorf("error %v after %d deliveries, want an interrupt after one", err, delivered)
	}
}

func TestCopyTellsWhatThePointLacks(t *testing.T) {
	clock := daily()
	vault, copies := memory.New(clock), memory.New(clock)
	a := account{name: "acme", repositories: map[string]string{"acme/api": "1", "acme/web": "2"}}
	_, err := protect.Backup(t.Context(), vault, a, "")
	must(t, err)
	a.fails = map[string]error{"acme/api": errors.New("gone")}
	report, err := protect.Run(t.Context(), protect.Plan{
		Policy: "nightly", Clock: clock, Store: vault, Sources: []protect.PlannedSource{a.planned()},
		Destinations: []protect.Destination{{Type: "local", Deliver: protect.Copies(copies, "")}},
	})
	if !errors.Is(err, fault.ErrIncomplete) {
		t.Errorf("error %v", err)
	}
	api := report.Sources[0].Repositories[0]
	if api.Name != "api" || api.State != point.Carried || api.Reason != "gone" || api.LastGood == nil {
		t.Errorf("report of the carried one: %+v", api)
	}
}
