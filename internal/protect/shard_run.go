package protect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Shared says that a run is worked on by several processes, each of which says the same: they share the work on sources that are
// Divisible, by notes in the vault, and one of them makes the point. Any of them may end at any time, or lose touch with the vault; what it
// had finished stays, and what it had not is done by the others.
type Shared struct {
	Run  string        // its name: another one for each run. Who joins one that is over only reads how it came out
	Term time.Duration // after which the work of a process of which nothing is heard is taken over; 0 for DefaultTerm
	// Clock tells the time of the point; nil for the real one, which all waiting is by.
	Clock Clock
}

// DefaultTerm is how long nothing may be heard of a process of a shared run.
const DefaultTerm = time.Minute

// Divisible is a Source whose work can be shared.
type Divisible interface {
	Source
	// Divide lists what is to be captured: what has not changed is not among it. Last is where the last point is asked for.
	Divide(ctx context.Context, last point.Sink) ([]point.Piece, error)
	// Hand returns what captures one piece into a sink. Parts that another process, or an earlier run, has captured are not fetched again.
	Hand(ctx context.Context, last point.Sink) (func(ctx context.Context, to point.Sink, p point.Piece) error, error)
	// Compose is Capture, which takes the parts of those pieces over that were captured, by name.
	Compose(ctx context.Context, to point.Sink, captured map[string][]point.Part) error
}

// mostShares bounds the notes of a run. What was finished of a share whose worker died is not fetched again, however large the share.
const mostShares = 256

// patience is for how many terms a process waits for a vault that is out of reach.
const patience = 10

// division is what there is to do in a run.
type division struct {
	At     time.Time       `json:"at"` // when the run began, which the point is of
	Shares [][]point.Piece `json:"shares"`
}

// outcome is how a run came out.
type outcome struct {
	Point  string `json:"point,omitempty"`
	Class  string `json:"class,omitempty"` // reason of a fault.Class, where there is no point
	Reason string `json:"reason,omitempty"`
}

// BackupShared is Backup by several processes. It returns the same in all of them; made tells which of them made the point.
func BackupShared(ctx context.Context, store Store, src Divisible, policy string, parallel int, s Shared) (_ *point.Receipt, made bool, _ error) {
	op := "back up " + src.Subject().Name
	board, is := store.(Board)
	if !is {
		return nil, false, fault.New(op, fault.ErrUnsupported, "processes cannot share a run here", "use a vault")
	}
	r := &shared{
		store: store, board: board, source: src, policy: policy, parallel: cmp.Or(parallel, defaultParallel), term: cmp.Or(s.Term, DefaultTerm),
		prefix: boardPrefix(s.Run, policy, src.Subject()), clock: s.Clock,
	}
	if r.clock == nil {
		r.clock = monotonic
	}
	receipt, err := r.run(ctx)
	if err != nil {
		return nil, r.made, fault.Wrap(op, nil, err, "")
	}
	if receipt.Point.State != point.Complete {
		return receipt, r.made, fault.New(op, fault.ErrIncomplete, shortfall(receipt.Point.Parts), "the point is kept; the next run fetches what is missing")
	}
	return receipt, r.made, nil
}

// shared is one process's work on a shared run.
type shared struct {
	store    Store
	board    Board
	source   Divisible
	policy   string
	parallel int
	term     time.Duration
	prefix   string
	clock    Clock
	made     bool // this process made the point
	final    bool // what went wrong is the source's: another try by this process would end the same way
}

// run works as a member until the run is over, and as another one after it has lost touch with the vault.
func (r *shared) run(ctx context.Context) (*point.Receipt, error) {
	touched := monotonic()
	for {
		receipt, err := r.once(ctx)
		switch {
		case err == nil:
			return receipt, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, errOutOfTouch):
			touched = monotonic()
		case r.final || !fault.Of(err).Retry || monotonic().Sub(touched) > patience*r.term:
			return nil, err
		}
		if err := pause(ctx, r.term/12); err != nil {
			return nil, err
		}
	}
}

// once works as one member.
func (r *shared) once(ctx context.Context) (*point.Receipt, error) {
	m, held, err := join(ctx, r.board, r.prefix, r.term)
	if err != nil {
		return nil, err
	}
	defer m.leave(ctx)
	receipt, err := r.as(held, m)
	if err != nil && held.Err() != nil {
		return nil, context.Cause(held)
	}
	return receipt, err
}

// as works as a member until the run is over.
func (r *shared) as(ctx context.Context, m *member) (*point.Receipt, error) {
	lead := false
	for {
		v, err := m.look(ctx)
		if err != nil {
			return nil, err
		}
		if v.end {
			return r.over(ctx, m)
		}
		if !lead {
			if lead, err = r.takeLead(ctx, m, v); err != nil {
				return nil, err
			}
		}
		all, err := r.division(ctx, m, lead)
		if err != nil {
			return nil, err
		}
		if all != nil {
			done, err := r.work(ctx, m, all)
			if err != nil {
				return nil, err
			}
			if done && lead {
				return r.compose(ctx, m, all)
			}
		}
		if err := pause(ctx, r.term/30); err != nil {
			return nil, err
		}
	}
}

// takeLead tries to be the one who divides the work and makes the point.
func (r *shared) takeLead(ctx context.Context, m *member, v *view) (bool, error) {
	rivals, err := m.rivals(ctx, v.claims[whatLead])
	if err != nil || len(rivals) > 0 {
		return false, err
	}
	return m.claim(ctx, whatLead)
}

// division reads what there is to do; nil where nobody has said so yet. The lead says so.
func (r *shared) division(ctx context.Context, m *member, lead bool) (*division, error) {
	var all division
	err := m.read(ctx, m.note(notePlan), &all)
	switch {
	case err == nil:
		return &all, nil
	case !errors.Is(err, fault.ErrNotFound):
		return nil, err
	case !lead:
		return nil, nil //nolint:nilnil // not yet
	}
	// Notes are taken away after the end was said: without a look for that, a run that is over would begin anew.
	if v, err := m.look(ctx); err != nil || v.end {
		return nil, err
	}
	if all.At, err = r.moment(ctx); err != nil {
		return nil, err
	}
	draft, err := r.store.Begin(ctx, r.source.Subject(), r.policy)
	if err != nil {
		return nil, err
	}
	pieces, err := r.source.Divide(ctx, draft)
	if err != nil {
		r.final = ctx.Err() == nil
		return nil, errors.Join(err, abandon(ctx, draft))
	}
	all.Shares = sharesOf(pieces)
	return &all, errors.Join(abandon(ctx, draft), m.post(ctx, m.note(notePlan), all))
}

// moment is that of a new point: now, and later than the last point's, whatever clock that was made by.
func (r *shared) moment(ctx context.Context) (time.Time, error) {
	subject, now := r.source.Subject(), r.clock().UTC()
	points, err := r.store.Points(ctx, point.Filter{Subject: &subject, Policy: r.policy})
	if err == nil && len(points) > 0 && !now.After(points[0].Time) {
		now = points[0].Time.Add(time.Millisecond)
	}
	return now, err
}

// sharesOf deals pieces out, the largest first, so that shares are about equal and the largest pieces are begun first.
func sharesOf(pieces []point.Piece) [][]point.Piece {
	pieces = slices.Clone(pieces)
	slices.SortStableFunc(pieces, func(a, b point.Piece) int { return cmp.Compare(b.Size, a.Size) })
	shares := make([][]point.Piece, min(len(pieces), mostShares))
	for i, p := range pieces {
		shares[i%mostShares] = append(shares[i%mostShares], p)
	}
	return shares
}

// shareName is the number of a share.
func shareName(i int) string { return fmt.Sprintf("%04d", i) }

// work captures shares that nobody else works on, until none is free, and reports whether all are done.
func (r *shared) work(ctx context.Context, m *member, all *division) (done bool, _ error) {
	bench := &workbench{shared: r, member: m, all: all, choosing: make(chan struct{}, 1)}
	if err := bench.inherit(ctx); err != nil {
		return false, err
	}
	group, inner := errgroup.WithContext(ctx)
	for range min(r.parallel, len(all.Shares)) {
		group.Go(func() error { return bench.captureAll(inner) })
	}
	if err := errors.Join(group.Wait(), bench.close(ctx)); err != nil {
		return false, err
	}
	v, err := m.look(ctx)
	return err == nil && len(v.done) == len(all.Shares), err
}

// workbench is where a member captures shares, several at once, into one draft.
type workbench struct {
	*shared
	member *member
	all    *division
	// inherited are shares of members that stopped before the draft began. A draft does not see what was finished by others after that:
	// who stops later leaves shares for the next workbench.
	inherited map[string]bool

	choosing chan struct{} // held by who chooses a share: one at a time
	draft    point.Draft   // nil before the first share
	hand     func(ctx context.Context, to point.Sink, p point.Piece) error
}

// inherit finds the shares of members that stopped.
func (b *workbench) inherit(ctx context.Context) error {
	b.inherited = map[string]bool{}
	v, err := b.member.look(ctx)
	if err != nil {
		return err
	}
	for what, claimed := range v.claims {
		rivals, err := b.member.rivals(ctx, claimed)
		if err != nil {
			return err
		}
		b.inherited[what] = len(rivals) == 0
	}
	return nil
}

// captureAll captures shares as long as one is free.
func (b *workbench) captureAll(ctx context.Context) error {
	for {
		share, err := b.next(ctx)
		if share < 0 || err != nil {
			return err
		}
		if err := b.capture(ctx, share); err != nil {
			return err
		}
	}
}

// next claims a share that is free; -1 for none.
func (b *workbench) next(ctx context.Context) (int, error) {
	select {
	case b.choosing <- struct{}{}:
		defer func() { <-b.choosing }()
	case <-ctx.Done():
		return -1, context.Cause(ctx)
	}
	v, err := b.member.look(ctx)
	if err != nil {
		return -1, err
	}
	if v.end {
		return -1, nil
	}
	for free := b.free(v); len(free) > 0; {
		// Those who choose at the same time do not choose the same.
		at := max(slices.Index(v.members, b.member.name), 0) % len(free)
		switch won, err := b.member.claim(ctx, shareName(free[at])); {
		case err != nil:
			return -1, err
		case won:
			if v, err := b.member.look(ctx); err != nil || v.end { // it was done, and its notes are gone
				return -1, err
			}
			return free[at], b.open(ctx)
		}
		free = slices.Delete(free, at, at+1)
	}
	return -1, nil
}

// free are the shares that nobody has who is at work.
func (b *workbench) free(v *view) []int {
	var free []int
	for i := range b.all.Shares {
		name := shareName(i)
		if !v.done[name] && (len(v.claims[name]) == 0 || b.inherited[name]) && !slices.Contains(v.claims[name], b.member.name) {
			free = append(free, i)
		}
	}
	return free
}

// capture captures a share, piece by piece. It is done when all of it lasts; the draft makes pieces last meanwhile as it does in any run, the
// first ones each by itself and later a few at a time, for each time costs more than the one before.
func (b *workbench) capture(ctx context.Context, share int) error {
	captured := map[string][]point.Part{}
	for _, piece := range b.all.Shares[share] {
		watched := &watch{Sink: b.draft}
		if err := b.hand(ctx, watched, piece); err != nil {
			return err
		}
		captured[piece.Name] = watched.parts()
	}
	if err := errors.Join(ctx.Err(), b.draft.Checkpoint(ctx)); err != nil {
		return err
	}
	return b.member.post(ctx, b.member.note(shareName(share), noteDone), captured)
}

// open begins the draft. It is of the moment that the point is going to be of: once that is there, nobody looks behind it for what a worker
// wrote that came too late.
func (b *workbench) open(ctx context.Context) error {
	if b.draft != nil {
		return nil
	}
	draft, err := b.store.Begin(ctx, b.source.Subject(), b.policy)
	if err != nil {
		return err
	}
	if dated, is := draft.(point.Dated); is {
		dated.At(b.all.At)
	}
	b.draft = draft
	b.hand, err = b.source.Hand(ctx, draft)
	return err
}

func (b *workbench) close(ctx context.Context) error {
	if b.draft == nil {
		return nil
	}
	return abandon(ctx, b.draft)
}

// abandon ends a draft without a point; what was made last stays.
func abandon(ctx context.Context, draft point.Draft) error {
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTime)
	defer cancel()
	return draft.Abandon(tidy)
}

// compose makes the point of what was captured, and tells the others.
func (r *shared) compose(ctx context.Context, m *member, all *division) (*point.Receipt, error) {
	if id, err := r.composed(ctx, all); id != "" || err != nil { // by a lead that was killed, or lost touch, then
		if err != nil {
			return nil, err
		}
		if err := m.post(ctx, m.note(noteEnd), outcome{Point: id}); err != nil {
			return nil, err
		}
		r.made = true
		return r.over(ctx, m)
	}
	captured := map[string][]point.Part{}
	for i := range all.Shares {
		if err := m.read(ctx, m.note(shareName(i), noteDone), &captured); err != nil { // each has pieces of its own
			return nil, err
		}
	}
	receipt, err := Backup(ctx, r.store, composition{r.source, all.At, captured}, r.policy)
	if receipt == nil {
		if ctx.Err() != nil {
			return nil, err
		}
		r.final = true
		return nil, errors.Join(err, m.post(ctx, m.note(noteEnd), outcome{Class: fault.Of(err).Reason, Reason: err.Error()}))
	}
	r.made = true
	if err := m.post(ctx, m.note(noteEnd), outcome{Point: receipt.Point.ID}); err != nil {
		return nil, err
	}
	return receipt, r.clear(ctx, m)
}

// composed is the point of this run, where one is there already.
func (r *shared) composed(ctx context.Context, all *division) (id string, _ error) {
	subject := r.source.Subject()
	points, err := r.store.Points(ctx, point.Filter{Subject: &subject, Policy: r.policy})
	i := slices.IndexFunc(points, func(p point.Point) bool { return p.Time.Equal(all.At) })
	if i < 0 || err != nil {
		return "", err
	}
	return points[i].ID, nil
}

// clear takes away all notes of the run but how it came out, and who is alive.
func (r *shared) clear(ctx context.Context, m *member) error {
	notes, err := r.board.Notes(ctx, r.prefix)
	if err != nil {
		return err
	}
	notes = slices.DeleteFunc(notes, func(note string) bool {
		return note == m.note(noteEnd) || strings.HasPrefix(note, m.note(noteAlive, ""))
	})
	return r.board.Unpost(ctx, notes...)
}

// over is how the run came out, for those who did not make the point.
func (r *shared) over(ctx context.Context, m *member) (*point.Receipt, error) {
	var end outcome
	if err := m.read(ctx, m.note(noteEnd), &end); err != nil {
		return nil, err
	}
	if err := r.clear(ctx, m); err != nil { // also what was claimed after the one who made the point had cleared up
		return nil, err
	}
	if end.Point == "" {
		r.final = true
		return nil, fault.New("", fault.Named(end.Class), end.Reason, "")
	}
	record, _, err := r.store.Open(ctx, end.Point)
	if err != nil {
		return nil, err
	}
	return &point.Receipt{Record: *record}, nil
}

// composition is the source of the point of a shared run.
type composition struct {
	Divisible
	at       time.Time
	captured map[string][]point.Part
}

func (c composition) Capture(ctx context.Context, to point.Sink) error {
	if dated, is := to.(point.Dated); is {
		dated.At(c.at)
	}
	return c.Compose(ctx, to, c.captured)
}
