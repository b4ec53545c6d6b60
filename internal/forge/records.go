package forge

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// Records are what a collection yields.
type Records = iter.Seq2[archive.Record, error]

// RecordsOf makes records of the items of pages. An item that name gives no ID is left out.
func RecordsOf(pages iter.Seq2[Page, error], collection string, name func(raw json.RawMessage) (archive.Record, error)) Records {
	return func(yield func(archive.Record, error) bool) {
		for page, err := range pages {
			if err != nil {
				yield(archive.Record{}, err)
				return
			}
			for _, raw := range page.Items {
				r, err := name(raw)
				if err == nil && r.ID == "" {
					continue
				}
				r.Collection = collection
				if !yield(r, err) || err != nil {
					return
				}
			}
		}
	}
}

// Whole reads records again that turn out to be incomplete (fault.ErrIncomplete), up to three times, and yields each once: where pages are
// cut by number, what follows something deleted meanwhile moves up, and one goes unseen.
func Whole(records Records) Records {
	return func(yield func(archive.Record, error) bool) {
		seen := map[archive.Key]bool{}
		for reading := 1; ; reading++ {
			var failed error
			for r, err := range records {
				if err != nil {
					failed = err
					break
				}
				if seen[r.Key] {
					continue
				}
				if seen[r.Key] = true; !yield(r, nil) {
					return
				}
			}
			if errors.Is(failed, fault.ErrIncomplete) && reading < maxReadings {
				continue
			}
			if failed != nil {
				yield(archive.Record{}, failed)
			}
			return
		}
	}
}

// OfEach is Collection.Read of what is read for one parent after the other. A parent that went meanwhile has none.
func OfEach(read func(ctx context.Context, r Repository, parent archive.Record) Records) func(context.Context, Query) Records {
	return func(ctx context.Context, q Query) Records {
		return func(yield func(archive.Record, error) bool) {
			for _, parent := range q.Parents {
				for r, err := range read(ctx, q.Repository, parent) {
					if errors.Is(err, fault.ErrNotFound) {
						break
					}
					r.Parent = parent.Key
					if !yield(r, err) || err != nil {
						return
					}
				}
			}
		}
	}
}

// OneRecord is a collection with one record, which get fetches.
func OneRecord(collection, id string, get func(ctx context.Context, r Repository) (json.RawMessage, error)) func(context.Context, Query) Records {
	return func(ctx context.Context, q Query) Records {
		return func(yield func(archive.Record, error) bool) {
			raw, err := get(ctx, q.Repository)
			yield(archive.Record{Key: archive.Key{Collection: collection, ID: id}, Raw: raw}, err)
		}
	}
}

// DecodeRecords reads the raw of each record as a D. What cannot be read so is corrupt.
func DecodeRecords[D any](records Records, use func(archive.Record, *D)) error {
	for record, err := range records {
		if err != nil {
			return err
		}
		d := new(D)
		if err := json.Unmarshal(record.Raw, d); err != nil {
			return fault.Wrap("read "+record.Key.String(), fault.ErrCorrupt, err, "")
		}
		use(record, d)
	}
	return nil
}

// Archived is what all sources of the neutral model have in common: the archive, and the files in it.
type Archived struct {
	*archive.Reader
}

// OpenArchived takes an archive of a dialect.
func OpenArchived(r *archive.Reader, dialect string) (Archived, error) {
	if h := r.Header(); h.Dialect != dialect {
		return Archived{}, fault.New("read archive", fault.ErrUnsupported, "it is of "+printable(h.Dialect)+", not of "+dialect, "")
	}
	return Archived{r}, nil
}

// Discussions implements neutral.Source, for forges that have none.
func (a Archived) Discussions(context.Context) iter.Seq2[*neutral.Discussion, error] {
	return func(func(*neutral.Discussion, error) bool) {}
}

// Files implements neutral.Source.
func (a Archived) Files(ctx context.Context) iter.Seq2[*neutral.File, error] {
	return func(yield func(*neutral.File, error) bool) {
		stopped := false
		err := DecodeRecords(a.All(ctx, archive.FilesCollection), func(_ archive.Record, f *archive.File) {
			stopped = stopped || !yield(neutralFile(f), nil)
		})
		if err != nil && !stopped {
			yield(nil, err)
		}
	}
}

// File is what became of an address of a file. One that the archive does not know has a Reason.
func (a Archived) File(ctx context.Context, address string) (*neutral.File, error) {
	record, err := a.Get(ctx, archive.Key{Collection: archive.FilesCollection, ID: address})
	if errors.Is(err, fault.ErrNotFound) {
		return &neutral.File{URL: address, Reason: "its bytes were not captured"}, nil
	}
	if err != nil {
		return nil, err
	}
	var f archive.File
	if err := json.Unmarshal(record.Raw, &f); err != nil {
		return nil, fault.Wrap("read "+record.Key.String(), fault.ErrCorrupt, err, "")
	}
	return neutralFile(&f), nil
}

func neutralFile(f *archive.File) *neutral.File {
	return &neutral.File{
		URL: f.URL, Name: cmp.Or(f.Name, f.URL[strings.LastIndexByte(f.URL, '/')+1:]), Type: f.Type, Size: f.Size, SHA256: f.SHA256, Reason: f.Reason,
	}
}

// Open implements neutral.Source.
func (a Archived) Open(ctx context.Context, f *neutral.File) (io.ReadSeekCloser, error) {
	return a.OpenFile(ctx, f.SHA256)
}

// ByTime sorts by when something was.
func ByTime[T any](at func(T) time.Time) func(a, b T) int {
	return func(a, b T) int { return at(a).Compare(at(b)) }
}

// ByNumber merges two collections whose records are in the order of their numbers.
func ByNumber(one, other Records) Records {
	return func(yield func(archive.Record, error) bool) {
		next, stop := iter.Pull2(other)
		defer stop()
		r, err, more := next()
		for own, ownErr := range one {
			for more && (err != nil || numberOf(r) < numberOf(own)) {
				if !yield(r, err) || err != nil {
					return
				}
				r, err, more = next()
			}
			if !yield(own, ownErr) || ownErr != nil {
				return
			}
		}
		for more {
			if !yield(r, err) || err != nil {
				return
			}
			r, err, more = next()
		}
	}
}

// ItemsOf reads each record as an item, up to the first that cannot be read.
func ItemsOf(ctx context.Context, records Records, read func(context.Context, archive.Record) (*neutral.Item, error)) iter.Seq2[*neutral.Item, error] {
	return func(yield func(*neutral.Item, error) bool) {
		for record, err := range records {
			var item *neutral.Item
			if err == nil {
				item, err = read(ctx, record)
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}

// numberOf is the number of a record; 0 for one that has none.
func numberOf(r archive.Record) int64 {
	n, err := strconv.ParseInt(r.ID, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
