package protect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// minPrefix is how much of an id a reference must give at least.
const minPrefix = 4

// candidatesShown bounds the lists in errors.
const candidatesShown = 5

// latest refers to the newest point, and with a colon and a name to the newest of that subject.
const latest = "latest"

// Resolve finds the point that a reference means: a full id, a unique prefix of at least four digits, "latest", or
// "latest:SUBJECT". The latter two mean the newest point that is not later than asOf, unless that is zero.
// An ambiguous or malformed reference is fault.ErrInvalid; one that means nothing is fault.ErrNotFound and names what is near.
func Resolve(ctx context.Context, store Store, ref string, asOf time.Time) (*point.Point, error) {
	op := fmt.Sprintf("find point %q", ref)
	name, bySubject := strings.CutPrefix(ref, latest+":")
	byTime := bySubject || ref == latest
	switch {
	case !byTime && !asOf.IsZero():
		return nil, fault.New(op, fault.ErrInvalid, "an id and a time together", "a time goes with latest or latest:SUBJECT")
	case !byTime && (len(ref) < minPrefix || strings.Trim(strings.ToLower(ref), "0123456789abcdef") != ""):
		return nil, fault.New(op, fault.ErrInvalid, "not a reference to a point",
			fmt.Sprintf("give an id, at least %d digits of one, %s, or %s:SUBJECT", minPrefix, latest, latest))
	}
	points, err := store.Points(ctx, point.Filter{})
	if err != nil && (byTime || !errors.Is(err, fault.ErrCorrupt)) {
		return nil, fault.Wrap(op, nil, err, "")
	}
	// A store that has lost points can still have the one that is named; which is the newest, it cannot tell.
	switch {
	case len(points) == 0:
		return nil, fault.New(op, fault.ErrNotFound, "the vault holds no points", "make one with `backstay backup`")
	case bySubject:
		ofSubject := keepIf(points, func(p point.Point) bool { return p.Subject.Name == name })
		if len(ofSubject) == 0 {
			return nil, fault.New(op, fault.ErrNotFound, "no point of this subject", nearSubjects(points, name))
		}
		return newest(op, ofSubject, asOf)
	case byTime:
		return newest(op, points, asOf)
	}
	return byPrefix(op, points, strings.ToLower(ref))
}

// newest returns the newest of points, which are sorted and not empty, that is not later than asOf.
func newest(op string, points []point.Point, asOf time.Time) (*point.Point, error) {
	for i := range points {
		if asOf.IsZero() || !points[i].Time.After(asOf) {
			return &points[i], nil
		}
	}
	oldest := points[len(points)-1].Time
	return nil, fault.New(op, fault.ErrNotFound, "no point as old as "+stamp(asOf), "the oldest is of "+stamp(oldest))
}

func byPrefix(op string, points []point.Point, prefix string) (*point.Point, error) {
	found := keepIf(points, func(p point.Point) bool { return strings.HasPrefix(p.ID, prefix) })
	switch len(found) {
	case 0:
		return nil, fault.New(op, fault.ErrNotFound, "", "the newest points are "+describe(points))
	case 1:
		return &found[0], nil
	}
	return nil, fault.New(op, fault.ErrInvalid, fmt.Sprintf("%d points begin so", len(found)), "give more digits of one of "+describe(found))
}

// describe lists the first points for a hint.
func describe(points []point.Point) string {
	var list []string
	for _, p := range points[:min(len(points), candidatesShown)] {
		list = append(list, fmt.Sprintf("%s (%s, %s)", p.ID, p.Subject.Name, stamp(p.Time)))
	}
	if more := len(points) - candidatesShown; more > 0 {
		list = append(list, fmt.Sprintf("%d more", more))
	}
	return strings.Join(list, ", ")
}

// nearSubjects names the subjects that look most like name.
func nearSubjects(points []point.Point, name string) string {
	var names []string
	for _, p := range points {
		if !slices.Contains(names, p.Subject.Name) {
			names = append(names, p.Subject.Name)
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(likeness(b, name), likeness(a, name)) })
	hint := "subjects there are: " + strings.Join(names[:min(len(names), candidatesShown)], ", ")
	if more := len(names) - candidatesShown; more > 0 {
		hint += fmt.Sprintf(", %d more", more)
	}
	return hint
}

// likeness counts the bytes that two names share at their ends, the end weighing more: names differ in their last element.
func likeness(a, b string) int {
	n := min(len(a), len(b))
	front, back := 0, 0
	for front < n && a[front] == b[front] {
		front++
	}
	for back < n && a[len(a)-1-back] == b[len(b)-1-back] {
		back++
	}
	return front + 2*back
}

func keepIf(points []point.Point, want func(point.Point) bool) []point.Point {
	var kept []point.Point
	for _, p := range points {
		if want(p) {
			kept = append(kept, p)
		}
	}
	return kept
}

// stamp writes a time for messages.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
