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
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/policy"
)

// Plan is what one run of a policy does: every source into a point of its own, each repository to every destination, and then
// expiry.
type Plan struct {
	Policy       string
	Sources      []PlannedSource
	Store        Store // nil where only copies are made
	Location     string
	Retention    policy.Retention
	Zone         *time.Location
	Destinations []Destination
	Parallel     int // repositories delivered at once; 0 for four
	Clock        Clock
	Observe      point.Observer
	// Tell is told of what becomes known while the run goes on: a repository that failed, a source that begins. May be nil.
	Tell func(Remark)
}

const defaultParallel = 4

// Remark is one line of a run's log.
type Remark struct {
	Level      string // "debug", "info", "warning" or "error"
	Text       string
	Hints      []string // what to do
	Source     string   // subject
	Repository string   // "" for the source as a whole
}

// PlannedSource is one source of a policy.
type PlannedSource struct {
	Source
	Type string // "github", "git": as reports name it
	// Repositories lists what the source has, each one a source of its own. It is asked where there is no store, or a destination
	// wants to know where a repository comes from. Those it could list come with the error.
	Repositories func(ctx context.Context) ([]Repository, error)
	// Stats tells what the source cost, and what it has to say; asked after its capture.
	Stats func() SourceStats
}

// SourceStats is what a source says of itself after a run.
type SourceStats struct {
	Listed    int
	Requests  int64
	Remaining *int
	Warnings  []string
	Missing   []string // repositories that are asked for by name, and are not there
}

// Repository is one repository on its way to a destination.
type Repository struct {
	Source             // of its parts alone
	Part        string // name of its git part
	Host, Owner string
	Name        string
	// Held is the point that has it and its tree, where there is one.
	Held *Held
	// Origin is what the one who listed it knows of it beside; destinations that pull from the forge need it.
	Origin any
}

// Held is a point in a store, opened.
type Held struct {
	Record *point.Record
	Tree   point.Reader
}

// Destination takes copies of repositories: an export or a mirror.
type Destination struct {
	Type  string // "local", "s3", "gitea": as reports name it
	Place string // path or URL, without secrets
	// FromForge is set where the destination needs a repository as its forge lists it, not as a point has it.
	FromForge bool
	Deliver   func(ctx context.Context, r Repository) (Delivery, error)
}

// Delivery is what a destination did with a repository.
type Delivery struct {
	Unchanged bool
	Notes     []string
	Receipt   *point.Receipt // where the destination keeps a record; nil else
}

// Copies is the Deliver of a place of plain copies.
func Copies(to Drafter, policyName string) func(ctx context.Context, r Repository) (Delivery, error) {
	return func(ctx context.Context, r Repository) (Delivery, error) {
		receipt, err := Backup(ctx, to, r.Source, policyName)
		if receipt == nil {
			return Delivery{}, err
		}
		d := Delivery{Receipt: receipt, Notes: receipt.Warnings, Unchanged: true}
		for _, p := range receipt.Point.Parts {
			d.Unchanged = d.Unchanged && (p.Unchanged || p.State != point.Stored || p.NewBytes == 0)
			d.Notes = append(d.Notes, p.Notes...)
		}
		return d, err
	}
}

// Run runs a plan to its end: what one source, repository or destination does wrong costs no other. The report tells all. The
// error is fault.ErrIncomplete where anything is lacking; it is another one only where the run could not go on.
func Run(ctx context.Context, p Plan) (*point.Run, error) {
	r := &run{plan: p, report: &point.Run{
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
	plan   Plan
	report *point.Run
	mu     sync.Mutex // over what deliveries report
}

func (r *run) tell(level, source, repository, text string) {
	if r.plan.Tell != nil && text != "" {
		r.plan.Tell(Remark{Level: level, Text: text, Source: source, Repository: repository})
	}
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
	if len(r.plan.Destinations) > 0 && ctx.Err() == nil {
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
	receipt, err := Backup(ctx, r.plan.Store, s.Source, r.plan.Policy)
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
	if r.plan.Tell != nil {
		r.plan.Tell(Remark{Level: "error", Text: text, Hints: hints, Source: source, Repository: repository})
	}
}

// ProblemOf is an error as reports have it.
func ProblemOf(err error) point.Problem {
	return point.Problem{What: err.Error(), Class: fault.Of(err).Reason, Hints: fault.Hints(err)}
}

// repositoriesOf sums up the parts of a point by repository, in the order of their names.
func repositoriesOf(record *point.Record) []point.RepositoryRun {
	parts := byRepository(record.Point.Parts)
	var all []point.RepositoryRun
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		host, owner, repository := splitName(name)
		r := point.RepositoryRun{Host: host, Owner: owner, Name: repository, State: parts[name][0].State, Unchanged: true}
		for _, p := range parts[name] {
			add(&r, p, record.Point.Time)
		}
		all = append(all, r)
	}
	return all
}

// byRepository groups the parts of a point by what they are of, "<host>/<owner>/<name>": a repository with its Git LFS objects, its
// wiki and its issues. Parts that are of no repository are left out.
func byRepository(parts []point.Part) map[string][]point.Part {
	groups := map[string][]point.Part{}
	for _, p := range parts {
		if name, ok := repositoryOf(p); ok {
			groups[name] = append(groups[name], p)
		}
	}
	for name, wiki := range groups {
		if of, is := strings.CutSuffix(name, ".wiki"); is && groups[of] != nil {
			groups[of] = append(groups[of], wiki...)
			delete(groups, name)
		}
	}
	return groups
}

// repositoryOf is "<host>/<owner>/<name>" of what a part belongs to.
func repositoryOf(p point.Part) (string, bool) {
	if rest, ok := strings.CutPrefix(p.Name, "forge/"); ok && p.Kind == point.KindIssues {
		return path.Dir(rest), true
	}
	rest, ok := strings.CutPrefix(p.Name, "git/")
	if !ok {
		return "", false
	}
	rest += "/"
	end := strings.LastIndex(rest, ".git/")
	if end < 0 {
		return "", false
	}
	return rest[:end], true
}

// add counts a part of a repository: the worst state of its parts is the repository's.
func add(r *point.RepositoryRun, p point.Part, captured time.Time) {
	if severity(p.State) > severity(r.State) {
		r.State = p.State
	}
	if p.Reason != "" && severity(p.State) >= severity(r.State) {
		r.Reason = p.Reason
	}
	r.Unchanged = r.Unchanged && p.Unchanged
	r.Bytes += p.Bytes
	r.NewBytes += p.NewBytes
	if p.Kind != point.KindGit {
		return
	}
	switch p.State {
	case point.Stored:
		r.LastGood = &captured
	case point.Carried:
		r.LastGood = p.CarriedFrom
	}
}

// severity orders states: the higher, the worse.
func severity(s point.State) int {
	return slices.Index([]point.State{point.Skipped, point.Stored, point.Carried, point.Vanished, point.Failed}, s)
}

func splitName(name string) (host, owner, repository string) {
	host, rest, _ := strings.Cut(name, "/")
	return host, strings.Trim(path.Dir(rest), "."), path.Base(rest)
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

// withHeld joins what the forge says of repositories with what the point has of them.
func withHeld(listed []Repository, held *Held) []Repository {
	there := heldRepositories(held)
	all := slices.Clone(listed)
	for i := range all {
		if at := slices.IndexFunc(there, func(r Repository) bool { return r.Part == all[i].Part }); at >= 0 {
			all[i].Source, all[i].Held = there[at].Source, held
		}
	}
	return all
}

// heldRepositories are those that a point has.
func heldRepositories(held *Held) []Repository {
	groups := byRepository(held.Record.Point.Parts)
	var all []Repository
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		parts := slices.DeleteFunc(groups[name], func(p point.Part) bool { return p.State == point.Vanished })
		main := "git/" + name + ".git"
		if !slices.ContainsFunc(parts, func(p point.Part) bool { return p.Name == main && p.State != point.Skipped }) {
			continue
		}
		host, owner, repository := splitName(name)
		subject := held.Record.Point.Subject
		if subject.Kind != point.SubjectRepository { // else it may lie under another name than its own
			subject = point.Subject{Kind: point.SubjectRepository, Name: name}
		}
		all = append(all, Repository{
			Source: CopyOf(subject, held.Tree, parts),
			Part:   main, Host: host, Owner: owner, Name: repository, Held: held,
		})
	}
	return all
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

// entryOf finds or makes the report's line of a repository.
func entryOf(report *point.SourceRun, repository Repository) *point.RepositoryRun {
	i := slices.IndexFunc(report.Repositories, func(e point.RepositoryRun) bool {
		return e.Host == repository.Host && e.Owner == repository.Owner && e.Name == repository.Name
	})
	if i < 0 {
		i = len(report.Repositories)
		report.Repositories = append(report.Repositories, point.RepositoryRun{
			Host: repository.Host, Owner: repository.Owner, Name: repository.Name, State: point.Stored, Unchanged: true,
		})
	}
	return &report.Repositories[i]
}

// sumUp makes the repository's line of its deliveries, where no point says more.
func sumUp(entry *point.RepositoryRun, delivery Delivery, did point.DeliveryRun) {
	entry.Unchanged = entry.Unchanged && did.Unchanged
	if did.State == point.Failed {
		entry.State, entry.Reason = point.Failed, did.Reason
		return
	}
	if delivery.Receipt == nil {
		return
	}
	entry.Bytes = max(entry.Bytes, delivery.Receipt.Ledger.Bytes)
	entry.NewBytes += delivery.Receipt.Ledger.NewBytes
	captured := delivery.Receipt.Point.Time
	entry.LastGood = &captured
}

// stateOf is how a source came out.
func stateOf(s *point.SourceRun) point.State {
	good, bad := 0, len(s.Problems)
	for _, r := range s.Repositories {
		switch r.State {
		case point.Stored:
			good++
		case point.Skipped:
		default:
			bad++
		}
		for _, d := range r.Deliveries {
			if d.State != point.Stored {
				bad++
			}
		}
	}
	if s.Ledger != nil && !s.Ledger.Closed {
		bad++
	}
	switch {
	case bad == 0:
		return point.Complete
	case good == 0 && s.Point == "":
		return point.Failed
	}
	return point.Incomplete
}

// expire applies the policy's retention to the points of its subjects.
func (r *run) expire(ctx context.Context) {
	if r.plan.Retention.IsEmpty() {
		return
	}
	for i, s := range r.report.Sources {
		if s.Point == "" {
			continue // without a new point nothing goes
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

func shortcomingsOf(report *point.Run) string {
	var all []string
	for _, s := range report.Sources {
		for _, p := range s.Problems {
			all = append(all, p.What)
		}
		for _, r := range s.Repositories {
			name := path.Join(r.Host, r.Owner, r.Name)
			if severity(r.State) > severity(point.Stored) && len(r.Deliveries) == 0 {
				all = append(all, fmt.Sprintf("%s %s: %s", name, r.State, r.Reason))
			}
			for _, d := range r.Deliveries {
				if d.State != point.Stored {
					all = append(all, fmt.Sprintf("%s to %s %s: %s", name, d.Type, d.Place, d.Reason))
				}
			}
		}
		if s.Ledger != nil && !s.Ledger.Closed && len(all) == 0 {
			all = append(all, s.Subject.Name+": the ledger is open")
		}
	}
	if len(all) == 0 {
		return "not all of it was done"
	}
	return firstOf(all)
}

// firstOf joins shortcomings, as many as an error names.
func firstOf(all []string) string {
	if n := len(all); n > shownShortcomings {
		all = append(slices.Clone(all[:shownShortcomings]), fmt.Sprintf("and %d more", n-shownShortcomings))
	}
	return strings.Join(all, "; ")
}
