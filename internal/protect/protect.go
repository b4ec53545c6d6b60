// Package protect holds the use cases: back up, restore, verify, expire. It owns the interfaces that sources, targets and
// stores satisfy.
package protect

import (
	"context"
	"time"

	"github.com/backstay/backstay/internal/point"
)

// Source is where a subject's parts come from.
type Source interface {
	Subject() point.Subject
	// Capture writes every part the source should have into the sink. What the source does wrong ends as a failed part;
	// an error means the run cannot go on: the vault failed, or ctx ended.
	Capture(ctx context.Context, to point.Sink) error
}

// Together is one source of several: their parts make one point of the subject.
func Together(s point.Subject, sources ...Source) Source { return joined{s, sources} }

type joined struct {
	subject point.Subject
	sources []Source
}

func (j joined) Subject() point.Subject { return j.subject }

func (j joined) Capture(ctx context.Context, to point.Sink) error {
	for _, s := range j.sources {
		if err := s.Capture(ctx, to); err != nil {
			return err
		}
	}
	return nil
}

// Drafter begins points. A place of plain copies is no more than that.
type Drafter interface {
	Begin(ctx context.Context, s point.Subject, policy string) (point.Draft, error)
}

// Prover is a Store that keeps what drills found. A point that is not there gives fault.ErrNotFound.
type Prover interface {
	Prove(ctx context.Context, p point.Proof) error
}

// Store keeps points: a vault, or memory for tests.
type Store interface {
	Drafter
	// Points lists points, newest first.
	Points(ctx context.Context, f point.Filter) ([]point.Point, error)
	// Open reads a point's record and gives access to its tree.
	Open(ctx context.Context, id string) (*point.Record, point.Reader, error)
	// Delete takes points out of the catalog. Points on hold are refused (fault.ErrRefused) and none is deleted then.
	Delete(ctx context.Context, ids ...string) error
	// Hold puts a hold on a point; an empty reason lifts all its holds.
	Hold(ctx context.Context, id, reason string) error
	// Verify checks points, all of them for no ids. With readData every stored byte is read and checked.
	Verify(ctx context.Context, readData bool, ids ...string) (*Report, error)
}

// Report and Fault are what Verify answers with.
type (
	Report = point.Report
	Fault  = point.Fault
)

// Clock tells the time; tests replace it.
type Clock func() time.Time
