package protect_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/protect"
)

// sharedStore is a vault for several processes.
type sharedStore struct {
	*memory.Store
	mu    sync.Mutex
	notes map[string][]byte
	lasts map[string]bool // parts that a checkpoint made last
	early []string        // that were said to be done before
}

func newSharedStore() *sharedStore {
	return &sharedStore{Store: memory.New(time.Now), notes: map[string][]byte{}, lasts: map[string]bool{}}
}

// way is a process's way to the vault, which may be cut.
type way struct {
	*sharedStore
	mu  sync.Mutex
	cut chan struct{} // nil while it is open; closed when it is mended
}

func (w *way) pass(ctx context.Context) error {
	w.mu.Lock()
	cut := w.cut
	w.mu.Unlock()
	if cut == nil {
		return ctx.Err()
	}
	select {
	case <-cut:
		return nil
	case <-ctx.Done():
		return fault.Wrap("reach the vault", fault.ErrUnavailable, context.Cause(ctx), "")
	}
}

func (w *way) partition() (mend func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	cut := make(chan struct{})
	w.cut = cut
	return func() {
		w.mu.Lock()
		w.cut = nil
		w.mu.Unlock()
		close(cut)
	}
}

func (w *way) Post(ctx context.Context, name string, text []byte) error {
	if err := w.pass(ctx); err != nil {
		return err
	}
	w.sharedStore.mu.Lock()
	defer w.sharedStore.mu.Unlock()
	w.notes[name] = text
	if strings.HasSuffix(name, ".done") {
		var captured map[string][]point.Part
		if err := json.Unmarshal(text, &captured); err != nil {
			return err
		}
		for name := range captured {
			if !w.lasts[name] {
				w.early = append(w.early, name)
			}
		}
	}
	return nil
}

func (w *way) Note(ctx context.Context, name string) ([]byte, error) {
	if err := w.pass(ctx); err != nil {
		return nil, err
	}
	w.sharedStore.mu.Lock()
	defer w.sharedStore.mu.Unlock()
	text, found := w.notes[name]
	if !found {
		return nil, fault.New("read note", fault.ErrNotFound, name, "")
	}
	return text, nil
}

func (w *way) Notes(ctx context.Context, prefix string) ([]string, error) {
	if err := w.pass(ctx); err != nil {
		return nil, err
	}
	w.sharedStore.mu.Lock()
	defer w.sharedStore.mu.Unlock()
	var names []string
	for name := range w.notes {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (w *way) Unpost(ctx context.Context, names ...string) error {
	if err := w.pass(ctx); err != nil {
		return err
	}
	w.sharedStore.mu.Lock()
	defer w.sharedStore.mu.Unlock()
	for _, name := range names {
		delete(w.notes, name)
	}
	return nil
}

func (w *way) Begin(ctx context.Context, s point.Subject, policy string) (point.Draft, error) {
	if err := w.pass(ctx); err != nil {
		return nil, err
	}
	d, err := w.Store.Begin(ctx, s, policy)
	return &wayDraft{Draft: d, way: w}, err
}

// wayDraft makes parts last only when there is a way.
type wayDraft struct {
	point.Draft
	way   *way
	ended []string
}

// Checkpoint makes last what was stored.
func (d *wayDraft) Checkpoint(ctx context.Context) error {
	if err := d.way.pass(ctx); err != nil {
		return err
	}
	d.way.sharedStore.mu.Lock()
	defer d.way.sharedStore.mu.Unlock()
	for _, name := range d.ended {
		d.way.lasts[name] = true
	}
	return d.Draft.Checkpoint(ctx)
}

func (d *wayDraft) At(moment time.Time) { d.Draft.(point.Dated).At(moment) }

func (d *wayDraft) Part(ctx context.Context, name, kind string) (point.PartWriter, error) {
	w, err := d.Draft.Part(ctx, name, kind)
	return wayPart{w, d, name}, err
}

type wayPart struct {
	point.PartWriter
	draft *wayDraft
	name  string
}

func (p wayPart) Store(ctx context.Context, q point.Part) error {
	if err := p.draft.way.pass(ctx); err != nil {
		return err
	}
	p.draft.way.sharedStore.mu.Lock()
	p.draft.ended = append(p.draft.ended, p.name)
	p.draft.way.sharedStore.mu.Unlock()
	return p.PartWriter.Store(ctx, q)
}

// farm is an account of many repositories, which counts how often each is fetched.
type farm struct {
	names   []string
	mu      sync.Mutex
	fetched map[string]int
	fetch   func(ctx context.Context, name string) // may block
	listed  int
	broken  map[string]bool
}

func newFarm(n int) *farm {
	f := &farm{fetched: map[string]int{}, fetch: func(context.Context, string) { time.Sleep(time.Second) }, broken: map[string]bool{}}
	for i := range n {
		f.names = append(f.names, fmt.Sprintf("git/r%03d", i))
	}
	return f
}

func (f *farm) Subject() point.Subject {
	return point.Subject{Kind: point.SubjectAccount, Name: "farm"}
}

func (f *farm) Divide(context.Context, point.Sink) ([]point.Piece, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listed++
	var pieces []point.Piece
	for i, name := range f.names {
		pieces = append(pieces, point.Piece{Name: name, Size: int64(i)})
	}
	return pieces, nil
}

func (f *farm) Hand(context.Context, point.Sink) (func(context.Context, point.Sink, point.Piece) error, error) {
	return func(ctx context.Context, to point.Sink, p point.Piece) error { return f.one(ctx, to, p.Name) }, nil
}

func (f *farm) one(ctx context.Context, to point.Sink, name string) error {
	w, err := to.Part(ctx, name, point.KindGit)
	if err != nil {
		return err
	}
	f.mu.Lock()
	broken := f.broken[name]
	f.mu.Unlock()
	switch prior := w.Prior(); {
	case broken:
		return w.Fail(ctx, errors.New("it is broken"))
	case prior != nil:
		if err := w.Keep(ctx, "."); err != nil {
			return err
		}
		return w.Store(ctx, point.Part{Mark: "1", Unchanged: true})
	}
	f.mu.Lock()
	f.fetched[name]++
	f.mu.Unlock()
	f.fetch(ctx, name)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if _, err := w.Put(ctx, point.Entry{Name: "HEAD"}, strings.NewReader(name), point.Text); err != nil {
		return err
	}
	return w.Store(ctx, point.Part{Mark: "1"})
}

func (f *farm) Capture(ctx context.Context, to point.Sink) error { return f.Compose(ctx, to, nil) }

func (f *farm) Compose(ctx context.Context, to point.Sink, _ map[string][]point.Part) error {
	for _, name := range f.names {
		if err := f.one(ctx, to, name); err != nil {
			return err
		}
	}
	return nil
}

// twice are the repositories that were fetched more than once.
func (f *farm) twice() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for name, n := range f.fetched {
		if n > 1 {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

type result struct {
	receipt *point.Receipt
	made    bool
	err     error
}

// process is one of those that share a run.
type process struct {
	*way
	kill  context.CancelFunc
	ended chan result
}

func (s *sharedStore) start(t *testing.T, f *farm, parallel int) *process {
	t.Helper()
	ctx, kill := context.WithCancel(t.Context())
	p := &process{way: &way{sharedStore: s}, kill: kill, ended: make(chan result, 1)}
	go func() {
		var r result
		r.receipt, r.made, r.err = protect.BackupShared(ctx, p.way, f, "nightly", parallel, protect.Shared{Run: "one"})
		p.ended <- r
	}()
	return p
}

func (s *sharedStore) onePoint(t *testing.T, want int) {
	t.Helper()
	points, err := s.Points(t.Context(), point.Filter{})
	if err != nil || len(points) != 1 {
		t.Fatalf("%d points, %v", len(points), err)
	}
	record, _, err := s.Open(t.Context(), points[0].ID)
	if err != nil || record.Point.State != point.Complete || len(record.Point.Parts) != want {
		t.Fatalf("point %+v, %v", record.Ledger, err)
	}
}

func TestProcessesShareARun(t *testing.T) {
	for _, processes := range []int{1, 3, 8} {
		for _, parallel := range []int{1, 4} {
			t.Run(fmt.Sprintf("%d of %d", processes, parallel), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, f := newSharedStore(), newFarm(300)
					began := time.Now()
					var all []*process
					for range processes {
						all = append(all, s.start(t, f, parallel))
					}
					makers := 0
					for _, p := range all {
						r := <-p.ended
						if r.err != nil {
							t.Fatal(r.err)
						}
						if r.made {
							makers++
						}
						p.kill()
					}
					if makers != 1 || f.listed != 1 || len(f.twice()) > 0 {
						t.Errorf("%d made the point, listed %d times, fetched twice: %v", makers, f.listed, f.twice())
					}
					s.onePoint(t, 300)
					if len(s.early) > 0 {
						t.Errorf("said to be done, and not made last: %q", s.early)
					}
					// The work is divided evenly: who has nothing to do waits for the slowest, and looks every two seconds.
					ideal := time.Duration(300/(processes*parallel)) * time.Second
					if took := time.Since(began); took > ideal+30*time.Second {
						t.Errorf("it took %s, alone it would be %d s", took, 300/parallel)
					}
					if notes, _ := (&way{sharedStore: s}).Notes(t.Context(), ""); len(notes) != 1 {
						t.Errorf("notes are left beside how it came out: %q", notes)
					}
				})
			})
		}
	}
}

func TestOthersTakeOverWhatTheDeadAndTheLostLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newSharedStore(), newFarm(60)
		var all []*process
		for range 3 {
			all = append(all, s.start(t, f, 1))
		}
		time.Sleep(5500 * time.Millisecond) // each of them is within a repository
		mend := all[0].partition()
		killed := all[1]
		dead := killed.partition() // what is killed says nothing more, not even that it leaves
		defer dead()
		killed.kill()
		before := f.total()
		r := <-all[2].ended
		if r.err != nil {
			t.Fatal(r.err)
		}
		s.onePoint(t, 60)
		// One of the killed process, and one that the other could not store.
		if again := f.twice(); len(again) > 2 || f.total() != 60+len(again) {
			t.Errorf("fetched %d before and %d in all, twice: %v", before, f.total(), again)
		}
		mend()
		late := <-all[0].ended
		if late.err != nil || late.made || late.receipt.Point.ID != r.receipt.Point.ID {
			t.Errorf("who came back: %+v", late)
		}
		s.onePoint(t, 60)
		all[0].kill()
		all[2].kill()
	})
}

func (f *farm) total() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	sum := 0
	for _, n := range f.fetched {
		sum += n
	}
	return sum
}
