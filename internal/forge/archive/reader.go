package archive

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Limits of what is read: segments are written by us, but may have been damaged or made by others.
const (
	maxLine    = 96 << 20 // bytes of one record; an answer of a forge is at most 64 MiB
	maxRecords = 50_000_000
	maxHeader  = 1 << 20 // bytes of archive.json
	maxSegment = 1 << 32 // bytes
)

// line is a Record as it stands in a segment.
type line struct {
	Collection       string          `json:"c"`
	ID               string          `json:"id"`
	ParentCollection string          `json:"pc,omitempty"`
	ParentID         string          `json:"p,omitempty"`
	Updated          time.Time       `json:"updated,omitzero"`
	Seen             time.Time       `json:"seen,omitzero"`
	Gone             time.Time       `json:"gone,omitzero"`
	Raw              json.RawMessage `json:"raw,omitempty"`
}

// Append adds a record to a segment.
func Append(segment []byte, r Record) ([]byte, error) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, r.Raw); err != nil {
		return segment, fmt.Errorf("record %s: %w", r.Key, err)
	}
	return appendCompact(segment, r, compact.Bytes())
}

// appendCompact adds a record whose raw is compact, as the forge wrote it: json.Marshal would write its letters another way.
func appendCompact(segment []byte, r Record, raw []byte) ([]byte, error) {
	if err := r.check(); err != nil {
		return segment, err
	}
	text, err := json.Marshal(lineOf(r))
	if err != nil {
		return segment, fmt.Errorf("record %s: %w", r.Key, err)
	}
	segment = append(segment, text[:len(text)-1]...)
	segment = append(append(segment, `,"raw":`...), raw...)
	return append(segment, "}\n"...), nil
}

func (k Key) String() string { return k.Collection + "/" + k.ID }

// IsZero reports whether the key names nothing.
func (k Key) IsZero() bool { return k == Key{} }

// at is where the newest state of a record is.
type at struct {
	segment int
	offset  int64
	length  int
	parent  Key
	updated time.Time
	gone    time.Time
}

// Reader reads an archive. It holds where each record is, some 150 bytes, and a few segments. Safe for concurrent use.
type Reader struct {
	from     point.Reader
	header   Header
	segments []string
	index    map[Key]at
	sorted   map[string][]Key         // living, by collection
	children map[Key]map[string][]Key // living, by parent and collection

	mu     sync.Mutex
	recent []loaded // the last one read first
}

// loaded is a segment in memory.
type loaded struct {
	segment int
	bytes   []byte
}

// keptSegments is how many segments are held in memory.
const keptSegments = 8

// Open reads where everything is in the archive that is the part from is opened on.
// Errors: fault.ErrNotFound, ErrCorrupt, ErrUnsupported for one that a newer build wrote.
func Open(ctx context.Context, from point.Reader) (*Reader, error) {
	header, err := readHeader(ctx, from)
	if err != nil {
		return nil, err
	}
	entries, err := from.List(ctx, SegmentDir)
	if err != nil && !errors.Is(err, fault.ErrNotFound) {
		return nil, fault.Wrap("read archive", nil, err, "")
	}
	r := &Reader{from: from, header: header, index: map[Key]at{}}
	for _, e := range entries {
		r.segments = append(r.segments, e.Name)
	}
	slices.Sort(r.segments)
	for i := range r.segments {
		if err := r.scan(ctx, i); err != nil {
			return nil, fault.Wrap("read archive of "+header.Host+"/"+header.Repository, nil, err, "")
		}
	}
	r.arrange()
	return r, nil
}

// Of is an archive in memory, of the records in their order.
func Of(h Header, records ...Record) (*Reader, error) {
	var segment []byte
	for _, record := range records {
		var err error
		if segment, err = Append(segment, record); err != nil {
			return nil, err
		}
	}
	r := &Reader{header: h, index: map[Key]at{}, segments: []string{"memory"}, recent: []loaded{{0, segment}}}
	if err := r.note(0, placesIn(bytes.NewReader(segment), parseLine)); err != nil {
		return nil, err
	}
	r.arrange()
	return r, nil
}

func readHeader(ctx context.Context, from point.Reader) (h Header, err error) {
	const op = "read archive"
	f, err := from.Open(ctx, HeaderFile)
	if err != nil {
		return h, fault.Wrap(op, nil, err, "")
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxHeader))
	if err != nil {
		return h, fault.Wrap(op, nil, err, "")
	}
	if err := json.Unmarshal(raw, &h); err != nil {
		return h, fault.Wrap(op, fault.ErrCorrupt, fmt.Errorf("%s: %w", HeaderFile, err), "")
	}
	if h.Version > Version {
		return h, fault.New(op, fault.ErrUnsupported, fmt.Sprintf("it has version %d, and this build reads %d", h.Version, Version), "use a newer backstay")
	}
	return h, nil
}

// scan notes the records of a segment.
func (r *Reader) scan(ctx context.Context, segment int) error {
	return r.note(segment, places(ctx, r.from, r.segments[segment]))
}

func (r *Reader) note(segment int, lines iter.Seq2[place, error]) error {
	for p, err := range lines {
		if err != nil {
			return err
		}
		where := at{segment, p.offset, p.length, p.Parent, p.Updated, p.Gone}
		if before, ok := r.index[p.Key]; ok && p.bare {
			where = before
			where.gone = p.Gone
		}
		if r.index[p.Key] = where; len(r.index) > maxRecords {
			return fault.New("", fault.ErrUnsupported, fmt.Sprintf("it has more than %d records", maxRecords), "")
		}
	}
	return nil
}

func parse(text []byte) (Record, error) {
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return Record{}, err
	}
	return l.record(), l.record().check()
}

// arrange sorts what is living.
func (r *Reader) arrange() {
	r.sorted, r.children = map[string][]Key{}, map[Key]map[string][]Key{}
	for key, where := range r.index {
		if where.gone.IsZero() {
			r.sorted[key.Collection] = append(r.sorted[key.Collection], key)
		}
	}
	for collection, keys := range r.sorted {
		slices.SortFunc(keys, byNumber)
		for _, key := range keys {
			parent := r.index[key].parent
			if parent.IsZero() {
				continue
			}
			if r.children[parent] == nil {
				r.children[parent] = map[string][]Key{}
			}
			r.children[parent][collection] = append(r.children[parent][collection], key)
		}
	}
}

// byNumber sorts numbers as numbers, and everything else behind them.
func byNumber(a, b Key) int {
	m, errA := strconv.ParseInt(a.ID, 10, 64)
	n, errB := strconv.ParseInt(b.ID, 10, 64)
	switch {
	case errA == nil && errB == nil:
		return cmp.Compare(m, n)
	case errA == nil:
		return -1
	case errB == nil:
		return 1
	}
	return strings.Compare(a.ID, b.ID)
}

// Header says what the archive is of.
func (r *Reader) Header() Header { return r.header }

// Count is how many living records a collection has.
func (r *Reader) Count(collection string) int { return len(r.sorted[collection]) }

// All yields the living records of a collection, those with numbers first and in their order.
func (r *Reader) All(ctx context.Context, collection string) iter.Seq2[Record, error] {
	return r.each(ctx, r.sorted[collection])
}

// Children yields the living records of a collection that belong to parent.
func (r *Reader) Children(ctx context.Context, parent Key, collection string) iter.Seq2[Record, error] {
	return r.each(ctx, r.children[parent][collection])
}

func (r *Reader) each(ctx context.Context, keys []Key) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for _, key := range keys {
			record, err := r.Get(ctx, key)
			if !yield(record, err) || err != nil {
				return
			}
		}
	}
}

// Get returns the newest state of a record, of one that is gone the last. fault.ErrNotFound where there is none.
func (r *Reader) Get(ctx context.Context, key Key) (Record, error) {
	where, ok := r.index[key]
	if !ok {
		return Record{}, fault.New("read archive", fault.ErrNotFound, "it has no "+key.String(), "")
	}
	segment, err := r.load(ctx, where.segment)
	if err != nil {
		return Record{}, fault.Wrap("read archive", nil, err, "")
	}
	if end := where.offset + int64(where.length); end > int64(len(segment)) {
		return Record{}, fault.New("read archive", fault.ErrCorrupt, "segment "+r.segments[where.segment]+" has changed", "")
	}
	record, err := parse(segment[where.offset : where.offset+int64(where.length)])
	if err == nil && record.Key != key {
		err = errors.New("another record is in its place")
	}
	record.Gone = where.gone
	return record, fault.Wrap("read archive: segment "+r.segments[where.segment], fault.ErrCorrupt, err, "")
}

// load returns the bytes of a segment.
func (r *Reader) load(ctx context.Context, segment int) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.recent, func(l loaded) bool { return l.segment == segment })
	if i < 0 {
		f, err := r.from.Open(ctx, path.Join(SegmentDir, r.segments[segment]))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		raw, err := io.ReadAll(f)
		if err != nil {
			return nil, err
		}
		r.recent = append(r.recent, loaded{segment, raw})
		i = len(r.recent) - 1
	}
	l := r.recent[i]
	r.recent = slices.Insert(slices.Delete(r.recent, i, i+1), 0, l)
	r.recent = r.recent[:min(len(r.recent), keptSegments)]
	return l.bytes, nil
}

// OpenFile opens an asset or attachment by its SHA-256 in hexadecimal digits.
func (r *Reader) OpenFile(ctx context.Context, sha256 string) (io.ReadSeekCloser, error) {
	if r.from == nil || len(sha256) != 64 {
		return nil, fault.New("read archive", fault.ErrNotFound, "it has no such file", "")
	}
	return r.from.Open(ctx, FilePath(sha256))
}

// FilePath is where a file is in the part.
func FilePath(sha256 string) string { return path.Join(FileDir, sha256[:2], sha256) }
