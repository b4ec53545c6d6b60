package forge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
)

// shelves is a forge that has files, and a store that keeps them.
type shelves struct {
	*testing.T
	files  map[string]string       // content by address
	refuse map[string]error        // what it answers instead
	broken map[string]int          // how many more times a download breaks off
	said   map[string]archive.File // what the forge says of a file
	asked  []string                // addresses, in order
	cancel func()                  // called before a file is given; nil for none
	store  *memory.Store
	now    time.Time
	limit  int64
	last   *fileTaker
}

func newShelves(t *testing.T) *shelves {
	s := &shelves{
		T: t, files: map[string]string{}, refuse: map[string]error{}, broken: map[string]int{}, said: map[string]archive.File{},
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), limit: 1000,
	}
	s.store = memory.New(func() time.Time { s.now = s.now.Add(time.Second); return s.now })
	return s
}

// FileURLs names what stands in a body.
func (s *shelves) FileURLs(r archive.Record) []archive.File {
	var all []archive.File
	for _, address := range LinksIn(r.Raw, "body", "url") {
		f := s.said[address]
		f.URL = address
		all = append(all, f)
	}
	return all
}

func (s *shelves) GetFile(ctx context.Context, _ Repository, f archive.File, limit int64) (io.ReadCloser, error) {
	s.asked = append(s.asked, f.URL)
	if s.cancel != nil {
		s.cancel()
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.refuse[f.URL]; err != nil {
		return nil, err
	}
	content, ok := s.files[f.URL]
	if !ok {
		return nil, fault.New("", fault.ErrNotFound, "404", "")
	}
	if s.broken[f.URL] > 0 {
		s.broken[f.URL]--
		return io.NopCloser(io.MultiReader(strings.NewReader(content[:1]), brokenReader{})), nil
	}
	return io.NopCloser(strings.NewReader(content)), nil
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) {
	return 0, fault.New("", fault.ErrUnavailable, "it broke off", "")
}

func textIssue(n int, links ...string) archive.Record {
	raw, err := json.Marshal(map[string]string{"body": strings.Join(links, " ")})
	if err != nil {
		panic(err)
	}
	return archive.Record{Key: archive.Key{Collection: "issues", ID: fmt.Sprint(n)}, Raw: raw}
}

// run captures the records, of which all that are new or edited are shown, and makes a point, unless it was cut short.
func (s *shelves) run(ctx context.Context, records ...archive.Record) (*archive.Reader, error) {
	s.Helper()
	must := func(err error) {
		s.Helper()
		if err != nil {
			s.Fatal(err)
		}
	}
	s.asked = nil
	d, err := s.store.Begin(s.Context(), point.Subject{Kind: point.SubjectRepository, Name: "x"}, "daily")
	must(err)
	part, err := d.Part(s.Context(), "m", point.KindMetadata)
	must(err)
	w, err := archive.NewWriter(s.Context(), part)
	must(err)
	save := func(ctx context.Context) error {
		if err := w.Flush(ctx); err != nil {
			return err
		}
		return part.(point.Saver).Save(ctx, point.Part{})
	}
	t := newFileTaker(s, Repository{}, w, part.Prior(), s.limit, func() time.Time { return s.now }, save)
	s.last = t
	for _, r := range records {
		found, err := w.Add(s.Context(), r)
		must(err)
		if found != archive.Same {
			t.note(r)
		}
	}
	must(save(s.Context()))
	if err := t.take(ctx); err != nil {
		d.Abandon(s.Context())
		return nil, err
	}
	must(w.Flush(s.Context()))
	must(part.Store(s.Context(), point.Part{Counts: []point.Count{t.count}, Notes: t.notes}))
	p, err := d.Commit(s.Context())
	must(err)
	_, tree, err := s.store.Open(s.Context(), p.Record.Point.ID)
	must(err)
	r, err := archive.Open(s.Context(), within{tree})
	must(err)
	return r, nil
}

// within is the part of the tree that run writes.
type within struct{ point.Reader }

func (w within) List(ctx context.Context, path string) ([]point.Entry, error) {
	return w.Reader.List(ctx, "m/"+path)
}

func (w within) Open(ctx context.Context, path string) (io.ReadSeekCloser, error) {
	return w.Reader.Open(ctx, "m/"+path)
}

// content is a stored file, or why there is none.
func (s *shelves) content(r *archive.Reader, address string) string {
	s.Helper()
	record, err := r.Get(s.Context(), archive.Key{Collection: archive.FilesCollection, ID: address})
	if err != nil {
		return err.Error()
	}
	var f archive.File
	if err := json.Unmarshal(record.Raw, &f); err != nil {
		s.Fatal(err)
	}
	if f.SHA256 == "" {
		return f.Reason
	}
	opened, err := r.OpenFile(s.Context(), f.SHA256)
	if err != nil {
		return err.Error()
	}
	defer opened.Close()
	content, err := io.ReadAll(opened)
	if err != nil || digestOf(string(content)) != "sha256:"+f.SHA256 || int64(len(content)) != f.Size {
		s.Errorf("%s: %+v, of which there is %q, %v", address, f, content, err)
	}
	return string(content)
}

func digestOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (s *shelves) wantCount(expected, stored, excluded int64, missing ...string) {
	s.Helper()
	c := s.last.count
	if c.Expected != expected || c.Stored != stored || c.Excluded != excluded || !slices.Equal(c.MissingAtSource, missing) {
		s.Errorf("counted %+v, want %d expected, %d stored, %d excluded, missing %v; %v", c, expected, stored, excluded, missing, s.last.notes)
	}
}

func (s *shelves) wantAsked(addresses ...string) {
	s.Helper()
	if !slices.Equal(s.asked, addresses) {
		s.Errorf("asked for %v, want %v", s.asked, addresses)
	}
}

const fileA, fileB, fileC = "https://f.example/a", "https://f.example/b", "https://f.example/c"

func TestFilesAreTakenOnce(t *testing.T) {
	s := newShelves(t)
	s.files = map[string]string{fileA: "apple", fileB: "apple", fileC: "cherry"}
	s.said[fileC] = archive.File{Digest: digestOf("cherry"), Size: 6}
	r, err := s.run(t.Context(), textIssue(1, fileA, fileB), textIssue(2, fileA, fileC))
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range s.files {
		if got := s.content(r, address); got != want {
			t.Errorf("%s: got %q, want %q", address, got, want)
		}
	}
	s.wantCount(3, 3, 0)
	s.wantAsked(fileA, fileB, fileC)

	r, err = s.run(t.Context(), textIssue(1, fileA, fileB), textIssue(2, fileA, fileC, "and more"))
	if err != nil || s.content(r, fileB) != "apple" {
		t.Errorf("%v, %q", err, s.content(r, fileB))
	}
	s.wantAsked()
	s.wantCount(3, 3, 0)
}

func TestAnAssetThatWasReplacedIsTakenAgain(t *testing.T) {
	tests := map[string]struct {
		collection string
		change     func(s *shelves, asset *archive.Record)
		again      bool
	}{
		"another size":                   {"assets", func(s *shelves, _ *archive.Record) { s.said[fileA] = archive.File{Size: 4} }, true},
		"another digest":                 {"assets", func(s *shelves, _ *archive.Record) { s.said[fileA] = archive.File{Size: 3, Digest: digestOf("new")} }, true},
		"another version":                {"releases", func(s *shelves, _ *archive.Record) { s.said[fileA] = archive.File{Size: 3, Digest: "uuid:2"} }, true},
		"an asset of the same size":      {"assets", func(_ *shelves, r *archive.Record) { r.Updated = r.Updated.Add(time.Hour) }, true},
		"a text that has it still":       {"issues", func(_ *shelves, r *archive.Record) { r.Updated = r.Updated.Add(time.Hour) }, false},
		"an asset that was loaded often": {"assets", func(*shelves, *archive.Record) {}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := newShelves(t)
			asset := textIssue(1, fileA)
			asset.Collection, asset.Updated = test.collection, s.now
			s.files[fileA], s.said[fileA] = "old", archive.File{Size: 3, Digest: "uuid:1"}
			if test.collection != "releases" {
				s.said[fileA] = archive.File{Size: 3}
			}
			if _, err := s.run(t.Context(), asset); err != nil {
				t.Fatal(err)
			}
			asset.Raw = json.RawMessage(`{"body": "` + fileA + `", "downloads": 1}`)
			test.change(s, &asset)
			want := "old"
			if test.again {
				want = "new"
			}
			s.files[fileA] = want + strings.Repeat("!", max(int(s.said[fileA].Size)-3, 0))
			r, err := s.run(t.Context(), asset)
			if err != nil || s.content(r, fileA) != s.files[fileA] || len(s.asked) > 0 != test.again {
				t.Errorf("got %q, %v, asked for %v", s.content(r, fileA), err, s.asked)
			}
		})
	}
}

func TestFilesThatAreNotTaken(t *testing.T) {
	tests := map[string]struct {
		arrange func(s *shelves)
		content string // of the record
		note    string
		asked   int
		left    bool
		missing []string
	}{
		"missing at source": {func(s *shelves) { delete(s.files, fileA) }, missingFile, "", 1, false, []string{fileA}},
		"too large, as the forge says": {
			func(s *shelves) { s.said[fileA] = archive.File{Size: 10 << 30} }, "it has 10737418240 bytes, and at most 1000 are taken", "1 files left out", 0, false, nil,
		},
		"too large, as the server says": {
			func(s *shelves) { s.refuse[fileA] = &TooLarge{10 << 30, 1000} }, "it has 10737418240 bytes, and at most 1000 are taken", "1 files left out", 1, false, nil,
		},
		"too large, as is seen": {
			func(s *shelves) { s.files[fileA] = strings.Repeat("a", 1001) }, "it has more than 1000 bytes", "1 files left out", 1, false, nil,
		},
		"not for us": {
			func(s *shelves) { s.refuse[fileA] = fault.New("", fault.ErrDenied, "403", "") }, "403", "1 files left out: " + fileA + ": 403", 1, false, nil,
		},
		"elsewhere": {
			func(s *shelves) { s.refuse[fileA] = fault.New("", fault.ErrRefused, "not the forge's", "") }, "not the forge's", "1 files left out", 1, false, nil,
		},
		"broken off for ever": {
			func(s *shelves) { s.broken[fileA] = 100 }, "read archive: it has no files/" + fileA, "left to the next run: " + fileA + ": it broke off", fileTries, true, nil,
		},
		"another digest": {
			func(s *shelves) { s.said[fileA] = archive.File{Digest: digestOf("other")} },
			"read archive: it has no files/" + fileA, "and the forge says " + strings.TrimPrefix(digestOf("other"), "sha256:"), fileTries, true, nil,
		},
		"another size": {
			func(s *shelves) { s.said[fileA] = archive.File{Size: 4} },
			"read archive: it has no files/" + fileA, "5 bytes came, and the forge says that there are 4", fileTries, true, nil,
		},
		"broken off twice":      {func(s *shelves) { s.broken[fileA] = fileTries - 1 }, "apple", "", fileTries, false, nil},
		"a digest that is none": {func(s *shelves) { s.said[fileA] = archive.File{Digest: "sha256:xyz"} }, "apple", "", 1, false, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			temp := t.TempDir()
			t.Setenv("TMPDIR", temp)
			s := newShelves(t)
			s.files[fileA] = "apple"
			test.arrange(s)
			r, err := s.run(t.Context(), textIssue(1, fileA))
			if err != nil {
				t.Fatal(err)
			}
			if got := s.content(r, fileA); got != test.content {
				t.Errorf("got %q, want %q", got, test.content)
			}
			if note := strings.Join(s.last.notes, "\n"); !strings.Contains(note, test.note) || note != "" && test.note == "" {
				t.Errorf("noted %q, want %q", note, test.note)
			}
			if len(s.asked) != test.asked || s.last.count.Closes() == test.left || !slices.Equal(s.last.count.MissingAtSource, test.missing) {
				t.Errorf("asked %d times, want %d; counted %+v", len(s.asked), test.asked, s.last.count)
			}
			if pending := r.Header().Collections[archive.FilesCollection].Cursor != ""; pending != test.left {
				t.Errorf("pending: %v, want %v", pending, test.left)
			}
			if rest, err := os.ReadDir(temp); err != nil || len(rest) > 0 {
				t.Errorf("temporary files stay: %v, %v", rest, err)
			}
		})
	}
}

func TestAConnectionThatEndsIsNoEndOfAFile(t *testing.T) {
	content := &summed{from: io.MultiReader(strings.NewReader("half"), endedReader{}), hash: sha256.New(), limit: 100}
	if got, err := io.ReadAll(content); err == nil || content.err == nil {
		t.Errorf("%q counts as a whole file", got)
	}
}

// endedReader fails as a connection does that is closed in the midst of things.
type endedReader struct{}

func (endedReader) Read([]byte) (int, error) { return 0, fmt.Errorf("read tcp: %w", io.EOF) }

func TestFilesLeftOutAreAskedForAgain(t *testing.T) {
	s := newShelves(t)
	s.files = map[string]string{fileA: "apple", fileB: strings.Repeat("b", 2000)}
	s.refuse[fileA] = fault.New("", fault.ErrDenied, "403", "")
	records := []archive.Record{textIssue(1, fileA, fileB)}
	if _, err := s.run(t.Context(), records...); err != nil {
		t.Fatal(err)
	}
	s.wantCount(2, 0, 2)
	delete(s.refuse, fileA)
	if _, err := s.run(t.Context(), records...); err != nil {
		t.Fatal(err)
	}
	s.wantAsked() // not so soon
	s.now = s.now.Add(fileRecheck)
	if _, err := s.run(t.Context(), records...); err != nil {
		t.Fatal(err)
	}
	s.wantAsked(fileA)
	s.wantCount(2, 1, 1)
	s.limit = 3000
	r, err := s.run(t.Context(), records...)
	if err != nil || s.content(r, fileB) != s.files[fileB] {
		t.Errorf("%v", err)
	}
	s.wantAsked(fileB)
	s.wantCount(2, 2, 0)
}

func TestARunOfFilesThatIsCutShortIsGoneOnWith(t *testing.T) {
	s := newShelves(t)
	var links []string
	for i := range 20 {
		address := fmt.Sprintf("https://f.example/%d", i)
		links = append(links, address)
		s.files[address] = fmt.Sprint("content ", i)
	}
	records := []archive.Record{textIssue(1, links[:10]...), textIssue(2, links[10:]...)}
	fetched := map[string]int{}
	for range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		files := 0
		s.cancel = func() {
			if files++; files == 3 {
				cancel()
			}
		}
		r, err := s.run(ctx, records...)
		for i, address := range s.asked {
			if i < 2 || err == nil {
				fetched[address]++
			}
		}
		cancel()
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			continue
		}
		for _, address := range links {
			if got := s.content(r, address); got != s.files[address] || fetched[address] != 1 {
				t.Errorf("%s: %q, fetched %d times", address, got, fetched[address])
			}
		}
		s.wantCount(20, 20, 0)
		return
	}
	t.Error("it never comes to its end")
}

func TestAForgeThatGivesNoFilesIsLeftAlone(t *testing.T) {
	s := newShelves(t)
	var links []string
	for i := range 50 {
		links = append(links, fmt.Sprintf("https://f.example/%d", i))
		s.refuse[links[i]] = fault.New("", fault.ErrThrottled, "later", "")
	}
	if _, err := s.run(t.Context(), textIssue(1, links...)); err != nil {
		t.Fatal(err)
	}
	if len(s.asked) != fileFailures {
		t.Errorf("asked %d times, want %d", len(s.asked), fileFailures)
	}
	if s.last.count.Closes() || s.last.count.Expected != 50 {
		t.Errorf("counted %+v", s.last.count)
	}
}
