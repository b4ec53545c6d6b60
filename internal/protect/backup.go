package protect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// abandonTime bounds the tidying up after a run that failed or was interrupted.
const abandonTime = 30 * time.Second

// Backup makes a point of what src yields. A point that came out incomplete is there and its receipt is returned, together with
// an error that is fault.ErrIncomplete. After any other error there is no new point; parts that were ended before are found by
// the next run.
func Backup(ctx context.Context, store Drafter, src Source, policy string) (*point.Receipt, error) {
	op := "back up " + src.Subject().Name
	draft, err := store.Begin(ctx, src.Subject(), policy)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	receipt, err := capture(ctx, draft, src)
	if err != nil {
		tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTime)
		defer cancel()
		return nil, fault.Wrap(op, nil, errors.Join(err, draft.Abandon(tidy)), "")
	}
	if receipt.Point.State != point.Complete {
		return receipt, fault.New(op, fault.ErrIncomplete, shortfall(receipt.Point.Parts), "the point is kept; the next run fetches what is missing")
	}
	return receipt, nil
}

func capture(ctx context.Context, draft point.Draft, src Source) (*point.Receipt, error) {
	if err := src.Capture(ctx, draft); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil { // a source that was interrupted may have failed its parts and returned
		return nil, err
	}
	return draft.Commit(ctx)
}

// shortfall says in one line what a point lacks.
func shortfall(parts []point.Part) string {
	var lacks []string
	for _, p := range parts {
		switch p.State {
		case point.Failed:
			lacks = append(lacks, fmt.Sprintf("%s failed: %s", p.Name, p.Reason))
		case point.Vanished:
			lacks = append(lacks, fmt.Sprintf("%s vanished: %s", p.Name, p.Reason))
		case point.Carried:
			lacks = append(lacks, fmt.Sprintf("%s is the copy of %s: %s", p.Name, p.CarriedFrom.UTC().Format(time.DateTime), p.Reason))
		case point.Stored:
			for _, c := range p.Counts {
				if !c.Closes() {
					lacks = append(lacks, fmt.Sprintf("%s has %d of %d %s", p.Name, c.Stored, c.Expected, c.Of))
				}
			}
		}
	}
	if len(lacks) == 0 {
		return "no part was stored"
	}
	return firstOf(lacks)
}
