package protect

import (
	"context"
	"errors"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Compactor writes parts of one kind anew, in fewer pieces.
type Compactor struct {
	// Due says whether the part is worth it. The reader is rooted at the part.
	Due func(ctx context.Context, from point.Reader) (bool, error)
	// Compact writes prior into w and ends it. It returns how many pieces became fewer.
	Compact func(ctx context.Context, w point.PartWriter, prior *point.Prior) (merged int, err error)
	// Repack does the same with all pieces, and leaves out what neither prior nor kept, the copies in the points that are kept, need.
	Repack func(ctx context.Context, w point.PartWriter, prior *point.Prior, kept []point.Reader) (merged int, err error)
}

// Compact has the newest copies of parts written anew where that is due, or all of them, with repack, to be rid of what no point
// needs any more. No point is made or changed: the next run on the subject finds the new copies and builds on them. It returns how
// many pieces were merged.
func Compact(ctx context.Context, store Store, compactors map[string]Compactor, repack bool) (merged int, _ error) {
	points, err := store.Points(ctx, point.Filter{})
	if err != nil {
		return 0, fault.Wrap("compact", nil, err, "")
	}
	bySubject := map[point.Subject][]point.Point{}
	var subjects []point.Subject
	for _, p := range points {
		if bySubject[p.Subject] == nil {
			subjects = append(subjects, p.Subject)
		}
		bySubject[p.Subject] = append(bySubject[p.Subject], p)
	}
	for _, s := range subjects {
		n, err := (&compaction{store, compactors, repack, bySubject[s]}).run(ctx)
		merged += n
		if err != nil {
			return merged, fault.Wrap("compact "+s.Name, nil, err, "")
		}
	}
	return merged, nil
}

// compaction looks after the parts of one subject.
type compaction struct {
	store      Store
	compactors map[string]Compactor
	repack     bool
	points     []point.Point // of the subject, newest first
}

func (c *compaction) run(ctx context.Context) (merged int, _ error) {
	due, err := c.due(ctx)
	if err != nil || len(due) == 0 {
		return 0, err
	}
	draft, err := c.store.Begin(ctx, c.points[0].Subject, c.points[0].Policy)
	if err != nil {
		return 0, err
	}
	for _, part := range due {
		var n int
		if n, err = c.part(ctx, draft, part); err != nil {
			break
		}
		merged += n
	}
	if err == nil && merged > 0 {
		err = draft.Checkpoint(ctx)
	}
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTime)
	defer cancel()
	return merged, errors.Join(err, draft.Abandon(tidy))
}

// due returns the parts of the newest point that are worth it.
func (c *compaction) due(ctx context.Context) (due []point.Part, _ error) {
	record, tree, err := c.store.Open(ctx, c.points[0].ID)
	if err != nil {
		return nil, err
	}
	for _, part := range held(record.Point.Parts) {
		compactor, ok := c.compactors[part.Kind]
		if !ok {
			continue
		}
		is := c.repack
		if !is {
			if is, err = compactor.Due(ctx, Within(tree, part.Name)); err != nil {
				return nil, err
			}
		}
		if is {
			due = append(due, part)
		}
	}
	return due, nil
}

// part compacts one part. Where an earlier run did so since the newest point, the part is left as it is, and not ended.
func (c *compaction) part(ctx context.Context, draft point.Draft, part point.Part) (merged int, _ error) {
	w, err := draft.Part(ctx, part.Name, part.Kind)
	if err != nil {
		return 0, err
	}
	prior, compactor := w.Prior(), c.compactors[part.Kind]
	if prior == nil {
		return 0, w.Fail(ctx, fault.New("compact", fault.ErrNotFound, "the copy is gone", ""))
	}
	if c.repack {
		kept, err := c.kept(ctx, part.Name)
		if err != nil {
			return 0, err
		}
		return compactor.Repack(ctx, w, prior, kept)
	}
	if due, err := compactor.Due(ctx, prior); err != nil || !due {
		return 0, err
	}
	return compactor.Compact(ctx, w, prior)
}

// kept opens the copies of a part in all points of the subject.
func (c *compaction) kept(ctx context.Context, name string) ([]point.Reader, error) {
	var all []point.Reader
	for _, p := range c.points {
		record, tree, err := c.store.Open(ctx, p.ID)
		if err != nil {
			return nil, err
		}
		for _, part := range held(record.Point.Parts) {
			if part.Name == name {
				all = append(all, Within(tree, name))
			}
		}
	}
	return all, nil
}
