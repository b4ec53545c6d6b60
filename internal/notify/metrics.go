package notify

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/backstay/backstay/internal/point"
)

// Metrics is what Prometheus is told. It keeps the last run of each policy and makes the series anew at every scrape, so those of
// repositories and policies that are gone disappear. Safe for concurrent use.
type Metrics struct {
	build string

	mu       sync.Mutex
	policies map[string]*policyMetrics
	gickup   gickupCounts
}

// policyMetrics is what is known of a policy.
type policyMetrics struct {
	settings    PolicySettings
	next        time.Time
	running     bool
	last        *point.Run
	lastSuccess time.Time
	requests    map[sourceKey]float64 // since the start of the process
	good        map[repositoryKey]time.Time
	proofs      []point.ProofRun // of the last run that said how far points are proven
	lastDrill   time.Time
}

type repositoryKey struct{ host, owner, name string }

type sourceKey struct{ subject, kind string }

// PolicySettings is what metrics say of a policy before it runs.
type PolicySettings struct {
	Name         string
	Number       int // among the policies, from 0; gickup's config_number
	Sources      int
	Destinations int
}

// NewMetrics makes metrics of a build, as "0.2.0".
func NewMetrics(build string) *Metrics {
	return &Metrics{build: build, policies: map[string]*policyMetrics{}, gickup: newGickupCounts()}
}

// SetPolicies says which policies there are. What is known of others is dropped, and what is said of others from then on ignored: a
// run may end after its policy was taken out.
func (m *Metrics) SetPolicies(all []PolicySettings) {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := map[string]*policyMetrics{}
	for _, settings := range all {
		p := m.policies[settings.Name]
		if p == nil {
			p = &policyMetrics{}
		}
		p.settings = settings
		kept[settings.Name] = p
	}
	m.policies = kept
}

// SetNext says when a policy runs next; the zero time is never.
func (m *Metrics) SetNext(policy string, next time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.policies[policy]; p != nil {
		p.next = next
	}
}

// Started counts the start of a run.
func (m *Metrics) Started(policy string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gickup.started++
	if p := m.policies[policy]; p != nil {
		p.running = true
	}
}

// Ended takes the report of a run. It must not be changed afterwards.
func (m *Metrics) Ended(run point.Run) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.policies[run.Policy]
	if p != nil && run.Proofs != nil {
		p.proofs = run.Proofs
	}
	if run.Kind == point.RunDrill {
		if p != nil {
			p.lastDrill = run.Finished
		}
		return
	}
	m.gickup.count(run)
	if p != nil {
		p.ended(&run)
	}
}

func (p *policyMetrics) ended(run *point.Run) {
	p.running = false
	p.last = run
	if run.State == point.Complete {
		p.lastSuccess = run.Finished
	}
	requests := map[sourceKey]float64{}
	for _, s := range run.Sources {
		key := sourceKey{s.Subject.Name, s.Type}
		requests[key] = p.requests[key] + float64(s.Requests)
	}
	p.requests = requests
	p.good = goodCopies(*run, p.good)
}

// goodCopies says when the newest good copy of each repository was captured; a run without a word on that leaves what was known.
func goodCopies(run point.Run, before map[repositoryKey]time.Time) map[repositoryKey]time.Time {
	good := map[repositoryKey]time.Time{}
	for _, s := range run.Sources {
		for _, r := range s.Repositories {
			key := repositoryKey{r.Host, r.Owner, r.Name}
			switch {
			case r.LastGood != nil:
				good[key] = *r.LastGood
			case r.State != point.Skipped: // nobody wants a copy of those
				good[key] = before[key]
			}
		}
	}
	return good
}

// Describe implements prometheus.Collector. It says nothing: the series depend on what ran.
func (*Metrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := newSeries(to)
	s.gauge("backstay_build_info", "Which build this is.", 1, "version", m.build)
	for _, name := range slices.Sorted(maps.Keys(m.policies)) {
		m.policies[name].collect(s, name)
	}
	m.collectLocations(s)
	m.collectGickup(s)
	s.flush()
}

func (p *policyMetrics) collect(s *series, name string) {
	p.collectProofs(s, name)
	s.gauge("backstay_policy_running", "1 while the policy runs.", number(p.running), "policy", name)
	s.time("backstay_policy_next_run_timestamp_seconds", "When the policy runs next; 0 for never.", p.next, "policy", name)
	s.time(
		"backstay_policy_last_success_timestamp_seconds",
		"When the last complete run ended since this process started; 0 for none.", p.lastSuccess, "policy", name,
	)
	if p.last == nil {
		return
	}
	run := p.last
	s.time("backstay_policy_last_run_timestamp_seconds", "When the last run ended.", run.Finished, "policy", name)
	s.gauge(
		"backstay_policy_run_duration_seconds", "How long the last run took.", run.Finished.Sub(run.Started).Seconds(), "policy", name,
	)
	for _, state := range []point.State{point.Complete, point.Incomplete, point.Failed} {
		s.gauge(
			"backstay_policy_run_state", "1 for the state of the last run.", number(run.State == state), "policy", name, "state", string(state),
		)
	}
	s.gauge("backstay_policy_problems", "What went wrong with the last run as a whole.", float64(len(run.Problems)), "policy", name)
	s.gauge("backstay_policy_warnings", "What somebody must see to, though the run is good.", float64(len(run.Warnings)), "policy", name)
	s.gauge("backstay_policy_points_expired", "Points that the last run expired.", float64(run.Expired), "policy", name)
	if run.Storage != nil {
		s.gauge("backstay_policy_stored_bytes", "Bytes that the last run wrote.", float64(run.Storage.StoredBytes), "policy", name)
	}
	for _, source := range run.Sources {
		p.collectSource(s, name, source)
	}
	for r, good := range p.good {
		s.time(
			"backstay_repository_last_success_timestamp_seconds", "When the newest good copy was captured; 0 for never.", good,
			"host", r.host, "owner", r.owner, "repository", r.name,
		)
	}
}

// collectProofs tells how far points are proven, once a run has said so.
func (p *policyMetrics) collectProofs(s *series, policy string) {
	if p.proofs == nil {
		return
	}
	lacking := 0
	for _, proof := range p.proofs {
		labels := []string{"policy", policy, "subject", proof.Subject.Name}
		var proven time.Time
		if proof.Proven != nil {
			proven = *proof.Proven
		}
		s.time("backstay_point_proven_timestamp_seconds", "When the newest proven point of the subject was made; 0 for none.", proven, labels...)
		s.gauge("backstay_point_drill_good", "0 if the last drill of the subject failed, or there was none.", number(proof.Drilled != nil && !proof.Failed), labels...)
		s.gauge("backstay_point_drill_restore_seconds", "How long the last drill of the subject that was good took to restore the point; 0 for none.", proof.RestoreSeconds, labels...)
		if proof.Lacking {
			lacking++
		}
	}
	s.gauge("backstay_policy_unproven_subjects", "Subjects without a point that is as lately proven as the policy asks for.", float64(lacking), "policy", policy)
	s.time("backstay_policy_last_drill_timestamp_seconds", "When drills ended last since this process started; 0 for never.", p.lastDrill, "policy", policy)
}

func (p *policyMetrics) collectSource(s *series, policy string, source point.SourceRun) {
	labels := []string{"policy", policy, "subject", source.Subject.Name, "type", source.Type}
	s.gauge("backstay_source_complete", "1 if the last run captured all of the source.", number(source.State == point.Complete), labels...)
	s.gauge("backstay_source_listed_repositories", "Repositories that the source has, before filters.", float64(source.Listed), labels...)
	s.gauge("backstay_source_duration_seconds", "How long the last run took over the source.", source.Seconds, labels...)
	s.gauge("backstay_source_alarms", "Alarms that the last run raised.", float64(len(source.Alarms)), labels...)
	s.gauge("backstay_source_problems", "What went wrong with the source as a whole.", float64(len(source.Problems)), labels...)
	s.counter(
		"backstay_forge_requests_total", "Requests made since this process started.",
		p.requests[sourceKey{source.Subject.Name, source.Type}], labels...,
	)
	if source.Remaining != nil {
		s.gauge("backstay_forge_requests_remaining", "Requests that the forge still allows.", float64(*source.Remaining), labels...)
	}
	if l := source.Ledger; l != nil {
		for _, of := range []struct {
			state point.State
			parts int
		}{
			{point.Stored, l.Stored}, {point.Carried, l.Carried}, {point.Skipped, l.Skipped}, {point.Failed, l.Failed}, {point.Vanished, l.Vanished},
		} {
			s.gauge(
				"backstay_source_parts", "Parts of the last point by state, as its ledger has them.", float64(of.parts),
				append(slices.Clip(labels), "state", string(of.state))...,
			)
		}
		s.gauge("backstay_source_parts_unchanged", "Of the stored parts, those that were unchanged.", float64(l.Unchanged), labels...)
		s.gauge("backstay_source_bytes", "Size of the last point.", float64(l.Bytes), labels...)
	}
}

// collectLocations tells what vaults take: each is used by several policies, and the last run knows best.
func (m *Metrics) collectLocations(s *series) {
	latest := map[string]*point.Run{}
	for _, p := range m.policies {
		if p.last == nil || p.last.Storage == nil {
			continue
		}
		at := p.last.Storage.Location
		if latest[at] == nil || latest[at].Finished.Before(p.last.Finished) {
			latest[at] = p.last
		}
	}
	for _, at := range slices.Sorted(maps.Keys(latest)) {
		storage := latest[at].Storage
		if storage.TotalBytes > 0 {
			s.gauge("backstay_location_bytes", "What the vault takes.", float64(storage.TotalBytes), "location", at)
		}
		if storage.Points > 0 {
			s.gauge("backstay_location_points", "Points in the vault.", float64(storage.Points), "location", at)
		}
	}
}

// series collects the series of a scrape. Two that would have the same labels become one: names that strangers choose, made valid
// and short, may become the same, and two policies may have one repository.
type series struct {
	to    chan<- prometheus.Metric
	desc  map[string]*prometheus.Desc
	found map[seriesKey]*sample
	order []seriesKey
}

type seriesKey struct{ name, labels string }

type sample struct {
	kind   prometheus.ValueType
	value  float64
	labels []string
}

func newSeries(to chan<- prometheus.Metric) *series {
	return &series{to: to, desc: map[string]*prometheus.Desc{}, found: map[seriesKey]*sample{}}
}

// gauge adds a value with labels, names and values in turn. Of two with the same labels the lower one is told: it is the one to
// look after.
func (s *series) gauge(name, help string, value float64, labels ...string) {
	s.add(prometheus.GaugeValue, name, help, value, labels)
}

func (s *series) counter(name, help string, value float64, labels ...string) {
	s.add(prometheus.CounterValue, name, help, value, labels)
}

func (s *series) time(name, help string, t time.Time, labels ...string) {
	value := 0.0
	if !t.IsZero() {
		value = float64(t.UnixMilli()) / 1000
	}
	s.gauge(name, help, value, labels...)
}

func (s *series) add(kind prometheus.ValueType, name, help string, value float64, labels []string) {
	names, values := make([]string, 0, len(labels)/2), make([]string, 0, len(labels)/2)
	for pair := range slices.Chunk(labels, 2) {
		names, values = append(names, pair[0]), append(values, label(pair[1]))
	}
	if s.desc[name] == nil {
		s.desc[name] = prometheus.NewDesc(name, help, names, nil)
	}
	key := seriesKey{name, strings.Join(values, "\xff")} // a byte that no valid label has
	if before := s.found[key]; before != nil {
		before.value = min(before.value, value)
		return
	}
	s.found[key] = &sample{kind, value, values}
	s.order = append(s.order, key)
}

func (s *series) flush() {
	for _, key := range s.order {
		one := s.found[key]
		s.to <- prometheus.MustNewConstMetric(s.desc[key.name], one.kind, one.value, one.labels...)
	}
}

// maxLabel is the longest label value, in bytes.
const maxLabel = 256

// label makes a label value of what a stranger may have written.
func label(v string) string {
	return cut(strings.ToValidUTF8(v, string(utf8.RuneError)), maxLabel)
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
