package policy

import (
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/backstay/backstay/internal/fault"
)

// Schedule says when a policy runs. Its zero value never does.
type Schedule struct {
	every time.Duration      // of @every; else 0
	spec  *cron.SpecSchedule // its Location is not used
	zone  *time.Location     // nil: that of the times given to Next
}

// maxCron bounds a written schedule; the parser's work grows with it.
const maxCron = 200

// maxChanges is more than the clocks of any zone change in five years, and than there are minutes in what comes twice.
const maxChanges = 1000

// hintCron is what errors of schedules have in common.
const hintCron = `five fields (minute, hour, day of the month, month, weekday): "30 2 * * *"; or @hourly, @daily, @weekly, @monthly, @yearly, @every 6h`

// ParseSchedule reads a cron expression of five fields, a descriptor such as @daily, or @every and a duration. The fields are of the
// time zone named, or of the one that the expression begins with (CRON_TZ=Europe/Berlin); with neither, of the location of the times
// that Next gets. Errors are fault.ErrInvalid.
func ParseSchedule(expression, zone string) (Schedule, error) {
	op := fmt.Sprintf("schedule %q", expression)
	invalid := func(why string) (Schedule, error) {
		return Schedule{}, fault.New(op, fault.ErrInvalid, why, hintCron)
	}
	if len(expression) > maxCron {
		return Schedule{}, fault.New("schedule", fault.ErrInvalid, fmt.Sprintf("longer than %d characters", maxCron), hintCron)
	}
	fields := strings.TrimSpace(expression)
	for _, prefix := range []string{"CRON_TZ=", "TZ="} {
		rest, found := strings.CutPrefix(fields, prefix)
		if !found {
			continue
		}
		name, after, _ := strings.Cut(rest, " ")
		if zone != "" && zone != name {
			return invalid("it names a time zone, and another one is given beside it")
		}
		if name == "" {
			return invalid("no time zone after " + prefix)
		}
		zone, fields = name, strings.TrimSpace(after)
		break
	}
	var s Schedule
	if zone != "" {
		var err error
		if s.zone, err = ParseZone(zone); err != nil {
			return Schedule{}, fault.Wrap(op, nil, err, "")
		}
	}
	if strings.Contains(fields, "TZ=") {
		return invalid("more than one time zone")
	}
	parsed, err := cron.ParseStandard(fields)
	if err != nil {
		return invalid(err.Error())
	}
	switch parsed := parsed.(type) {
	case cron.ConstantDelaySchedule:
		// The parser makes a second of anything shorter, and of what is negative.
		written, err := time.ParseDuration(strings.TrimPrefix(fields, "@every "))
		if err != nil || written < time.Second {
			return invalid("shorter than a second")
		}
		s.every = parsed.Delay
	case *cron.SpecSchedule:
		s.spec = parsed
	default:
		return invalid("not understood")
	}
	if s.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return invalid("this date never comes")
	}
	return s, nil
}

// ParseZone finds a time zone by its name, such as Europe/Berlin. Errors are fault.ErrInvalid.
func ParseZone(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil || name == "" {
		return nil, fault.New(fmt.Sprintf("time zone %q", name), fault.ErrInvalid, "unknown", "write it as Europe/Berlin or UTC")
	}
	return zone, nil
}

// Next returns the first time after t, or the zero time where there is none in the five years after it.
//
// A time of day that the clocks leave out in spring runs at the moment they go forward, so that no day is left out; one that comes
// twice in autumn runs the first time only. Schedules of every hour follow time as it passes.
func (s Schedule) Next(t time.Time) time.Time {
	if s.zone != nil {
		t = t.In(s.zone)
	}
	switch {
	case s.every > 0:
		return t.Truncate(time.Second).Add(s.every)
	case s.spec == nil:
		return time.Time{}
	}
	const everyHour = 1<<24 - 1
	hourly := s.spec.Hour&everyHour == everyHour
	// Between two changes of the clocks the arithmetic is that of UTC, moved by the offset.
	after := t
	for range maxChanges {
		changed, changes := t.ZoneBounds()
		ahead := offset(t)
		next := s.spec.Next(after.UTC().Add(ahead))
		if next.IsZero() {
			return next
		}
		next = next.Add(-ahead).In(t.Location())
		if changes.IsZero() || next.Before(changes) {
			if !hourly && !changed.IsZero() && next.Sub(changed) < offset(changed.Add(-1))-ahead {
				after = next // the clock has shown this time before
				continue
			}
			return next
		}
		if !hourly && next.Sub(changes) < offset(changes)-ahead {
			return changes // over which the clocks go forward
		}
		t, after = changes, changes.Add(-1)
	}
	return time.Time{}
}

// offset is how far the clocks of t's zone are ahead of UTC.
func offset(t time.Time) time.Duration {
	_, seconds := t.Zone()
	return time.Duration(seconds) * time.Second
}
