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

// Expiry says what Expire looks at and by which rules.
type Expiry struct {
	Retention policy.Retention
	Filter    point.Filter
	Now       time.Time
	Zone      *time.Location // of days, weeks, months and years
	DryRun    bool           // decide only
}

// Expired is what Expire did, or would do on a dry run.
type Expired struct {
	Decisions []policy.Decision
	Deleted   int // points taken out; on a dry run those that would be
}

// Expire deletes the points that retention lets go. Points that the store will not let go yet (fault.ErrLocked, ErrRefused)
// do not keep it from deleting the others; they are told in the error.
func Expire(ctx context.Context, store Store, e Expiry) (*Expired, error) {
	points, err := store.Points(ctx, e.Filter)
	if err != nil {
		return nil, fault.Wrap("expire points", nil, err, "")
	}
	expired := &Expired{Decisions: e.Retention.Decide(points, e.Now, e.Zone)}
	var refused []error
	for _, d := range expired.Decisions {
		if d.Keep {
			continue
		}
		err := error(nil)
		if !e.DryRun {
			err = store.Delete(ctx, d.Point.ID)
		}
		switch {
		case err == nil:
			expired.Deleted++
		case errors.Is(err, fault.ErrLocked), errors.Is(err, fault.ErrRefused):
			refused = append(refused, err)
		default:
			return expired, fault.Wrap("expire points", nil, err, "")
		}
	}
	return expired, fault.Wrap("expire points", nil, errors.Join(refused...), "")
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

// String names the place and what is wrong there.
func (f Fault) String() string {
	s := f.What
	for _, place := range []string{f.Blob, f.Path, f.Point} {
		if place != "" {
			s = place + ": " + s
		}
	}
	return s
}
