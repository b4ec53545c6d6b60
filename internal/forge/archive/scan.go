package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"slices"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Scan yields the records of an archive as they were written, one segment at a time: also states that later ones took the place of.
func Scan(ctx context.Context, from point.Reader) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		segments, err := segmentsOf(ctx, from)
		if err != nil {
			yield(Record{}, err)
			return
		}
		for _, segment := range segments {
			if !scanSegment(ctx, from, segment, yield) {
				return
			}
		}
	}
}

// scanSegment yields the records of a segment, and reports whether to go on.
func scanSegment(ctx context.Context, from point.Reader, segment string, yield func(Record, error) bool) bool {
	f, err := from.Open(ctx, path.Join(SegmentDir, segment))
	if err != nil {
		yield(Record{}, err)
		return false
	}
	defer f.Close()
	for text, err := range linesOf(f) {
		var r Record
		if err == nil {
			if r, err = parse(text); err != nil {
				err = fault.Wrap("segment "+segment, fault.ErrCorrupt, err, "")
			}
		}
		if !yield(r, err) || err != nil {
			return false
		}
	}
	return true
}

func segmentsOf(ctx context.Context, from point.Reader) ([]string, error) {
	entries, err := from.List(ctx, SegmentDir)
	if err != nil && !errors.Is(err, fault.ErrNotFound) {
		return nil, fault.Wrap("read archive", nil, err, "")
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name
	}
	slices.Sort(names)
	return names, nil
}

// FileRecord is a record of the collection "files".
type FileRecord struct {
	Record
	File File
}

// Files reads what became of all addresses, by these. Of the archive it reads the indexes, and of the segments these records only.
func Files(ctx context.Context, from point.Reader) (map[string]FileRecord, error) {
	segments, err := segmentsOf(ctx, from)
	if err != nil {
		return nil, err
	}
	type line struct {
		segment int
		place
	}
	newest := map[string]line{}
	for i, segment := range segments {
		for p, err := range places(ctx, from, segment) {
			switch {
			case err != nil:
				return nil, err
			case p.Collection != FilesCollection:
			case p.Gone.IsZero():
				newest[p.ID] = line{i, p}
			default:
				delete(newest, p.ID)
			}
		}
	}
	bySegment := make([][]place, len(segments))
	for _, l := range newest {
		bySegment[l.segment] = append(bySegment[l.segment], l.place)
	}
	all := make(map[string]FileRecord, len(newest))
	for i, wanted := range bySegment {
		if err := readFiles(ctx, from, segments[i], wanted, all); err != nil {
			return nil, fault.Wrap("segment "+segments[i], nil, err, "")
		}
	}
	return all, nil
}

// readFiles reads the wanted lines of a segment into all.
func readFiles(ctx context.Context, from point.Reader, segment string, wanted []place, all map[string]FileRecord) error {
	if len(wanted) == 0 {
		return nil
	}
	f, err := from.Open(ctx, path.Join(SegmentDir, segment))
	if err != nil {
		return err
	}
	defer f.Close()
	slices.SortFunc(wanted, func(a, b place) int { return int(a.offset - b.offset) })
	for _, p := range wanted {
		if _, err := f.Seek(p.offset, io.SeekStart); err != nil {
			return err
		}
		text := make([]byte, p.length)
		if _, err := io.ReadFull(f, text); err != nil {
			return fault.Wrap("", fault.ErrCorrupt, err, "")
		}
		r, err := parse(text)
		if err == nil && r.Key != p.Key {
			err = fmt.Errorf("%s stands where its index has %s", r.Key, p.Key)
		}
		one := FileRecord{Record: r}
		if err == nil {
			err = json.Unmarshal(r.Raw, &one.File)
		}
		if err != nil {
			return fault.Wrap("", fault.ErrCorrupt, err, "")
		}
		one.Raw = nil
		all[r.ID] = one
	}
	return nil
}
