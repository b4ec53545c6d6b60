package cli

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/policy"
	"github.com/backstay/backstay/internal/protect"
)

// drills drills the points of a policy, and tells everybody who is to be told.
func (d *daemon) drills(ctx context.Context, p v1alpha1.Policy, locations []v1alpha1.Location) error {
	log := d.log.With("policy", p.Name)
	log.Info("drills start")
	notifier, incomplete := d.builder.notifier(ctx, p.Spec.Notify)
	if incomplete != nil {
		tell(log, slog.LevelError, incomplete.Error(), hintsOf(incomplete)...)
	}
	run, err := d.drillPoints(ctx, p, locations, log)
	report := d.secrets.MaskRun(*run)
	log.Info("drills end", "state", report.State, "drilled", len(report.Sources), "seconds", seconds(report.Finished.Sub(report.Started)))
	d.metrics.Ended(report)
	warn(log, notifier.Ended(ctx, report))
	return err
}

// drillPoints makes the drills. What keeps them from being made makes a report, too.
func (d *daemon) drillPoints(ctx context.Context, p v1alpha1.Policy, locations []v1alpha1.Location, log *slog.Logger) (*point.Run, error) {
	began := d.app.Clock().UTC()
	broken := func(err error) (*point.Run, error) {
		tell(log, slog.LevelError, err.Error(), hintsOf(err)...)
		return &point.Run{
			Version: point.RunVersion, Policy: p.Name, Kind: point.RunDrill, Started: began, Finished: d.app.Clock().UTC(), State: point.Failed,
			Sources: []point.SourceRun{}, Problems: []point.Problem{protect.ProblemOf(err)},
		}, err
	}
	since, err := provenSince(p.Spec.Drill, began)
	if err != nil {
		return broken(fault.Wrap("drills of policy "+p.Name, nil, err, ""))
	}
	asked := &questions{checks: p.Spec.Drill.SQL}
	drill, err := d.app.drillWith(d.progress(log), asked)
	if err != nil {
		return broken(err)
	}
	s, _, err := d.store(ctx, p, locations)
	if err == nil && s == nil {
		err = fault.New("drills of policy "+p.Name, fault.ErrInvalid, "there is no location for restore points", "")
	}
	if err != nil {
		return broken(err)
	}
	defer d.closeStore(ctx, s, log)
	run, err := protect.RunDrills(ctx, protect.DrillPlan{
		Policy: p.Name, Store: s, Drill: drill, Limit: p.Spec.Drill.Limit, Since: since, Tell: func(r protect.Remark) { remark(log, r) },
	})
	if forgotten := asked.unasked(); forgotten != nil && p.Spec.Drill.Limit == 0 && ctx.Err() == nil {
		tell(log, slog.LevelError, forgotten.Error(), hintsOf(forgotten)...)
		run.Problems = append(run.Problems, protect.ProblemOf(forgotten))
		if run.State == point.Complete {
			run.State = point.Incomplete
		}
		err = errors.Join(err, forgotten)
	}
	return run, err
}

// closeStore closes a store also where ctx has ended.
func (d *daemon) closeStore(ctx context.Context, s store, log *slog.Logger) {
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	warn(log, s.Close(tidy))
}

// addProofs says in the report of a run how far the points of its policy are proven.
func (d *daemon) addProofs(ctx context.Context, p v1alpha1.Policy, s store, run *point.Run, log *slog.Logger) {
	if s == nil || p.Spec.Drill == nil || ctx.Err() != nil {
		return
	}
	since, err := provenSince(p.Spec.Drill, d.app.Clock())
	if err == nil {
		run.Proofs, err = protect.Proofs(ctx, s, p.Name, since)
	}
	warn(log, err)
	for _, proof := range run.Proofs {
		if proof.Lacking {
			tell(log, slog.LevelWarn, "no point of the last "+p.Spec.Drill.ProvenWithin+" is proven", "source", proof.Subject.Name)
		}
	}
}

// provenSince is the moment since which a proven point must have been made; zero for no such demand.
func provenSince(plan *v1alpha1.DrillPlan, now time.Time) (time.Time, error) {
	if plan.ProvenWithin == "" {
		return time.Time{}, nil
	}
	within, err := policy.ParseDuration(plan.ProvenWithin)
	if err != nil {
		return time.Time{}, fault.Wrap("drill.provenWithin", fault.ErrInvalid, err, "")
	}
	return within.Before(now), nil
}
