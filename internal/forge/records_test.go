package forge_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

// recordsThen yields records of IDs, and then the error.
func recordsThen(err error, ids ...string) forge.Records {
	return func(yield func(archive.Record, error) bool) {
		for _, id := range ids {
			if !yield(archive.Record{Key: archive.Key{Collection: "things", ID: id}}, nil) {
				return
			}
		}
		if err != nil {
			yield(archive.Record{}, err)
		}
	}
}

func recordIDs(records forge.Records) (ids []string, last error) {
	for r, err := range records {
		if err != nil {
			return ids, err
		}
		ids = append(ids, r.ID)
	}
	return ids, nil
}

func TestByNumberMerges(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		one, other forge.Records
		want       []string
		err        error
	}{
		{recordsThen(nil, "1", "3", "10"), recordsThen(nil, "2", "3", "11"), []string{"1", "2", "3", "3", "10", "11"}, nil},
		{recordsThen(nil), recordsThen(nil, "2", "x"), []string{"2", "x"}, nil},
		{recordsThen(nil, "4"), recordsThen(nil), []string{"4"}, nil},
		{recordsThen(broken, "1"), recordsThen(nil, "2"), []string{"1"}, broken},
		{recordsThen(nil, "1", "5"), recordsThen(broken, "2"), []string{"1", "2"}, broken},
	} {
		got, err := recordIDs(forge.ByNumber(test.one, test.other))
		if !slices.Equal(got, test.want) || !errors.Is(err, test.err) {
			t.Errorf("got %q, %v, want %q, %v", got, err, test.want, test.err)
		}
	}
	for _, err := range forge.ByNumber(recordsThen(nil, "1", "3"), recordsThen(nil, "2")) {
		if err != nil {
			t.Error(err)
		}
		break // nothing is left waiting
	}
}

func TestWholeReadsAgainWhatIsIncomplete(t *testing.T) {
	readings := 0
	shrinking := func(until int) forge.Records {
		readings = 0
		return func(yield func(archive.Record, error) bool) {
			readings++
			if readings < until {
				recordsThen(fault.New("", fault.ErrIncomplete, "it shrank", ""), "1", "3")(yield)
				return
			}
			recordsThen(nil, "1", "2", "3")(yield)
		}
	}
	if got, err := recordIDs(forge.Whole(shrinking(3))); err != nil || !slices.Equal(got, []string{"1", "3", "2"}) {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := recordIDs(forge.Whole(shrinking(9))); !errors.Is(err, fault.ErrIncomplete) || len(got) != 2 || readings != 3 {
		t.Errorf("one that keeps shrinking: %q, %v after %d readings", got, err, readings)
	}
	if _, err := recordIDs(forge.Whole(recordsThen(fault.New("", fault.ErrDenied, "no", ""), "1"))); !errors.Is(err, fault.ErrDenied) {
		t.Errorf("one that is denied: %v", err)
	}
}

func TestOfEachLeavesOutParentsThatWent(t *testing.T) {
	read := forge.OfEach(func(_ context.Context, _ forge.Repository, parent archive.Record) forge.Records {
		if parent.ID == "gone" {
			return recordsThen(fault.New("", fault.ErrNotFound, "it is gone", ""))
		}
		return recordsThen(nil, parent.ID+":1")
	})
	parents := []archive.Record{{Key: archive.Key{Collection: "issues", ID: "1"}}, {Key: archive.Key{ID: "gone"}}, {Key: archive.Key{Collection: "issues", ID: "2"}}}
	if got, err := recordIDs(read(t.Context(), forge.Query{Parents: parents})); err != nil || !slices.Equal(got, []string{"1:1", "2:1"}) {
		t.Errorf("got %q, %v", got, err)
	}
	for r := range read(t.Context(), forge.Query{Parents: parents[:1]}) {
		if r.Parent != parents[0].Key {
			t.Errorf("%s belongs to %s", r.Key, r.Parent)
		}
	}
}
