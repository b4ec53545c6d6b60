// Package schedule runs jobs at their times in one process: without overlap, with a configuration that may change while they run.
// It knows neither how a schedule is written nor what a job does.
package schedule

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// Job is something done at certain times.
type Job struct {
	Name string // unique
	Key  string // of the definition: a job whose key is the same after a reload keeps its next time
	// Next is the first time due after the one given, or the zero time for never again. A job without Next is done once, when it
	// becomes known.
	Next   func(after time.Time) time.Time
	Jitter time.Duration // each run starts later by a random span below this
	// Run does it. Its context ends when the loop is stopped, and not when the job is taken out of the configuration.
	Run func(ctx context.Context) error
}

// Kind says what happened.
type Kind int

// Kinds of events.
const (
	Loaded    Kind = iota // a configuration took effect; Jobs says how many it has
	Rejected              // a configuration was wrong (Err); the one before stays in effect. Told once for each error
	Scheduled             // the next run of Job starts at Time; the zero time where there is none, or the job was taken out
	Skipped               // Job was due at Time, and its last run was not over
	Started               // Job began; it was due at Time, and may have waited for others
	Ended                 // Job is over, with Err
)

// Event is something that happened in a loop.
type Event struct {
	Kind Kind
	Job  string
	Time time.Time
	Jobs int
	Err  error
}

// Loop runs jobs until it is stopped. Its fields are not to be changed once it runs.
type Loop struct {
	// Load reads the configuration. It is called at the start, every Poll, and for each value from Reload; never twice at a time.
	Load   func(ctx context.Context) ([]Job, error)
	Reload <-chan struct{} // may be nil; must not be closed
	Poll   time.Duration   // 0 for five seconds
	// Parallel is how many jobs run at once; 0 for one. Those that are due wait for their turn.
	Parallel int
	Now      func() time.Time // the wall clock
	Tell     func(Event)      // called from one goroutine at a time; it must not block for long. May be nil
}

const defaultPoll = 5 * time.Second

// Run starts what Load gives, at its times, until ctx ends; then it ends the context of what is running and waits for it. The error
// is that of the first Load: later on a wrong configuration is told, and the one before stays. A run that fails is told, too.
//
// A time that passed while the machine slept, or the clock jumped over, is made up for by one run, however many there were.
func (l *Loop) Run(ctx context.Context) error {
	jobs, err := l.load(ctx)
	if err != nil {
		return err
	}
	r := &runner{loop: l, running: map[string]bool{}, ended: make(chan Event), loaded: make(chan loaded)}
	defer r.drain()
	r.replace(jobs)
	poll := time.NewTicker(l.poll())
	defer poll.Stop()
	for {
		wake := time.NewTimer(r.startDue(ctx))
		select {
		case <-ctx.Done():
			wake.Stop()
			return nil
		case <-wake.C:
		case <-poll.C: // also looks at the wall clock again: timers stand still while the machine sleeps
			r.load(ctx)
		case <-l.Reload:
			r.load(ctx)
		case got := <-r.loaded:
			r.take(ctx, got)
		case e := <-r.ended:
			r.end(e)
		}
		wake.Stop()
	}
}

// Once runs every job now, whatever its times are, and returns what went wrong in them and in Load.
func (l *Loop) Once(ctx context.Context) error {
	jobs, err := l.load(ctx)
	if err != nil {
		return err
	}
	var (
		all  sync.WaitGroup
		mu   sync.Mutex // for tell and errs
		errs = make([]error, len(jobs))
		slot = make(chan struct{}, max(l.Parallel, 1))
	)
	tell := func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		l.tell(e)
	}
	for i, job := range jobs {
		slot <- struct{}{}
		if ctx.Err() != nil {
			errs[i] = fault.Wrap(job.Name, nil, ctx.Err(), "")
			<-slot
			continue
		}
		all.Go(func() {
			defer func() { <-slot }()
			tell(Event{Kind: Started, Job: job.Name, Time: l.Now()})
			err := job.Run(ctx)
			tell(Event{Kind: Ended, Job: job.Name, Err: err})
			errs[i] = fault.Wrap(job.Name, nil, err, "")
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (l *Loop) load(ctx context.Context) ([]Job, error) {
	jobs, err := l.Load(ctx)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, job := range jobs {
		if seen[job.Name] {
			return nil, fault.New("schedule", fault.ErrInvalid, "two jobs have the name "+job.Name, "give each its own name")
		}
		seen[job.Name] = true
	}
	return jobs, nil
}

func (l *Loop) poll() time.Duration {
	if l.Poll > 0 {
		return l.Poll
	}
	return defaultPoll
}

func (l *Loop) tell(e Event) {
	if l.Tell != nil {
		l.Tell(e)
	}
}

// jittered is t, later by a random span below limit.
func jittered(t time.Time, limit time.Duration) time.Time {
	if t.IsZero() || limit <= 0 {
		return t
	}
	return t.Add(rand.N(limit))
}
