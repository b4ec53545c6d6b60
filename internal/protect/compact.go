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
}

// Compact has the newest copies of parts written anew where that is due. No point is made or changed: the next run on the subject
// finds the new copies and builds on them. It returns how many pieces were merged.
func Compact(ctx context.Context, store Store, compactors map[string]Compactor) (merged int, _ error) {
	points, err := store.Points(ctx, point.Filter{})
	if err != nil {
		return 0, fault.Wrap("compact", nil, err, "")
	}
	seen := map[point.Subject]bool{}
	for _, p := range points {
		if seen[p.Subject] {
			continue
		}
		seen[p.Subject] = true
		n, err := compactSubject(ctx, store, p, compactors)
		merged += n
		if err != nil {
			return merged, fault.Wrap("compact "+p.Subject.Name, nil, err, "")
		}
	}
	return merged, nil
}

// compactSubject looks after the parts of a subject's newest point.
func compactSubject(ctx context.Context, store Store, newest point.Point, compactors map[string]Compactor) (merged int, _ error) {
	record, tree, err := store.Open(ctx, newest.ID)
	if err != nil {
		return 0, err
	}
	var due []point.Part
	for _, part := range held(record.Point.Parts) {
		compactor, ok := compactors[part.Kind]
		if !ok {
			continue
		}
		is, err := compactor.Due(ctx, Within(tree, part.Name))
		if err != nil {
			return 0, err
		}
		if is {
			due = append(due, part)
		}
	}
	if len(due) == 0 {
		return 0, nil
	}
	draft, err := store.Begin(ctx, newest.Subject, newest.Policy)
	if err != nil {
		return 0, err
	}
	for _, part := range due {
		var n int
		if n, err = compactPart(ctx, draft, part, compactors[part.Kind]); err != nil {
			break
		}
		merged += n
	}
	if err == nil {
		err = draft.Checkpoint(ctx)
	}
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTime)
	defer cancel()
	return merged, errors.Join(err, draft.Abandon(tidy))
}

func compactPart(ctx context.Context, draft point.Draft, part point.Part, c Compactor) (merged int, _ error) {
	w, err := draft.Part(ctx, part.Name, part.Kind)
	if err != nil {
		return 0, err
	}
	prior := w.Prior()
	if prior == nil {
		return 0, w.Fail(ctx, fault.New("compact", fault.ErrNotFound, "the copy is gone", ""))
	}
	return c.Compact(ctx, w, prior)
}
