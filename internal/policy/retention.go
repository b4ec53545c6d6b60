// Package policy decides which restore points to keep. It is pure arithmetic on times: it reads no clock and touches no store.
package policy

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/backstay/backstay/internal/point"
)

// Retention says which points of a subject to keep. A point is kept when any rule keeps it; with no rule at all every point is.
//
// Hourly to Yearly divide time into hours, days, ISO weeks, months and years, and keep the newest point of each of the newest
// so many that have one. Last does the same with every point on its own.
//
// Incomplete points never cost a complete one its place: a period is counted only for its complete points, and of a period that
// has none, the newest incomplete point is kept beside those counted, as long as it is newer than the last of them.
type Retention struct {
	Last, Hourly, Daily, Weekly, Monthly, Yearly int

	// Within keeps every point that is at most so much older than the newest complete one. It is not measured from the present,
	// for then the points of a source that has stopped working would run out.
	Within Duration
}

// IsEmpty reports whether there is no rule.
func (r Retention) IsEmpty() bool { return r == Retention{} }

// Decision is what becomes of one point.
type Decision struct {
	Point   point.Point
	Keep    bool
	Reasons []string // every reason to keep it; none where it expires
}

// Decide judges points, each subject for itself, and of a subject each policy's, for they may take different things of it: sorted by
// subject and policy, then newest first. Periods are those of zone. Whatever the rules say, these are kept: points on hold, the newest
// complete point of a subject and policy (while there is none, the newest), and points later than now, which a wrong clock has made
// and which must not push out good ones.
func (r Retention) Decide(points []point.Point, now time.Time, zone *time.Location) []Decision {
	sorted := slices.SortedStableFunc(slices.Values(points), func(a, b point.Point) int {
		return cmp.Or(
			cmp.Compare(a.Subject.Kind, b.Subject.Kind),
			cmp.Compare(a.Subject.Name, b.Subject.Name),
			cmp.Compare(a.Policy, b.Policy),
			b.Time.Compare(a.Time),
			cmp.Compare(a.ID, b.ID))
	})
	decisions := make([]Decision, len(sorted))
	for i, p := range sorted {
		decisions[i].Point = p
	}
	for start := 0; start < len(decisions); {
		end := start
		for end < len(decisions) && alike(decisions[end].Point, decisions[start].Point) {
			end++
		}
		r.decideAlike(decisions[start:end], now, zone)
		start = end
	}
	return decisions
}

func alike(a, b point.Point) bool { return a.Subject == b.Subject && a.Policy == b.Policy }

// decideAlike fills in the decisions on the points of one subject and policy, newest first.
func (r Retention) decideAlike(all []Decision, now time.Time, zone *time.Location) {
	for i := range all {
		d := &all[i]
		if r.IsEmpty() {
			d.keep("no retention rule")
		}
		for _, h := range d.Point.Holds {
			d.keep("hold: " + h.Reason)
		}
	}
	for len(all) > 0 && all[0].Point.Time.After(now) {
		all[0].keep("dated in the future")
		all = all[1:]
	}
	if len(all) == 0 {
		return
	}
	newest := newestComplete(all)
	if newest.complete() {
		newest.keep("newest complete")
	} else {
		newest.keep("newest")
	}
	if !r.Within.IsZero() {
		since := r.Within.Before(newest.Point.Time)
		for i := range all {
			if !all[i].Point.Time.Before(since) {
				all[i].keep("within " + r.Within.String())
			}
		}
	}
	for _, rule := range r.rules(zone) {
		rule.apply(all)
	}
}

// newestComplete returns the newest complete point's decision, or the newest point's where none is complete.
func newestComplete(all []Decision) *Decision {
	for i := range all {
		if all[i].complete() {
			return &all[i]
		}
	}
	return &all[0]
}

func (d *Decision) keep(reason string) {
	d.Keep = true
	d.Reasons = append(d.Reasons, reason)
}

func (d *Decision) complete() bool { return d.Point.State == point.Complete }

// rule keeps one point of each of the newest count periods. Points of one period have the same name, and lie together.
type rule struct {
	count  int
	period func(p point.Point) string
	name   string
}

func (r Retention) rules(zone *time.Location) []rule {
	format := func(layout string) func(point.Point) string {
		return func(p point.Point) string { return p.Time.In(zone).Format(layout) }
	}
	week := func(p point.Point) string {
		year, week := p.Time.In(zone).ISOWeek()
		return fmt.Sprintf("%04d-W%02d", year, week)
	}
	return []rule{
		{r.Last, func(p point.Point) string { return p.ID }, "last"},
		// With its offset, for when summer time ends one hour comes twice.
		{r.Hourly, format("2006-01-02 15h -0700"), "hourly"},
		{r.Daily, format(time.DateOnly), "daily"},
		{r.Weekly, week, "weekly"},
		{r.Monthly, format("2006-01"), "monthly"},
		{r.Yearly, format("2006"), "yearly"},
	}
}

func (r rule) apply(all []Decision) {
	counted, incomplete := 0, 0
	for len(all) > 0 && counted < r.count {
		period := r.period(all[0].Point)
		end := 1
		for end < len(all) && r.period(all[end].Point) == period {
			end++
		}
		best := newestComplete(all[:end])
		switch {
		case best.complete():
			counted++
			best.keep(r.reason(period))
		case incomplete < r.count:
			incomplete++
			best.keep(r.reason(period) + " (incomplete)")
		}
		all = all[end:]
	}
}

// reason names the rule and the period; the periods of "last" have no name worth reading.
func (r rule) reason(period string) string {
	if r.name == "last" {
		return r.name
	}
	return r.name + " " + period
}
