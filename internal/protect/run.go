package protect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

const defaultParallel = 4

// Run runs a plan to its end: what one source, repository or destination does wrong costs no other. The report tells all. The
// error is fault.ErrIncomplete where anything is lacking; it is another one only where the run could not go on.
func Run(ctx context.Context, p Plan) (*point.Run, error) {
	r := &run{plan: p, helped: map[point.Subject]bool{}, report: &point.Run{
		Version: point.RunVersion, Policy: p.Policy, Started: p.Clock().UTC(), Sources: []point.SourceRun{},
	}}
	for _, s := range p.Sources {
		if ctx.Err() != nil {
			break
		}
		r.source(ctx, s)
	}
	if ctx.Err() == nil && p.Store != nil {
		r.expire(ctx)
	}
	r.finish()
	switch {
	case ctx.Err() != nil:
		return r.report, fault.Wrap("run policy "+p.Policy, nil, ctx.Err(), "")
	case r.report.State != point.Complete:
		return r.report, fault.New("run policy "+p.Policy, fault.ErrIncomplete, shortcomingsOf(r.report), "")
	}
	return r.report, nil
}

// run is one run of a plan.
type run struct {
	plan    Plan
	report  *point.Run
	helped  map[point.Subject]bool // whose points another process made
	mu      sync.Mutex             // over what deliveries report
	telling sync.Mutex             // over the plan's Tell
}

func (r *run) tell(level, source, repository, text string) {
	if text != "" {
		r.remark(Remark{Level: level, Text: text, Source: source, Repository: repository})
	}
}

func (r *run) remark(m Remark) {
	if r.plan.Tell == nil {
		return
	}
	r.telling.Lock()
	defer r.telling.Unlock()
	r.plan.Tell(m)
}

// source runs one source of the plan.
func (r *run) source(ctx context.Context, s PlannedSource) {
	began := r.plan.Clock()
	subject := s.Subject()
	report := point.SourceRun{Subject: subject, Type: s.Type, State: point.Complete}
	r.tell("info", subject.Name, "", "starts")
	var held *Held
	if r.plan.Store != nil {
		held = r.capture(ctx, s, &report)
	}
	if len(r.plan.Destinations) > 0 && ctx.Err() == nil && !r.helped[subject] {
		r.deliver(ctx, s, held, &report)
	}
	if s.Stats != nil {
		stats := s.Stats()
		report.Listed, report.Requests, report.Remaining = stats.Listed, stats.Requests, stats.Remaining
		r.report.Warnings = append(r.report.Warnings, stats.Warnings...)
		for _, name := range stats.Missing {
			r.problem(&report, fault.New(subject.Name, fault.ErrNotFound, "no repository is named "+name,
				"names to include are those that the forge lists now; it may be of another owner, renamed, deleted, or not for this token to see"))
		}
	}
	report.State = stateOf(&report)
	report.Seconds = r.plan.Clock().Sub(began).Seconds()
	r.report.Sources = append(r.report.Sources, report)
	r.tell("info", subject.Name, "", fmt.Sprintf("%s after %.1f s", report.State, report.Seconds))
}

// capture makes a point of a source, and returns it opened where destinations need it.
func (r *run) capture(ctx context.Context, s PlannedSource, report *point.SourceRun) *Held {
	receipt, err := r.backup(ctx, s)
	if receipt == nil {
		r.problem(report, err)
		return nil
	}
	report.Point, report.Ledger = receipt.Point.ID, &receipt.Ledger
	report.Repositories = repositoriesOf(&receipt.Record)
	r.report.Warnings = append(r.report.Warnings, receipt.Warnings...)
	if r.report.Storage == nil {
		r.report.Storage = &point.StorageRun{Location: r.plan.Location}
	}
	r.report.Storage.StoredBytes += receipt.StoredBytes
	r.tellParts(s.Subject().Name, receipt.Point.Parts, report)
	if len(r.plan.Destinations) == 0 {
		return nil
	}
	record, tree, err := r.plan.Store.Open(ctx, receipt.Point.ID)
	if err != nil {
		r.problem(report, err)
		return nil
	}
	return &Held{record, tree}
}

// backup makes a point of a source, or helps another process to make it.
func (r *run) backup(ctx context.Context, s PlannedSource) (*point.Receipt, error) {
	source, divisible := s.Source.(Divisible)
	if r.plan.Shared == nil || !divisible {
		return Backup(ctx, r.plan.Store, s.Source, r.plan.Policy)
	}
	with := *r.plan.Shared
	with.Clock = r.plan.Clock
	receipt, made, err := BackupShared(ctx, r.plan.Store, source, r.plan.Policy, r.plan.Parallel, with)
	r.helped[s.Subject()] = !made
	return receipt, err
}

// tellParts tells of every part: loudly of those that are lacking, and of alarms. Where a list fails, everything lacks for one reason.
func (r *run) tellParts(subject string, parts []point.Part, report *point.SourceRun) {
	told := map[string]int{}
	for _, p := range parts {
		switch p.State {
		case point.Stored:
			if !p.Unchanged {
				r.tell("info", subject, p.Name, fmt.Sprintf("stored, %d bytes new", p.NewBytes))
				break
			}
			r.tell("debug", subject, p.Name, "unchanged")
		case point.Skipped:
			r.tell("debug", subject, p.Name, "skipped: "+p.Reason)
		case point.Failed, point.Carried, point.Vanished:
			text := string(p.State) + ": " + p.Reason
			if told[text]++; told[text] <= shownShortcomings {
				r.tell("error", subject, p.Name, text)
			}
			if p.State == point.Vanished {
				report.Alarms = append(report.Alarms, p.Name+": "+p.Reason)
			}
		}
		for _, note := range p.Notes {
			if alarm, ok := strings.CutPrefix(note, point.AlarmNote); ok {
				report.Alarms = append(report.Alarms, p.Name+": "+alarm)
				r.tell("warning", subject, p.Name, note)
			}
		}
	}
	for _, text := range slices.Sorted(maps.Keys(told)) {
		if more := told[text] - shownShortcomings; more > 0 {
			r.tell("error", subject, "", fmt.Sprintf("%d more %s", more, text))
		}
	}
}

func (r *run) problem(report *point.SourceRun, err error) {
	report.Problems = append(report.Problems, ProblemOf(err))
	r.tellError(report.Subject.Name, "", err.Error(), fault.Hints(err))
}

func (r *run) tellError(source, repository, text string, hints []string) {
	r.remark(Remark{Level: "error", Text: text, Hints: hints, Source: source, Repository: repository})
}

// deliver takes the source's repositories to all destinations.
func (r *run) deliver(ctx context.Context, s PlannedSource, held *Held, report *point.SourceRun) {
	listed, err := r.listed(ctx, s, held)
	if err != nil {
		r.problem(report, err)
	}
	work, limited := errgroup.WithContext(ctx)
	work.SetLimit(cmp.Or(r.plan.Parallel, defaultParallel))
	for _, d := range r.plan.Destinations {
		repositories := listed
		switch {
		case held != nil && d.FromForge:
			repositories = withHeld(listed, held)
		case held != nil:
			repositories = heldRepositories(held)
		}
		for _, repository := range repositories {
			work.Go(func() error {
				if limited.Err() == nil {
					r.one(limited, d, repository, report)
				}
				return nil
			})
		}
	}
	_ = work.Wait() // deliveries report for themselves
}

// listed asks the source for its repositories, where that is needed.
func (r *run) listed(ctx context.Context, s PlannedSource, held *Held) ([]Repository, error) {
	needed := held == nil && r.plan.Store == nil
	for _, d := range r.plan.Destinations {
		needed = needed || d.FromForge
	}
	if !needed || s.Repositories == nil {
		return nil, nil
	}
	return s.Repositories(ctx)
}

// one takes one repository to one destination.
func (r *run) one(ctx context.Context, d Destination, repository Repository, report *point.SourceRun) {
	began := r.plan.Clock()
	delivery, err := d.Deliver(ctx, repository)
	if ctx.Err() != nil {
		return
	}
	did := point.DeliveryRun{
		Type: d.Type, Place: d.Place, State: point.Stored, Unchanged: delivery.Unchanged, Seconds: r.plan.Clock().Sub(began).Seconds(),
	}
	name := path.Join(repository.Host, repository.Owner, repository.Name)
	switch {
	case err != nil:
		did.State, did.Reason, did.Hints = point.Failed, err.Error(), fault.Hints(err)
		r.tellError(report.Subject.Name, name, d.Type+" "+d.Place+": "+err.Error(), did.Hints)
	case delivery.Unchanged:
		r.tell("debug", report.Subject.Name, name, d.Type+" "+d.Place+": unchanged")
	default:
		r.tell("info", report.Subject.Name, name, d.Type+" "+d.Place+": copied")
	}
	for _, note := range delivery.Notes {
		r.tell("info", report.Subject.Name, name, d.Type+" "+d.Place+": "+note)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	entry := entryOf(report, repository)
	entry.Deliveries = append(entry.Deliveries, did)
	entry.Seconds += did.Seconds
	if r.plan.Store == nil {
		sumUp(entry, delivery, did)
	}
}

// expire applies the policy's retention to the points of its subjects.
func (r *run) expire(ctx context.Context) {
	if r.plan.Retention.IsEmpty() {
		return
	}
	for i, s := range r.report.Sources {
		if s.Point == "" || r.helped[s.Subject] {
			continue // without a new point nothing goes; of one that another process made, that process sees to it
		}
		points, err := r.plan.Store.Points(ctx, point.Filter{Subject: &s.Subject, Policy: r.plan.Policy})
		if err == nil {
			var expired *Expired
			expired, err = Expire(ctx, r.plan.Store, points, Expiry{Retention: r.plan.Retention, Now: r.plan.Clock(), Zone: r.plan.Zone})
			if expired != nil {
				r.report.Expired += expired.Deleted
			}
		}
		if errors.Is(err, fault.ErrLocked) {
			continue // the store lets them go later
		}
		if err != nil {
			r.report.Sources[i].State = point.Incomplete
			r.problem(&r.report.Sources[i], err)
		}
	}
}

// finish sums the sources up.
func (r *run) finish() {
	r.report.Finished = r.plan.Clock().UTC()
	failed, complete := 0, 0
	for _, s := range r.report.Sources {
		switch s.State {
		case point.Complete:
			complete++
		case point.Failed:
			failed++
		}
	}
	switch len(r.plan.Sources) {
	case complete:
		r.report.State = point.Complete
	case failed:
		r.report.State = point.Failed
	default:
		r.report.State = point.Incomplete
	}
}

// shownShortcomings is how many of a run's shortcomings its error names, and its log of those with one reason; the report has all.
const shownShortcomings = 5
