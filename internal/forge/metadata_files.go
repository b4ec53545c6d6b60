package forge

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/point"
)

const (
	// DefaultMaxFile is the largest release asset or attachment that is taken, in bytes.
	DefaultMaxFile = 2 << 30
	// fileTries is how often a download is begun that breaks off.
	fileTries = 3
	// fileFailures is how many files fail in a row before the rest is left to the next run: it is the forge then, not the files.
	fileFailures = 5
	// filesPending is the cursor of the files while some may not have been looked at.
	filesPending = "pending"
	// fileRecheck is how long it is believed that the forge does not give a file.
	fileRecheck = 7 * 24 * time.Hour
	// namedFiles is how many files a note names.
	namedFiles = 5
)

// fileTaker takes the release assets and attachments that a repository's records name. The engine shows it each record that is new or
// was edited; when all are read, it downloads what is not there.
type fileTaker struct {
	getter FileGetter
	r      Repository
	w      *archive.Writer
	prior  *point.Prior // nil for none
	limit  int64        // bytes of a file
	now    func() time.Time
	save   func(ctx context.Context) error // called after each file

	wanted []wantedFile
	seen   map[string]bool
	known  map[string]archive.FileRecord // of the prior copy, by address
	sums   map[string]bool               // of what is stored
	left   map[string]string             // why files are left to the next run, by address
	all    bool                          // records of the prior copy may name files that were never looked at

	// What take found. The count closes unless something is left.
	count  point.Count
	notes  []string
	denied bool // the token may not read some
}

// missingFile is the reason of a file that the forge has not.
const missingFile = "the forge has it no more"

// wantedFile is an address that stood in a record.
type wantedFile struct {
	archive.File
	parent  archive.Key
	updated time.Time // of an asset's own record; zero for what others link to, which never changes at its address
}

func newFileTaker(
	getter FileGetter, r Repository, w *archive.Writer, prior *point.Prior, limit int64, now func() time.Time, save func(ctx context.Context) error,
) *fileTaker {
	if limit <= 0 {
		limit = DefaultMaxFile
	}
	before, read := w.Header.Collections[archive.FilesCollection]
	return &fileTaker{
		getter: getter, r: r, w: w, prior: prior, limit: limit, now: now, save: save, seen: map[string]bool{}, sums: map[string]bool{},
		known: map[string]archive.FileRecord{}, left: map[string]string{}, all: prior != nil && (!read || before.Cursor != ""),
	}
}

// note looks for files in a record that is new or was edited. Until take has ended well, the archive says that some may be missing.
func (t *fileTaker) note(r archive.Record) {
	for _, f := range t.getter.FileURLs(r) {
		if f.URL == "" || len(f.URL) > longestAddress || t.seen[f.URL] {
			continue
		}
		t.seen[f.URL] = true
		wanted := wantedFile{File: f, parent: r.Key}
		if r.Collection == "assets" {
			wanted.updated = r.Updated
		}
		t.wanted = append(t.wanted, wanted)
		t.mark(filesPending)
	}
}

// mark says in the archive how far the files are.
func (t *fileTaker) mark(cursor string) {
	p := t.w.Header.Collections[archive.FilesCollection]
	p.Cursor = cursor
	t.w.Header.Collections[archive.FilesCollection] = p
}

// swept notes that all files that are not there are asked for now.
func (t *fileTaker) swept() {
	p := t.w.Header.Collections[archive.FilesCollection]
	p.Swept = t.now()
	t.w.Header.Collections[archive.FilesCollection] = p
}

// take downloads what is not there. What the forge does not give is in the count and the notes; an error is of the vault, or of ctx.
func (t *fileTaker) take(ctx context.Context) error {
	if err := t.remember(ctx); err != nil {
		return err
	}
	failures := 0
	for i, f := range t.wanted {
		if failures == fileFailures {
			for _, f := range t.wanted[i:] {
				t.left[f.URL] = fmt.Sprintf("not tried after %d failures in a row", failures)
			}
			break
		}
		if err := t.one(ctx, f); err != nil {
			return err
		}
		if failures++; t.left[f.URL] == "" {
			failures = 0
		}
		if err := t.save(ctx); err != nil {
			return err
		}
	}
	t.sumUp()
	return nil
}

// remember learns what an earlier run stored, and left.
func (t *fileTaker) remember(ctx context.Context) (err error) {
	if t.prior == nil {
		t.swept()
		return nil
	}
	if t.known, err = archive.Files(ctx, t.prior); err != nil {
		return err
	}
	old := t.now().Sub(t.w.Header.Collections[archive.FilesCollection].Swept) >= fileRecheck
	for _, address := range slices.Sorted(maps.Keys(t.known)) {
		f := t.known[address]
		again := f.File.Size <= t.limit && (old || f.File.Size > 0) // what was too large has a size: the limit was lower
		switch {
		case f.File.SHA256 != "":
			t.sums[f.File.SHA256] = true
		case again && !t.seen[address]:
			t.seen[address] = true
			f.File.Reason, f.File.Size = "", 0
			t.wanted = append(t.wanted, wantedFile{f.File, f.Parent, f.Updated})
		}
	}
	if old {
		t.swept()
	}
	if !t.all {
		return nil
	}
	for r, err := range archive.Scan(ctx, t.prior) {
		if err != nil {
			return err
		}
		if r.Gone.IsZero() && r.Collection != archive.FilesCollection {
			t.note(r)
		}
	}
	return nil
}

// one sees to one file.
func (t *fileTaker) one(ctx context.Context, f wantedFile) error {
	before, had := t.known[f.URL]
	if had {
		f.parent = before.Parent // the first that named it
	}
	if had && f.same(before) {
		t.w.See(before.Key)
		return nil
	}
	stored, err := t.store(ctx, f.File)
	var storing *storingError
	switch {
	case err == nil:
		return t.record(ctx, f, stored)
	case errors.As(err, &storing):
		return storing.error
	case ctx.Err() != nil:
		return ctx.Err()
	case !final(err):
		t.left[f.URL] = err.Error()
		return nil
	}
	return t.record(ctx, f, t.without(f.File, err))
}

// without is what is written down of a file that is not taken.
func (t *fileTaker) without(f archive.File, err error) archive.File {
	f.SHA256, f.Reason = "", err.Error()
	var large *TooLarge
	switch {
	case errors.As(err, &large):
		f.Size = cmp.Or(large.Size, t.limit+1) // or more
	case errors.Is(err, fault.ErrNotFound):
		f.Reason = missingFile
	case errors.Is(err, fault.ErrDenied):
		t.denied = true
	}
	return f
}

// same reports whether the prior copy has the file as it is.
func (f wantedFile) same(before archive.FileRecord) bool {
	if before.File.SHA256 == "" || f.Size > 0 && f.Size != before.File.Size {
		return false
	}
	if f.Digest != "" {
		return f.Digest == before.File.Digest
	}
	return f.updated.Equal(before.Updated)
}

// final reports whether an error will be the same in the next run: then it is written down, and the file counts as left out or missing.
func final(err error) bool {
	return errors.Is(err, fault.ErrNotFound) || errors.Is(err, fault.ErrDenied) || errors.Is(err, fault.ErrRefused)
}

// record writes what became of a file.
func (t *fileTaker) record(ctx context.Context, f wantedFile, stored archive.File) error {
	raw, err := json.Marshal(stored)
	if err != nil {
		return fmt.Errorf("encode the record of a file: %w", err)
	}
	r := archive.Record{
		Key: archive.Key{Collection: archive.FilesCollection, ID: f.URL}, Parent: f.parent, Updated: f.updated, Seen: t.now(), Raw: raw,
	}
	if _, err := t.w.Add(ctx, r); err != nil {
		return err
	}
	t.known[f.URL] = archive.FileRecord{Record: r, File: stored}
	return nil
}

// store downloads a file into the part.
func (t *fileTaker) store(ctx context.Context, f archive.File) (archive.File, error) {
	if f.Size > t.limit {
		return f, &TooLarge{f.Size, t.limit}
	}
	sum, said := sha256Of(f.Digest)
	if said && t.sums[sum] {
		f.SHA256 = sum
		return f, nil
	}
	for try := 1; ; try++ {
		stored, err := t.download(ctx, f, sum)
		if err == nil || !errors.Is(err, fault.ErrUnavailable) || try == fileTries || ctx.Err() != nil {
			return stored, err
		}
	}
}

// sha256Of reads a forge's digest: "sha256:ab12…".
func sha256Of(digest string) (sum string, ok bool) {
	sum, ok = strings.CutPrefix(strings.ToLower(digest), "sha256:")
	if _, err := hex.DecodeString(sum); !ok || err != nil || len(sum) != 2*sha256.Size {
		return "", false
	}
	return sum, true
}

// download gets a file once. Where the forge says its sum, it goes straight into the part, under that name; else by way of a
// temporary file, for the sum is the name.
func (t *fileTaker) download(ctx context.Context, f archive.File, sum string) (archive.File, error) {
	body, err := t.getter.GetFile(ctx, t.r, f, t.limit)
	if err != nil {
		return f, err
	}
	defer body.Close()
	content := &summed{from: body, hash: sha256.New(), size: f.Size, limit: t.limit, sum: sum}
	if sum != "" {
		err = t.put(ctx, sum, content)
	} else {
		err = t.spool(ctx, content)
	}
	f.Size, f.SHA256 = content.read, hex.EncodeToString(content.hash.Sum(nil))
	return f, err
}

// put writes the file into the part, unless it is there.
func (t *fileTaker) put(ctx context.Context, sum string, content *summed) error {
	_, err := t.w.PutFile(ctx, sum, content)
	switch {
	case content.err != nil:
		return content.err
	case err != nil:
		return &storingError{err}
	}
	t.sums[sum] = true
	return nil
}

// spool writes the file into the part by way of a temporary one, which only we can read.
func (t *fileTaker) spool(ctx context.Context, content *summed) (err error) {
	f, err := os.CreateTemp("", "backstay-file-") // mode 0600
	if err != nil {
		return &storingError{err}
	}
	defer func() { err = errors.Join(err, spoolError(f.Close()), spoolError(os.Remove(f.Name()))) }()
	if _, err := io.Copy(f, content); content.err != nil {
		return content.err
	} else if err != nil {
		return &storingError{err}
	}
	sum := hex.EncodeToString(content.hash.Sum(nil))
	if t.sums[sum] {
		return nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return &storingError{err}
	}
	if _, err := t.w.PutFile(ctx, sum, f); err != nil {
		return &storingError{err}
	}
	t.sums[sum] = true
	return nil
}

// storingError is one of the vault or of this machine, not of the forge.
type storingError struct{ error }

func (e *storingError) Unwrap() error { return e.error }

func spoolError(err error) error {
	if err == nil {
		return nil
	}
	return &storingError{err}
}

// summed is a file on its way, with its sum so far. At its end it fails where the file is not what the forge said.
type summed struct {
	from io.Reader
	hash hash.Hash
	read int64
	err  error // of the source

	size, limit int64  // bytes, by the forge's word, 0 for nothing said; and at most
	sum         string // SHA-256 by the forge's word; "" for nothing said
}

// Read reads on.
func (s *summed) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	s.hash.Write(p[:n])
	s.read += int64(n)
	switch {
	case s.read > s.limit:
		err = &TooLarge{0, s.limit}
	case err == io.EOF: //nolint:errorlint // a wrapped one is of a connection that broke off, not of a file that is whole
		if err = s.judge(); err == nil {
			return n, io.EOF
		}
	}
	s.err = err
	return n, err
}

// judge compares the whole file with what the forge said.
func (s *summed) judge() error {
	switch sum := hex.EncodeToString(s.hash.Sum(nil)); {
	case s.size > 0 && s.read != s.size:
		return fault.New("", fault.ErrUnavailable, fmt.Sprintf("%d bytes came, and the forge says that there are %d", s.read, s.size), "")
	case s.sum != "" && sum != s.sum:
		return fault.New("", fault.ErrUnavailable, "its SHA-256 is "+sum+", and the forge says "+s.sum, "")
	}
	return nil
}

// sumUp counts all files that the records name.
func (t *fileTaker) sumUp() {
	t.count = point.Count{Of: archive.FilesCollection, Expected: int64(len(t.left))}
	var excluded, left []string
	for address, f := range t.known {
		if _, is := t.left[address]; is {
			continue
		}
		t.count.Expected++
		switch {
		case f.File.SHA256 != "":
			t.count.Stored++
		case f.File.Reason == missingFile:
			t.count.MissingAtSource = append(t.count.MissingAtSource, printable(address))
		default:
			t.count.Excluded++
			excluded = append(excluded, printable(address+": "+f.File.Reason))
		}
	}
	for address, reason := range t.left {
		left = append(left, printable(address+": "+reason))
	}
	slices.Sort(t.count.MissingAtSource)
	t.notes = slices.Concat(noteOf("left out", excluded), noteOf("not read, and left to the next run", left))
	if len(t.left) == 0 {
		t.mark("")
	}
}

// noteOf is a note of files, which names the first.
func noteOf(what string, files []string) []string {
	if len(files) == 0 {
		return nil
	}
	slices.Sort(files)
	note := fmt.Sprintf("%d files %s: %s", len(files), what, strings.Join(files[:min(len(files), namedFiles)], "; "))
	if len(files) > namedFiles {
		note += "; …"
	}
	return []string{note}
}
