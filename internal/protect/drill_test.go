package protect_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/protect"
)

// drillOf restores files as they are. It fails the test where a scratch directory is left.
func drillOf(t *testing.T, clock func() time.Time) protect.Drill {
	t.Helper()
	parent := t.TempDir()
	t.Cleanup(func() {
		if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
			t.Errorf("left of scratch directories: %v, %v", left, err)
		}
	})
	return protect.Drill{
		Restorers: map[string]protect.Restorer{point.KindDir: protect.RestoreFiles},
		Scratch: func() (string, func(), error) {
			dir, err := os.MkdirTemp(parent, "") //nolint:usetesting // that it is removed is what is tested
			return dir, func() { _ = os.RemoveAll(dir) }, err
		},
		By: "host", Clock: clock,
	}
}

func TestProve(t *testing.T) {
	full := &fs.PathError{Op: "write", Path: "/tmp/x", Err: syscall.ENOSPC}
	fails := func(err error) protect.Restorer {
		return func(context.Context, point.Reader, point.Part, string) ([]string, error) { return nil, err }
	}
	finds := func(checks []point.Check, err error) protect.Checker {
		return func(_ context.Context, _ point.Reader, _ point.Part, dir string) ([]point.Check, error) {
			if _, statErr := os.Stat(filepath.Join(dir, "f")); statErr != nil {
				return nil, statErr
			}
			return checks, err
		}
	}
	good := &source{name: "a", files: map[string]string{"dir/a/f": "1"}}
	cases := []struct {
		name    string
		source  *source
		restore protect.Restorer
		check   protect.Checker
		damage  string // file whose bytes are flipped
		want    error  // class
		failed  string // check that fails, "" where the drill is good or cannot be made
	}{
		{name: "good", source: good},
		{name: "good, with a check", source: good, check: finds([]point.Check{{What: "count", OK: true}}, nil)},
		{
			name: "a check that fails", source: good, want: fault.ErrIncomplete, failed: "count of dir/a: wants 7, has 0",
			check: finds([]point.Check{{What: "other", OK: true}, {What: "count", Detail: "wants 7, has 0"}}, nil),
		},
		{name: "flipped bytes", source: good, damage: "dir/a/f", want: fault.ErrIncomplete, failed: "restore of dir/a: "},
		{
			name: "what a check reads is damaged", source: good, want: fault.ErrIncomplete, failed: "read of dir/a: read it: corrupt",
			check: finds(nil, fault.New("read it", fault.ErrCorrupt, "", "")),
		},
		{
			name: "a part that failed", want: fault.ErrIncomplete, failed: "in the point of dir/b: it failed: gone",
			source: &source{name: "a", files: map[string]string{"dir/a/f": "1"}, fails: map[string]error{"dir/b": errors.New("gone")}},
		},
		{name: "disk full", source: good, restore: fails(full), want: fault.ErrRefused},
		{name: "disk full, by another class", source: good, restore: fails(fault.Wrap("", fault.ErrCorrupt, full, "")), want: fault.ErrRefused},
		{name: "store away", source: good, restore: fails(fault.New("get", fault.ErrUnavailable, "", "")), want: fault.ErrUnavailable},
		{name: "program missing", source: good, restore: fails(fault.New("start", fault.ErrUnsupported, "", "")), want: fault.ErrUnsupported},
		{name: "directory closed", source: good, restore: fails(&fs.PathError{Err: fs.ErrPermission}), want: fault.ErrDenied},
		{name: "interrupted", source: good, restore: fails(context.Canceled), want: context.Canceled},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			store := memory.New(daily())
			id := backup(t, store, c.source)
			before := point.Proof{Point: id, Proven: true, By: "before", Checks: []point.Check{{What: "x", OK: true}}}
			if err := store.Prove(t.Context(), before); err != nil {
				t.Fatal(err)
			}
			d := drillOf(t, daily())
			if c.restore != nil {
				d.Restorers = map[string]protect.Restorer{point.KindDir: c.restore}
			}
			if c.check != nil {
				d.Checkers = map[string]protect.Checker{point.KindDir: c.check}
			}
			if c.damage != "" {
				if err := store.Corrupt(id, c.damage); err != nil {
					t.Fatal(err)
				}
			}
			proof, err := d.Prove(t.Context(), store, id)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Fatalf("the error is %v, and should be %v", err, c.want)
			}
			record, _, err := store.Open(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			kept := record.Point.Proof
			made := c.want == nil || c.failed != ""
			if made != (kept.By == "host") || made != (proof != nil) || kept.Proven != (c.failed == "") {
				t.Errorf("kept %+v, got %+v", kept, proof)
			}
			if c.failed != "" && !strings.HasPrefix(protect.ProblemLine(kept.Problems()[0]), c.failed) {
				t.Errorf("failed: %q, want %q", protect.ProblemLine(kept.Problems()[0]), c.failed)
			}
		})
	}
}

// TestProofsOfManyPartsStaySmall keeps what failed, and sums up the rest.
func TestProofsOfManyPartsStaySmall(t *testing.T) {
	store := memory.New(daily())
	id := backup(t, store, &source{name: "a", files: map[string]string{"dir/a/f": "1"}})
	p := point.Proof{Point: id}
	for i := range 3000 {
		p.Checks = append(p.Checks,
			point.Check{What: "fsck", Of: fmt.Sprint(i), OK: true}, point.Check{What: "refs", Of: fmt.Sprint(i), OK: i >= 60, Detail: strings.Repeat("é", 999)})
	}
	p.Checks = append(p.Checks, point.Check{What: "database", Of: "databases/orders", Excepted: true})
	if err := protect.KeepProof(t.Context(), store, p); err != nil {
		t.Fatal(err)
	}
	record, _, err := store.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	bytes := 0
	for _, c := range record.Point.Proof.Checks {
		lines = append(lines, protect.ProblemLine(c))
		bytes += len(lines[len(lines)-1])
	}
	kept := record.Point.Proof
	if bytes > 100_000 || len(kept.Problems()) != 51 || !slices.Equal(kept.Excepted(), []string{"databases/orders"}) {
		t.Errorf("%d bytes, %d problems, excepted %q", bytes, len(kept.Problems()), kept.Excepted())
	}
	for _, want := range []string{"more: 10 more checks failed", "fsck: 3000 parts", "refs: 2940 parts"} {
		if !slices.Contains(lines, want) {
			t.Errorf("%q is not in %q", want, lines[50:])
		}
	}
}

func TestToDrillAndProofsOf(t *testing.T) {
	at := func(day int) time.Time { return start.AddDate(0, 0, day) }
	proof := func(proven bool, day int) *point.Proof { return &point.Proof{Proven: proven, Finished: at(day)} }
	of := func(name, id string, day int, state point.State, p *point.Proof) point.Point {
		return point.Point{ID: id, Subject: point.Subject{Kind: point.SubjectDirectory, Name: name}, Time: at(day), State: state, Proof: p}
	}
	points := []point.Point{ // newest first
		of("incomplete", "i2", 9, point.Incomplete, nil),
		of("old", "o1", 8, point.Complete, nil),
		of("recent", "r2", 7, point.Complete, nil),
		of("never", "n1", 6, point.Complete, nil),
		of("recent", "r1", 5, point.Complete, proof(true, 6)),
		of("incomplete", "i1", 4, point.Complete, proof(false, 5)),
		of("old", "o0", 1, point.Complete, proof(true, 2)),
		of("broken", "b0", 0, point.Incomplete, nil),
	}
	for limit, want := range map[int]string{0: "b0 n1 o1 i1 r2", 2: "b0 n1", 9: "b0 n1 o1 i1 r2"} {
		var ids []string
		for _, p := range protect.ToDrill(points, limit) {
			ids = append(ids, p.ID)
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("with the limit %d: %s, want %s", limit, got, want)
		}
	}
	for since, want := range map[int]string{0: "broken incomplete never", 3: "broken incomplete never old", 5: "broken incomplete never old", 6: "broken incomplete never old recent"} {
		var names []string
		for _, p := range protect.ProofsOf(points, at(since)) {
			if p.Lacking {
				names = append(names, p.Subject.Name)
			}
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("proven since %d: %s, want %s", since, got, want)
		}
	}
}
