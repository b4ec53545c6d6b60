package schedule

import (
	"context"
	"slices"
	"time"
)

// runner is the state of a running Loop. One goroutine alone touches it.
type runner struct {
	loop    *Loop
	entries []*entry
	running map[string]bool // by name, so that a new definition of a job waits for the old one's run
	ended   chan Event

	loading bool // a Load is under way
	again   bool // and another was asked for
	loaded  chan loaded
	told    string // the error of the configuration that was told last; "" after a good one
	seen    time.Time
}

// entry is a job and when it is due.
type entry struct {
	job     Job
	due     time.Time // by its schedule; zero for never
	start   time.Time // due and jitter
	waiting time.Time // the due time that has come and waits for a slot; zero for none
}

// loaded is what a Load gave.
type loaded struct {
	jobs []Job
	err  error
}

// maxBackstep is how far the clock may be set back before times are worked out anew. Less is the clock being corrected, and would
// have a job that just ran be due again.
const maxBackstep = time.Minute

// replace puts jobs in the place of those known. What is the same keeps its time.
func (r *runner) replace(jobs []Job) {
	now := r.now()
	before := r.entries
	r.entries = nil
	r.loop.tell(Event{Kind: Loaded, Jobs: len(jobs)})
	for _, job := range jobs {
		i := slices.IndexFunc(before, func(e *entry) bool { return e.job.Name == job.Name })
		if i >= 0 && before[i].job.Key == job.Key {
			r.entries = append(r.entries, before[i])
			before = slices.Delete(before, i, i+1)
			continue
		}
		e := &entry{job: job}
		if i >= 0 {
			e.waiting = before[i].waiting
			before = slices.Delete(before, i, i+1)
		}
		r.entries = append(r.entries, e)
		if job.Next == nil {
			r.set(e, now)
		} else {
			r.set(e, job.Next(now))
		}
	}
	for _, gone := range before {
		r.loop.tell(Event{Kind: Scheduled, Job: gone.job.Name})
	}
}

// set makes e due.
func (r *runner) set(e *entry, due time.Time) {
	e.due, e.start = due, jittered(due, e.job.Jitter)
	r.loop.tell(Event{Kind: Scheduled, Job: e.job.Name, Time: e.start})
}

// startDue starts what is due and has a slot, and says how long nothing else will be.
func (r *runner) startDue(ctx context.Context) time.Duration {
	now := r.now()
	if now.Before(r.seen.Add(-maxBackstep)) {
		r.reckon(now)
	}
	r.seen = now
	for _, e := range r.entries {
		if !e.due.IsZero() && !e.start.After(now) {
			r.ripen(e, now)
		}
	}
	r.fill(ctx)
	wait := r.loop.poll()
	for _, e := range r.entries {
		if !e.due.IsZero() && e.start.After(now) {
			wait = min(wait, e.start.Sub(now))
		}
	}
	return wait
}

// ripen notes that the time of e has come, and finds its next.
func (r *runner) ripen(e *entry, now time.Time) {
	due := e.due
	if e.job.Next == nil {
		e.waiting = due
		r.set(e, time.Time{})
		return
	}
	if e.waiting.IsZero() && !r.running[e.job.Name] {
		e.waiting = due
	} else {
		r.loop.tell(Event{Kind: Skipped, Job: e.job.Name, Time: due})
	}
	next := e.job.Next(due)
	if !next.IsZero() && !next.After(now) { // times were missed: this run is for all of them
		next = e.job.Next(now)
	}
	r.set(e, next)
}

// reckon works out the times anew, after the clock was set back.
func (r *runner) reckon(now time.Time) {
	for _, e := range r.entries {
		if e.job.Next != nil {
			r.set(e, e.job.Next(now))
		}
	}
}

// fill starts what waits, as far as there are slots.
func (r *runner) fill(ctx context.Context) {
	for ctx.Err() == nil && len(r.running) < max(r.loop.Parallel, 1) {
		e := r.longestWaiting()
		if e == nil {
			return
		}
		r.running[e.job.Name] = true
		r.loop.tell(Event{Kind: Started, Job: e.job.Name, Time: e.waiting})
		e.waiting = time.Time{}
		job := e.job
		go func() { // drain waits for it
			r.ended <- Event{Kind: Ended, Job: job.Name, Err: job.Run(ctx)}
		}()
	}
}

// longestWaiting is what may start next, so that a job that is due often keeps no other from its turn; nil for nothing.
func (r *runner) longestWaiting() *entry {
	var first *entry
	for _, e := range r.entries {
		if e.waiting.IsZero() || r.running[e.job.Name] {
			continue
		}
		if first == nil || e.waiting.Before(first.waiting) {
			first = e
		}
	}
	return first
}

func (r *runner) end(e Event) {
	delete(r.running, e.Job)
	r.loop.tell(e)
}

// load reads the configuration beside the loop: one that takes long delays no job.
func (r *runner) load(ctx context.Context) {
	if r.loading {
		r.again = true
		return
	}
	r.loading = true
	go func() { // drain waits for it
		jobs, err := r.loop.load(ctx)
		r.loaded <- loaded{jobs, err}
	}()
}

func (r *runner) take(ctx context.Context, got loaded) {
	r.loading = false
	switch {
	case ctx.Err() != nil:
	case got.err != nil:
		if got.err.Error() != r.told {
			r.told = got.err.Error()
			r.loop.tell(Event{Kind: Rejected, Err: got.err})
		}
	case r.told != "" || r.differs(got.jobs):
		r.told = ""
		r.replace(got.jobs)
	}
	if r.again {
		r.again = false
		r.load(ctx)
	}
}

// differs reports whether jobs are others than those known.
func (r *runner) differs(jobs []Job) bool {
	return !slices.EqualFunc(r.entries, jobs, func(e *entry, j Job) bool { return e.job.Name == j.Name && e.job.Key == j.Key })
}

// drain waits for everything that was begun.
func (r *runner) drain() {
	for len(r.running) > 0 || r.loading {
		select {
		case <-r.loaded:
			r.loading = false
		case e := <-r.ended:
			r.end(e)
		}
	}
}

// now is the wall clock's time, without the monotonic one that stands still while the machine sleeps.
func (r *runner) now() time.Time { return r.loop.Now().Round(0) }
