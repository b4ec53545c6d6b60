package protect_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/protect"
)

var shop = point.Subject{Kind: point.SubjectApplication, Name: "cluster/shop"}

// volume is a source of one part with one file, or of a part that fails.
type volume struct {
	name, mark, content string
	err                 error
}

func (v volume) Subject() point.Subject { return shop }

func (v volume) Capture(ctx context.Context, to point.Sink) error {
	w, err := to.Part(ctx, v.name, point.KindVolume)
	if err != nil {
		return err
	}
	if v.err != nil {
		return w.Fail(ctx, v.err)
	}
	if _, err := w.Put(ctx, point.Entry{Name: "data"}, strings.NewReader(v.content), point.Tree); err != nil {
		return err
	}
	return w.Store(ctx, point.Part{Mark: v.mark})
}

func TestShardsMakeOnePoint(t *testing.T) {
	ctx, store := t.Context(), memory.New(daily())
	for _, v := range []volume{{name: "volumes/a", mark: "1", content: "aaa"}, {name: "volumes/b", mark: "1", content: "b"}} {
		parts, err := protect.WriteShard(ctx, store, v, "nightly")
		if err != nil {
			t.Fatal(err)
		}
		if len(parts) != 1 || parts[0].State != point.Stored || parts[0].NewBytes != int64(len(v.content)) {
			t.Errorf("shard of %s: %+v", v.name, parts)
		}
	}
	if points, err := store.Points(ctx, point.Filter{}); err != nil || len(points) != 0 {
		t.Fatalf("shards are listed: %v, %v", points, err)
	}
	at := time.Date(2026, 11, 22, 4, 0, 0, 0, time.UTC)
	later := at.Add(time.Second)
	shards := []protect.Shard{
		{Name: "volumes/a", Kind: point.KindVolume, Mark: "1", Captured: &at},
		{Name: "volumes/b", Kind: point.KindVolume, Mark: "1", Captured: &later},
	}
	found, err := protect.Found(ctx, store, shop, "nightly", shards)
	if err != nil || len(found) != 2 {
		t.Fatalf("found %v, %v", found, err)
	}
	receipt, err := protect.Backup(ctx, store, protect.Composed(shop, at, shards), "nightly")
	if err != nil {
		t.Fatal(err)
	}
	if !receipt.Point.Time.Equal(at) {
		t.Errorf("the point is of %s, want the moment of its parts, %s", receipt.Point.Time, at)
	}
	if receipt.Ledger.NewBytes != 4 || point.Skew(receipt.Point.Parts) != time.Second {
		t.Errorf("new bytes %d, skew %s", receipt.Ledger.NewBytes, point.Skew(receipt.Point.Parts))
	}
}

func TestOnlyTheShardOfThisCaptureCounts(t *testing.T) {
	ctx, store := t.Context(), memory.New(daily())
	for _, v := range []volume{
		{name: "volumes/a", mark: "yesterday", content: "old"},
		{name: "volumes/b", err: errors.New("disk on fire")},
		{name: "volumes/d", mark: "today", content: "good"},
	} {
		if _, err := protect.WriteShard(ctx, store, v, "nightly"); err != nil {
			t.Fatal(err)
		}
	}
	receipt, err := protect.Backup(ctx, store, protect.Composed(shop, start, []protect.Shard{
		{Name: "volumes/a", Kind: point.KindVolume, Mark: "today"},
		{Name: "volumes/b", Kind: point.KindVolume, Mark: "today", Failed: errors.New("disk on fire")},
		{Name: "volumes/c", Kind: point.KindVolume, Skipped: "as asked"},
		{Name: "volumes/d", Kind: point.KindVolume, Mark: "today"},
	}), "nightly")
	if !errors.Is(err, fault.ErrIncomplete) {
		t.Fatalf("error %v", err)
	}
	var states []point.State
	for _, p := range receipt.Point.Parts {
		states = append(states, p.State)
	}
	// The copy of yesterday stands in for the one that is not there, with its date.
	want := []point.State{point.Carried, point.Failed, point.Skipped, point.Stored}
	if !slices.Equal(states, want) {
		t.Errorf("states %v, want %v", states, want)
	}
}
