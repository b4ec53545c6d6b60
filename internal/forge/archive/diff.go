package archive

import (
	"cmp"
	"context"
	"iter"
	"slices"

	"github.com/backstay/backstay/internal/point"
)

// Difference is a record that is another one in two archives. Before or After is nil where the forge has it not.
type Difference struct {
	Key
	Before, After *Record
}

// Diff yields what changed between two archives, by collections and numbers. Records that are the same in both are not read.
func Diff(ctx context.Context, before, after point.Reader) iter.Seq2[Difference, error] {
	return func(yield func(Difference, error) bool) {
		old, was, err := sums(ctx, before)
		if err != nil {
			yield(Difference{}, err)
			return
		}
		fresh, is, err := sums(ctx, after)
		if err != nil {
			yield(Difference{}, err)
			return
		}
		for _, key := range changed(was, is) {
			c := Difference{Key: key}
			if c.Before, err = old.living(ctx, key); err == nil {
				c.After, err = fresh.living(ctx, key)
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// sums opens an archive, and says what tells the states of its living records apart.
func sums(ctx context.Context, from point.Reader) (*Reader, map[Key]sum, error) {
	r, err := Open(ctx, from)
	if err != nil {
		return nil, nil, err
	}
	all := make(map[Key]sum, len(r.index))
	for _, segment := range r.segments {
		for p, err := range places(ctx, from, segment) {
			switch {
			case err != nil:
				return nil, nil, err
			case p.Gone.IsZero():
				all[p.Key] = p.sum
			default:
				delete(all, p.Key)
			}
		}
	}
	return r, all, nil
}

// changed lists the records that are not in both with the same sum.
func changed(was, is map[Key]sum) []Key {
	var keys []Key
	for key, s := range was {
		if now, still := is[key]; !still || now != s {
			keys = append(keys, key)
		}
	}
	for key := range is {
		if _, had := was[key]; !had {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b Key) int { return cmp.Or(cmp.Compare(a.Collection, b.Collection), byNumber(a, b)) })
	return keys
}

// living is a record that the forge has; nil where it has it not.
func (r *Reader) living(ctx context.Context, key Key) (*Record, error) {
	if where, ok := r.index[key]; !ok || !where.gone.IsZero() {
		return nil, nil //nolint:nilnil // there is none
	}
	record, err := r.Get(ctx, key)
	return &record, err
}
