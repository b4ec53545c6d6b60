package notify

import (
	"maps"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/backstay/backstay/internal/point"
)

// gickupCounts are gickup's counters, since the start of the process.
type gickupCounts struct {
	started, complete float64
	seconds           float64 // of complete jobs
	sources           map[string]float64
	destinations      map[string]float64
}

func newGickupCounts() gickupCounts {
	return gickupCounts{sources: map[string]float64{}, destinations: map[string]float64{}}
}

// count counts a run. As with gickup a job that ended is complete; but a source or a destination is so only where nothing failed.
func (c *gickupCounts) count(run point.Run) {
	c.complete++
	c.seconds += run.Finished.Sub(run.Started).Seconds()
	failed := map[string]bool{}
	for _, s := range run.Sources {
		if s.State == point.Complete {
			c.sources[s.Type]++
		}
		for _, r := range s.Repositories {
			for _, d := range r.Deliveries {
				failed[d.Type] = failed[d.Type] || d.State != point.Stored
			}
		}
	}
	for destination, bad := range failed {
		if !bad {
			c.destinations[destination]++
		}
	}
}

// collectGickup gives gickup's metrics, with its names and labels, so that its dashboards and alerts go on. The values are
// honest: gickup_repo_success is 0 where a copy failed.
func (m *Metrics) collectGickup(s *series) {
	c := m.gickup
	sources, destinations := 0, 0
	for _, p := range m.policies {
		sources += p.settings.Sources
		destinations += p.settings.Destinations
	}
	s.gauge("gickup_sources", "The count of sources configured", float64(sources))
	s.gauge("gickup_destinations", "The count of destinations configured", float64(destinations))
	s.counter("gickup_jobs_started", "The count of jobs started since process startup", c.started)
	s.counter("gickup_jobs_complete", "The count of jobs completed since process startup", c.complete)
	s.to <- prometheus.MustNewConstSummary(
		prometheus.NewDesc("gickup_job_duration", "The duration of jobs completed since process startup", nil, nil),
		uint64(c.complete), c.seconds, nil,
	)
	for _, source := range slices.Sorted(maps.Keys(c.sources)) {
		s.counter("gickup_sources_complete", "The count of source backups completed", c.sources[source], "source_name", source)
	}
	for _, d := range slices.Sorted(maps.Keys(c.destinations)) {
		s.counter(
			"gickup_destinations_complete", "The count of destinations to which a backup was written", c.destinations[d], "destination_type", d,
		)
	}
	for _, name := range slices.Sorted(maps.Keys(m.policies)) {
		if p := m.policies[name]; p.last != nil {
			collectGickupRun(s, *p.last, strconv.Itoa(p.settings.Number))
		}
	}
}

func collectGickupRun(s *series, run point.Run, config string) {
	discovered := map[string]float64{}
	for _, source := range run.Sources {
		discovered[source.Type] += 0 // also a source that has none is told of
		for _, r := range source.Repositories {
			if r.State != point.Skipped {
				discovered[source.Type]++
			}
			collectGickupCopies(s, r)
		}
	}
	for _, source := range slices.Sorted(maps.Keys(discovered)) {
		s.gauge(
			"gickup_repos_discovered", "The count of repositories found", discovered[source], "source_name", source, "config_number", config,
		)
	}
}

func collectGickupCopies(s *series, r point.RepositoryRun) {
	for _, d := range r.Deliveries {
		labels := []string{"hoster", r.Host, "repository", r.Name, "owner", r.Owner, "type", d.Type, "path", d.Place}
		s.gauge("gickup_repo_success", "1 if the repository was copied, 0 if that failed", number(d.State == point.Stored), labels...)
		s.gauge("gickup_repo_time", "The seconds that copying the repository took", d.Seconds, labels...)
	}
}
