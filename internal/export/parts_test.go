package export_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/export"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/protect"
)

// account yields a repository, its wiki, its issues and what a forge says of them.
type account struct {
	repository, wiki *upstream
	issues           map[string]string
	fail             error // of the issues
}

func (a *account) Subject() point.Subject {
	return point.Subject{Kind: point.SubjectAccount, Name: "example.com/acme"}
}

func (a *account) source(t *testing.T) protect.Source { return accountSource{a, t} }

type accountSource struct {
	*account
	t *testing.T
}

func (a accountSource) Capture(ctx context.Context, to point.Sink) error {
	for _, u := range []*upstream{a.repository, a.wiki} {
		if err := u.source(a.t).Capture(ctx, to); err != nil {
			return err
		}
	}
	w, err := to.Part(ctx, "git/example.com/acme/api.git/lfs", point.KindLFS)
	if err != nil {
		return err
	}
	oid := strings.Repeat("ab", 32)
	if _, err := w.Put(ctx, point.Entry{Name: "objects/ab/ab/" + oid}, strings.NewReader("large"), point.Packed); err != nil {
		return err
	}
	if err := w.Store(ctx, point.Part{}); err != nil {
		return err
	}
	if w, err = to.Part(ctx, "forge/example.com/acme/listing", point.KindListing); err != nil {
		return err
	}
	if _, err := w.Put(ctx, point.Entry{Name: "0000.ndjson"}, strings.NewReader("{}\n"), point.Text); err != nil {
		return err
	}
	if err := w.Store(ctx, point.Part{}); err != nil {
		return err
	}
	if w, err = to.Part(ctx, "forge/example.com/acme/api/issues", point.KindIssues); err != nil {
		return err
	}
	if a.fail != nil {
		return w.Fail(ctx, a.fail)
	}
	for name, data := range a.issues {
		if _, err := w.Put(ctx, point.Entry{Name: name}, strings.NewReader(data), point.Text); err != nil {
			return err
		}
	}
	return w.Store(ctx, point.Part{})
}

func newAccount(t *testing.T) *account {
	t.Helper()
	a := &account{
		repository: newUpstream(t, "example.com/acme/api"), wiki: newUpstream(t, "example.com/acme/api.wiki"), issues: map[string]string{},
	}
	for n := 1; n <= 20; n++ {
		a.issues[fmt.Sprintf("%d.json", n)] = fmt.Sprintf(`{"number":%d}`, n)
	}
	return a
}

func TestPartsOfAnAccount(t *testing.T) {
	t.Parallel()
	place, dir := local(t)
	e := exporter(t, export.Options{Place: place, Layout: export.Layout{LFS: true}})
	a := newAccount(t)
	receipt, err := protect.Backup(t.Context(), e, a.source(t), "")
	must(t, err)
	if got, want := names(t, dir), []string{"api.git", "api.git.issues", "api.wiki.git"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if l := receipt.Ledger; l.Stored != 4 || l.Skipped != 1 {
		t.Errorf("ledger %+v", l)
	}
	same(t, a.repository, filepath.Join(dir, "api.git"))
	same(t, a.wiki, filepath.Join(dir, "api.wiki.git"))
	oid := strings.Repeat("ab", 32)
	if data, err := os.ReadFile(filepath.Join(dir, "api.git/lfs/objects/ab/ab", oid)); err != nil || string(data) != "large" {
		t.Errorf("LFS object %q: %v", data, err)
	}

	before := state(t, filepath.Join(dir, "api.git.issues"))
	a.issues["3.json"] = `{"number":3,"state":"closed"}`
	_, err = protect.Backup(t.Context(), e, a.source(t), "")
	must(t, err)
	after := state(t, filepath.Join(dir, "api.git.issues"))
	for name, data := range after {
		if name != "3.json" && before[name] != data {
			t.Errorf("%s was written again", name)
		}
	}
	if !strings.HasSuffix(after["3.json"], a.issues["3.json"]) {
		t.Errorf("3.json is %s", after["3.json"])
	}

	a.fail = errors.New("the forge is down")
	a.repository.commit(t)
	receipt, err = protect.Backup(t.Context(), e, a.source(t), "")
	if receipt == nil || receipt.Ledger.Carried != 1 {
		t.Errorf("got %+v, %v", receipt, err)
	}
	same(t, a.repository, filepath.Join(dir, "api.git"))
	if !equal(after, state(t, filepath.Join(dir, "api.git.issues"))) {
		t.Error("the issues were touched")
	}
}

func TestCopiesFromAPoint(t *testing.T) {
	t.Parallel()
	place, dir := local(t)
	store, a := memory.New(clock()), newAccount(t)
	e := exporter(t, export.Options{Place: place, Layout: export.Layout{LFS: true}})
	export := func() *point.Receipt {
		t.Helper()
		receipt, err := protect.Backup(t.Context(), store, a.source(t), "")
		must(t, err)
		record, from, err := store.Open(t.Context(), receipt.Point.ID)
		must(t, err)
		receipt, err = protect.Backup(t.Context(), e, protect.CopyOf(a.Subject(), from, record.Point.Parts), "")
		must(t, err)
		return receipt
	}
	export()
	before := state(t, dir)
	if receipt := export(); receipt.Ledger.Unchanged != receipt.Ledger.Stored || receipt.StoredBytes != 0 {
		t.Errorf("ledger %+v, %d bytes", receipt.Ledger, receipt.StoredBytes)
	}
	if !equal(before, state(t, dir)) {
		t.Error("files were written though nothing had changed")
	}
	a.repository.commit(t)
	export()
	same(t, a.repository, filepath.Join(dir, "api.git"))
}

func TestIssuesGoIntoTheZipFile(t *testing.T) {
	t.Parallel()
	place, dir := local(t)
	e := exporter(t, export.Options{Place: place, Layout: export.Layout{Zip: true}})
	a := newAccount(t)
	for range 2 {
		a.repository.commit(t)
		_, err := protect.Backup(t.Context(), e, a.source(t), "")
		must(t, err)
	}
	to := t.TempDir()
	unzip(t, filepath.Join(dir, "api.git.zip"), to)
	if got := names(t, to); !slices.Equal(got, []string{"api.git", "api.git.issues"}) || len(names(t, filepath.Join(to, "api.git.issues"))) != 20 {
		t.Errorf("got %v", got)
	}
	same(t, a.repository, filepath.Join(to, "api.git"))
}

func TestMergedPacksTakeThePlaceOfTheirParts(t *testing.T) {
	t.Parallel()
	place, dir := local(t)
	e := exporter(t, export.Options{Place: place})
	u := newUpstream(t, "example.com/acme/api")
	for range 3 {
		u.commit(t)
		backUp(t, e, u)
	}
	lost := u.commit(t)
	backUp(t, e, u)
	run(t, u.dir, "reset", "-q", "--hard", "HEAD~1")
	u.commit(t)
	copied := filepath.Join(dir, "api.git")
	packs := func() int {
		found, err := filepath.Glob(copied + "/objects/pack/*.pack")
		must(t, err)
		return len(found)
	}
	if packs() != 4 {
		t.Fatalf("%d packs to begin with", packs())
	}
	store := memory.New(clock()) // it captures the repository anew, as one pack
	receipt, err := protect.Backup(t.Context(), store, u.source(t), "")
	must(t, err)
	record, from, err := store.Open(t.Context(), receipt.Point.ID)
	must(t, err)
	_, err = protect.Backup(t.Context(), e, protect.CopyOf(record.Point.Subject, from, record.Point.Parts), "")
	must(t, err)
	same(t, u, copied)
	if packs() != 2 { // the new one, and that of the lost commit
		t.Errorf("%d packs are left", packs())
	}
	run(t, copied, "cat-file", "commit", lost)
}
