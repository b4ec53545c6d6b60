package forge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// listing is what the forge listed.
type listing struct {
	all []Repository // sorted by full name
	err error        // why there may be more; nil for a listing that is complete
}

// list lists the repositories, once for all who ask. It fails where nothing could be listed.
func (a *Account) list(ctx context.Context) (*listing, error) {
	a.mu.Lock()
	l := a.listed
	a.mu.Unlock()
	if l != nil {
		return l, nil
	}
	if err := a.inspect(ctx); err != nil {
		return nil, err
	}
	l = a.listOnce(ctx)
	if errors.Is(l.err, fault.ErrIncomplete) { // something was added or removed meanwhile
		l = a.listOnce(ctx)
	}
	if l.err != nil && (len(l.all) == 0 || ctx.Err() != nil) {
		return nil, l.err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.listed = l
	return l, nil
}

// maxListing bounds what a forge says of all its repositories, in bytes: it is held in memory. It is some 100,000 repositories.
const maxListing = 512 << 20

func (a *Account) listOnce(ctx context.Context) *listing {
	l, seen, size := &listing{}, map[string]bool{}, 0
	for r, err := range a.o.Provider.Repositories(ctx, a.o.Selection) {
		if err != nil {
			l.err = fault.Wrap("list repositories", nil, err, "")
			break
		}
		if seen[r.ID] && r.ID != "" {
			continue // owned and starred, say
		}
		if size += len(r.Raw); size > maxListing {
			l.err = fault.New("list repositories", fault.ErrUnsupported, fmt.Sprintf("the listing is longer than %d MiB", maxListing>>20),
				"list fewer: an organisation or a user at a time")
			break
		}
		seen[r.ID] = true
		l.all = append(l.all, r)
		if len(l.all)%100 == 0 {
			a.o.Observe(point.Event{What: "listing", Done: int64(len(l.all)), Unit: "repositories"})
		}
	}
	slices.SortStableFunc(l.all, func(a, b Repository) int { return strings.Compare(a.FullName(), b.FullName()) })
	return l
}

// segmentBytes is about how long a segment of the listing gets.
const segmentBytes = 2 << 20

// listing writes what the forge listed, as it answered. A listing that broke off fails, and the one before is carried.
func (c *capture) listing(ctx context.Context, l *listing) error {
	name := c.a.listingName()
	if l.err != nil {
		return c.fail(ctx, name, point.KindListing, l.err)
	}
	c.take(name)
	w, err := c.to.Part(ctx, name, point.KindListing)
	if err != nil {
		return err
	}
	count := point.Count{Of: "repositories", Expected: int64(len(l.all)), Stored: int64(len(l.all))}
	p := point.Part{Mark: l.mark(), Counts: []point.Count{count}}
	if prior := w.Prior(); prior != nil && prior.Part.Mark == p.Mark {
		p.Unchanged = true
		if err := w.Keep(ctx, "."); err != nil {
			return err
		}
		return w.Store(ctx, p)
	}
	if err := l.write(ctx, w); err != nil {
		return err
	}
	return w.Store(ctx, p)
}

// write puts the repositories into segments, one on a line. There is one segment at least.
func (l *listing) write(ctx context.Context, w point.PartWriter) error {
	var segment bytes.Buffer
	for n, next := 1, 0; n == 1 || next < len(l.all); n++ {
		segment.Reset()
		for ; next < len(l.all) && segment.Len() < segmentBytes; next++ {
			segment.Write(append(l.all[next].line(), '\n'))
		}
		e := point.Entry{Name: fmt.Sprintf("%05d.ndjson", n)}
		if _, err := w.Put(ctx, e, &segment, point.Text); err != nil {
			return err
		}
	}
	return nil
}

// mark is a hash of what was listed.
func (l *listing) mark() string {
	sum := sha256.New()
	for _, r := range l.all {
		fmt.Fprintf(sum, "%s\n", r.line())
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// line is the repository on one line, as the forge answered.
func (r Repository) line() []byte {
	var line bytes.Buffer
	if len(r.Raw) > 0 && json.Compact(&line, r.Raw) == nil {
		return line.Bytes()
	}
	r.Raw = nil
	b, err := json.Marshal(r)
	if err != nil { // its fields are texts, numbers and times
		return []byte("{}")
	}
	return b
}
