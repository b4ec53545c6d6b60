package archive

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// IndexDir holds for each segment, under its name, what its lines are: without it, to learn what is there would be to read everything.
const IndexDir = "index"

// sum tells states of a record apart.
type sum [12]byte

// sumOf is the sum of a record's parent and raw, which is compact.
func sumOf(parent Key, raw []byte) (s sum) {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q ", parent.Collection, parent.ID)
	h.Write(raw)
	copy(s[:], h.Sum(nil))
	return s
}

// place is a line of a segment.
type place struct {
	Record       // without Raw
	offset int64 // in the segment
	length int   // without the end of the line
	sum    sum
	bare   bool // it only says that the record is gone: what it was is in an earlier line
}

// indexLine is a place as it stands in the index: the line without its raw.
type indexLine struct {
	line
	Offset int64  `json:"at"`
	Length int    `json:"n"`
	Sum    string `json:"sum,omitempty"` // hexadecimal digits; "" for a bare one
}

// append adds the place to the index of its segment.
func (p place) append(index []byte) ([]byte, error) {
	l := indexLine{line: lineOf(p.Record), Offset: p.offset, Length: p.length}
	if !p.bare {
		l.Sum = hex.EncodeToString(p.sum[:])
	}
	text, err := json.Marshal(l)
	if err != nil {
		return index, fmt.Errorf("record %s: %w", p.Key, err)
	}
	return append(append(index, text...), '\n'), nil
}

func parseIndex(text []byte) (place, error) {
	var l indexLine
	if err := json.Unmarshal(text, &l); err != nil {
		return place{}, err
	}
	p := place{Record: l.record(), offset: l.Offset, length: l.Length, bare: l.Sum == ""}
	if n, err := hex.Decode(p.sum[:], []byte(l.Sum[:min(len(l.Sum), 2*len(p.sum))])); err != nil || !p.bare && n != len(p.sum) {
		return place{}, errors.New("a sum that is none")
	}
	if p.offset < 0 || p.length <= 0 || p.length > maxLine || p.offset > maxSegment {
		return place{}, errors.New("a place that is outside of the segment")
	}
	return p, p.check()
}

// check tells a record that has a name from one that has none.
func (r Record) check() error {
	if r.Collection == "" || r.ID == "" {
		return errors.New("a record without a name")
	}
	return nil
}

// places yields the lines of a segment: from its index, or where there is none, from itself.
func places(ctx context.Context, from point.Reader, segment string) iter.Seq2[place, error] {
	return func(yield func(place, error) bool) {
		f, err := from.Open(ctx, path.Join(IndexDir, segment))
		parse := parseIndex
		if errors.Is(err, fault.ErrNotFound) {
			f, err = from.Open(ctx, path.Join(SegmentDir, segment))
			parse = parseLine
		}
		if err != nil {
			yield(place{}, err)
			return
		}
		defer f.Close()
		for p, err := range placesIn(f, parse) {
			if err != nil {
				err = fault.Wrap("segment "+segment, nil, err, "")
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}

// placesIn yields what the lines of a file say.
func placesIn(from io.Reader, parse func(text []byte) (place, error)) iter.Seq2[place, error] {
	return func(yield func(place, error) bool) {
		var offset int64
		names := names{}
		for text, err := range linesOf(from) {
			if err != nil {
				yield(place{}, err)
				return
			}
			p, err := parse(text)
			if err != nil {
				yield(place{}, fault.Wrap("", fault.ErrCorrupt, fmt.Errorf("at %d: %w", offset, err), ""))
				return
			}
			if p.length == 0 { // of a segment itself
				p.offset, p.length = offset, len(text)
			}
			p.Collection, p.Parent.Collection = names.one(p.Collection), names.one(p.Parent.Collection)
			if !yield(p, nil) {
				return
			}
			offset += int64(len(text)) + 1
		}
	}
}

// names makes equal names one string: a million records have a dozen collections.
type names map[string]string

func (n names) one(name string) string {
	if _, ok := n[name]; !ok {
		n[name] = name
	}
	return n[name]
}

// parseLine reads a line of a segment as a place, but for where it is.
func parseLine(text []byte) (place, error) {
	r, err := parse(text)
	if err != nil {
		return place{}, err
	}
	p := place{Record: r, bare: isBare(r), sum: sumOf(r.Parent, r.Raw)}
	p.Raw = nil
	return p, nil
}

// isBare reports whether a record only says that it is gone.
func isBare(r Record) bool {
	return !r.Gone.IsZero() && (len(r.Raw) == 0 || bytes.Equal(r.Raw, []byte("null")))
}

// linesOf yields the lines of a file. They are good until the next.
func linesOf(from io.Reader) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		lines := bufio.NewScanner(from)
		lines.Buffer(make([]byte, 0, 64<<10), maxLine)
		for lines.Scan() {
			if !yield(lines.Bytes(), nil) {
				return
			}
		}
		switch err := lines.Err(); {
		case errors.Is(err, bufio.ErrTooLong):
			yield(nil, fault.Wrap("", fault.ErrCorrupt, err, ""))
		case err != nil:
			yield(nil, err)
		}
	}
}

// lineOf is a record as it stands in a segment, without its raw.
func lineOf(r Record) line {
	return line{
		Collection: r.Collection, ID: r.ID, ParentCollection: r.Parent.Collection, ParentID: r.Parent.ID,
		Updated: r.Updated, Seen: r.Seen, Gone: r.Gone.UTC().Truncate(time.Second),
	}
}

// record is the record of a line.
func (l line) record() Record {
	return Record{
		Key: Key{l.Collection, l.ID}, Parent: Key{l.ParentCollection, l.ParentID}, Updated: l.Updated, Seen: l.Seen, Gone: l.Gone, Raw: l.Raw,
	}
}
