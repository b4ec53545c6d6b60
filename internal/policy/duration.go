package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// Duration is a span of calendar time. Its parts are not reduced to each other, for months and days have no fixed length.
type Duration struct {
	Years, Months, Weeks, Days, Hours int
}

// durationUnits are the letters of a written duration, in the order they must come in.
const durationUnits = "ymwdh"

// maxDurationDigits bounds each number of a duration, so that no date computed from it leaves time.Time's range.
const maxDurationDigits = 5

// ParseDuration reads spans such as "1y6m", "2w" or "36h": years, months, weeks, days, hours, each at most once, in that order.
// Errors are fault.ErrInvalid.
func ParseDuration(s string) (Duration, error) {
	invalid := func(why string) (Duration, error) {
		hint := `write numbers with y, m, w, d or h in this order: "1y6m", "30d", "36h"`
		return Duration{}, fault.New(fmt.Sprintf("duration %q", s), fault.ErrInvalid, why, hint)
	}
	if s == "" {
		return invalid("empty")
	}
	var numbers [len(durationUnits)]int
	units, rest := durationUnits, s
	for rest != "" {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		switch {
		case digits == 0:
			return invalid("a number is missing")
		case digits > maxDurationDigits:
			return invalid("too long")
		case digits == len(rest):
			return invalid("the unit is missing")
		}
		unit := strings.IndexByte(units, rest[digits])
		if unit < 0 {
			return invalid("a unit is unknown, repeated or out of order")
		}
		n, err := strconv.Atoi(rest[:digits])
		if err != nil {
			return invalid("not a number")
		}
		numbers[len(durationUnits)-len(units)+unit] = n
		units, rest = units[unit+1:], rest[digits+1:]
	}
	return Duration{numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]}, nil
}

// IsZero reports whether the span is empty.
func (d Duration) IsZero() bool { return d == Duration{} }

// String writes the span as ParseDuration reads it; the empty one as "0h".
func (d Duration) String() string {
	var b strings.Builder
	for i, n := range []int{d.Years, d.Months, d.Weeks, d.Days, d.Hours} {
		if n != 0 {
			fmt.Fprintf(&b, "%d%c", n, durationUnits[i])
		}
	}
	if b.Len() == 0 {
		return "0h"
	}
	return b.String()
}

// Set and Type make Duration a command line flag.
func (d *Duration) Set(s string) (err error) {
	*d, err = ParseDuration(s)
	return err
}

// Type names the value in help texts.
func (*Duration) Type() string { return "duration" }

// Before returns the time that lies the span before t. A day that the month does not have becomes its last:
// a month before March 31st is February 28th, so that a span never comes out shorter than it says.
func (d Duration) Before(t time.Time) time.Time {
	months := t.AddDate(-d.Years, -d.Months, 0)
	if months.Day() != t.Day() {
		months = months.AddDate(0, 0, -months.Day())
	}
	return months.AddDate(0, 0, -7*d.Weeks-d.Days).Add(-time.Duration(d.Hours) * time.Hour)
}
