package controller

import (
	"context"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/backstay/backstay/api/v1alpha1"
)

// counted counts the runs that ended while this process led, by policy and result.
type counted struct {
	mu   sync.Mutex
	runs map[runKey]int
}

type runKey struct{ namespace, policy, result string }

func (c *counted) add(p *v1alpha1.Policy, result string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.runs == nil {
		c.runs = map[runKey]int{}
	}
	c.runs[runKey{p.Namespace, p.Name, result}]++
}

// gauges is what the cluster knows, read from the cache when somebody asks: it is right after a restart, too.
type gauges struct{ *controller }

// scrapeTime bounds what a scrape may take.
const scrapeTime = 10 * time.Second

// Describe implements prometheus.Collector. It says nothing: the series depend on what is there.
func (gauges) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (g gauges) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	g.collectRuns(to)
	g.collectPolicies(ctx, to)
	g.collectBackups(ctx, to)
	g.collectPoints(ctx, to)
	g.collectJobs(ctx, to)
}

func send(to chan<- prometheus.Metric, name, help string, value float64, labels ...string) {
	sendAs(to, prometheus.GaugeValue, name, help, value, labels...)
}

// sendAs sends a sample; labels are names and values by turns.
func sendAs(to chan<- prometheus.Metric, kind prometheus.ValueType, name, help string, value float64, labels ...string) {
	var names, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	m, err := prometheus.NewConstMetric(prometheus.NewDesc(name, help, names, nil), kind, value, values...)
	if err != nil {
		m = prometheus.NewInvalidMetric(prometheus.NewDesc(name, help, names, nil), err)
	}
	to <- m
}

func (g gauges) collectRuns(to chan<- prometheus.Metric) {
	g.counted.mu.Lock()
	defer g.counted.mu.Unlock()
	for key, n := range g.counted.runs {
		sendAs(to, prometheus.CounterValue, "backstay_policy_runs_total", "Runs of the policy that ended, by result, since this process started.",
			float64(n), "namespace", key.namespace, "policy", key.policy, "result", key.result)
	}
}

func (g gauges) collectPolicies(ctx context.Context, to chan<- prometheus.Metric) {
	var all v1alpha1.PolicyList
	if g.client.List(ctx, &all) != nil {
		return // the cache is not filled: no sample is better than a wrong one
	}
	for i := range all.Items {
		p := &all.Items[i]
		if len(applicationsOf(p)) == 0 {
			continue
		}
		labels := []string{"namespace", p.Namespace, "policy", p.Name}
		var next, last, good float64
		if p.Status.NextRun != nil {
			next = float64(p.Status.NextRun.Unix())
		}
		if p.Status.LastRun != nil {
			last = float64(p.Status.LastRun.Unix())
		}
		if p.Status.LastGood != nil {
			good = float64(p.Status.LastGood.Unix())
		}
		send(to, "backstay_policy_next_run_timestamp_seconds", "When the policy runs next; 0 for never.", next, labels...)
		send(to, "backstay_policy_last_run_timestamp_seconds", "When the last run began; 0 for never.", last, labels...)
		send(to, "backstay_policy_last_success_timestamp_seconds", "When a run last ended with every point complete; 0 for never.", good, labels...)
		send(to, "backstay_policy_applications", "Applications that the policy selects.", float64(p.Status.Applications), labels...)
	}
}

func (g gauges) collectBackups(ctx context.Context, to chan<- prometheus.Metric) {
	var all v1alpha1.BackupList
	if g.client.List(ctx, &all) != nil {
		return
	}
	phases := map[v1alpha1.Phase]int{v1alpha1.PhasePending: 0}
	for i := range all.Items {
		phases[all.Items[i].Status.Phase]++
	}
	for phase, n := range phases {
		if phase != "" {
			send(to, "backstay_backups", "Backups that are there, by phase; Pending is the queue.", float64(n), "phase", string(phase))
		}
	}
}

func (g gauges) collectPoints(ctx context.Context, to chan<- prometheus.Metric) {
	var all v1alpha1.RestorePointList
	if g.client.List(ctx, &all) != nil {
		return
	}
	type placeKey struct{ namespace, location, state string }
	type appKey struct{ namespace, policy, application string }
	points, newest := map[placeKey]int{}, map[appKey]int64{}
	for i := range all.Items {
		p := &all.Items[i]
		points[placeKey{p.Namespace, p.Spec.Location, p.Spec.State}]++
		key := appKey{p.Namespace, p.Spec.Policy, p.Spec.Application}
		if p.Spec.State == stateComplete {
			newest[key] = max(newest[key], p.Spec.Time.Unix())
		}
	}
	for key, n := range points {
		send(to, "backstay_restore_points", "Restore points in the location.", float64(n),
			"namespace", key.namespace, "location", key.location, "state", key.state)
	}
	for key, at := range newest {
		send(to, "backstay_application_last_success_timestamp_seconds", "When the newest complete point of the application was made.", float64(at),
			"namespace", key.namespace, "policy", key.policy, "application", key.application)
	}
}

func (g gauges) collectJobs(ctx context.Context, to chan<- prometheus.Metric) {
	var all batchv1.JobList
	if g.client.List(ctx, &all) != nil {
		return
	}
	type jobKey struct{ work, state string }
	jobs := map[jobKey]int{}
	for _, work := range []string{workBackup, workRestore, workLocation, workTidy} {
		jobs[jobKey{work, "running"}] = 0
	}
	for i := range all.Items {
		name := map[state]string{running: "running", succeeded: "succeeded", failed: "failed"}[outcomeOf(&all.Items[i]).state]
		jobs[jobKey{all.Items[i].Labels[LabelWork], name}]++
	}
	for key, n := range jobs {
		send(to, "backstay_jobs", "Jobs of workers that are there, by what they do and how they stand.", float64(n), "work", key.work, "state", key.state)
	}
}
