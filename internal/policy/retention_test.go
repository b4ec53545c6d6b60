package policy

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/point"
)

var update = flag.Bool("update", false, "write the golden files anew")

var now = time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)

// history is two years of points of one subject: daily at 02:00, and in the last three days every six hours. Every tenth is
// incomplete.
func history() []point.Point {
	var points []point.Point
	add := func(t time.Time) {
		p := point.Point{ID: t.Format("20060102T15"), Subject: point.Subject{Kind: "repository", Name: "a"}, Time: t, State: point.Complete}
		if len(points)%10 == 3 {
			p.State = point.Incomplete
		}
		points = append(points, p)
	}
	for hours := 0; hours < 72; hours += 6 {
		add(now.Add(-time.Duration(hours) * time.Hour).Truncate(6 * time.Hour))
	}
	for days := 3; days < 730; days++ {
		add(now.AddDate(0, 0, -days).Truncate(24 * time.Hour).Add(2 * time.Hour))
	}
	return points
}

func TestDecideGolden(t *testing.T) {
	cases := map[string]Retention{
		"last":            {Last: 5},
		"hourly":          {Hourly: 6},
		"daily":           {Daily: 7},
		"weekly":          {Weekly: 5},
		"monthly":         {Monthly: 6},
		"yearly":          {Yearly: 10},
		"within":          {Within: Duration{Months: 1}},
		"grandfather":     {Last: 2, Daily: 7, Weekly: 4, Monthly: 12, Yearly: 3},
		"within-and-last": {Last: 1, Within: Duration{Days: 2, Hours: 12}},
	}
	for name, retention := range cases {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			for _, d := range retention.Decide(history(), now, time.UTC) {
				if d.Keep {
					fmt.Fprintf(&b, "%s %-10s %s\n", d.Point.Time.Format(time.DateTime), d.Point.State, strings.Join(d.Reasons, ", "))
				}
			}
			golden(t, name+".txt", b.Bytes())
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("differs from %s (go test -update writes it anew):\n%s", file, got)
	}
}

func at(id, state, when string, holds ...point.Hold) point.Point {
	t, err := time.Parse(time.RFC3339, when)
	if err != nil {
		panic(err)
	}
	return point.Point{ID: id, State: point.State(state), Time: t, Holds: holds}
}

func TestDecide(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		reason    string
		retention Retention
		zone      *time.Location
		points    []point.Point
		keep      []string
	}{
		{
			"no rule keeps all",
			Retention{},
			time.UTC,
			[]point.Point{at("a", "complete", "2026-01-02T00:00:00Z"), at("b", "incomplete", "2020-01-01T00:00:00Z")},
			[]string{"a", "b"},
		},
		{
			"a day's complete point is taken before a newer incomplete one",
			Retention{Daily: 1},
			time.UTC,
			[]point.Point{at("a", "incomplete", "2026-01-02T08:00:00Z"), at("b", "complete", "2026-01-02T07:00:00Z")},
			[]string{"b"},
		},
		{
			"incomplete points do not use up the count, nor live longer than what is counted",
			Retention{Last: 1},
			time.UTC,
			[]point.Point{
				at("a", "incomplete", "2026-01-04T00:00:00Z"), at("b", "incomplete", "2026-01-03T00:00:00Z"),
				at("c", "complete", "2026-01-02T00:00:00Z"), at("d", "incomplete", "2026-01-01T00:00:00Z"),
			},
			[]string{"a", "c"},
		},
		{
			"nothing complete: the newest is kept",
			Retention{Within: Duration{Hours: 1}},
			time.UTC,
			[]point.Point{at("a", "incomplete", "2026-01-04T00:00:00Z"), at("b", "incomplete", "2026-01-03T00:00:00Z")},
			[]string{"a"},
		},
		{
			"a hold outlives every rule",
			Retention{Last: 1},
			time.UTC,
			[]point.Point{
				at("a", "complete", "2026-01-04T00:00:00Z"),
				at("b", "complete", "2020-01-03T00:00:00Z", point.Hold{Reason: "audit"}), at("c", "complete", "2020-01-02T00:00:00Z"),
			},
			[]string{"a", "b"},
		},
		{
			"a point from the future pushes out nothing",
			Retention{Last: 1},
			time.UTC,
			[]point.Point{at("a", "complete", "2036-01-04T00:00:00Z"), at("b", "complete", "2026-01-03T00:00:00Z")},
			[]string{"a", "b"},
		},
		{
			"within reaches back from the newest complete point",
			Retention{Within: Duration{Days: 1}},
			time.UTC,
			[]point.Point{
				at("a", "incomplete", "2026-01-09T00:00:00Z"), at("b", "complete", "2024-01-03T00:00:00Z"),
				at("c", "complete", "2024-01-02T00:00:00Z"), at("d", "complete", "2024-01-01T23:59:59Z"),
			},
			[]string{"a", "b", "c"},
		},
		{
			"one day in UTC",
			Retention{Daily: 2},
			time.UTC,
			[]point.Point{at("a", "complete", "2026-01-02T23:30:00Z"), at("b", "complete", "2026-01-02T22:30:00Z")},
			[]string{"a"},
		},
		{
			"is two in Berlin",
			Retention{Daily: 2},
			berlin,
			[]point.Point{at("a", "complete", "2026-01-02T23:30:00Z"), at("b", "complete", "2026-01-02T22:30:00Z")},
			[]string{"a", "b"},
		},
		{
			"the hour that comes twice in autumn is two",
			Retention{Hourly: 2},
			berlin,
			[]point.Point{at("a", "complete", "2025-10-26T01:30:00Z"), at("b", "complete", "2025-10-26T00:30:00Z")},
			[]string{"a", "b"},
		},
		{
			"weeks are ISO weeks: the last of December lies in the first of the next year",
			Retention{Weekly: 2},
			time.UTC,
			[]point.Point{
				at("a", "complete", "2026-01-01T00:00:00Z"), at("b", "complete", "2025-12-29T00:00:00Z"),
				at("c", "complete", "2025-12-28T00:00:00Z"),
			},
			[]string{"a", "c"},
		},
	}
	for _, c := range cases {
		t.Run(c.reason, func(t *testing.T) {
			if got := kept(c.retention.Decide(c.points, now, c.zone)); !slices.Equal(got, c.keep) {
				t.Errorf("kept %q, want %q", got, c.keep)
			}
		})
	}
}

func kept(decisions []Decision) []string {
	var ids []string
	for _, d := range decisions {
		if d.Keep {
			ids = append(ids, d.Point.ID)
		}
	}
	return ids
}

// Two policies may take different repositories of one account: the newest point of one has nothing of what the other's has.
func TestDecideJudgesEachPolicy(t *testing.T) {
	var points []point.Point
	for i, policy := range []string{"daily", "hourly", "hourly", ""} {
		points = append(points, point.Point{
			ID: fmt.Sprint(i), Subject: point.Subject{Kind: point.SubjectAccount, Name: "a"}, Policy: policy,
			Time: now.Add(time.Duration(i-9) * time.Hour), State: point.Complete,
		})
	}
	var kept []string
	for _, d := range (Retention{Last: 1}).Decide(points, now, time.UTC) {
		if d.Keep {
			kept = append(kept, d.Point.ID)
		}
	}
	if !slices.Equal(kept, []string{"3", "0", "2"}) {
		t.Errorf("kept %v", kept)
	}
}

// TestDecideProperties tries random histories against random rules.
func TestDecideProperties(t *testing.T) {
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		points, retention := randomPoints(rng), randomRetention(rng)
		decisions := retention.Decide(points, now, time.UTC)
		if err := checkProperties(points, retention, decisions, rng); err != nil {
			spec, _ := json.Marshal(retention)
			t.Fatalf("seed %d, %s: %v", seed, spec, err)
		}
	}
}

func checkProperties(points []point.Point, r Retention, decisions []Decision, rng *rand.Rand) error {
	ids := kept(decisions)
	if len(decisions) != len(points) {
		return fmt.Errorf("%d decisions on %d points", len(decisions), len(points))
	}
	newest := map[point.Subject]point.Point{}
	for _, p := range points {
		if n, ok := newest[p.Subject]; p.State == point.Complete && !p.Time.After(now) && (!ok || p.Time.After(n.Time)) {
			newest[p.Subject] = p
		}
		if len(p.Holds) > 0 && !slices.Contains(ids, p.ID) {
			return fmt.Errorf("%s is on hold and expires", p.ID)
		}
	}
	for subject, p := range newest {
		if !slices.Contains(ids, p.ID) {
			return fmt.Errorf("%s is the newest complete point of %s and expires", p.ID, subject.Name)
		}
	}
	if r.IsEmpty() && len(ids) != len(points) {
		return fmt.Errorf("no rule, but %d points expire", len(points)-len(ids))
	}

	var survivors, complete []point.Point
	for _, d := range decisions {
		if d.Keep != (len(d.Reasons) > 0) {
			return fmt.Errorf("%s: keep %v for the reasons %q", d.Point.ID, d.Keep, d.Reasons)
		}
		if d.Keep {
			survivors = append(survivors, d.Point)
		}
		if d.Point.State == point.Complete {
			complete = append(complete, d.Point)
		}
	}
	if again := kept(r.Decide(survivors, now, time.UTC)); !slices.Equal(again, ids) {
		return fmt.Errorf("a second run keeps %q of %q", again, ids)
	}
	for _, id := range kept(r.Decide(complete, now, time.UTC)) {
		if !slices.Contains(ids, id) {
			return fmt.Errorf("incomplete points cost %s its place", id)
		}
	}
	more := r
	more.Daily += 1 + rng.IntN(3)
	wider := kept(more.Decide(points, now, time.UTC))
	for _, id := range ids {
		if !r.IsEmpty() && !slices.Contains(wider, id) {
			return fmt.Errorf("with more days to keep, %s expires", id)
		}
	}
	return nil
}

func randomPoints(rng *rand.Rand) []point.Point {
	points := make([]point.Point, rng.IntN(60))
	for i := range points {
		age := time.Duration(rng.Int64N(int64(90*24*time.Hour))) - time.Hour
		points[i] = point.Point{
			ID:      fmt.Sprintf("%03d", i),
			Subject: point.Subject{Kind: "repository", Name: string(rune('a' + rng.IntN(3)))},
			Time:    now.Add(-age).Truncate(time.Minute),
			State:   point.Complete,
		}
		if rng.IntN(3) == 0 {
			points[i].State = point.Incomplete
		}
		if rng.IntN(20) == 0 {
			points[i].Holds = []point.Hold{{Reason: "audit"}}
		}
	}
	return points
}

func randomRetention(rng *rand.Rand) Retention {
	some := func() int { return max(0, rng.IntN(8)-4) }
	return Retention{
		Last: some(), Hourly: some(), Daily: some(), Weekly: some(), Monthly: some(), Yearly: some(),
		Within: Duration{Days: some(), Hours: some()},
	}
}
