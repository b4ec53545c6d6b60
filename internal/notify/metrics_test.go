package notify_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
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

// scrape returns the series of Backstay and gickup, one a line.
func scrape(t *testing.T, m *notify.Metrics) []string {
	t.Helper()
	handler, err := m.Handler()
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("scrape: %d %s", w.Code, w.Body)
	}
	var series []string
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "backstay_") || strings.HasPrefix(line, "gickup_") {
			series = append(series, strings.TrimSpace(line))
		}
	}
	return series
}

func newMetrics() *notify.Metrics {
	m := notify.NewMetrics("0.2.0")
	m.SetPolicies([]notify.PolicySettings{{Name: "nightly", Sources: 1, Destinations: 2}})
	m.SetNext("nightly", began.Add(24*time.Hour))
	return m
}

func TestMetricsOfARun(t *testing.T) {
	m := newMetrics()
	m.Started("nightly")
	m.Ended(badRun())
	source := `policy="nightly",subject="github.com/acme",type="github"`
	want := []string{
		`backstay_build_info{version="0.2.0"} 1`,
		`backstay_forge_requests_remaining{` + source + `} 4588`,
		`backstay_forge_requests_total{` + source + `} 7`,
		`backstay_location_bytes{location="file:///srv/vault"} 9e+09`,
		`backstay_location_points{location="file:///srv/vault"} 31`,
		`backstay_policy_last_run_timestamp_seconds{policy="nightly"} 1.76986089e+09`,
		`backstay_policy_last_success_timestamp_seconds{policy="nightly"} 0`,
		`backstay_policy_next_run_timestamp_seconds{policy="nightly"} 1.7699472e+09`,
		`backstay_policy_points_expired{policy="nightly"} 0`,
		`backstay_policy_problems{policy="nightly"} 0`,
		`backstay_policy_run_duration_seconds{policy="nightly"} 90`,
		`backstay_policy_run_state{policy="nightly",state="complete"} 0`,
		`backstay_policy_run_state{policy="nightly",state="failed"} 0`,
		`backstay_policy_run_state{policy="nightly",state="incomplete"} 1`,
		`backstay_policy_running{policy="nightly"} 0`,
		`backstay_policy_stored_bytes{policy="nightly"} 4.52e+07`,
		`backstay_policy_warnings{policy="nightly"} 1`,
		`backstay_repository_last_success_timestamp_seconds{host="github.com",owner="acme",repository="api"} 1.7698608e+09`,
		`backstay_repository_last_success_timestamp_seconds{host="github.com",owner="acme",repository="old"} 0`,
		`backstay_repository_last_success_timestamp_seconds{host="github.com",owner="acme",repository="web"} 1.7697744e+09`,
		`backstay_source_alarms{` + source + `} 1`,
		`backstay_source_bytes{` + source + `} 4000`,
		`backstay_source_complete{` + source + `} 0`,
		`backstay_source_duration_seconds{` + source + `} 80`,
		`backstay_source_listed_repositories{` + source + `} 3`,
		`backstay_source_parts{` + strings.Replace(source, ",subject", `,state="carried",subject`, 1) + `} 1`,
		`backstay_source_parts{` + strings.Replace(source, ",subject", `,state="failed",subject`, 1) + `} 1`,
		`backstay_source_parts{` + strings.Replace(source, ",subject", `,state="skipped",subject`, 1) + `} 0`,
		`backstay_source_parts{` + strings.Replace(source, ",subject", `,state="stored",subject`, 1) + `} 2`,
		`backstay_source_parts{` + strings.Replace(source, ",subject", `,state="vanished",subject`, 1) + `} 1`,
		`backstay_source_parts_unchanged{` + source + `} 1`,
		`backstay_source_problems{` + source + `} 1`,
		`gickup_destinations 2`,
		`gickup_destinations_complete{destination_type="local"} 1`, // and not s3
		`gickup_job_duration_sum 90`,
		`gickup_job_duration_count 1`,
		`gickup_jobs_complete 1`,
		`gickup_jobs_started 1`,
		`gickup_repo_success{hoster="github.com",owner="acme",path="/srv/copies",repository="api",type="local"} 1`,
		`gickup_repo_success{hoster="github.com",owner="acme",path="s3://copies",repository="api",type="s3"} 0`,
		`gickup_repo_time{hoster="github.com",owner="acme",path="/srv/copies",repository="api",type="local"} 1.5`,
		`gickup_repo_time{hoster="github.com",owner="acme",path="s3://copies",repository="api",type="s3"} 0`,
		`gickup_repos_discovered{config_number="0",source_name="github"} 3`,
		`gickup_sources 1`,
	}
	got := scrape(t, m)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// value returns the value of a series, or "" where there is none.
func value(t *testing.T, m *notify.Metrics, series string) string {
	t.Helper()
	for _, line := range scrape(t, m) {
		if rest, found := strings.CutPrefix(line, series+" "); found {
			return rest
		}
	}
	return ""
}

func TestMetricsOverTwoRuns(t *testing.T) {
	m := newMetrics()
	m.Started("nightly")
	if got := value(t, m, `backstay_policy_running{policy="nightly"}`); got != "1" {
		t.Errorf("running: %s", got)
	}
	m.Ended(goodRun())
	m.Started("nightly")
	run := badRun()
	run.Sources[0].Repositories = run.Sources[0].Repositories[:1]
	run.Sources[0].Repositories[0].State, run.Sources[0].Repositories[0].LastGood = point.Failed, nil
	run.Sources[0].Repositories = append(run.Sources[0].Repositories, point.RepositoryRun{Name: "left out", State: point.Skipped})
	m.Ended(run)
	for series, want := range map[string]string{
		`backstay_policy_last_success_timestamp_seconds{policy="nightly"}`:                                    "1.76986089e+09", // of the first
		`backstay_forge_requests_total{policy="nightly",subject="github.com/acme",type="github"}`:             "14",
		`backstay_repository_last_success_timestamp_seconds{host="github.com",owner="acme",repository="web"}`: "", // it is gone
		`backstay_repository_last_success_timestamp_seconds{host="github.com",owner="acme",repository="api"}`: "1.7698608e+09",
		`backstay_repository_last_success_timestamp_seconds{host="",owner="",repository="left out"}`:          "",
		`gickup_sources_complete{source_name="github"}`:                                                       "1",
		`gickup_jobs_complete`: "2",
		`gickup_repos_discovered{config_number="0",source_name="github"}`: "1",
	} {
		if got := value(t, m, series); got != want {
			t.Errorf("%s: got %q, want %q", series, got, want)
		}
	}
	m.SetPolicies([]notify.PolicySettings{{Name: "other"}})
	m.Ended(run) // it was under way
	m.SetNext("nightly", time.Time{})
	for _, line := range scrape(t, m) {
		if strings.Contains(line, "nightly") || strings.Contains(line, "acme") {
			t.Errorf("of a policy that is gone: %s", line)
		}
	}
}

// Names are a stranger's. None may break a scrape, which would hide every other series.
func TestHostileNamesBreakNoScrape(t *testing.T) {
	long := strings.Repeat("n", 5000)
	run := badRun()
	for _, name := range []string{"\xff\xfe", "\xff\xfd", "a\"} 1\nbackstay_build_info 7", "", long + "1", long + "2", "a\xffb", "\x00"} {
		run.Sources[0].Repositories = append(run.Sources[0].Repositories, point.RepositoryRun{
			Host: name, Owner: name, Name: name, Deliveries: []point.DeliveryRun{{Type: name, Place: name}, {Type: name, Place: name}},
		})
	}
	run.Sources = append(run.Sources, run.Sources[0])
	m := newMetrics()
	m.Ended(run)
	m.SetPolicies([]notify.PolicySettings{{Name: "nightly"}, {Name: "\xff"}, {Name: "\xfe"}})
	run.Policy = "\xff"
	m.Ended(run)
	run.Policy = "\xfe"
	m.Ended(run)
	for _, line := range scrape(t, m) {
		if len(line) > 2000 || strings.HasPrefix(line, "backstay_build_info 7") {
			t.Errorf("got %.200s", line)
		}
	}
}

// Of two copies that look alike in metrics, the one that is worse off shows.
func TestSeriesThatBecomeOneShowTheWorse(t *testing.T) {
	m := newMetrics()
	m.SetPolicies([]notify.PolicySettings{{Name: "nightly"}, {Name: "weekly"}})
	m.Ended(goodRun())
	run := badRun()
	run.Policy = "weekly"
	m.Ended(run)
	series := `backstay_repository_last_success_timestamp_seconds{host="github.com",owner="acme",repository="web"}`
	if got, want := value(t, m, series), "1.7697744e+09"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func FuzzLabels(f *testing.F) {
	f.Add("acme", "\xff", "a\nb")
	f.Fuzz(func(t *testing.T, host, owner, name string) {
		run := badRun()
		run.Sources[0].Repositories[0].Host = host
		run.Sources[0].Repositories[1].Owner = owner
		run.Sources[0].Repositories[2].Name = name
		run.Sources[0].Subject.Name = host
		run.Storage.Location = name
		m := newMetrics()
		m.Ended(run)
		if len(scrape(t, m)) < 30 {
			t.Error("series are missing")
		}
	})
}

func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	address, done := make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		done <- newMetrics().Serve(ctx, "127.0.0.1:0", "/metrics", func(a net.Addr) { address <- a })
	}()
	base := "http://" + (<-address).String()
	tests := []struct {
		method, path string
		status       int
	}{
		{"GET", "/metrics", 200},
		{"GET", "/", 404},
		{"GET", "/metrics/x", 404},
		{"POST", "/metrics", 405},
	}
	for _, test := range tests {
		req, err := http.NewRequestWithContext(t.Context(), test.method, base+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != test.status {
			t.Errorf("%s %s: %d, %v", test.method, test.path, resp.StatusCode, err)
		}
		if test.status == 200 && !strings.Contains(string(body), "gickup_sources 1") {
			t.Errorf("got %s", body)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("stopped: %v", err)
	}
}

func TestServeSaysWhatIsWrong(t *testing.T) {
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, test := range []struct{ addr, path string }{
		{taken.Addr().String(), "/metrics"},
		{"127.0.0.1:0", "metrics"},
		{"127.0.0.1:0", ""},
		{"nonsense", "/metrics"},
	} {
		if err := newMetrics().Serve(t.Context(), test.addr, test.path, nil); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%s %s: %v", test.addr, test.path, err)
		}
	}
}

func BenchmarkScrape(b *testing.B) {
	run := goodRun()
	for i := range 10_000 {
		r := run.Sources[0].Repositories[0]
		r.Name = fmt.Sprint(i)
		run.Sources[0].Repositories = append(run.Sources[0].Repositories, r)
	}
	m := newMetrics()
	m.Ended(run)
	handler, err := m.Handler()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/metrics", nil))
	}
}
