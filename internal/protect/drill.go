package protect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Checker looks at a part that a drill restored to dir. from is opened on the part. An error that is fault.ErrCorrupt, ErrNotFound,
// ErrInvalid or ErrIncomplete is a check that failed; any other means that the drill cannot be made.
type Checker func(ctx context.Context, from point.Reader, part point.Part, dir string) ([]point.Check, error)

// Drill is how a point is proven: each part is restored into a directory of its own, looked at, and deleted.
type Drill struct {
	Restorers map[string]Restorer // by kind of part
	Checkers  map[string]Checker  // likewise; a kind without one is restored, and no more
	// Scratch makes an empty directory, and a function that removes it.
	Scratch func() (dir string, remove func(), err error)
	By      string // who makes the drill
	Clock   Clock
	Observe point.Observer // nil for nobody
}

// checkRestore is what a drill calls that a part came back.
const checkRestore = "restore"

// Prove drills a point and keeps what it found. Where a check failed, the proof comes with an error that is fault.ErrIncomplete. A drill
// that could not be made, for want of disk, of a program or of the store, says nothing of the point: its error is of another class, and
// the point keeps the proof it had.
func (d Drill) Prove(ctx context.Context, store Store, id string) (*point.Proof, error) {
	op := "drill of point " + id
	p := point.Proof{Point: id, Started: d.Clock().UTC(), By: d.By}
	record, from, err := store.Open(ctx, id)
	switch {
	case errors.Is(err, fault.ErrCorrupt):
		p.Checks = []point.Check{{What: "record", Detail: err.Error()}}
	case err != nil:
		return nil, fault.Wrap(op, nil, err, "")
	default:
		if p.Checks, p.RestoreSeconds, err = d.parts(ctx, from, record.Point.Parts); err != nil {
			return nil, fault.Wrap(op, unmade(err), err, hintOfScratch(err))
		}
	}
	p.Finished = d.Clock().UTC()
	p.Proven = len(p.Checks) > 0 && len(p.Problems()) == 0
	if !p.Proven {
		p.RestoreSeconds = 0
	}
	if err := KeepProof(ctx, store, p); err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	return &p, Verdict(p)
}

// Verdict is nil for a proof without problems, else an error that names the first of them and is fault.ErrIncomplete.
func Verdict(p point.Proof) error {
	if p.Proven {
		return nil
	}
	failed := p.Problems()
	if len(failed) == 0 {
		return fault.New("drill of point "+p.Point, fault.ErrIncomplete, "there was nothing to look at", "")
	}
	cause := ProblemLine(failed[0])
	if more := len(failed) - 1; more > 0 {
		cause += fmt.Sprintf("; and %d more of %d checks", more, len(p.Checks))
	}
	return fault.New("drill of point "+p.Point, fault.ErrIncomplete, cause, "`backstay verify --read-data` tells what of the vault is damaged")
}

// ProblemLine tells a check on one line.
func ProblemLine(c point.Check) string {
	line := c.What
	if c.Of != "" {
		line += " of " + c.Of
	}
	if c.Detail != "" {
		line += ": " + c.Detail
	}
	return line
}

// parts restores and checks the parts one after the other, so that the largest says how much disk it takes.
func (d Drill) parts(ctx context.Context, from point.Reader, all []point.Part) (checks []point.Check, seconds float64, _ error) {
	for _, part := range all {
		checks = append(checks, recorded(part)...)
	}
	for _, part := range outermost(all) {
		if part.State != point.Stored && part.State != point.Carried {
			continue
		}
		if d.Observe != nil {
			d.Observe(point.Event{Part: part.Name, What: "restoring", Text: ""})
		}
		found, took, err := d.part(ctx, from, part, all)
		if err != nil {
			return nil, 0, fault.Wrap(part.Name, nil, err, "")
		}
		checks, seconds = append(checks, found...), seconds+took.Seconds()
	}
	return checks, seconds, nil
}

// recorded checks what the point says of a part: whether it is there, and whether its counts close.
func recorded(part point.Part) (checks []point.Check) {
	if part.State == point.Failed {
		return []point.Check{{What: "in the point", Of: part.Name, Detail: "it failed: " + part.Reason}}
	}
	for _, c := range part.Counts {
		if !c.Closes() {
			checks = append(checks, point.Check{What: c.Of, Of: part.Name, Detail: fmt.Sprintf("the point has %d of %d", c.Stored, c.Expected)})
		}
	}
	return checks
}

// part restores one part with all that is inside it, and checks each of them.
func (d Drill) part(ctx context.Context, from point.Reader, part point.Part, all []point.Part) ([]point.Check, time.Duration, error) {
	restore := d.Restorers[part.Kind]
	switch {
	case restore == nil:
		return nil, 0, fault.New("", fault.ErrUnsupported, fmt.Sprintf("parts of the kind %q cannot be drilled here", part.Kind), "")
	case !filepath.IsLocal(filepath.FromSlash(part.Name)):
		return []point.Check{{What: checkRestore, Of: part.Name, Detail: "its name leads out of the point"}}, 0, nil
	}
	scratch, remove, err := d.Scratch()
	if err != nil {
		return nil, 0, err
	}
	defer remove()
	dir, began := filepath.Join(scratch, "restored"), d.Clock()
	_, err = restore(ctx, Within(from, part.Name), part, dir)
	took := d.Clock().Sub(began)
	if failed, err := verdictOf(checkRestore, part, err); failed != nil || err != nil {
		return failed, took, err
	}
	checks := []point.Check{{What: checkRestore, Of: part.Name, OK: true, Detail: fmt.Sprintf("%d bytes", part.Bytes)}}
	for _, p := range all {
		inside, is := strings.CutPrefix(p.Name+"/", part.Name+"/")
		check := d.Checkers[p.Kind]
		if !is || check == nil || p.State != point.Stored && p.State != point.Carried {
			continue
		}
		found, err := check(ctx, Within(from, p.Name), p, filepath.Join(dir, filepath.FromSlash(inside)))
		for i := range found {
			found[i].Of = p.Name
		}
		failed, err := verdictOf("read", p, err)
		if err != nil {
			return nil, took, err
		}
		checks = slices.Concat(checks, found, failed)
	}
	return checks, took, nil
}

// verdictOf divides errors into those that say something of the part, which are checks that failed, and those that do not.
func verdictOf(what string, part point.Part, err error) ([]point.Check, error) {
	if err == nil || unmade(err) != nil {
		return nil, err
	}
	for _, ofThePart := range []error{fault.ErrCorrupt, fault.ErrNotFound, fault.ErrInvalid, fault.ErrIncomplete} {
		if errors.Is(err, ofThePart) {
			return []point.Check{{What: what, Of: part.Name, Detail: err.Error()}}, nil
		}
	}
	return nil, err
}

// unmade is the class of an error of the scratch directory's disk, whatever class it has been given; nil for any other.
func unmade(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.ErrRefused
	}
	return localClass(err)
}

func hintOfScratch(err error) string {
	if unmade(err) == nil {
		return ""
	}
	return "point TMPDIR to a disk that can hold the largest part of the point"
}

// Bounds of a kept proof: listings of points read them all.
const (
	keptProblems = 50
	keptPassed   = 50
	keptDetail   = 500 // bytes
)

// KeepProof keeps what a drill found. Of many checks it keeps the first that failed, and sums up those that passed.
func KeepProof(ctx context.Context, store Store, p point.Proof) error {
	prover, is := store.(Prover)
	if !is {
		return fault.New("keep the proof", fault.ErrUnsupported, "what keeps the points keeps no proofs", "")
	}
	p.Checks = bounded(p.Checks)
	return prover.Prove(ctx, p)
}

func bounded(checks []point.Check) []point.Check {
	var failed, passed, excepted, kept []point.Check
	for _, c := range checks {
		c.Detail = strings.ToValidUTF8(c.Detail[:min(len(c.Detail), keptDetail)], "")
		switch {
		case c.Excepted:
			excepted = append(excepted, c)
		case c.OK:
			passed = append(passed, c)
		default:
			failed = append(failed, c)
		}
	}
	kept = failed[:min(len(failed), keptProblems)]
	if more := len(failed) - len(kept); more > 0 {
		kept = append(slices.Clip(kept), point.Check{What: "more", Detail: fmt.Sprintf("%d more checks failed", more)})
	}
	kept = append(slices.Clip(kept), excepted...)
	if len(passed) <= keptPassed {
		return append(slices.Clip(kept), passed...)
	}
	counts := map[string]int{}
	var order []string
	for _, c := range passed {
		if counts[c.What] == 0 && len(order) < keptPassed {
			order = append(order, c.What)
		}
		counts[c.What]++
	}
	for _, what := range order {
		kept = append(slices.Clip(kept), point.Check{What: what, OK: true, Detail: fmt.Sprintf("%d parts", counts[what])})
	}
	return kept
}

// ToDrill chooses what is to be drilled of points, which are sorted, newest first: of each subject the newest complete one, or the newest
// where none is. Those that never were come first, then those whose drill is longest ago; limit bounds them, 0 is all.
func ToDrill(points []point.Point, limit int) []point.Point {
	chosen := map[point.Subject]point.Point{}
	for _, p := range points {
		if before, has := chosen[p.Subject]; !has || before.State != point.Complete && p.State == point.Complete {
			chosen[p.Subject] = p
		}
	}
	due := make([]point.Point, 0, len(chosen))
	for _, p := range chosen {
		due = append(due, p)
	}
	slices.SortFunc(due, func(a, b point.Point) int {
		return cmp.Or(drilledAt(points, a.Subject).Compare(drilledAt(points, b.Subject)), strings.Compare(a.Subject.Name, b.Subject.Name),
			strings.Compare(a.Subject.Kind, b.Subject.Kind))
	})
	if limit > 0 && len(due) > limit {
		due = due[:limit]
	}
	return due
}

// drilledAt is when the last drill of a subject ended; zero for never.
func drilledAt(points []point.Point, s point.Subject) (last time.Time) {
	for _, p := range points {
		if p.Subject == s && p.Proof != nil && p.Proof.Finished.After(last) {
			last = p.Proof.Finished
		}
	}
	return last
}

// ProofsOf says of each subject of points, which are sorted, newest first, how far it is proven. It lacks a proven point where none was
// made since; the zero time asks for none.
func ProofsOf(points []point.Point, since time.Time) []point.ProofRun {
	proofs := map[point.Subject]*point.ProofRun{}
	for _, p := range points {
		of := proofs[p.Subject]
		if of == nil {
			of = &point.ProofRun{Subject: p.Subject}
			proofs[p.Subject] = of
		}
		if p.Proof == nil {
			continue
		}
		if of.Proven == nil && p.Proof.Proven {
			of.Proven = &p.Time
		}
		if of.Drilled == nil || p.Proof.Finished.After(*of.Drilled) {
			of.Drilled, of.Failed = &p.Proof.Finished, !p.Proof.Proven
			of.RestoreSeconds = cmp.Or(p.Proof.RestoreSeconds, of.RestoreSeconds)
		}
	}
	all := make([]point.ProofRun, 0, len(proofs))
	for _, of := range proofs {
		of.Lacking = !since.IsZero() && (of.Proven == nil || of.Proven.Before(since))
		all = append(all, *of)
	}
	slices.SortFunc(all, func(a, b point.ProofRun) int {
		return cmp.Or(strings.Compare(a.Subject.Name, b.Subject.Name), strings.Compare(a.Subject.Kind, b.Subject.Kind))
	})
	return all
}
