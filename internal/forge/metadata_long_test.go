//go:build long

package forge_test

import (
	"context"
	"io"
	"runtime"
	"testing"

	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/point"
)

func TestALongReadingThatIsKilledGoesOn(t *testing.T) { killed(t, 40_000) }

func TestMemoryOfALongReading(t *testing.T) {
	h := newHub(40_000, 5)
	for _, l := range h.lists {
		l.size = 1000
	}
	s := newShelf(t, h)
	s.sink = func(to point.Sink) point.Sink { return dropping{to} }
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc) //nolint:gosec // below
	}
	before, most, n := heap(), int64(0), 0
	h.yielded = map[archive.Key]int{}
	h.meddle = func(archive.Record) error {
		if n++; n%40_000 == 0 {
			clear(h.yielded) // it is the test's own
			most = max(most, heap()-before)
		}
		return nil
	}
	s.good()
	t.Logf("%d MiB", most>>20)
	if most > 100<<20 {
		t.Errorf("%d MiB are in use", most>>20)
	}
}

// dropping is a sink whose parts keep nothing.
type dropping struct{ point.Sink }

func (d dropping) Part(ctx context.Context, name, kind string) (point.PartWriter, error) {
	w, err := d.Sink.Part(ctx, name, kind)
	return droppingPart{w}, err
}

type droppingPart struct{ point.PartWriter }

func (droppingPart) Put(_ context.Context, _ point.Entry, _ io.Reader, _ point.Content) (int64, error) {
	return 0, nil
}
