package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/notify"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/policy"
	"github.com/backstay/backstay/internal/protect"
	"github.com/backstay/backstay/internal/schedule"
)

// declared is what a daemon is to do.
type declared struct {
	policies  []v1alpha1.Policy
	locations []v1alpha1.Location
}

// daemon runs policies: once, or at their times until it is stopped.
type daemon struct {
	app     *app
	o       processOptions
	load    func() (declared, error)
	open    func(ctx context.Context, p v1alpha1.Policy) (store, string, error) // nil store for none; beside those that policies name
	log     *slog.Logger
	logFile *notify.LogFile // nil for none
	secrets *notify.Secrets // masked wherever something is told
	metrics *notify.Metrics
	builder *builder
	last    map[string]declaration // by policy; only jobs looks at it

	once    bool
	mu      sync.Mutex
	reports []point.Run // of --once
}

// newDaemon makes a daemon without anything to do yet.
func (a *app) newDaemon(o processOptions) (*daemon, error) {
	d := &daemon{app: a, o: o, secrets: &notify.Secrets{}, metrics: notify.NewMetrics(a.Version), last: map[string]declaration{}}
	var lines []io.Writer
	if !o.silent {
		lines = append(lines, a.Stderr)
	}
	if o.logFile != "" {
		now := a.Clock()
		var err error
		d.logFile, err = notify.OpenLogFile(notify.LogFileOptions{
			Dir: filepath.Dir(o.logFile), Name: filepath.Base(o.logFile), MaxAge: now.Sub(o.logMaxAge.Before(now)), Now: a.Clock,
		})
		if err != nil {
			return nil, err
		}
		lines = append(lines, d.logFile)
	}
	level := o.level
	if a.global.quiet || a.global.json {
		level = slog.LevelWarn
	}
	d.log = notify.NewLogger(io.MultiWriter(lines...), notify.LogOptions{
		JSON: a.told.json, Level: level, TimeFormat: o.timeFormat, Secrets: d.secrets,
	})
	d.builder = &builder{
		app: a, secrets: d.secrets, budget: &forge.Budget{}, observe: func(point.Event) {}, warn: func(message string) { tell(d.log, slog.LevelWarn, message) },
	}
	if dir := a.cacheDir(); dir != "" {
		var err error
		if d.builder.cache, err = forge.NewCache(dir, maxCache); err != nil {
			d.log.Warn("answers of forges are not kept", "error", err.Error())
		}
	}
	return d, nil
}

// progress logs how far a run is, now and then.
func (d *daemon) progress(log *slog.Logger) point.Observer {
	p := &progress{clock: d.app.Clock, last: d.app.Clock(), line: func(text string, e point.Event) {
		var attributes []any
		if d.app.told.json {
			attributes = []any{"part", e.Part, "done", e.Done, "total", e.Total, "unit", e.Unit}
		}
		tell(log, slog.LevelInfo, text, attributes...)
	}}
	return p.show
}

// close ends the log file.
func (d *daemon) close() error {
	if d.logFile == nil {
		return nil
	}
	return d.logFile.Close()
}

// run runs the policies once, or until ctx ends.
func (d *daemon) run(ctx context.Context, once bool) error {
	loop := &schedule.Loop{Load: d.jobs, Now: d.app.Clock, Tell: d.tellLoop, Parallel: policiesAtOnce}
	d.once = once
	if once {
		err := loop.Once(ctx)
		if len(d.reports) == 0 {
			if err != nil {
				return err
			}
			d.log.Warn("nothing was run: every policy is suspended")
		}
		return errors.Join(err, d.tellReports())
	}
	reload, unhook := onHangup()
	defer unhook()
	loop.Reload = reload
	if d.o.listen == "" {
		return loop.Run(ctx)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	served := make(chan error, 1)
	go func() {
		err := d.metrics.Serve(ctx, d.o.listen, d.o.metricsPath, nil)
		if err != nil {
			stop(err)
		}
		served <- err
	}()
	err := loop.Run(ctx)
	stop(nil)
	return errors.Join(err, <-served)
}

// policiesAtOnce run side by side, so that a short one need not wait for a long one.
const policiesAtOnce = 2

// onHangup tells of SIGHUP, the old way to have files read again.
func onHangup() (<-chan struct{}, func()) {
	hangups, reload, ended := make(chan os.Signal, 1), make(chan struct{}, 1), make(chan struct{})
	signal.Notify(hangups, syscall.SIGHUP)
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			select {
			case <-ended:
				return
			case <-hangups:
				select {
				case reload <- struct{}{}:
				default: // one is due already
				}
			}
		}
	})
	return reload, func() {
		signal.Stop(hangups)
		close(ended)
		wait.Wait()
	}
}

// jobs are the policies as declared now.
func (d *daemon) jobs(context.Context) ([]schedule.Job, error) {
	now, err := d.load()
	if err != nil {
		return nil, err
	}
	var (
		jobs     []schedule.Job
		settings []notify.PolicySettings
	)
	for i, p := range now.policies {
		settings = append(settings, notify.PolicySettings{
			Name: p.Name, Number: i, Sources: len(p.Spec.Sources), Destinations: len(p.Spec.Exports) + len(p.Spec.Mirrors),
		})
		if p.Spec.Suspend {
			continue
		}
		job := schedule.Job{Name: p.Name, Key: d.keyOf(p, now.locations), Run: func(ctx context.Context) error {
			return d.policy(ctx, p, now.locations)
		}}
		if err := setTimes(&job, p.Spec.Schedule); err != nil {
			return nil, fault.Wrap("policy "+p.Name, nil, err, "")
		}
		jobs = append(jobs, job)
		if p.Spec.Drill == nil || p.Spec.Drill.Schedule == nil || d.once {
			continue
		}
		drill := schedule.Job{Name: p.Name + " drill", Key: job.Key, Run: func(ctx context.Context) error {
			return d.drills(ctx, p, now.locations)
		}}
		if err := setTimes(&drill, p.Spec.Drill.Schedule); err != nil {
			return nil, fault.Wrap("drills of policy "+p.Name, nil, err, "")
		}
		jobs = append(jobs, drill)
	}
	d.metrics.SetPolicies(settings)
	return jobs, nil
}

// setTimes gives a job the times of its schedule; without one it runs once.
func setTimes(job *schedule.Job, s *v1alpha1.Schedule) error {
	if s == nil {
		return nil
	}
	times, err := policy.ParseSchedule(s.Cron, s.TimeZone)
	if err != nil {
		return err
	}
	job.Next = times.Next
	if s.Jitter != "" {
		job.Jitter, err = time.ParseDuration(s.Jitter)
	}
	return fault.Wrap("", fault.ErrInvalid, err, "")
}

// keyOf numbers the declarations of a policy: one that differs from the last in anything has another number.
func (d *daemon) keyOf(p v1alpha1.Policy, locations []v1alpha1.Location) string {
	last := d.last[p.Name]
	if !reflect.DeepEqual(last.policy, p) || !reflect.DeepEqual(last.locations, locations) {
		last = declaration{p, locations, last.number + 1}
		d.last[p.Name] = last
	}
	return strconv.Itoa(last.number)
}

// declaration is a policy as it was declared last.
type declaration struct {
	policy    v1alpha1.Policy
	locations []v1alpha1.Location
	number    int
}

func (d *daemon) tellLoop(e schedule.Event) {
	switch e.Kind {
	case schedule.Rejected:
		d.log.Error("the configuration is wrong; the one before stays in effect", "error", e.Err.Error())
	case schedule.Loaded:
		d.log.Info("configuration read", "policies", e.Jobs)
	case schedule.Skipped:
		d.log.Warn("not run: the last run is not over", "policy", e.Job)
	case schedule.Scheduled:
		d.metrics.SetNext(e.Job, e.Time)
		if !e.Time.IsZero() {
			d.log.Info("next run", "policy", e.Job, "time", e.Time.UTC().Format(time.RFC3339))
		}
	case schedule.Started, schedule.Ended: // the run tells for itself
	}
}

// policy runs one policy, and tells everybody who is to be told.
func (d *daemon) policy(ctx context.Context, p v1alpha1.Policy, locations []v1alpha1.Location) error {
	log := d.log.With("policy", p.Name)
	log.Info("run starts")
	notifier, incomplete := d.builder.notifier(ctx, p.Spec.Notify)
	if !d.o.dryRun {
		d.metrics.Started(p.Name)
		warn(log, notifier.Started(ctx))
	}
	run, err := d.execute(ctx, p, locations, log)
	if incomplete != nil { // the others are told that nobody was told there
		run.Problems = append(run.Problems, protect.ProblemOf(incomplete))
		if run.State == point.Complete {
			run.State = point.Incomplete
		}
		tell(log, slog.LevelError, incomplete.Error(), hintsOf(incomplete)...)
		err = errors.Join(err, incomplete)
	}
	report := d.secrets.MaskRun(*run)
	for _, w := range report.Warnings {
		tell(log, slog.LevelWarn, w)
	}
	log.Info("run ends", "state", report.State, "seconds", seconds(report.Finished.Sub(report.Started)))
	if d.once {
		d.mu.Lock()
		d.reports = append(d.reports, report)
		d.mu.Unlock()
	}
	if d.o.dryRun {
		return err
	}
	d.metrics.Ended(report)
	warn(log, notifier.Ended(ctx, report))
	return err
}

func warn(log *slog.Logger, err error) {
	if err != nil {
		tell(log, slog.LevelWarn, err.Error())
	}
}

// execute runs a policy. What keeps it from beginning makes a report, too.
func (d *daemon) execute(ctx context.Context, p v1alpha1.Policy, locations []v1alpha1.Location, log *slog.Logger) (*point.Run, error) {
	began := d.app.Clock().UTC()
	broken := func(err error) (*point.Run, error) {
		tell(log, slog.LevelError, err.Error(), hintsOf(err)...)
		return &point.Run{
			Version: point.RunVersion, Policy: p.Name, Started: began, Finished: d.app.Clock().UTC(), State: point.Failed,
			Sources: []point.SourceRun{}, Problems: []point.Problem{protect.ProblemOf(err)},
		}, err
	}
	plan, err := d.builder.forRun(d.progress(log), locations).plan(ctx, p)
	if err != nil {
		return broken(err)
	}
	plan.Tell = func(r protect.Remark) { remark(log, r) }
	if d.o.dryRun {
		return d.list(ctx, plan)
	}
	if d.o.shared.Run != "" {
		plan.Shared = &d.o.shared
	}
	s, where, err := d.store(ctx, p, locations)
	if err != nil {
		return broken(err)
	}
	if s == nil && len(plan.Destinations) == 0 {
		return broken(fault.New("policy "+p.Name, fault.ErrInvalid, "it has no destination, and there is no location for restore points",
			"name a destination, or give --location"))
	}
	if s != nil {
		plan.Store, plan.Location = s, where
		defer d.closeStore(ctx, s, log)
	}
	run, err := protect.Run(ctx, plan)
	if run != nil {
		d.addProofs(ctx, p, s, run, log)
	}
	return run, err
}

// store opens the vault that takes a policy's points; nil where there is none.
func (d *daemon) store(ctx context.Context, p v1alpha1.Policy, locations []v1alpha1.Location) (store, string, error) {
	if p.Spec.Location == "" {
		if d.open == nil {
			return nil, "", nil
		}
		return d.open(ctx, p)
	}
	i := slices.IndexFunc(locations, func(l v1alpha1.Location) bool { return l.Name == p.Spec.Location })
	if i < 0 {
		return nil, "", fault.New(fmt.Sprintf("find location %q", p.Spec.Location), fault.ErrNotFound, "", "")
	}
	return d.builder.openVault(ctx, locations[i].Spec)
}

// list reports what a run would take, and takes nothing.
func (d *daemon) list(ctx context.Context, plan protect.Plan) (*point.Run, error) {
	report := &point.Run{Version: point.RunVersion, Policy: plan.Policy, Started: plan.Clock().UTC(), State: point.Complete, Sources: []point.SourceRun{}}
	var failed error
	for _, s := range plan.Sources {
		line := point.SourceRun{Subject: s.Subject(), Type: s.Type, State: point.Complete}
		if s.Repositories == nil { // a directory
			d.log.Info("would be backed up", "source", s.Subject().Name)
			report.Sources = append(report.Sources, line)
			continue
		}
		repositories, err := s.Repositories(ctx)
		if err != nil {
			line.State, report.State = point.Incomplete, point.Incomplete
			line.Problems = append(line.Problems, protect.ProblemOf(err))
			failed = errors.Join(failed, err)
		}
		for _, r := range repositories {
			line.Listed++
			line.Repositories = append(line.Repositories, point.RepositoryRun{Host: r.Host, Owner: r.Owner, Name: r.Name, State: point.Skipped, Reason: "dry run"})
			d.log.Info("would be backed up", "source", s.Subject().Name, "repository", r.Host+"/"+r.Owner+"/"+r.Name)
		}
		report.Sources = append(report.Sources, line)
	}
	report.Finished = plan.Clock().UTC()
	return report, failed
}

// remark logs what a run has to say.
func remark(log *slog.Logger, r protect.Remark) {
	level := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warning": slog.LevelWarn, "error": slog.LevelError}[r.Level]
	attributes := []any{"source", r.Source}
	if r.Repository != "" {
		attributes = append(attributes, "repository", r.Repository)
	}
	if len(r.Hints) > 0 {
		attributes = append(attributes, "hint", strings.Join(r.Hints, "; "))
	}
	tell(log, level, r.Text, attributes...)
}

// tell logs a text that was made elsewhere, on one line.
func tell(log *slog.Logger, level slog.Level, text string, attributes ...any) {
	text = strings.ReplaceAll(printable(text), "\n", "; ")
	log.Log(context.Background(), level, text, attributes...) //nolint:sloglint // the text is what is to be told
}

func hintsOf(err error) []any {
	hints := fault.Hints(err)
	if len(hints) == 0 {
		return nil
	}
	return []any{"hint", strings.Join(hints, "; ")}
}
