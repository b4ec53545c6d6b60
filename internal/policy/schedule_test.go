package policy

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

func TestScheduleNext(t *testing.T) {
	cases := []struct{ cron, zone, from, want string }{
		{"30 2 * * *", "UTC", "2026-01-31T02:29:59Z", "2026-01-31T02:30:00Z"},
		{"30 2 * * *", "UTC", "2026-01-31T02:30:00Z", "2026-02-01T02:30:00Z"},
		{"0 22 * * 1-5", "UTC", "2026-01-30T22:00:00Z", "2026-02-02T22:00:00Z"},
		{"*/15 * * * *", "UTC", "2026-01-31T12:14:59.5Z", "2026-01-31T12:15:00Z"},
		{"0 0 1,15 * *", "UTC", "2026-01-15T00:00:00Z", "2026-02-01T00:00:00Z"},
		{"0 0 29 feb *", "UTC", "2026-01-15T00:00:00Z", "2028-02-29T00:00:00Z"},
		{"@daily", "UTC", "2026-01-31T12:00:00Z", "2026-02-01T00:00:00Z"},
		{"@weekly", "UTC", "2026-01-31T12:00:00Z", "2026-02-01T00:00:00Z"},
		{"@every 90m", "UTC", "2026-01-31T12:00:00.7Z", "2026-01-31T13:30:00Z"},
		{"0 6 * * *", "Europe/Berlin", "2026-07-01T00:00:00Z", "2026-07-01T04:00:00Z"},
		{"CRON_TZ=Asia/Tokyo 0 6 * * *", "", "2026-07-01T00:00:00Z", "2026-07-01T21:00:00Z"},
		{"TZ=Asia/Tokyo 0 6 * * *", "Asia/Tokyo", "2026-07-01T00:00:00Z", "2026-07-01T21:00:00Z"},
		{"0 6 * * *", "", "2026-07-01T00:00:00+05:00", "2026-07-01T06:00:00+05:00"},

		// Berlin, 29 March 2026: 02:00 becomes 03:00. The time left out runs at once, and only once.
		{"30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"},
		{"30 2 * * *", "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"},
		{"0 3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"},
		{"0 3 * * *", "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-30T01:00:00Z"},
		{"0,30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"},
		{"30 2 1 * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-04-01T00:30:00Z"},
		{"0 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"},
		// Berlin, 25 October 2026: 03:00 becomes 02:00. The time that comes twice runs the first time.
		{"30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"},
		{"30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"},
		{"0 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"},
		{"0 3 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T02:00:00Z"},
		// Lord Howe Island: half an hour.
		{"15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", "2026-10-03T15:30:00Z"},
		{"45 1 * * *", "Australia/Lord_Howe", "2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"},
		// São Paulo, 4 November 2018: midnight is left out.
		{"0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", "2018-11-04T03:00:00Z"},
	}
	for _, c := range cases {
		s, err := ParseSchedule(c.cron, c.zone)
		if err != nil {
			t.Errorf("%s: %v", c.cron, err)
			continue
		}
		from, err := time.Parse(time.RFC3339Nano, c.from)
		if err != nil {
			t.Fatal(err)
		}
		want, err := time.Parse(time.RFC3339Nano, c.want)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Next(from); !got.Equal(want) {
			t.Errorf("%s (%s) after %s: %s, want %s", c.cron, c.zone, c.from, got.UTC().Format(time.RFC3339), c.want)
		}
	}
}

// TestScheduleLeavesNoDayOut walks through years of changing clocks: a daily time comes once on every day.
func TestScheduleLeavesNoDayOut(t *testing.T) {
	for _, zone := range []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Africa/Cairo"} {
		for _, cron := range []string{"30 2 * * *", "0 0 * * *", "45 1 * * *", "59 23 * * *"} {
			s, err := ParseSchedule(cron, zone)
			if err != nil {
				t.Fatal(err)
			}
			last := s.Next(time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC))
			for range 365 * 4 {
				next := s.Next(last)
				noon := time.Date(last.Year(), last.Month(), last.Day()+1, 12, 0, 0, 0, time.UTC)
				if y, m, d := noon.Date(); next.Year() != y || next.Month() != m || next.Day() != d {
					t.Fatalf("%s %s: %s comes after %s", cron, zone, next, last)
				}
				last = next
			}
		}
	}
}

func TestParseScheduleRefuses(t *testing.T) {
	cases := []struct{ cron, zone, why string }{
		{"", "", ""},
		{"* * * *", "", "5 fields"},
		{"0 0 2 * * *", "", "5 fields"},
		{"60 * * * *", "", "above maximum"},
		{"0 0 30 2 *", "", "never comes"},
		{"@never", "", "unrecognized"},
		{"@every", "", ""},
		{"@every 0s", "", "shorter"},
		{"@every -1h", "", "shorter"},
		{"@every x", "", ""},
		{"CRON_TZ=", "", "no time zone"},
		{"CRON_TZ=UTC", "", ""},
		{"CRON_TZ=UTC 0 6 * * *", "Europe/Berlin", "another one"},
		{"TZ=UTC TZ=UTC 0 6 * * *", "", "more than one"},
		{"0 6 * * *", "Europe/Atlantis", "unknown"},
		{"0 6 * * *", "../../etc/passwd", "unknown"},
		{strings.Repeat("*", maxCron+1), "", "longer"},
	}
	for _, c := range cases {
		if s, err := ParseSchedule(c.cron, c.zone); !errors.Is(err, fault.ErrInvalid) || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%q: %+v, %v", c.cron, s, err)
		}
	}
	if next := (Schedule{}).Next(now); !next.IsZero() {
		t.Errorf("no schedule runs at %s", next)
	}
}

func FuzzParseSchedule(f *testing.F) {
	for _, seed := range []string{
		"30 2 * * *", "@daily", "@every 1h30m", "CRON_TZ=Europe/Berlin 0 6 * * 1-5", "TZ=", "*/5 0-6/2 1,15 jan-mar ?", "0 0 31 * *", "@every 9999999h",
	} {
		f.Add(seed, "")
	}
	f.Add("30 2 * * *", "Europe/Berlin")
	f.Fuzz(func(t *testing.T, cron, zone string) {
		s, err := ParseSchedule(cron, zone)
		if err != nil {
			return
		}
		if next := s.Next(now); !next.IsZero() && !next.After(now) {
			t.Errorf("%q: %s is not after %s", cron, next, now)
		}
	})
}
