package protect

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Board is where the processes of a shared run leave notes for each other: a vault. A note that was posted is seen by all who look
// afterwards.
type Board interface {
	// Post leaves a note under a name of letters, digits, dots and dashes, in the place of one that is there.
	Post(ctx context.Context, name string, text []byte) error
	// Note reads one. One that is not there is fault.ErrNotFound.
	Note(ctx context.Context, name string) ([]byte, error)
	// Notes lists names that begin so, sorted.
	Notes(ctx context.Context, prefix string) ([]string, error)
	// Unpost takes notes away. That one is not there is no error.
	Unpost(ctx context.Context, names ...string) error
}

// The notes of a run, after its prefix. WHAT is the lead, or the number of a share.
const (
	notePlan  = "plan"  // what there is to do
	noteEnd   = "end"   // how the run came out
	noteAlive = "alive" // alive.MEMBER: another text each time that the member posts it
	noteClaim = "claim" // WHAT.claim.MEMBER: the member works on it
	noteDone  = "done"  // WHAT.done: what came of it
	whatLead  = "lead"
)

var errOutOfTouch = errors.New("the store was out of reach for too long: others may have taken the work over") //nolint:gochecknoglobals // a constant, but for its type

// member is one process in a shared run, from when it joins until it leaves or loses touch. One that comes back has another name, so that
// nobody takes it for the one whose work was taken over.
type member struct {
	board  Board
	prefix string
	name   string
	term   time.Duration // after which the others take over the work of a member of which nothing is heard

	lose    context.CancelCauseFunc
	beating chan struct{} // closed when the beat has ended

	beats map[string]*beat // of the others, by name; one goroutine at a time looks at them
}

// beat is what was last heard of another member. Only this process's clock counts: others' may be wrong.
type beat struct {
	text   string
	since  time.Time // when that text was first seen
	looked time.Time
	gone   bool
}

// monotonic is this process's own clock, with which it measures spans and nothing else: moments are a Clock's.
func monotonic() time.Time {
	return time.Now() //nolint:forbidigo // no moment is taken from it, and tests run it in a bubble with a clock of its own
}

func boardPrefix(run, policy string, s point.Subject) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{run, policy, s.Kind, s.Name}, "\n")))
	return hex.EncodeToString(sum[:10]) + "."
}

// join becomes a member. The context it returns ends when touch with the board is lost; leave must be called.
func join(ctx context.Context, board Board, prefix string, term time.Duration) (*member, context.Context, error) {
	digits := make([]byte, 6)
	_, _ = rand.Read(digits) // never fails
	m := &member{
		board: board, prefix: prefix, name: hex.EncodeToString(digits), term: term, beats: map[string]*beat{}, beating: make(chan struct{}),
	}
	said := monotonic()
	if err := m.say(ctx, 0); err != nil {
		return nil, nil, err
	}
	var held context.Context
	held, m.lose = context.WithCancelCause(ctx)
	go func() {
		defer close(m.beating)
		m.beat(held, said)
	}()
	return m, held, nil
}

// say tells that the member is alive.
func (m *member) say(ctx context.Context, n int) error {
	return m.board.Post(ctx, m.note(noteAlive, m.name), fmt.Appendf(nil, "%d", n))
}

// beat says so again and again until ctx ends. It loses touch well before the others stop waiting: what was said counts from before it
// was sent.
func (m *member) beat(ctx context.Context, last time.Time) {
	for n := 1; ; n++ {
		if pause(ctx, m.term/6) != nil {
			return
		}
		began := monotonic()
		attempt, cancel := context.WithDeadline(ctx, last.Add(m.term*2/3))
		err := m.say(attempt, n)
		cancel()
		switch {
		case err == nil:
			last = began
		case monotonic().Sub(last) >= m.term*2/3:
			m.lose(fault.Wrap("work on a shared run", fault.ErrUnavailable, errOutOfTouch, "")) // what is under way ends by it
			return
		}
	}
}

// leave takes the member's sign of life away: what it claimed and did not do is free at once. All its work must have ended. Where the
// board is out of reach, the others wait for a term.
func (m *member) leave(ctx context.Context) {
	m.lose(nil)
	<-m.beating
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.term)
	defer cancel()
	_ = m.board.Unpost(tidy, m.note(noteAlive, m.name))
}

func (m *member) note(words ...string) string { return m.prefix + strings.Join(words, ".") }

// view is what the notes of a run say at one time.
type view struct {
	plan, end bool
	members   []string // who have not left, alive or not
	done      map[string]bool
	claims    map[string][]string // members that claimed it, alive or not
}

func (m *member) look(ctx context.Context) (*view, error) {
	notes, err := m.board.Notes(ctx, m.prefix)
	if err != nil {
		return nil, err
	}
	v := &view{done: map[string]bool{}, claims: map[string][]string{}}
	for _, note := range notes {
		words := strings.Split(strings.TrimPrefix(note, m.prefix), ".")
		switch {
		case len(words) == 1:
			v.plan, v.end = v.plan || words[0] == notePlan, v.end || words[0] == noteEnd
		case len(words) == 2 && words[0] == noteAlive:
			v.members = append(v.members, words[1])
		case len(words) == 2 && words[1] == noteDone:
			v.done[words[0]] = true
		case len(words) == 3 && words[1] == noteClaim:
			v.claims[words[0]] = append(v.claims[words[0]], words[2])
		}
	}
	return v, nil
}

// isAlive reports whether another member may still be at work: it has said something new within the term, as seen from here. One that has left
// is not.
func (m *member) isAlive(ctx context.Context, name string) (bool, error) {
	b := m.beats[name]
	if b == nil {
		b = &beat{}
		m.beats[name] = b
	}
	if now := monotonic(); b.gone || now.Sub(b.looked) < m.term/12 {
		return !b.gone, nil
	}
	text, err := m.board.Note(ctx, m.note(noteAlive, name))
	switch now := monotonic(); {
	case errors.Is(err, fault.ErrNotFound):
		b.gone = true
	case err != nil:
		return false, err
	case string(text) != b.text || b.since.IsZero():
		b.text, b.since, b.looked = string(text), now, now
	case now.Sub(b.since) >= m.term:
		b.gone = true
	default:
		b.looked = now
	}
	return !b.gone, nil
}

// rivals are the members alive among those that claimed something, without this one.
func (m *member) rivals(ctx context.Context, claimed []string) ([]string, error) {
	var alive []string
	for _, name := range claimed {
		if name == m.name {
			continue
		}
		is, err := m.isAlive(ctx, name)
		if err != nil {
			return nil, err
		}
		if is {
			alive = append(alive, name)
		}
	}
	return alive, nil
}

// claimTries is how often who claims something at the same time as others looks whether they withdrew.
const claimTries = 5

// claim takes something that nobody alive seems to have. As notes are seen by whoever looks afterwards, of two that claim the same the
// later one sees the other: never do both have it. Where they see each other, all but the one of the least name withdraw.
func (m *member) claim(ctx context.Context, what string) (bool, error) {
	own := m.note(what, noteClaim, m.name)
	if err := m.board.Post(ctx, own, nil); err != nil {
		return false, err
	}
	for range claimTries {
		notes, err := m.board.Notes(ctx, m.note(what, ""))
		if err != nil {
			return false, err
		}
		var claimed []string
		done := false
		for _, note := range notes {
			word, by, _ := strings.Cut(strings.TrimPrefix(note, m.note(what, "")), ".")
			done = done || word == noteDone
			if word == noteClaim {
				claimed = append(claimed, by)
			}
		}
		rivals, err := m.rivals(ctx, claimed)
		switch {
		case err != nil:
			return false, err
		case done:
			return false, m.board.Unpost(ctx, own)
		case len(rivals) == 0:
			return true, nil
		case slices.Min(rivals) < m.name:
			return false, m.board.Unpost(ctx, own)
		}
		if err := pause(ctx, m.term/60); err != nil {
			return false, err
		}
	}
	return false, m.board.Unpost(ctx, own)
}

// post leaves a note as JSON.
func (m *member) post(ctx context.Context, name string, content any) error {
	text, err := json.Marshal(content)
	if err != nil {
		return fmt.Errorf("encode note %s: %w", name, err)
	}
	return m.board.Post(ctx, name, text)
}

// read reads a note of JSON.
func (m *member) read(ctx context.Context, name string, into any) error {
	text, err := m.board.Note(ctx, name)
	if err != nil {
		return err
	}
	return fault.Wrap("read note "+name, fault.ErrCorrupt, json.Unmarshal(text, into), "")
}

// pause waits, and fails when ctx ends.
func pause(ctx context.Context, span time.Duration) error {
	timer := time.NewTimer(span)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
