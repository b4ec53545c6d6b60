package protect

import (
	"context"
	"errors"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// DrillPlan says what of a policy's points is drilled.
type DrillPlan struct {
	Policy string
	Store  Store
	Drill  Drill
	Limit  int       // of points; 0 for one of each subject
	Since  time.Time // each subject must have a proven point that was made since; zero for no such demand
	// Tell is told of each drill. May be nil.
	Tell func(Remark)
}

// RunDrills drills points of a policy, each subject's newest, those first whose drill is longest ago. The report tells all. The error is
// fault.ErrIncomplete where one is not proven; it is another one only where the run could not go on. What the demand lacks is in the report.
func RunDrills(ctx context.Context, p DrillPlan) (*point.Run, error) {
	op := "drill points of policy " + p.Policy
	run := &point.Run{
		Version: point.RunVersion, Policy: p.Policy, Kind: point.RunDrill, Started: p.Drill.Clock().UTC(), State: point.Complete,
		Sources: []point.SourceRun{},
	}
	points, err := p.Store.Points(ctx, point.Filter{Policy: p.Policy})
	if err != nil {
		return p.ended(run, point.Failed, fault.Wrap(op, nil, err, ""))
	}
	for _, due := range ToDrill(points, p.Limit) {
		source := p.one(ctx, due)
		if ctx.Err() != nil {
			return p.ended(run, point.Incomplete, fault.Wrap(op, nil, ctx.Err(), ""))
		}
		if source.State != point.Complete {
			run.State = point.Incomplete
		}
		run.Sources = append(run.Sources, source)
	}
	if run.Proofs, err = Proofs(ctx, p.Store, p.Policy, p.Since); err != nil {
		return p.ended(run, point.Incomplete, fault.Wrap(op, nil, err, ""))
	}
	run.Finished = p.Drill.Clock().UTC()
	if run.State != point.Complete {
		return run, fault.New(op, fault.ErrIncomplete, shortcomingsOf(run), "")
	}
	return run, nil
}

// ended is the report of a run that did not come to its end.
func (p DrillPlan) ended(run *point.Run, state point.State, err error) (*point.Run, error) {
	run.State, run.Finished = state, p.Drill.Clock().UTC()
	run.Problems = append(run.Problems, ProblemOf(err))
	return run, err
}

// one drills one point.
func (p DrillPlan) one(ctx context.Context, due point.Point) point.SourceRun {
	began := p.Drill.Clock()
	source := point.SourceRun{Subject: due.Subject, Type: point.RunDrill, Point: due.ID, State: point.Complete}
	proof, err := p.Drill.Prove(ctx, p.Store, due.ID)
	remark := Remark{Level: "info", Text: "proven", Source: due.Subject.Name}
	if err != nil {
		problem := ProblemOf(err)
		remark.Level, remark.Text, remark.Hints = "error", err.Error(), problem.Hints
		source.State, source.Problems = point.Incomplete, []point.Problem{problem}
	}
	if proof != nil && err != nil { // the causes alone
		source.Problems = nil
		for _, c := range proof.Problems() {
			source.Problems = append(source.Problems, point.Problem{What: ProblemLine(c), Class: fault.Of(err).Reason})
		}
	}
	source.Seconds = p.Drill.Clock().Sub(began).Seconds()
	if p.Tell != nil && ctx.Err() == nil {
		p.Tell(remark)
	}
	return source
}

// Proofs says how far the points of a policy are proven.
func Proofs(ctx context.Context, store Store, policy string, since time.Time) ([]point.ProofRun, error) {
	points, err := store.Points(ctx, point.Filter{Policy: policy})
	if err != nil && !errors.Is(err, fault.ErrCorrupt) {
		return nil, err
	}
	return ProofsOf(points, since), nil
}
