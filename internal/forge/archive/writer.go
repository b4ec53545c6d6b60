package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

const (
	segmentBytes = 2 << 20 // about what a segment is long
	maxSmall     = 64      // segments of less than half of that, before they are made fewer
)

// Writer adds to the archive in a part: what the part's prior copy has stays, and is not read but for its index. It holds some
// hundred bytes for each record. Not safe for concurrent use.
type Writer struct {
	Header Header // written by Flush, which fills in how many records the collections have

	to      point.PartWriter
	shelves map[string]*shelf
	parents map[Key]uint32 // numbers of what records belong to; 0 for nothing
	parent  []Key          // by number
	lines   uint32         // read so far of the prior copy
	ofIndex []uint32       // how many there were before each of its segments

	segment int    // number of the one that grows
	buffer  []byte // of it
	index   []byte // of its lines
	loose   bool   // buffer has what was not put
	added   int64  // records
	written int64  // bytes
	scratch bytes.Buffer
}

// shelf is a collection.
type shelf struct {
	byID         map[string]entry
	living, gone int64
}

// entry is what is known of a record's newest state. There may be millions.
type entry struct {
	sum    sum
	parent uint32 // number
	line   uint32 // of the prior copy
	length uint32 // bytes of the line
	gone   uint32 // Unix time; 0 while it is not
	seen   bool   // since Begin
}

// Found says what Add found of a record.
type Found int

// What Add finds.
const (
	Same     Found = iota // it is there as it is
	New                   // it was not there, or was gone
	Edited                // it was there in another state
	Collided              // in this reading it was there already, in another state; this one counts
)

// NewWriter takes over what the part's prior copy has. Errors: fault.ErrUnsupported for an archive that a newer build wrote,
// fault.ErrCorrupt or ErrNotFound for one that cannot be gone on with; else of the vault.
func NewWriter(ctx context.Context, to point.PartWriter) (*Writer, error) {
	w := Fresh(to)
	prior := to.Prior()
	if prior == nil {
		return w, nil
	}
	var err error
	if w.Header, err = readHeader(ctx, prior); err != nil {
		return nil, err
	}
	w.Header.Version = Version
	if w.Header.Collections == nil {
		w.Header.Collections = map[string]Progress{}
	}
	if err := w.takeOver(ctx, prior); err != nil {
		return nil, fault.Wrap("go on with archive", nil, err, "")
	}
	return w, nil
}

// Fresh begins an archive, whatever the part's prior copy has.
func Fresh(to point.PartWriter) *Writer {
	return &Writer{
		Header: Header{Version: Version, Collections: map[string]Progress{}},
		to:     to, shelves: map[string]*shelf{}, parents: map[Key]uint32{{}: 0}, parent: []Key{{}}, segment: 1,
	}
}

// takeOver learns what the prior copy has, and keeps it. Segments that hold little that counts are written anew.
func (w *Writer) takeOver(ctx context.Context, prior *point.Prior) error {
	segments, err := prior.List(ctx, SegmentDir)
	if err != nil && !errors.Is(err, fault.ErrNotFound) {
		return err
	}
	slices.SortFunc(segments, func(a, b point.Entry) int { return strings.Compare(a.Name, b.Name) })
	for _, s := range segments {
		var n int
		if _, err := fmt.Sscanf(s.Name, "%08d.ndjson", &n); err != nil || s.Name != segmentName(n) {
			return fault.New("", fault.ErrCorrupt, fmt.Sprintf("a segment named %q", s.Name), "")
		}
		w.segment = n + 1
		w.ofIndex = append(w.ofIndex, w.lines)
		for p, err := range places(ctx, prior, s.Name) {
			if err != nil {
				return err
			}
			w.note(p)
		}
	}
	worn := w.worn(segments)
	if !slices.Contains(worn, true) {
		return w.keep(ctx, SegmentDir, IndexDir, FileDir)
	}
	for i, s := range segments {
		var err error
		if worn[i] {
			err = w.renew(ctx, prior, s.Name, w.ofIndex[i], worn)
		} else {
			err = w.keep(ctx, path.Join(SegmentDir, s.Name), path.Join(IndexDir, s.Name))
		}
		if err != nil {
			return err
		}
	}
	return w.keep(ctx, FileDir)
}

// keep keeps what there is of some files and directories of the prior copy.
func (w *Writer) keep(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := w.to.Keep(ctx, name); err != nil && !errors.Is(err, fault.ErrNotFound) {
			return err
		}
	}
	return nil
}

func segmentName(n int) string { return fmt.Sprintf("%08d.ndjson", n) }

// note enters a line of the prior copy.
func (w *Writer) note(p place) {
	s := w.shelf(p.Collection)
	before, known := s.byID[p.ID]
	e := entry{sum: p.sum, parent: w.number(p.Parent), line: w.lines, length: uint32(p.length), gone: seconds(p.Gone)} //nolint:gosec // at most maxLine
	if p.bare && known {
		e = before
		e.gone = seconds(p.Gone)
	}
	w.lines++
	s.set(p.ID, e)
}

// seconds is a time as an entry has it.
func seconds(t time.Time) uint32 {
	if t.IsZero() {
		return 0
	}
	return uint32(max(t.Unix(), 1)) //nolint:gosec // until 2106
}

// set enters a record's state.
func (s *shelf) set(id string, e entry) {
	if before, known := s.byID[id]; known {
		s.count(before, -1)
	}
	s.count(e, 1)
	s.byID[id] = e
}

func (s *shelf) count(e entry, n int64) {
	if e.gone == 0 {
		s.living += n
	} else {
		s.gone += n
	}
}

func (w *Writer) shelf(collection string) *shelf {
	s := w.shelves[collection]
	if s == nil {
		s = &shelf{byID: map[string]entry{}}
		w.shelves[collection] = s
	}
	return s
}

// number is a parent's number.
func (w *Writer) number(parent Key) uint32 {
	n, known := w.parents[parent]
	if !known {
		n = uint32(len(w.parent)) //nolint:gosec // there are fewer than records
		w.parents[parent] = n
		w.parent = append(w.parent, parent)
	}
	return n
}

// worn chooses the segments to be written anew: all, where more than half of their bytes count no more, or the small ones, where
// there are many.
func (w *Writer) worn(segments []point.Entry) []bool {
	var total, living int64
	small := 0
	for _, s := range segments {
		total += s.Size
		if s.Size < segmentBytes/2 {
			small++
		}
	}
	for _, s := range w.shelves {
		for _, e := range s.byID {
			living += int64(e.length) + 1
		}
	}
	all, some := total > segmentBytes && living < total/2, small > maxSmall
	chosen := make([]bool, len(segments))
	for i, s := range segments {
		chosen[i] = all || some && s.Size < segmentBytes/2
	}
	return chosen
}

// renew writes what still counts of a segment, whose first line has a number.
func (w *Writer) renew(ctx context.Context, prior *point.Prior, name string, number uint32, worn []bool) error {
	f, err := prior.Open(ctx, path.Join(SegmentDir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	for text, err := range linesOf(f) {
		if err != nil {
			return err
		}
		record, err := parse(text)
		if err != nil {
			return fault.Wrap("segment "+name, fault.ErrCorrupt, err, "")
		}
		if err := w.rewrite(ctx, record, number, worn); err != nil {
			return err
		}
		number++
	}
	return nil
}

// rewrite writes a line of a worn segment again, where it counts.
func (w *Writer) rewrite(ctx context.Context, r Record, number uint32, worn []bool) error {
	e := w.shelf(r.Collection).byID[r.ID]
	newest := e.line == number
	if !newest && (!isBare(r) || e.gone == 0 || worn[w.segmentOf(e.line)]) {
		return nil
	}
	r.Gone = time.Time{}
	if e.gone != 0 {
		r.Gone = time.Unix(int64(e.gone), 0).UTC()
	}
	raw := []byte(r.Raw)
	if len(raw) == 0 {
		raw = []byte("null")
	}
	_, err := w.append(ctx, r, raw)
	return err
}

// segmentOf is the segment that a line of the prior copy is in.
func (w *Writer) segmentOf(line uint32) int {
	i, exact := slices.BinarySearch(w.ofIndex, line)
	if !exact {
		return i - 1
	}
	for i+1 < len(w.ofIndex) && w.ofIndex[i+1] == line { // segments of no lines
		i++
	}
	return i
}

// Begin begins a reading of a collection: nothing of it was seen.
func (w *Writer) Begin(collection string) {
	s := w.shelf(collection)
	for id, e := range s.byID {
		if e.seen {
			e.seen = false
			s.byID[id] = e
		}
	}
}

// Add adds a record unless it is there in the same state. An error that is fault.ErrInvalid is of the record; others are of the vault.
func (w *Writer) Add(ctx context.Context, r Record) (Found, error) {
	w.scratch.Reset()
	err := r.check()
	if err == nil {
		err = json.Compact(&w.scratch, r.Raw)
	}
	if raw := w.scratch.Bytes(); err == nil && (len(raw) > maxLine-maxNames || len(r.ID)+len(r.Parent.ID) > maxNames/8 || isBare(r)) {
		err = errors.New("too long, or empty")
	}
	if err != nil {
		return Same, fault.Wrap("record "+r.Key.String(), fault.ErrInvalid, err, "")
	}
	raw := w.scratch.Bytes()
	s := w.shelf(r.Collection)
	before, known := s.byID[r.ID]
	e := entry{sum: sumOf(r.Parent, raw), parent: w.number(r.Parent), gone: seconds(r.Gone), seen: true}
	change := New
	switch {
	case known && before.sum == e.sum && before.gone == e.gone:
		if !before.seen {
			before.seen = true
			s.byID[r.ID] = before
		}
		return Same, nil
	case known && before.seen:
		change = Collided
	case known && before.gone == 0:
		change = Edited
	}
	n, err := w.append(ctx, r, raw)
	if err != nil {
		return change, err
	}
	e.length = uint32(n) //nolint:gosec // at most maxLine
	s.set(r.ID, e)
	w.added++
	return change, nil
}

// maxNames bounds what a line has beside its raw, in bytes.
const maxNames = 64 << 10

// append writes a line, and returns its length.
func (w *Writer) append(ctx context.Context, r Record, raw []byte) (n int, err error) {
	start := len(w.buffer)
	if w.buffer, err = appendCompact(w.buffer, r, raw); err != nil {
		return 0, err
	}
	n = len(w.buffer) - start - 1
	r.Raw = raw
	p := place{Record: r, offset: int64(start), length: n, sum: sumOf(r.Parent, raw), bare: isBare(r)}
	if w.index, err = p.append(w.index); err != nil {
		return 0, err
	}
	w.loose = true
	w.written += int64(n) + 1
	if len(w.buffer) >= segmentBytes {
		err = w.putSegment(ctx)
		w.segment++
		w.buffer, w.index = w.buffer[:0], w.index[:0]
	}
	return n, err
}

// putSegment puts the segment that grows as it is, in place of what was put of it before.
func (w *Writer) putSegment(ctx context.Context) error {
	if !w.loose {
		return nil
	}
	name := segmentName(w.segment)
	if err := w.put(ctx, path.Join(SegmentDir, name), w.buffer); err != nil {
		return err
	}
	w.loose = false
	return w.put(ctx, path.Join(IndexDir, name), w.index)
}

func (w *Writer) put(ctx context.Context, name string, content []byte) error {
	_, err := w.to.Put(ctx, point.Entry{Name: name}, bytes.NewReader(content), point.Text)
	return err
}

// See notes that the forge has a record. It is false where the archive has none of that name that is not gone.
func (w *Writer) See(key Key) bool {
	s := w.shelf(key.Collection)
	e, known := s.byID[key.ID]
	if !known || e.gone != 0 {
		return false
	}
	e.seen = true
	s.byID[key.ID] = e
	return true
}

// Has tells whether there is a record that is not gone.
func (w *Writer) Has(key Key) bool {
	e, known := w.shelf(key.Collection).byID[key.ID]
	return known && e.gone == 0
}

// Unseen lists the records of a collection that are not gone and were not seen since Begin, of those whose parents of takes; nil for
// all.
func (w *Writer) Unseen(collection string, of func(parent Key) bool) []Key {
	return w.which(collection, func(e entry) bool { return !e.seen && (of == nil || of(w.parent[e.parent])) })
}

// Below lists the records of all collections but the files that are not gone and belong to one that of takes.
func (w *Writer) Below(of func(parent Key) bool) []Key {
	var below []Key
	for collection := range w.shelves {
		if collection != FilesCollection {
			below = append(below, w.which(collection, func(e entry) bool { return of(w.parent[e.parent]) })...)
		}
	}
	return below
}

func (w *Writer) which(collection string, take func(entry) bool) []Key {
	var keys []Key
	for id, e := range w.shelf(collection).byID {
		if e.gone == 0 && take(e) {
			keys = append(keys, Key{collection, id})
		}
	}
	slices.SortFunc(keys, byNumber)
	return keys
}

// Gone writes that the forge has records no more. What they were stays.
func (w *Writer) Gone(ctx context.Context, at time.Time, keys ...Key) error {
	for _, key := range keys {
		s := w.shelf(key.Collection)
		e, known := s.byID[key.ID]
		if !known || e.gone != 0 {
			continue
		}
		e.gone = seconds(at)
		if _, err := w.append(ctx, Record{Key: key, Parent: w.parent[e.parent], Seen: at, Gone: at}, []byte("null")); err != nil {
			return err
		}
		s.set(key.ID, e)
		w.added++
	}
	return nil
}

// PutFile puts an asset or attachment, whose SHA-256 is sum, in hexadecimal digits.
func (w *Writer) PutFile(ctx context.Context, sum string, content io.Reader) (int64, error) {
	return w.to.Put(ctx, point.Entry{Name: FilePath(sum)}, content, point.Packed)
}

// Count is how many records a collection has that are not gone.
func (w *Writer) Count(collection string) int64 {
	if s := w.shelves[collection]; s != nil {
		return s.living
	}
	return 0
}

// Added is how many records were added, or are gone, since NewWriter.
func (w *Writer) Added() int64 { return w.added }

// Written is how many bytes of segments were written since NewWriter.
func (w *Writer) Written() int64 { return w.written }

// Flush puts what was added, and the header last.
func (w *Writer) Flush(ctx context.Context) error {
	if err := w.putSegment(ctx); err != nil {
		return err
	}
	for name, s := range w.shelves {
		p := w.Header.Collections[name]
		p.Living, p.Gone = s.living, s.gone
		w.Header.Collections[name] = p
	}
	text, err := json.MarshalIndent(w.Header, "", " ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", HeaderFile, err)
	}
	return w.put(ctx, HeaderFile, text)
}
