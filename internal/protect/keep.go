package protect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/policy"
)

// Expiry says by which rules points expire.
type Expiry struct {
	Retention policy.Retention
	Now       time.Time
	Zone      *time.Location // of hours, days, weeks, months and years
	DryRun    bool           // decide only
}

// Expired is what Expire decided and did.
type Expired struct {
	Decisions []policy.Decision
	Deleted   int // points; none on a dry run
}

// Expire deletes those of points that retention lets go. points must hold all of a subject's points or none. A point that
// the store will not let go (fault.ErrLocked, fault.ErrRefused) does not keep it from deleting the others; the error tells.
func Expire(ctx context.Context, store Store, points []point.Point, e Expiry) (*Expired, error) {
	expired := &Expired{Decisions: e.Retention.Decide(points, e.Now, e.Zone)}
	var ids []string
	for _, d := range expired.Decisions {
		if !d.Keep {
			ids = append(ids, d.Point.ID)
		}
	}
	if e.DryRun || len(ids) == 0 {
		return expired, nil
	}
	var err error
	expired.Deleted, err = deleteAll(ctx, store, ids)
	return expired, fault.Wrap("expire points", nil, err, "")
}

// deleteAll deletes points, all at once if it may, else each that it may.
func deleteAll(ctx context.Context, store Store, ids []string) (deleted int, _ error) {
	err := store.Delete(ctx, ids...)
	if err == nil {
		return len(ids), nil
	}
	if !stays(err) || len(ids) == 1 {
		return 0, err
	}
	var refused []error
	for _, id := range ids {
		switch err := store.Delete(ctx, id); {
		case err == nil:
			deleted++
		case stays(err):
			refused = append(refused, err)
		default:
			return deleted, errors.Join(append(refused, err)...)
		}
	}
	return deleted, errors.Join(refused...)
}

// stays reports whether the store refused to delete for good reason.
func stays(err error) bool {
	return errors.Is(err, fault.ErrLocked) || errors.Is(err, fault.ErrRefused)
}

// Verify checks points, all of them for no ids. What is not as it was stored is in the report, and the error is fault.ErrCorrupt.
func Verify(ctx context.Context, store Store, readData bool, ids ...string) (*Report, error) {
	report, err := store.Verify(ctx, readData, ids...)
	if err != nil {
		return report, fault.Wrap("verify", nil, err, "")
	}
	if n := len(report.Faults); n > 0 {
		first := report.Faults[0]
		cause := fmt.Sprintf("%d faults, the first: %s", n, first)
		return report, fault.New("verify", fault.ErrCorrupt, cause, "`backstay location repair` mends what can be mended")
	}
	return report, nil
}
