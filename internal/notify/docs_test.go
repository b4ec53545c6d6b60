package notify_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/notify"
	"github.com/backstay/backstay/internal/point"
)

// metricNames finds the names of our metrics in text.
func metricNames(text string) map[string]bool {
	names := map[string]bool{}
	for _, name := range regexp.MustCompile(`\b(backstay|gickup)_[a-z_]+\b`).FindAllString(text, -1) {
		names[name] = true
	}
	return names
}

// The page has every metric that there is, and no other, in tables and rules.
func TestTheDocumentedMetricsAreThoseThereAre(t *testing.T) {
	page, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	m := newMetrics()
	m.Ended(goodRun())
	m.Ended(drillRun())
	text := strings.NewReplacer("gickup_job_duration_sum", "gickup_job_duration", "gickup_job_duration_count", "gickup_job_duration").
		Replace(strings.Join(scrape(t, m), "\n"))
	told, documented := metricNames(text), metricNames(string(page))
	for name := range told {
		if !documented[name] {
			t.Errorf("%s is not documented", name)
		}
	}
	for name := range documented {
		if !told[name] {
			t.Errorf("%s is documented, and not there", name)
		}
	}
}

// The page's example is what a run gives.
func TestTheDocumentedExample(t *testing.T) {
	page, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	run := badRun()
	run.Warnings = nil
	s := &run.Sources[0]
	s.Problems, s.Alarms, s.Listed = nil, nil, 2
	s.Repositories = s.Repositories[:2]
	s.Repositories[0].Deliveries = nil
	s.Ledger = &point.Ledger{Expected: 4, Stored: 3, Carried: 1}
	m := newMetrics()
	m.Ended(run)
	told := notify.MessageOf(run)
	known := strings.Join(append(scrape(t, m), told.Title, told.Text), "\n")
	blocks := strings.Split(string(page), "```\n")
	for _, block := range []string{blocks[2], blocks[4]} {
		for line := range strings.Lines(block) {
			if !strings.Contains(known, strings.TrimSpace(line)) {
				t.Errorf("the page says %q", line)
			}
		}
	}
	if !strings.Contains(blocks[2], "backstay_policy_run_state") || !strings.Contains(blocks[4], told.Title) {
		t.Error("the examples are not where this test looks for them")
	}
}
