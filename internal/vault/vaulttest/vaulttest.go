// Package vaulttest holds what every protect.Store must do, as tests that a store's own tests run.
package vaulttest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

var (
	api  = point.Subject{Kind: point.SubjectRepository, Name: "example.com/acme/api"}
	shop = point.Subject{Kind: point.SubjectRepository, Name: "example.com/acme/shop"}
)

const (
	repo = "git/example.com/acme/api.git"
	lfs  = repo + "/lfs/objects"
)

// Run runs the suite. Make returns an empty store that takes the times of points and holds from clock.
func Run(t *testing.T, makeStore func(t *testing.T, clock func() time.Time) protect.Store) {
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"empty", (*suite).empty},
		{"round trip", (*suite).roundTrip},
		{"deployed", (*suite).deployed},
		{"list", (*suite).list},
		{"seek", (*suite).seek},
		{"extract", (*suite).extract},
		{"not found", (*suite).notFound},
		{"invalid", (*suite).invalid},
		{"filter and order", (*suite).filter},
		{"a failing reader leaves nothing", (*suite).failingReader},
		{"keep", (*suite).keep},
		{"keep some", (*suite).keepSome},
		{"part inside a part", (*suite).inside},
		{"fail without prior", (*suite).failed},
		{"fail with prior", (*suite).carried},
		{"carried on purpose", (*suite).carriedOnPurpose},
		{"skip", (*suite).skip},
		{"nothing stored", (*suite).nothing},
		{"parts not ended", (*suite).notEnded},
		{"checkpoint", (*suite).checkpoint},
		{"save", (*suite).save},
		{"save, then end", (*suite).saveAndEnd},
		{"save, then fail", (*suite).saveAndFail},
		{"abandon", (*suite).abandon},
		{"last", (*suite).lastParts},
		{"last after a run cut short", (*suite).lastCutShort},
		{"last of each policy", (*suite).lastOfPolicy},
		{"renamed", (*suite).renamed},
		{"renamed, then cut short", (*suite).renamedCutShort},
		{"renamed and failed", (*suite).renamedFailed},
		{"vanish", (*suite).vanish},
		{"vanish, then cut short", (*suite).vanishCutShort},
		{"hold", (*suite).hold},
		{"prove", (*suite).prove},
		{"alarm", (*suite).alarm},
		{"delete", (*suite).remove},
		{"verify", (*suite).verify},
		{"parallel parts", (*suite).parallel},
		{"parallel drafts", (*suite).parallelDrafts},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &clock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
			test.run(&suite{T: t, store: makeStore(t, c.tick)})
		})
	}
}

// clock goes on by a second at each look.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) tick() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Second)
	return c.now
}

type suite struct {
	*testing.T
	store protect.Store
}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) wantFault(err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Fatalf("got error %v, want one that is %v", err, want)
	}
}

func (s *suite) begin(subject point.Subject) point.Draft {
	s.Helper()
	return s.beginFor(subject, "daily")
}

func (s *suite) beginFor(subject point.Subject, policy string) point.Draft {
	s.Helper()
	d, err := s.store.Begin(s.Context(), subject, policy)
	s.must(err)
	return d
}

func (s *suite) part(d point.Sink, name string) point.PartWriter {
	s.Helper()
	w, err := d.Part(s.Context(), name, point.KindGit)
	s.must(err)
	return w
}

func (s *suite) put(w point.PartWriter, name, text string) {
	s.Helper()
	n, err := w.Put(s.Context(), point.Entry{Name: name}, strings.NewReader(text), point.Text)
	if err != nil || n != int64(len(text)) {
		s.Fatalf("Put(%s) = %d, %v", name, n, err)
	}
}

func (s *suite) end(w point.PartWriter) {
	s.Helper()
	s.must(w.Store(s.Context(), point.Part{}))
}

func (s *suite) commit(d point.Draft) *point.Receipt {
	s.Helper()
	r, err := d.Commit(s.Context())
	s.must(err)
	return r
}

// point makes a point of one part with one file.
func (s *suite) point(subject point.Subject, text string) *point.Receipt {
	s.Helper()
	d := s.begin(subject)
	w := s.part(d, repo)
	s.put(w, "HEAD", text)
	s.end(w)
	return s.commit(d)
}

func (s *suite) open(id string) (*point.Record, point.Reader) {
	s.Helper()
	record, r, err := s.store.Open(s.Context(), id)
	s.must(err)
	return record, r
}

func (s *suite) read(r point.Reader, path string) string {
	s.Helper()
	f, err := r.Open(s.Context(), path)
	s.must(err)
	b, err := io.ReadAll(f)
	s.must(err)
	s.must(f.Close())
	return string(b)
}

func (s *suite) names(r point.Reader, path string) []string {
	s.Helper()
	entries, err := r.List(s.Context(), path)
	s.must(err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
	}
	return names
}

func (s *suite) equal(got, want any) {
	s.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		s.Fatalf("got  %s\nwant %s", g, w)
	}
}

func (s *suite) points(f point.Filter) []string {
	s.Helper()
	points, err := s.store.Points(s.Context(), f)
	s.must(err)
	var ids []string
	for _, p := range points {
		ids = append(ids, p.ID)
	}
	return ids
}

func (s *suite) empty() {
	s.equal(len(s.points(point.Filter{})), 0)
	report, err := s.store.Verify(s.Context(), true)
	s.must(err)
	s.equal(len(report.Faults), 0)
}

func (s *suite) roundTrip() {
	big := randomBytes(11<<20 + 17)
	files := map[string][]byte{
		"empty": {}, "HEAD": []byte("ref: refs/heads/main\n"), "objects/pack/pack-1.pack": big,
		"deep/er/and/deeper": []byte("x"), "with space": []byte("y"), "ümläut": []byte("z"), "x.kopia-entry": []byte("{}"),
	}
	for _, c := range []point.Content{point.Text, point.Packed, point.Block, point.Tree} {
		d := s.begin(api)
		w := s.part(d, repo)
		var sum int64
		for name, b := range files {
			n, err := w.Put(s.Context(), point.Entry{Name: name}, bytes.NewReader(b), c)
			s.must(err)
			s.equal(n, len(b))
			sum += n
		}
		s.must(w.Store(s.Context(), point.Part{Revision: "abc", Counts: []point.Count{{Of: "refs", Expected: 2, Stored: 2}}}))
		receipt := s.commit(d)
		s.equal(receipt.Point.State, point.Complete)

		record, r := s.open(receipt.Point.ID)
		p := record.Point.Parts[0]
		s.equal([]any{p.Name, p.Kind, p.State, p.Bytes, p.NewBytes, p.Revision}, []any{repo, point.KindGit, point.Stored, sum, sum, "abc"})
		s.equal(record.Point.Subject, api)
		s.equal(record.Point.Revisions, map[string]string{repo: "abc"})
		s.equal(record.Point.Bytes, sum)
		for name, b := range files {
			if got := s.read(r, repo+"/"+name); got != string(b) {
				s.Fatalf("%s: %d bytes differ from the %d put", name, len(got), len(b))
			}
		}
	}
}

// deployed: what deployed a subject is in the point's record, and its revisions in the list, too, beside those of parts.
func (s *suite) deployed() {
	for _, live := range []string{"abcdef0123", strings.Repeat("l", 5000)} { // and one that is too long for a list
		d := s.begin(api)
		w := s.part(d, repo)
		s.put(w, "HEAD", "ref: refs/heads/main")
		s.must(w.Store(s.Context(), point.Part{Revision: "abc"}))
		by := point.Deployment{Name: "argocd/argocd/shop", Manifests: "5af5", Sources: []point.DeployedSource{{URL: "https://git.example/shop", From: live, To: "next"}}}
		draft, is := d.(point.Revised)
		if !is {
			s.Fatal("it takes no word of what deployed the subject")
		}
		draft.Deployed(&by, by.Revisions())
		id := s.commit(d).Point.ID

		record, _ := s.open(id)
		s.equal(record.Point.Deployment, &by)
		want := map[string]string{repo: "abc", "argocd/argocd/shop": live}
		s.equal(record.Point.Revisions, want)
		list, err := s.store.Points(s.Context(), point.Filter{})
		s.must(err)
		s.equal(list[0].Deployment, (*point.Deployment)(nil))
		if len(live) < 5000 {
			s.equal(list[0].Revisions, want)
		}
	}
}

func (s *suite) list() {
	d := s.begin(api)
	w := s.part(d, repo)
	at := time.Date(2020, 2, 3, 4, 5, 6, 7, time.UTC)
	for _, e := range []point.Entry{
		{Name: "file", Mode: 0o640, Time: at, UID: 7, GID: 8},
		{Name: "dir", Mode: fs.ModeDir | 0o750, Time: at},
		{Name: "link", Mode: fs.ModeSymlink | 0o777, Time: at, Link: "../elsewhere"},
		{Name: "plain"},
	} {
		var r io.Reader
		if e.Mode.IsRegular() {
			r = strings.NewReader("four")
		}
		_, err := w.Put(s.Context(), e, r, point.Tree)
		s.must(err)
	}
	s.put(w, "implied/file", "123")
	s.end(w)
	receipt := s.commit(d)
	_, r := s.open(receipt.Point.ID)
	entries, err := r.List(s.Context(), repo)
	s.must(err)
	s.equal(s.names(r, repo), []string{"dir", "file", "implied", "link", "plain"})
	s.equal(entries[1], point.Entry{Name: "file", Mode: 0o640, Size: 4, Time: at, UID: 7, GID: 8})
	s.equal([]any{entries[0].Mode, entries[0].Time}, []any{fs.ModeDir | 0o750, at})
	s.equal([]any{entries[2].Mode, entries[2].Size}, []any{fs.ModeDir | 0o755, 3})
	s.equal([]any{entries[3].Mode.Type(), entries[3].Link, entries[3].Time}, []any{fs.ModeSymlink, "../elsewhere", at})
	s.equal([]any{entries[4].Mode, entries[4].Time}, []any{fs.FileMode(0o644), receipt.Point.Time})
	s.equal(len(s.names(r, repo+"/dir")), 0)
	s.equal(slices.Contains(s.names(r, "."), "git"), true)
}

func (s *suite) seek() {
	b := randomBytes(9 << 20)
	d := s.begin(api)
	w := s.part(d, repo)
	_, err := w.Put(s.Context(), point.Entry{Name: "big"}, bytes.NewReader(b), point.Packed)
	s.must(err)
	s.end(w)
	_, r := s.open(s.commit(d).Point.ID)
	f, err := r.Open(s.Context(), repo+"/big")
	s.must(err)
	for _, at := range []int64{0, 4<<20 - 3, 5, 8 << 20, int64(len(b)) - 2} {
		_, err := f.Seek(at, io.SeekStart)
		s.must(err)
		got, err := io.ReadAll(io.LimitReader(f, 10))
		s.must(err)
		s.equal(bytes.Equal(got, b[at:min(at+10, int64(len(b)))]), true)
	}
	end, err := f.Seek(0, io.SeekEnd)
	s.must(err)
	s.equal(end, len(b))
	s.must(f.Close())
}

func (s *suite) extract() {
	b := randomBytes(9 << 20)
	at := time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)
	d := s.begin(api)
	w := s.part(d, repo)
	_, err := w.Put(s.Context(), point.Entry{Name: "objects/big", Mode: 0o440, Time: at}, bytes.NewReader(b), point.Packed)
	s.must(err)
	_, err = w.Put(s.Context(), point.Entry{Name: "refs", Mode: fs.ModeDir}, nil, point.Tree)
	s.must(err)
	_, err = w.Put(s.Context(), point.Entry{Name: "link", Mode: fs.ModeSymlink, Link: "/etc"}, nil, point.Tree)
	s.must(err)
	for i := range 50 {
		s.put(w, fmt.Sprintf("small/%d", i), strings.Repeat("x", i))
	}
	s.end(w)
	_, r := s.open(s.commit(d).Point.ID)

	dest := filepath.Join(s.TempDir(), "out")
	s.must(r.Extract(s.Context(), repo, dest))
	got, err := os.ReadFile(filepath.Join(dest, "objects/big"))
	s.must(err)
	s.equal(bytes.Equal(got, b), true)
	info, err := os.Stat(filepath.Join(dest, "objects/big"))
	s.must(err)
	s.equal([]any{info.Mode(), info.ModTime().UTC()}, []any{fs.FileMode(0o440), at})
	info, err = os.Stat(filepath.Join(dest, "refs"))
	s.must(err)
	s.equal(info.IsDir(), true)
	link, err := os.Readlink(filepath.Join(dest, "link"))
	s.must(err)
	s.equal(link, "/etc")
	for i := range 50 {
		got, err := os.ReadFile(filepath.Join(dest, "small", fmt.Sprint(i)))
		s.must(err)
		s.equal(len(got), i)
	}
	s.wantFault(r.Extract(s.Context(), repo, dest), fault.ErrExists)
	one := filepath.Join(s.TempDir(), "one")
	s.must(r.Extract(s.Context(), repo+"/small/7", one))
	got, err = os.ReadFile(one)
	s.must(err)
	s.equal(string(got), "xxxxxxx")
}

func (s *suite) notFound() {
	receipt := s.point(api, "x")
	_, r := s.open(receipt.Point.ID)
	none := strings.Repeat("0", 32)
	_, err := r.Open(s.Context(), repo+"/nothing")
	s.wantFault(err, fault.ErrNotFound)
	_, err = r.List(s.Context(), "nowhere/at/all")
	s.wantFault(err, fault.ErrNotFound)
	s.wantFault(r.Extract(s.Context(), "nowhere", filepath.Join(s.TempDir(), "x")), fault.ErrNotFound)
	_, _, err = s.store.Open(s.Context(), none)
	s.wantFault(err, fault.ErrNotFound)
	s.wantFault(s.store.Delete(s.Context(), receipt.Point.ID, none), fault.ErrNotFound)
	s.wantFault(s.store.Hold(s.Context(), none, "why"), fault.ErrNotFound)
	_, err = s.store.Verify(s.Context(), false, none)
	s.wantFault(err, fault.ErrNotFound)
	s.equal(s.points(point.Filter{}), []string{receipt.Point.ID})
}

func (s *suite) invalid() {
	d := s.begin(api)
	w := s.part(d, repo)
	for _, name := range []string{"", "..", "../x", "a/../b", "/a", "a//b", "a/", "./a"} {
		if _, err := w.Put(s.Context(), point.Entry{Name: name}, strings.NewReader("x"), point.Text); err == nil {
			s.Errorf("Put(%q) was taken", name)
		}
	}
	for _, name := range []string{"", ".", "..", "../x", "/a"} {
		if _, err := d.Part(s.Context(), name, point.KindGit); err == nil {
			s.Errorf("Part(%q) was taken", name)
		}
	}
	if _, err := d.Part(s.Context(), repo, point.KindGit); err == nil {
		s.Error("a part was named twice")
	}
	s.must(d.Abandon(s.Context()))
}

func (s *suite) filter() {
	first := s.point(api, "1").Point.ID
	second := s.point(shop, "2").Point.ID
	third := s.point(api, "3").Point.ID
	s.equal(s.points(point.Filter{}), []string{third, second, first})
	s.equal(s.points(point.Filter{Subject: &api}), []string{third, first})
	s.equal(s.points(point.Filter{Subject: &shop, Policy: "daily"}), []string{second})
	s.equal(len(s.points(point.Filter{Policy: "weekly"})), 0)
	points, err := s.store.Points(s.Context(), point.Filter{Subject: &shop})
	s.must(err)
	p := points[0]
	s.equal([]any{p.Subject, p.Policy, p.State, p.Bytes, len(p.Parts)}, []any{shop, "daily", point.Complete, 1, 0})
}

var errSource = errors.New("the source broke off")

// broken gives some bytes and then an error.
type broken struct{ n int }

func (b *broken) Read(p []byte) (int, error) {
	if b.n <= 0 {
		return 0, errSource
	}
	n := min(len(p), b.n)
	b.n -= n
	return n, nil
}

func (s *suite) failingReader() {
	d := s.begin(api)
	w := s.part(d, repo)
	s.put(w, "good", "good")
	for _, n := range []int{0, 100, 9 << 20} {
		if _, err := w.Put(s.Context(), point.Entry{Name: "bad"}, &broken{n}, point.Packed); err != errSource { //nolint:errorlint // as it is
			s.Fatalf("got %v, want the reader's own error", err)
		}
	}
	s.end(w)
	record, r := s.open(s.commit(d).Point.ID)
	s.equal(s.names(r, repo), []string{"good"})
	s.equal([]any{record.Point.Parts[0].Bytes, record.Point.Parts[0].NewBytes}, []any{4, 4})
}

func (s *suite) keep() {
	first := s.point(api, "one")
	d := s.begin(api)
	w := s.part(d, repo)
	prior := w.Prior()
	if prior == nil {
		s.Fatal("there is no prior copy")
	}
	s.equal(prior.Time.UTC(), first.Point.Time)
	s.equal(prior.Part.State, point.Stored)
	s.equal(s.read(prior, "HEAD"), "one")
	s.must(w.Keep(s.Context(), "."))
	s.end(w)
	second := s.commit(d)
	s.must(s.store.Delete(s.Context(), first.Point.ID))
	record, r := s.open(second.Point.ID)
	s.equal(s.read(r, repo+"/HEAD"), "one")
	s.equal([]any{record.Point.Parts[0].Bytes, record.Point.Parts[0].NewBytes}, []any{3, 0})

	d = s.begin(shop)
	w = s.part(d, repo)
	if w.Prior() != nil {
		s.Error("a prior copy of another subject")
	}
	s.wantFault(w.Keep(s.Context(), "HEAD"), fault.ErrNotFound)
	s.must(d.Abandon(s.Context()))
}

func (s *suite) keepSome() {
	d := s.begin(api)
	w := s.part(d, repo)
	for _, name := range []string{"a/1", "a/2", "b/1", "c"} {
		s.put(w, name, name)
	}
	s.end(w)
	s.commit(d)
	d = s.begin(api)
	w = s.part(d, repo)
	s.must(w.Keep(s.Context(), "a"))
	s.must(w.Keep(s.Context(), "b/1"))
	s.wantFault(w.Keep(s.Context(), "nothing"), fault.ErrNotFound)
	s.put(w, "a/3", "new")
	s.put(w, "a/1", "changed")
	s.end(w)
	record, r := s.open(s.commit(d).Point.ID)
	s.equal(s.names(r, repo), []string{"a", "b"})
	s.equal(s.names(r, repo+"/a"), []string{"1", "2", "3"})
	s.equal(s.read(r, repo+"/a/1"), "changed")
	s.equal(s.read(r, repo+"/a/2"), "a/2")
	s.equal(s.read(r, repo+"/b/1"), "b/1")
	s.equal([]any{record.Point.Parts[0].Bytes, record.Point.Parts[0].NewBytes}, []any{16, 10})
}

func (s *suite) inside() {
	write := func(d point.Draft, first, second string) {
		for _, name := range []string{first, second} {
			w := s.part(d, name)
			s.put(w, "file", name)
			s.end(w)
		}
	}
	for _, order := range [][2]string{{repo, lfs}, {lfs, repo}} {
		d := s.begin(api)
		write(d, order[0], order[1])
		record, r := s.open(s.commit(d).Point.ID)
		s.equal(s.read(r, repo+"/file"), repo)
		s.equal(s.read(r, lfs+"/file"), lfs)
		s.equal(record.Point.Bytes, len(repo)+len(lfs))
	}
	// Keeping the outer part does not keep what belongs to the inner one.
	d := s.begin(api)
	w := s.part(d, repo)
	s.must(w.Keep(s.Context(), "."))
	s.end(w)
	record, r := s.open(s.commit(d).Point.ID)
	s.equal(s.names(r, repo), []string{"file"})
	s.equal(record.Point.Bytes, len(repo))

	d = s.begin(api)
	write(d, repo, lfs)
	s.commit(d)
	d = s.begin(api)
	for _, name := range []string{lfs, repo} {
		w := s.part(d, name)
		s.must(w.Keep(s.Context(), "."))
		s.end(w)
	}
	record, r = s.open(s.commit(d).Point.ID)
	s.equal(s.read(r, repo+"/file"), repo)
	s.equal(s.read(r, lfs+"/file"), lfs)
	s.equal([]any{record.Point.Bytes, record.Ledger.NewBytes}, []any{len(repo) + len(lfs), 0})
}

func (s *suite) failed() {
	d := s.begin(api)
	w := s.part(d, repo)
	s.put(w, "HEAD", "half")
	s.must(w.Fail(s.Context(), fault.New("fetch", fault.ErrDenied, "no such token", "")))
	w = s.part(d, "git/other.git")
	s.put(w, "HEAD", "whole")
	s.end(w)
	record, r := s.open(s.commit(d).Point.ID)
	s.equal(record.Point.State, point.Incomplete)
	p := record.Point.Parts[0]
	s.equal([]any{p.Name, p.State, p.Reason, p.Bytes}, []any{repo, point.Failed, "fetch: no such token", 0})
	if _, err := r.List(s.Context(), repo); !errors.Is(err, fault.ErrNotFound) {
		s.Errorf("what a failed part put is there: %v", err)
	}
}

func (s *suite) carried() {
	first := s.point(api, "good")
	for range 2 { // the second time what is carried was carried already
		d := s.begin(api)
		w := s.part(d, repo)
		s.put(w, "HEAD", "half")
		s.must(w.Fail(s.Context(), errSource))
		w = s.part(d, "git/other.git")
		s.put(w, "HEAD", "whole")
		s.end(w)
		record, r := s.open(s.commit(d).Point.ID)
		s.equal(record.Point.State, point.Incomplete)
		p := record.Point.Parts[0]
		s.equal([]any{p.State, p.Reason, p.Bytes, p.NewBytes}, []any{point.Carried, errSource.Error(), 4, 0})
		if p.CarriedFrom == nil || !p.CarriedFrom.Equal(first.Point.Time) {
			s.Fatalf("carried from %v, want %v", p.CarriedFrom, first.Point.Time)
		}
		s.equal(s.read(r, repo+"/HEAD"), "good")
	}
}

func (s *suite) carriedOnPurpose() {
	s.point(api, "good")
	d := s.begin(api)
	w := s.part(d, repo)
	from := w.Prior().Time
	s.must(w.Keep(s.Context(), "."))
	s.must(w.Store(s.Context(), point.Part{CarriedFrom: &from, Reason: "ref count zero"}))
	w = s.part(d, "git/other.git")
	s.put(w, "HEAD", "x")
	s.end(w)
	receipt := s.commit(d)
	s.equal([]any{receipt.Point.Parts[0].State, receipt.Point.State}, []any{point.Carried, point.Incomplete})
}

func (s *suite) skip() {
	d := s.begin(api)
	d.Skip("git/fork.git", point.KindGit, "a fork")
	w := s.part(d, repo)
	s.put(w, "HEAD", "x")
	s.end(w)
	receipt := s.commit(d)
	s.equal(receipt.Point.State, point.Complete)
	p := receipt.Point.Parts[0]
	s.equal([]any{p.Name, p.State, p.Reason}, []any{"git/fork.git", point.Skipped, "a fork"})
}

func (s *suite) nothing() {
	first := s.point(api, "x")
	d := s.begin(api)
	w := s.part(d, repo)
	s.must(w.Fail(s.Context(), fault.New("fetch", fault.ErrUnavailable, "no route to host", "")))
	_, err := d.Commit(s.Context())
	s.wantFault(err, fault.ErrUnavailable)
	if !strings.Contains(err.Error(), "no route to host") {
		s.Errorf("the reason is lost: %v", err)
	}
	s.equal(s.points(point.Filter{}), []string{first.Point.ID})
	s.must(d.Abandon(s.Context()))

	d = s.begin(api)
	if _, err := d.Commit(s.Context()); err == nil {
		s.Error("a point of nothing was published")
	}
}

func (s *suite) notEnded() {
	d := s.begin(api)
	w := s.part(d, repo)
	if _, err := d.Commit(s.Context()); err == nil {
		s.Fatal("a point was published although a part was not ended")
	}
	s.put(w, "HEAD", "x")
	s.end(w)
	if err := w.Store(s.Context(), point.Part{}); err == nil {
		s.Error("a part was ended twice")
	}
	if _, err := w.Put(s.Context(), point.Entry{Name: "x"}, strings.NewReader("x"), point.Text); err == nil {
		s.Error("a part was written after its end")
	}
	s.commit(d)
	if _, err := d.Commit(s.Context()); err == nil {
		s.Error("a draft was committed twice")
	}
	s.must(d.Abandon(s.Context()))
	s.equal(len(s.points(point.Filter{})), 1)
}

func (s *suite) checkpoint() {
	s.point(api, "old")
	d := s.begin(api)
	w := s.part(d, repo)
	s.put(w, "HEAD", "checkpointed")
	s.end(w)
	open := s.part(d, "git/other.git")
	s.put(open, "HEAD", "not ended")
	s.must(d.Checkpoint(s.Context()))
	s.equal(len(s.points(point.Filter{})), 1)

	// The run is killed here: nobody ends the draft.
	d = s.begin(api)
	w = s.part(d, repo)
	if w.Prior() == nil {
		s.Fatal("what was checkpointed is not found")
	}
	s.equal(s.read(w.Prior(), "HEAD"), "checkpointed")
	s.must(w.Keep(s.Context(), "."))
	s.end(w)
	w = s.part(d, "git/other.git")
	if w.Prior() != nil {
		s.Error("a part that was not ended is found")
	}
	s.put(w, "HEAD", "now")
	s.end(w)
	_, r := s.open(s.commit(d).Point.ID)
	s.equal(s.read(r, repo+"/HEAD"), "checkpointed")
	s.equal(len(s.points(point.Filter{})), 2)
}

// saver is the part as one that can be saved.
func (s *suite) saver(w point.PartWriter) point.Saver {
	s.Helper()
	saver, ok := w.(point.Saver)
	if !ok {
		s.Fatalf("a %T cannot be saved", w)
	}
	return saver
}

func (s *suite) save() {
	s.point(api, "old")
	d := s.begin(api)
	open := s.part(d, repo)
	s.must(open.Keep(s.Context(), "HEAD"))
	s.put(open, "segments/1", "one")
	s.must(s.saver(open).Save(s.Context(), point.Part{ID: "1"}))
	s.put(open, "segments/1", "one and more")
	s.put(open, "segments/2", "two")
	s.must(s.saver(open).Save(s.Context(), point.Part{ID: "1"}))
	s.put(open, "segments/3", "lost")
	other := s.part(d, "git/other.git")
	s.put(other, "HEAD", "other")
	s.end(other)
	s.must(d.Checkpoint(s.Context()))
	s.equal(len(s.points(point.Filter{})), 1)

	// The run is killed here, and the next one is, too: what was saved lasts.
	s.must(s.begin(api).Abandon(s.Context()))
	d = s.begin(api)
	s.equal(s.last(d), []string{"git/example.com/acme/api.git stored", "git/other.git stored"})
	w := s.part(d, repo)
	if w.Prior() == nil {
		s.Fatal("what was saved is not found")
	}
	s.equal(w.Prior().Part.ID, "1")
	s.equal(w.Prior().Part.Kind, point.KindGit)
	s.equal(s.names(w.Prior(), "segments"), []string{"1", "2"})
	s.equal(s.read(w.Prior(), "HEAD"), "old")
	s.equal(s.read(w.Prior(), "segments/1"), "one and more")
	s.must(w.Keep(s.Context(), "."))
	s.end(w)
	_, r := s.open(s.commit(d).Point.ID)
	s.equal(s.read(r, repo+"/segments/2"), "two")
}

func (s *suite) saveAndEnd() {
	d := s.begin(api)
	w := s.part(d, repo)
	s.put(w, "HEAD", "saved")
	s.must(s.saver(w).Save(s.Context(), point.Part{}))
	s.put(w, "HEAD", "ended")
	s.end(w)
	if err := s.saver(w).Save(s.Context(), point.Part{}); err == nil {
		s.Error("a part was saved that had ended")
	}
	_, r := s.open(s.commit(d).Point.ID)
	s.equal(s.read(r, repo+"/HEAD"), "ended")
	d = s.begin(api)
	s.equal(s.read(s.part(d, repo).Prior(), "HEAD"), "ended")
	s.must(d.Abandon(s.Context()))
}

func (s *suite) saveAndFail() {
	s.point(api, "old")
	d := s.begin(api)
	w := s.part(d, repo)
	s.put(w, "HEAD", "saved")
	s.must(s.saver(w).Save(s.Context(), point.Part{}))
	s.must(w.Fail(s.Context(), errSource))
	other := s.part(d, "git/other.git")
	s.end(other)
	_, r := s.open(s.commit(d).Point.ID)
	s.equal(s.read(r, repo+"/HEAD"), "old")
	d = s.begin(api)
	s.equal(s.read(s.part(d, repo).Prior(), "HEAD"), "old")
	s.must(d.Abandon(s.Context()))
}

func (s *suite) abandon() {
	d := s.begin(api)
	w := s.part(d, repo)
	s.put(w, "HEAD", "x")
	s.end(w)
	s.must(d.Abandon(s.Context()))
	s.must(d.Abandon(s.Context()))
	if _, err := d.Commit(s.Context()); err == nil {
		s.Error("an abandoned draft was committed")
	}
	s.equal(len(s.points(point.Filter{})), 0)
	d = s.begin(api)
	if w := s.part(d, repo); w.Prior() == nil {
		s.Error("what was ended before is not found")
	}
	s.must(d.Abandon(s.Context()))
}

// whole writes a part with one file, and one that lies inside it.
func (s *suite) whole(d point.Sink, name, id, text string) {
	s.Helper()
	w := s.part(d, name)
	s.put(w, "HEAD", text)
	s.must(w.Store(s.Context(), point.Part{ID: id, Mark: "mark of " + text, Unchanged: true}))
	w = s.part(d, name+"/lfs")
	s.put(w, "object", "large "+text)
	s.end(w)
}

// last names the parts that Last gives, with their states.
func (s *suite) last(d point.Sink) []string {
	s.Helper()
	parts, err := d.Last(s.Context())
	s.must(err)
	names := []string{}
	for _, p := range parts {
		names = append(names, p.Name+" "+string(p.State))
	}
	return names
}

func (s *suite) lastParts() {
	d := s.begin(api)
	s.equal(s.last(d), []string{})
	s.whole(d, "git/b.git", "host:2", "two")
	s.whole(d, "git/a.git", "host:1", "one")
	d.Skip("git/fork.git", point.KindGit, "a fork")
	s.equal(s.last(d), []string{}) // what this draft does is not of the last point
	s.commit(d)
	s.point(shop, "of another subject")

	d = s.begin(api)
	want := []string{"git/a.git stored", "git/a.git/lfs stored", "git/b.git stored", "git/b.git/lfs stored", "git/fork.git skipped"}
	s.equal(s.last(d), want)
	parts, err := d.Last(s.Context())
	s.must(err)
	s.equal([]any{parts[0].ID, parts[0].Mark, parts[0].Unchanged, parts[0].Kind}, []any{"host:1", "mark of one", true, point.KindGit})
	s.whole(d, "git/a.git", "host:1", "one")
	s.commit(d)
	d = s.begin(api)
	s.equal(s.last(d), want[:2]) // what the last point lacks is not brought up again
	s.must(d.Abandon(s.Context()))
}

func (s *suite) lastCutShort() {
	d := s.begin(api)
	s.whole(d, "git/a.git", "host:1", "one")
	s.whole(d, "git/b.git", "host:2", "two")
	s.commit(d)

	d = s.begin(api)
	s.whole(d, "git/b.git", "host:2", "second")
	s.whole(d, "git/c.git", "host:3", "three")
	w := s.part(d, "git/d.git")
	s.must(w.Fail(s.Context(), errSource))
	s.must(d.Abandon(s.Context()))

	d = s.begin(api)
	s.equal(s.last(d), []string{
		"git/a.git stored", "git/a.git/lfs stored", "git/b.git stored", "git/b.git/lfs stored", "git/c.git stored", "git/c.git/lfs stored",
	})
	parts, err := d.Last(s.Context())
	s.must(err)
	s.equal(parts[2].Mark, "mark of second")
	s.must(d.Abandon(s.Context()))
}

// lastOfPolicy has two policies take different things of one subject: neither takes the other's for gone, and both use what is there.
func (s *suite) lastOfPolicy() {
	d := s.begin(api)
	s.whole(d, "git/a.git", "host:1", "one")
	daily := s.commit(d).Point.ID
	for range 10 { // more than are looked back on for one policy
		d = s.beginFor(api, "hourly")
		s.whole(d, "git/b.git", "host:2", "two")
		s.commit(d)
	}
	d = s.beginFor(api, "hourly")
	s.equal(s.last(d), []string{"git/b.git stored", "git/b.git/lfs stored"})
	s.whole(d, "git/c.git", "host:3", "three")
	s.must(d.Abandon(s.Context()))

	d = s.begin(api)
	s.equal(s.last(d), []string{"git/a.git stored", "git/a.git/lfs stored"})
	for _, name := range []string{"git/b.git", "git/c.git"} {
		w := s.part(d, name)
		if w.Prior() == nil {
			s.Fatalf("what another policy has of %s is not found", name)
		}
		s.must(w.Keep(s.Context(), "."))
		s.must(w.Store(s.Context(), point.Part{}))
	}
	s.must(d.Vanish(s.Context(), "git/a.git", point.KindGit, "the forge has it no more"))
	s.commit(d)
	s.wantFault(s.store.Delete(s.Context(), daily), fault.ErrRefused)

	d = s.beginFor(api, "hourly")
	s.equal(s.last(d), []string{"git/b.git stored", "git/b.git/lfs stored", "git/c.git stored", "git/c.git/lfs stored"})
	s.must(d.Abandon(s.Context()))
}

func (s *suite) renamed() {
	d := s.begin(api)
	s.whole(d, "git/old.git", "host:1", "one")
	first := s.commit(d)

	d = s.begin(api)
	d.Renamed("git/new.git", "git/old.git")
	for _, name := range []string{"git/new.git", "git/new.git/lfs"} {
		w := s.part(d, name)
		if w.Prior() == nil {
			s.Fatalf("%s has no prior copy", name)
		}
		s.must(w.Keep(s.Context(), "."))
		s.must(w.Store(s.Context(), point.Part{Unchanged: true}))
	}
	if w := s.part(d, "git/new.git.wiki"); w.Prior() != nil {
		s.Error("a name that only begins alike has a prior copy")
	} else {
		s.must(w.Fail(s.Context(), errSource))
	}
	second := s.commit(d)
	s.must(s.store.Delete(s.Context(), first.Point.ID))
	record, r := s.open(second.Point.ID)
	s.equal(s.read(r, "git/new.git/HEAD"), "one")
	s.equal(s.read(r, "git/new.git/lfs/object"), "large one")
	s.equal(s.names(r, "git"), []string{"new.git"})
	s.equal([]any{record.Ledger.NewBytes, record.Ledger.Unchanged}, []any{0, 2})
}

func (s *suite) renamedCutShort() {
	d := s.begin(api)
	s.whole(d, "git/old.git", "host:1", "one")
	first := s.commit(d)

	d = s.begin(api)
	d.Renamed("git/new.git", "git/old.git")
	w := s.part(d, "git/new.git")
	s.must(w.Keep(s.Context(), "."))
	s.must(w.Store(s.Context(), point.Part{ID: "host:1"}))
	s.must(d.Abandon(s.Context())) // before what lies inside it

	d = s.begin(api)
	s.equal(s.last(d), []string{"git/new.git stored"}) // nobody can tell from it that there was a rename
	w = s.part(d, "git/new.git/lfs")
	if w.Prior() == nil {
		s.Fatal("what lies inside a renamed part has no prior copy")
	}
	s.equal(s.read(w.Prior(), "object"), "large one")
	s.end(w)
	w = s.part(d, "git/new.git")
	s.must(w.Alarm(s.Context(), "all refs are gone"))
	s.end(w)
	s.commit(d)
	s.wantFault(s.store.Delete(s.Context(), first.Point.ID), fault.ErrRefused)
}

func (s *suite) renamedFailed() {
	d := s.begin(api)
	s.whole(d, "git/old.git", "host:1", "one")
	s.whole(d, "git/other.git", "host:2", "two")
	s.commit(d)
	d = s.begin(api)
	d.Renamed("git/new.git", "git/old.git")
	w := s.part(d, "git/new.git")
	s.must(w.Alarm(s.Context(), "all refs are gone"))
	s.must(w.Fail(s.Context(), errSource))
	s.whole(d, "git/other.git", "host:2", "two")
	record, r := s.open(s.commit(d).Point.ID)
	p := record.Point.Parts[0]
	s.equal([]any{p.Name, p.State, p.ID}, []any{"git/new.git", point.Carried, "host:1"})
	s.equal(s.read(r, "git/new.git/HEAD"), "one")
	s.equal(s.names(r, "git"), []string{"new.git", "other.git"})
}

func (s *suite) vanish() {
	d := s.begin(api)
	s.whole(d, "git/gone.git", "host:1", "one")
	s.whole(d, "git/there.git", "host:2", "two")
	first := s.commit(d).Point.ID
	d = s.begin(api)
	s.must(d.Vanish(s.Context(), "git/gone.git", point.KindGit, "the forge has it no more"))
	s.must(d.Vanish(s.Context(), "git/gone.git/lfs", point.KindLFS, "the forge has it no more"))
	if d.Vanish(s.Context(), "git/gone.git", point.KindGit, "again") == nil {
		s.Error("a part was named twice")
	}
	s.whole(d, "git/there.git", "host:2", "two")
	second := s.commit(d)
	s.equal(second.Point.State, point.Incomplete)
	s.equal([]any{second.Ledger.Vanished, second.Ledger.Closed, second.Ledger.Failed}, []any{2, false, 0})
	record, r := s.open(second.Point.ID)
	p := record.Point.Parts[0]
	s.equal([]any{p.Name, p.State, p.Reason, p.Bytes}, []any{"git/gone.git", point.Vanished, "the forge has it no more", 0})
	s.equal(s.names(r, "git"), []string{"there.git"})
	s.wantFault(s.store.Delete(s.Context(), first), fault.ErrRefused)
	held, _ := s.open(first)
	if len(held.Point.Holds) == 0 || !strings.Contains(held.Point.Holds[0].Reason, "git/gone.git: the forge has it no more") {
		s.Errorf("the holds are %+v", held.Point.Holds)
	}

	d = s.begin(api) // once told, it is no more news
	s.equal(s.last(d), []string{"git/gone.git vanished", "git/gone.git/lfs vanished", "git/there.git stored", "git/there.git/lfs stored"})
	s.whole(d, "git/there.git", "host:2", "two")
	s.equal(s.commit(d).Point.State, point.Complete)
	if w := s.part(s.begin(api), "git/gone.git"); w.Prior() == nil {
		s.Error("a part that is there again has no prior copy")
	}
}

func (s *suite) vanishCutShort() {
	first := s.point(api, "one").Point.ID
	for range 2 {
		d := s.begin(api)
		s.must(d.Vanish(s.Context(), repo, point.KindGit, "gone"))
		s.must(d.Abandon(s.Context()))
	}
	d := s.begin(api)
	s.equal(s.last(d), []string{repo + " stored"}) // no point tells of it yet
	s.must(d.Vanish(s.Context(), repo, point.KindGit, "gone"))
	s.whole(d, "git/other.git", "host:2", "two")
	s.equal(s.commit(d).Point.State, point.Incomplete)
	held, _ := s.open(first)
	s.equal(len(held.Point.Holds), 1)
}

func (s *suite) hold() {
	first, second := s.point(api, "1").Point.ID, s.point(api, "2").Point.ID
	s.must(s.store.Hold(s.Context(), first, "for the lawyers"))
	s.must(s.store.Hold(s.Context(), first, "for the auditors"))
	record, _ := s.open(first)
	s.equal(len(record.Point.Holds), 2)
	s.equal(record.Point.Holds[0].Reason, "for the lawyers")
	s.wantFault(s.store.Delete(s.Context(), second, first), fault.ErrRefused)
	s.equal(s.points(point.Filter{}), []string{second, first})
	s.must(s.store.Hold(s.Context(), first, ""))
	s.must(s.store.Delete(s.Context(), first, second))
	s.equal(len(s.points(point.Filter{})), 0)
}

func (s *suite) prove() {
	first, second := s.point(api, "1").Point.ID, s.point(api, "2").Point.ID
	prover, is := s.store.(protect.Prover)
	if !is {
		s.Fatal("the store keeps no proofs")
	}
	at := time.Date(2026, 11, 20, 3, 0, 0, 0, time.UTC)
	good := point.Proof{
		Point: first, Started: at, Finished: at.Add(time.Minute), Proven: true, RestoreSeconds: 2.5, By: "host",
		Checks: []point.Check{{What: "fsck", Of: repo, OK: true, Detail: "7 objects"}},
	}
	s.must(prover.Prove(s.Context(), good))
	record, _ := s.open(first)
	s.equal(*record.Point.Proof, good)
	// A later drill counts, though the clock that it went by is behind.
	bad := point.Proof{Point: first, Started: at.Add(-time.Hour), Finished: at.Add(-time.Hour), Checks: []point.Check{{What: "refs", Of: repo}}}
	s.must(prover.Prove(s.Context(), bad))
	list, err := s.store.Points(s.Context(), point.Filter{})
	s.must(err)
	s.equal(list[0].Proof, (*point.Proof)(nil))
	s.equal(*list[1].Proof, bad)
	s.equal(list[1].Proof.Problems(), bad.Checks)
	s.must(s.store.Delete(s.Context(), first))
	s.equal(s.points(point.Filter{}), []string{second})
	s.wantFault(prover.Prove(s.Context(), good), fault.ErrNotFound)
}

func (s *suite) alarm() {
	first := s.point(api, "good").Point.ID
	d := s.begin(api)
	w := s.part(d, repo)
	s.put(w, "HEAD", "all gone")
	s.must(w.Alarm(s.Context(), "90 of 100 refs are gone"))
	s.end(w)
	record, _ := s.open(s.commit(d).Point.ID)
	if notes := strings.Join(record.Point.Parts[0].Notes, "\n"); !strings.Contains(notes, "90 of 100 refs are gone") {
		s.Errorf("notes %q do not tell the finding", notes)
	}
	s.wantFault(s.store.Delete(s.Context(), first), fault.ErrRefused)
}

func (s *suite) remove() {
	first, second := s.point(api, "1").Point.ID, s.point(api, "2").Point.ID
	s.must(s.store.Delete(s.Context(), first))
	s.equal(s.points(point.Filter{}), []string{second})
	_, _, err := s.store.Open(s.Context(), first)
	s.wantFault(err, fault.ErrNotFound)
	s.must(s.store.Delete(s.Context()))
}

func (s *suite) verify() {
	first := s.point(api, "1").Point.ID
	s.point(shop, "2")
	for _, readData := range []bool{false, true} {
		report, err := s.store.Verify(s.Context(), readData)
		s.must(err)
		s.equal([]any{report.Points, len(report.Faults)}, []any{2, 0})
		report, err = s.store.Verify(s.Context(), readData, first)
		s.must(err)
		s.equal([]any{report.Points, len(report.Faults)}, []any{1, 0})
	}
}

func (s *suite) parallel() {
	const parts, files = 8, 20
	d := s.begin(api)
	var group sync.WaitGroup
	for i := range parts {
		group.Go(func() {
			w, err := d.Part(s.Context(), fmt.Sprintf("git/%d.git", i), point.KindGit)
			if err != nil {
				s.Error(err)
				return
			}
			for j := range files {
				text := strings.Repeat(fmt.Sprint(i, j), 1000)
				if _, err := w.Put(s.Context(), point.Entry{Name: fmt.Sprintf("d/%d", j)}, strings.NewReader(text), point.Text); err != nil {
					s.Error(err)
				}
				if j == files/2 {
					if err := d.Checkpoint(s.Context()); err != nil {
						s.Error(err)
					}
				}
			}
			if err := w.Store(s.Context(), point.Part{}); err != nil {
				s.Error(err)
			}
		})
	}
	group.Wait()
	_, r := s.open(s.commit(d).Point.ID)
	for i := range parts {
		for j := range files {
			s.equal(s.read(r, fmt.Sprintf("git/%d.git/d/%d", i, j)) == strings.Repeat(fmt.Sprint(i, j), 1000), true)
		}
	}
}

func (s *suite) parallelDrafts() {
	var group sync.WaitGroup
	for _, subject := range []point.Subject{api, shop} {
		group.Go(func() {
			for i := range 5 {
				d, err := s.store.Begin(s.Context(), subject, "")
				if err != nil {
					s.Error(err)
					return
				}
				w, err := d.Part(s.Context(), repo, point.KindGit)
				if err != nil {
					s.Error(err)
					return
				}
				text := fmt.Sprint(subject, i)
				if _, err := w.Put(s.Context(), point.Entry{Name: "HEAD"}, strings.NewReader(text), point.Text); err != nil {
					s.Error(err)
				}
				if err := w.Store(s.Context(), point.Part{}); err != nil {
					s.Error(err)
				}
				if _, err := d.Commit(s.Context()); err != nil {
					s.Error(err)
				}
			}
		})
	}
	group.Wait()
	points, err := s.store.Points(s.Context(), point.Filter{})
	s.must(err)
	s.equal(len(points), 10)
	seen := map[string]bool{}
	for _, p := range points {
		_, r := s.open(p.ID)
		seen[s.read(r, repo+"/HEAD")] = true
	}
	s.equal(len(seen), 10)
	report, err := s.store.Verify(s.Context(), true)
	s.must(err)
	s.equal(len(report.Faults), 0)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	var seed [32]byte
	_, _ = rand.NewChaCha8(seed).Read(b) // never fails
	return b
}
