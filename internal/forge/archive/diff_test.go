package archive_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/point"
)

// part is the newest copy that the shelf has.
func (s *shelf) part() point.Reader {
	s.Helper()
	_, part := s.begin()
	return part.Prior()
}

func TestDiffTellsWhatWasAddedEditedAndRemoved(t *testing.T) {
	s := newShelf(t)
	s.run(func(w *archive.Writer) {
		s.add(w, issue(2, "two"), archive.New)
		s.add(w, issue(10, "ten"), archive.New)
		s.add(w, issue(11, "eleven"), archive.New)
		s.add(w, issue(12, "gone before"), archive.New)
		s.must(w.Gone(t.Context(), s.now, issue(12, "").Key))
	})
	before := s.part()
	s.run(func(w *archive.Writer) {
		s.add(w, issue(10, "ten, edited"), archive.Edited)
		s.add(w, issue(3, "three"), archive.New)
		s.must(w.Gone(t.Context(), s.now, issue(2, "").Key))
	})
	raw := func(r *archive.Record) string {
		if r == nil {
			return "-"
		}
		return string(r.Raw)
	}
	var got []string
	for d, err := range archive.Diff(t.Context(), before, s.part()) {
		s.must(err)
		got = append(got, d.String()+" "+raw(d.Before)+" "+raw(d.After))
	}
	want := []string{`issues/2 {"body":"two"} -`, `issues/3 - {"body":"three"}`, `issues/10 {"body":"ten"} {"body":"ten, edited"}`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFilesAreTheNewestStates(t *testing.T) {
	s := newShelf(t)
	file := func(url, sum string) archive.Record {
		raw, err := json.Marshal(archive.File{URL: url, SHA256: sum})
		s.must(err)
		return archive.Record{Key: archive.Key{Collection: archive.FilesCollection, ID: url}, Parent: issue(1, "").Key, Raw: raw}
	}
	s.run(func(w *archive.Writer) {
		s.add(w, issue(1, "one"), archive.New)
		for _, url := range []string{"a", "b", "c"} {
			s.add(w, file(url, "1"), archive.New)
		}
	})
	s.run(func(w *archive.Writer) {
		s.add(w, file("b", "2"), archive.Edited)
		s.must(w.Gone(t.Context(), s.now, file("c", "").Key))
	})
	all, err := archive.Files(t.Context(), s.part())
	s.must(err)
	if len(all) != 2 || all["a"].File.SHA256 != "1" || all["b"].File.SHA256 != "2" || all["b"].Parent != issue(1, "").Key {
		t.Errorf("got %+v", all)
	}
	n := 0
	for r, err := range archive.Scan(t.Context(), s.part()) {
		s.must(err)
		if r.ID == "" {
			t.Error("a record without a name")
		}
		n++
	}
	if n != 6 {
		t.Errorf("%d records were written, want 6", n)
	}
}
