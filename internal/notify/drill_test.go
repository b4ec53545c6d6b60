package notify_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/notify"
	"github.com/backstay/backstay/internal/point"
)

// proofs are of a subject that is proven, and of one whose drill failed.
func proofs() []point.ProofRun {
	week, ended := began.Add(-7*24*time.Hour), began.Add(time.Minute)
	return []point.ProofRun{
		{Subject: point.Subject{Kind: point.SubjectAccount, Name: "github.com/acme"}, Proven: &began, Drilled: &ended, RestoreSeconds: 12.5},
		{Subject: point.Subject{Kind: point.SubjectDirectory, Name: "host/data"}, Proven: &week, Drilled: &ended, Failed: true, Lacking: true},
	}
}

func drillRun() point.Run {
	return point.Run{
		Version: 1, Policy: "nightly", Kind: point.RunDrill, Started: began, Finished: began.Add(90 * time.Second), State: point.Incomplete,
		Sources: []point.SourceRun{
			{Subject: point.Subject{Name: "github.com/acme"}, State: point.Complete},
			{
				Subject: point.Subject{Name: "host/data"}, State: point.Incomplete,
				Problems: []point.Problem{{What: "bytes of directory/host/data: wants 38, has 8", Class: "Incomplete"}},
			},
		},
		Proofs: proofs(),
	}
}

func TestMessageOfADrill(t *testing.T) {
	m := notify.MessageOf(drillRun())
	if want := "Drill nightly: incomplete, 1 not proven, 1 problem"; m.Title != want || m.Outcome != notify.Bad {
		t.Errorf("got %q, outcome %d; want %q", m.Title, m.Outcome, want)
	}
	want := `github.com/acme: proven
host/data: not proven
1m30s on 2026-01-31 12:00 UTC

Failed:
- host/data: bytes of directory/host/data: wants 38, has 8

Not proven, as the policy asks for:
- host/data: the newest that is proven was made on 2026-01-24 12:00 UTC`
	if m.Text != want {
		t.Errorf("got\n%s\nwant\n%s", m.Text, want)
	}
}

// A good run is no quiet one where the policy's demand is not met.
func TestALackOfProofIsAnAlarm(t *testing.T) {
	run := goodRun()
	run.Proofs = proofs()
	m := notify.MessageOf(run)
	if want := "Backup nightly: complete, 1 not proven"; m.Title != want || m.Outcome != notify.Alarmed {
		t.Errorf("got %q, outcome %d; want %q", m.Title, m.Outcome, want)
	}
	run.Proofs[1].Lacking = false
	if m := notify.MessageOf(run); m.Outcome != notify.Good {
		t.Errorf("outcome %d where nothing lacks", m.Outcome)
	}
}

// Drills tell of proofs, and leave alone what is known of backups: their heartbeats, too.
func TestDrillsAreNoBackups(t *testing.T) {
	m := newMetrics()
	m.Ended(goodRun())
	before := scrape(t, m)
	m.Ended(drillRun())
	after := scrape(t, m)
	for _, line := range before {
		if !slices.Contains(after, line) {
			t.Errorf("no longer there: %s", line)
		}
	}
	var added []string
	for _, line := range after {
		if !slices.Contains(before, line) {
			added = append(added, line)
		}
	}
	want := []string{
		`backstay_point_drill_good{policy="nightly",subject="github.com/acme"} 1`,
		`backstay_point_drill_good{policy="nightly",subject="host/data"} 0`,
		`backstay_point_drill_restore_seconds{policy="nightly",subject="github.com/acme"} 12.5`,
		`backstay_point_drill_restore_seconds{policy="nightly",subject="host/data"} 0`,
		`backstay_point_proven_timestamp_seconds{policy="nightly",subject="github.com/acme"} 1.7698608e+09`,
		`backstay_point_proven_timestamp_seconds{policy="nightly",subject="host/data"} 1.769256e+09`,
		`backstay_policy_last_drill_timestamp_seconds{policy="nightly"} 1.76986089e+09`,
		`backstay_policy_unproven_subjects{policy="nightly"} 1`,
	}
	if !slices.Equal(added, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(added, "\n"), strings.Join(want, "\n"))
	}

	asked := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.Path }))
	defer server.Close()
	beat := fault.Secret(server.URL)
	n := &notify.Notifier{Client: notify.NewClient(notify.ClientOptions{}), Heartbeats: []notify.Heartbeat{{Success: beat, Failure: beat}}}
	if err := n.Ended(context.Background(), drillRun()); err != nil {
		t.Error(err)
	}
	if len(asked) > 0 {
		t.Error("a heartbeat was asked for")
	}
}
