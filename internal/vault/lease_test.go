package vault

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/filesystem"

	"github.com/backstay/backstay/internal/fault"
)

// handClock is a clock that a test sets forward.
type handClock struct{ nanos atomic.Int64 }

func newHandClock() *handClock {
	c := &handClock{}
	c.nanos.Store(time.Now().UnixNano())
	return c
}

func (c *handClock) now() time.Time          { return time.Unix(0, c.nanos.Load()) }
func (c *handClock) forward(d time.Duration) { c.nanos.Add(int64(d)) }

// undeletable is a store that refuses to delete, as one with a default retention may.
type undeletable struct{ blob.Storage }

func (undeletable) DeleteBlob(context.Context, blob.ID) error { return errors.New("refused") }

func testLease(st blob.Storage, owner string, now func() time.Time) lease {
	l := newLease(st, now)
	l.owner, l.settle = owner, 2*time.Second
	return l
}

// renewed is the lease with renewals that a test can wait for. As much time has each write, also on a busy machine.
func (l lease) renewed() lease {
	l.renew = 500 * time.Millisecond
	return l
}

func diskStorage(t *testing.T) blob.Storage {
	t.Helper()
	st, err := filesystem.New(t.Context(), &filesystem.Options{Path: t.TempDir()}, true)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func nothing(context.Context) error { return nil }

func TestSecondMaintainerIsRefused(t *testing.T) {
	st, clock := diskStorage(t), newHandClock()
	first, second := testLease(st, "first", clock.now), testLease(st, "second", clock.now)
	err := first.hold(t.Context(), func(ctx context.Context) error {
		err := second.hold(ctx, func(context.Context) error {
			t.Error("two hold the lease")
			return nil
		})
		if !errors.Is(err, fault.ErrBusy) || !strings.Contains(err.Error(), "first maintains the vault since") {
			t.Errorf("got %v, want busy, naming the holder", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.hold(t.Context(), nothing); err != nil {
		t.Errorf("after the first had ended: %v", err)
	}
	if left, err := blob.ListAllBlobs(t.Context(), st, leasePrefix); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestReleasedLeaseCountsAsGoneWhereDeletingIsRefused(t *testing.T) {
	st := undeletable{diskStorage(t)}
	for _, owner := range []string{"first", "second"} {
		if err := testLease(st, owner, newHandClock().now).hold(t.Context(), nothing); err != nil {
			t.Errorf("%s: %v", owner, err)
		}
	}
}

func TestLeaseOfAKilledMaintainerIsTakenOver(t *testing.T) {
	for name, st := range map[string]blob.Storage{"deletable": diskStorage(t), "undeletable": undeletable{diskStorage(t)}} {
		t.Run(name, func(t *testing.T) {
			clock := newHandClock()
			dead, heir := testLease(st, "dead", clock.now), testLease(st, "heir", clock.now)
			if _, err := dead.acquire(t.Context(), leasePrefix+"dead", clock.now()); err != nil {
				t.Fatal(err)
			}
			clock.forward(dead.term + dead.skew - time.Second)
			if err := heir.hold(t.Context(), nothing); !errors.Is(err, fault.ErrBusy) {
				t.Errorf("before it ran out: got %v, want busy", err)
			}
			clock.forward(2 * time.Second)
			if err := heir.hold(t.Context(), nothing); err != nil {
				t.Errorf("after it ran out: %v", err)
			}
		})
	}
}

func TestWorkEndsWhenTheLeaseIsLost(t *testing.T) {
	tests := []struct {
		name string
		lose func(st blob.Storage, c *handClock) error
	}{
		{"ran out", func(_ blob.Storage, c *handClock) error { c.forward(time.Hour); return nil }},
		{"taken over", func(st blob.Storage, _ *handClock) error {
			return st.ListBlobs(context.Background(), leasePrefix, func(m blob.Metadata) error {
				return testLease(undeletable{st}, "heir", nil).withdraw(context.Background(), m.BlobID)
			})
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			st, clock := diskStorage(t), newHandClock()
			err := testLease(st, "holder", clock.now).renewed().hold(t.Context(), func(ctx context.Context) error {
				if err := test.lose(st, clock); err != nil {
					t.Error(err)
				}
				select {
				case <-ctx.Done():
				case <-time.After(time.Minute):
					t.Error("the work goes on without the lease")
				}
				return ctx.Err()
			})
			if !errors.Is(err, fault.ErrBusy) || !errors.Is(err, errLeaseLost) {
				t.Errorf("got %v, want busy: lease lost", err)
			}
		})
	}
}

func TestHeldLeaseIsRenewed(t *testing.T) {
	st, clock := diskStorage(t), newHandClock()
	holder, other := testLease(st, "holder", clock.now).renewed(), testLease(st, "other", clock.now)
	err := holder.hold(t.Context(), func(ctx context.Context) error {
		for range 5 {
			clock.forward(holder.term / 2)
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
				held, err := other.rivals(ctx, "")
				if err == nil && len(held) == 1 && held[0].Renewed.Equal(clock.now()) {
					break
				}
				if ctx.Err() != nil || time.Now().After(deadline) {
					t.Fatalf("the lease is not renewed: %+v, %v, %v", held, err, context.Cause(ctx))
				}
			}
			if err := other.hold(ctx, nothing); !errors.Is(err, fault.ErrBusy) {
				t.Errorf("got %v, want busy", err)
			}
		}
		return ctx.Err()
	})
	if err != nil {
		t.Error(err)
	}
}

func TestGarbageInALeaseBlocksForOneTermOnly(t *testing.T) {
	st, clock := diskStorage(t), newHandClock()
	if err := st.PutBlob(t.Context(), leasePrefix+"garbage", &raw{[]byte("{")}, blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	l := testLease(st, "holder", clock.now)
	if err := l.hold(t.Context(), nothing); !errors.Is(err, fault.ErrBusy) {
		t.Errorf("got %v, want busy", err)
	}
	clock.forward(l.term + l.skew + time.Minute)
	if err := l.hold(t.Context(), nothing); err != nil {
		t.Error(err)
	}
}

func TestManyContendersAtMostOneHolds(t *testing.T) {
	st, clock := diskStorage(t), newHandClock()
	var holding, held atomic.Int32
	var wg sync.WaitGroup
	for range 24 {
		wg.Go(func() {
			for range 5 {
				err := testLease(st, "contender", clock.now).hold(t.Context(), func(context.Context) error {
					if holding.Add(1) > 1 {
						t.Error("two hold the lease")
					}
					held.Add(1)
					time.Sleep(time.Millisecond)
					holding.Add(-1)
					return nil
				})
				if err != nil && !errors.Is(err, fault.ErrBusy) {
					t.Errorf("got %v, want busy", err)
				}
			}
		})
	}
	wg.Wait()
	if held.Load() == 0 {
		t.Error("nobody got the lease")
	}
	t.Logf("held %d times of %d", held.Load(), 24*5)
}
