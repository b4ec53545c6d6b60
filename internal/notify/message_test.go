package notify_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/backstay/backstay/internal/notify"
	"github.com/backstay/backstay/internal/point"
)

// began is when the runs of these tests start.
var began = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// goodRun is a run in which all went well.
func goodRun() point.Run {
	remaining, captured := 4588, began
	return point.Run{
		Version: 1, Policy: "nightly", Started: began, Finished: began.Add(90 * time.Second), State: point.Complete,
		Sources: []point.SourceRun{{
			Subject: point.Subject{Kind: point.SubjectAccount, Name: "github.com/acme"}, Type: "github", Point: "3f2a", State: point.Complete,
			Ledger: &point.Ledger{Expected: 5, Stored: 4, Unchanged: 3, Skipped: 1, Closed: true, Bytes: 5000},
			Listed: 3, Requests: 7, Remaining: &remaining, Seconds: 80,
			Repositories: []point.RepositoryRun{
				{
					Host: "github.com", Owner: "acme", Name: "api", State: point.Stored, LastGood: &captured,
					Deliveries: []point.DeliveryRun{{Type: "local", Place: "/srv/copies", State: point.Stored, Seconds: 1.5}},
				},
				{Host: "github.com", Owner: "acme", Name: "web", State: point.Stored, Unchanged: true, LastGood: &captured},
			},
		}},
		Storage: &point.StorageRun{Location: "file:///srv/vault", StoredBytes: 45_200_000, TotalBytes: 9_000_000_000, Points: 31},
	}
}

// badRun is a run in which much went wrong.
func badRun() point.Run {
	run := goodRun()
	run.State = point.Incomplete
	run.Warnings = []string{"github.com: the token expires on 2026-02-07"}
	s := &run.Sources[0]
	s.State = point.Incomplete
	s.Ledger = &point.Ledger{Expected: 5, Stored: 2, Unchanged: 1, Carried: 1, Failed: 1, Vanished: 1, Bytes: 4000}
	s.Problems = []point.Problem{{What: "list repositories: access denied", Class: "Denied", Hints: []string{"give the token the scope read:org"}}}
	s.Alarms = []string{"alarm: git/github.com/acme/web.git: all 12 branches are gone"}
	carried := began.Add(-24 * time.Hour)
	s.Repositories[1] = point.RepositoryRun{
		Host: "github.com", Owner: "acme", Name: "web", State: point.Carried, Reason: "fetch: unavailable", LastGood: &carried,
	}
	s.Repositories[0].Deliveries = append(s.Repositories[0].Deliveries, point.DeliveryRun{
		Type: "s3", Place: "s3://copies", State: point.Failed, Reason: "put object: insufficient storage", Hints: []string{"make room"},
	})
	s.Repositories = append(s.Repositories, point.RepositoryRun{Host: "github.com", Owner: "acme", Name: "old", State: point.Vanished, Reason: "not found"})
	return run
}

func TestMessageOfAGoodRun(t *testing.T) {
	m := notify.MessageOf(goodRun())
	if want := "Backup nightly: complete"; m.Title != want || m.Outcome != notify.Good {
		t.Errorf("got %q, outcome %d; want %q", m.Title, m.Outcome, want)
	}
	want := `github.com/acme: complete; of 3 repositories 2 stored (1 unchanged)
1m30s on 2026-01-31 12:00 UTC, 45.2 MB stored`
	if m.Text != want {
		t.Errorf("got\n%s\nwant\n%s", m.Text, want)
	}
}

func TestMessageOfABadRun(t *testing.T) {
	m := notify.MessageOf(badRun())
	if want := "Backup nightly: incomplete, 4 problems, 1 alarm"; m.Title != want || m.Outcome != notify.Bad {
		t.Errorf("got %q, outcome %d; want %q", m.Title, m.Outcome, want)
	}
	want := `github.com/acme: incomplete; of 3 repositories 1 stored (0 unchanged), 1 carried, 1 vanished
1m30s on 2026-01-31 12:00 UTC, 45.2 MB stored

Alarms:
- github.com/acme: git/github.com/acme/web.git: all 12 branches are gone

Failed:
- github.com/acme: list repositories: access denied
- github.com/acme/api to s3 s3://copies: put object: insufficient storage
- github.com/acme/web (carried): fetch: unavailable
- github.com/acme/old (vanished): not found

What to do:
- give the token the scope read:org
- make room

Warnings:
- github.com: the token expires on 2026-02-07`
	if m.Text != want {
		t.Errorf("got\n%s\nwant\n%s", m.Text, want)
	}
}

func TestACopyThatFailedIsToldOnce(t *testing.T) {
	run := goodRun()
	run.State = point.Incomplete
	run.Sources[0].Repositories[0].State, run.Sources[0].Repositories[0].Reason = point.Failed, "disk full"
	run.Sources[0].Repositories[0].Deliveries[0].State, run.Sources[0].Repositories[0].Deliveries[0].Reason = point.Failed, "disk full"
	if m := notify.MessageOf(run); strings.Count(m.Text, "disk full") != 1 || !strings.Contains(m.Title, "1 problem") {
		t.Errorf("%s\n%s", m.Title, m.Text)
	}
}

func TestAnAlarmInACompleteRun(t *testing.T) {
	run := goodRun()
	run.Sources[0].Alarms = []string{"the default branch was rewritten"}
	m := notify.MessageOf(run)
	if m.Outcome != notify.Alarmed || m.Title != "Backup nightly: complete, 1 alarm" {
		t.Errorf("got %q, outcome %d", m.Title, m.Outcome)
	}
}

func TestMessagesAreBounded(t *testing.T) {
	run := goodRun()
	run.State = point.Failed
	for i := range 5000 {
		run.Sources[0].Repositories = append(run.Sources[0].Repositories, point.RepositoryRun{
			Host: "h", Owner: "o", Name: fmt.Sprint(i), State: point.Failed, Reason: strings.Repeat("é", 5000),
		})
		run.Warnings = append(run.Warnings, strings.Repeat("w", 5000))
	}
	run.Policy = strings.Repeat("p", 5000)
	m := notify.MessageOf(run)
	if len(m.Text) > 4000 || len(m.Title) > 200 || !utf8.ValidString(m.Text) {
		t.Errorf("%d bytes of text, %d of title", len(m.Text), len(m.Title))
	}
	if !strings.Contains(m.Text, "and 4990 more") {
		t.Errorf("it does not say how many more failed:\n%s", m.Text)
	}
}

func FuzzMessageOf(f *testing.F) {
	f.Add("api", "denied\r\nBcc: all@example.com", "\x1b]0;title\a", "a\u202eb")
	f.Add("<!channel>", "```", "\xff\xfe", strings.Repeat("x", 5000))
	f.Fuzz(func(t *testing.T, name, reason, alarm, policy string) {
		run := badRun()
		run.Policy = policy
		run.Sources[0].Subject.Name = name
		run.Sources[0].Repositories[1].Reason = reason
		run.Sources[0].Repositories[1].Owner = name
		run.Sources[0].Alarms = []string{alarm}
		run.Problems = []point.Problem{{What: reason, Hints: []string{alarm}}}
		m := notify.MessageOf(run)
		for _, text := range []string{m.Title, strings.ReplaceAll(m.Text, "\n", "")} {
			if i := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
				t.Errorf("%q has a character that does not print at %d", text, i)
			}
		}
		if !utf8.ValidString(m.Text) || len(m.Text) > 4000 || len(m.Title) > 200 {
			t.Errorf("%d bytes of text, %d of title, or not UTF-8", len(m.Text), len(m.Title))
		}
	})
}
