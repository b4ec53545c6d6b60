package forge_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/protect"
)

var _ protect.Divisible = (*forge.Account)(nil)

// noted is a store in memory that processes which share a run leave notes in.
type noted struct {
	*memory.Store
	mu    sync.Mutex
	notes map[string][]byte
}

func (n *noted) Post(_ context.Context, name string, text []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.notes[name] = text
	return nil
}

func (n *noted) Note(_ context.Context, name string) ([]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if text, found := n.notes[name]; found {
		return text, nil
	}
	return nil, fault.New("read note", fault.ErrNotFound, name, "")
}

func (n *noted) Notes(_ context.Context, prefix string) (names []string, _ error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name := range n.notes {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (n *noted) Unpost(_ context.Context, names ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range names {
		delete(n.notes, name)
	}
	return nil
}

// shared is good, by two processes that share the run.
func (e *estate) shared(run string) parts {
	e.t.Helper()
	e.clock.Advance(70 * time.Minute)
	e.api.Mend()
	e.git.Forget()
	store := &noted{Store: e.store, notes: map[string][]byte{}}
	var all sync.WaitGroup
	records := make([]point.Record, 2)
	accounts := []*forge.Account{e.connect(), e.connect()}
	for i, account := range accounts {
		all.Go(func() {
			receipt, _, err := protect.BackupShared(e.t.Context(), store, account, "nightly", 1, protect.Shared{Run: run, Term: 30 * time.Second, Clock: e.clock.Now})
			if receipt == nil {
				e.t.Error(err)
				return
			}
			records[i] = receipt.Record
		})
	}
	if all.Wait(); e.t.Failed() {
		e.t.FailNow()
	}
	if records[0].Point.ID != records[1].Point.ID {
		e.t.Fatalf("points %s and %s", records[0].Point.ID, records[1].Point.ID)
	}
	return parts{e, records[0]}
}

func TestASharedRunIsAsAnyOther(t *testing.T) {
	e := newEstate(t)
	var repositories []forgetest.Repo
	for i := range 6 {
		repositories = append(repositories, e.add(forgetest.Repo{Owner: "acme", Name: fmt.Sprintf("r%d", i)}))
	}
	e.add(forgetest.Repo{Owner: "acme", Name: "empty", Empty: true})
	first := e.shared("first")
	for i := range 6 {
		name := fmt.Sprintf("acme/r%d", i)
		if p := first.git(name); p.State != point.Stored || p.Unchanged || p.NewBytes == 0 || p.Revision != e.git.Head(t, name) {
			t.Errorf("%s: %+v", name, p)
		}
		if n := e.git.Asked(name).Fetches; n != 1 {
			t.Errorf("%s was fetched %d times", name, n)
		}
	}
	if first.record.Point.State != point.Complete || !first.record.Ledger.Closed {
		t.Errorf("ledger %+v", first.record.Ledger)
	}

	e.git.Commit(t, "acme/r1", "more", "more\n")
	e.world.Push(repositories[1].ID)
	e.world.Delete(repositories[5].ID)
	e.git.Delete(t, "acme/r5")
	e.add(forgetest.Repo{Owner: "acme", Name: "r5"})
	e.git.Commit(t, "acme/r5", "other", "quite another thing\n")
	second := e.shared("second")
	if p := second.git("acme/r1"); p.Unchanged || p.Revision != e.git.Head(t, "acme/r1") {
		t.Errorf("what changed: %+v", p)
	}
	if p := second.git("acme/r2"); !p.Unchanged || p.State != point.Stored {
		t.Errorf("what did not change: %+v", p)
	}
	if notes := strings.Join(second.git("acme/r5").Notes, "\n"); !strings.Contains(notes, point.AlarmNote) {
		t.Errorf("a name that another repository took: %q", notes)
	}
	alone := e.good()
	if alone.record.Ledger.Unchanged < 7 || e.git.Total().Fetches > 0 {
		t.Errorf("the next run alone: %+v, %+v", alone.record.Ledger, e.git.Total())
	}
}
