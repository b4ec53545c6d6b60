package point_test

import (
	"testing"

	"github.com/backstay/backstay/internal/point"
)

func TestLedgerClosesOnlyOverWhatIsThere(t *testing.T) {
	stored := point.Part{Name: "git/a.git", State: point.Stored, Bytes: 10, NewBytes: 4}
	counting := func(c point.Count) point.Part {
		p := stored
		p.Counts = []point.Count{c}
		return p
	}
	tests := []struct {
		name  string
		parts []point.Part
		want  point.Ledger
		state point.State
	}{
		{"nothing", nil, point.Ledger{Closed: true}, point.Incomplete},
		{"stored", []point.Part{stored}, point.Ledger{Expected: 1, Stored: 1, Closed: true, Bytes: 10, NewBytes: 4}, point.Complete},
		{
			"only skipped",
			[]point.Part{{State: point.Skipped, Reason: "excluded"}},
			point.Ledger{Expected: 1, Skipped: 1, Closed: true},
			point.Incomplete,
		},
		{
			"stored and skipped",
			[]point.Part{stored, {State: point.Skipped}},
			point.Ledger{Expected: 2, Stored: 1, Skipped: 1, Closed: true, Bytes: 10, NewBytes: 4},
			point.Complete,
		},
		{
			"carried",
			[]point.Part{stored, {State: point.Carried, Bytes: 5}},
			point.Ledger{Expected: 2, Stored: 1, Carried: 1, Bytes: 15, NewBytes: 4},
			point.Incomplete,
		},
		{
			"failed",
			[]point.Part{stored, {State: point.Failed}},
			point.Ledger{Expected: 2, Stored: 1, Failed: 1, Bytes: 10, NewBytes: 4},
			point.Incomplete,
		},
		{
			"unchanged",
			[]point.Part{stored, {State: point.Stored, Unchanged: true, Bytes: 5}},
			point.Ledger{Expected: 2, Stored: 2, Unchanged: 1, Closed: true, Bytes: 15, NewBytes: 4},
			point.Complete,
		},
		{
			"carried, although it was unchanged once",
			[]point.Part{stored, {State: point.Carried, Unchanged: true}},
			point.Ledger{Expected: 2, Stored: 1, Carried: 1, Bytes: 10, NewBytes: 4},
			point.Incomplete,
		},
		{
			"vanished",
			[]point.Part{stored, {State: point.Vanished}},
			point.Ledger{Expected: 2, Stored: 1, Vanished: 1, Bytes: 10, NewBytes: 4},
			point.Incomplete,
		},
		{
			"of no known state",
			[]point.Part{stored, {State: "fine"}},
			point.Ledger{Expected: 2, Stored: 1, Failed: 1, Bytes: 10, NewBytes: 4},
			point.Incomplete,
		},
		{
			"an item short",
			[]point.Part{counting(point.Count{Of: "refs", Expected: 3, Stored: 2})},
			point.Ledger{Expected: 1, Stored: 1, Bytes: 10, NewBytes: 4},
			point.Incomplete,
		},
		{
			"an item too many",
			[]point.Part{counting(point.Count{Of: "refs", Expected: 3, Stored: 4})},
			point.Ledger{Expected: 1, Stored: 1, Bytes: 10, NewBytes: 4},
			point.Incomplete,
		},
		{
			"missing at source and excluded",
			[]point.Part{counting(point.Count{Of: "lfs objects", Expected: 3, Stored: 1, Excluded: 1, MissingAtSource: []string{"oid"}})},
			point.Ledger{Expected: 1, Stored: 1, MissingAtSource: 1, Closed: true, Bytes: 10, NewBytes: 4},
			point.Complete,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := point.LedgerOf(test.parts)
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			if got.State() != test.state {
				t.Errorf("state %s, want %s", got.State(), test.state)
			}
		})
	}
}

func TestFaultNamesItsPlace(t *testing.T) {
	tests := []struct {
		fault point.Fault
		want  string
	}{
		{point.Fault{What: "gone"}, "gone"},
		{point.Fault{Blob: "p1", What: "gone"}, "p1: gone"},
		{point.Fault{Point: "id", Path: "git/a.git/HEAD", Blob: "p1", What: "gone"}, "id: git/a.git/HEAD: p1: gone"},
	}
	for _, test := range tests {
		if got := test.fault.String(); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}
