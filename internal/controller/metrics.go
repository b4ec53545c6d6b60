package controller

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

// counted counts what ended while this process led: runs, by policy and result, and actions, by name and result.
type counted struct {
	mu      sync.Mutex
	runs    map[runKey]int
	actions map[actionKey]spent
	gates   map[gateKey]spent
}

type (
	runKey    struct{ namespace, policy, result string }
	actionKey struct{ action, result string }
	gateKey   struct{ phase, reason string }
	spent     struct {
		count uint64
		time  time.Duration
	}
)

// mostActions is how many names of actions are counted by name: users choose them.
const mostActions = 100

func (c *counted) add(p *v1alpha1.Policy, result string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.runs == nil {
		c.runs = map[runKey]int{}
	}
	c.runs[runKey{p.Namespace, p.Name, result}]++
}

func (c *counted) act(action, result string, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.actions == nil {
		c.actions = map[actionKey]spent{}
	}
	key := actionKey{action, result}
	if _, known := c.actions[key]; !known && len(c.actions) >= mostActions {
		key.action = "other"
	}
	was := c.actions[key]
	c.actions[key] = spent{was.count + 1, was.time + took}
}

func (c *counted) gate(phase v1alpha1.GatePhase, reason string, waited time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gates == nil {
		c.gates = map[gateKey]spent{}
	}
	was := c.gates[gateKey{string(phase), reason}]
	c.gates[gateKey{string(phase), reason}] = spent{was.count + 1, was.time + waited}
}

// gauges is what the cluster knows, read from the cache when somebody asks: it is right after a restart, too.
type gauges struct {
	*controller
	described map[string]*prometheus.Desc
}

// Names of series.
const (
	seriesRuns         = "backstay_policy_runs_total"
	seriesNext         = "backstay_policy_next_run_timestamp_seconds"
	seriesLast         = "backstay_policy_last_run_timestamp_seconds"
	seriesGood         = "backstay_policy_last_success_timestamp_seconds"
	seriesApplications = "backstay_policy_applications"
	seriesBackups      = "backstay_backups"
	seriesPoints       = "backstay_restore_points"
	seriesNewest       = "backstay_application_last_success_timestamp_seconds"
	seriesProven       = "backstay_application_proven_timestamp_seconds"
	seriesRestoreTime  = "backstay_application_drill_restore_seconds"
	seriesUnproven     = "backstay_policy_unproven_applications"
	seriesDrills       = "backstay_drills"
	seriesJobs         = "backstay_jobs"
	seriesActions      = "backstay_action_duration_seconds"
	seriesGates        = "backstay_gates"
	seriesGateWait     = "backstay_gate_wait_seconds"
)

func newGauges(c *controller) *gauges {
	g := &gauges{c, map[string]*prometheus.Desc{}}
	for _, d := range []struct {
		name, help string
		labels     []string
	}{
		{seriesRuns, "Runs of the policy that ended, by result, since this process started.", []string{"namespace", "policy", "result"}},
		{seriesNext, "When the policy runs next; 0 for never.", []string{"namespace", "policy"}},
		{seriesLast, "When the last run began; 0 for never.", []string{"namespace", "policy"}},
		{seriesGood, "When a run last ended with every point complete; 0 for never.", []string{"namespace", "policy"}},
		{seriesApplications, "Applications that the policy selects.", []string{"namespace", "policy"}},
		{seriesBackups, "Backups that are there, by phase; Pending is the queue.", []string{"phase"}},
		{seriesPoints, "Restore points in the location.", []string{"namespace", "location", "state"}},
		{seriesNewest, "When the newest complete point of the application was made.", []string{"namespace", "policy", "application"}},
		{seriesProven, "When the newest proven point of the application was made; 0 for none.", []string{"namespace", "policy", "application"}},
		{seriesRestoreTime, "How long the application took to run in its last drill that came so far.", []string{"namespace", "policy", "application"}},
		{seriesUnproven, "Applications without a point that is as lately proven as the policy asks for.", []string{"namespace", "policy"}},
		{seriesDrills, "Drills that are there, by phase; Incomplete are those that proved a point bad.", []string{"phase"}},
		{seriesJobs, "Jobs of workers that are there, by what they do and how they stand.", []string{"work", "state"}},
		{seriesActions, "Actions of ActionSets that ended, and the time that their Jobs took, since this process started.", []string{"action", "result"}},
		{seriesGates, "Gates of the last week: syncs, by what became of them and why.", []string{"phase", "reason"}},
		{seriesGateWait, "Gates that ended, and how long syncs waited at them, since this process started.", []string{"phase", "reason"}},
	} {
		g.described[d.name] = prometheus.NewDesc(d.name, d.help, d.labels, nil)
	}
	return g
}

// scrapeTime bounds what a scrape may take.
const scrapeTime = 10 * time.Second

// Describe implements prometheus.Collector.
func (g *gauges) Describe(to chan<- *prometheus.Desc) {
	for _, d := range g.described {
		to <- d
	}
}

// Collect implements prometheus.Collector. What cannot be read gives no sample, which is better than a wrong one.
func (g *gauges) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	g.collectRuns(to)
	g.collectActions(to)
	g.collectGates(ctx, to)
	g.collectPolicies(ctx, to)
	g.collectBackups(ctx, to)
	g.collectPoints(ctx, to)
	g.collectDrills(ctx, to)
	g.collectJobs(ctx, to)
}

func (g *gauges) send(to chan<- prometheus.Metric, name string, value float64, labels ...string) {
	kind := prometheus.GaugeValue
	if name == seriesRuns {
		kind = prometheus.CounterValue
	}
	m, err := prometheus.NewConstMetric(g.described[name], kind, value, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(g.described[name], err)
	}
	to <- m
}

func (g *gauges) collectRuns(to chan<- prometheus.Metric) {
	g.counted.mu.Lock()
	defer g.counted.mu.Unlock()
	for key, n := range g.counted.runs {
		g.send(to, seriesRuns, float64(n), key.namespace, key.policy, key.result)
	}
}

func (g *gauges) collectActions(to chan<- prometheus.Metric) {
	g.counted.mu.Lock()
	defer g.counted.mu.Unlock()
	for key, s := range g.counted.actions {
		g.summary(to, seriesActions, s, key.action, key.result)
	}
}

func (g *gauges) summary(to chan<- prometheus.Metric, name string, s spent, labels ...string) {
	m, err := prometheus.NewConstSummary(g.described[name], s.count, s.time.Seconds(), nil, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(g.described[name], err)
	}
	to <- m
}

func (g *gauges) collectGates(ctx context.Context, to chan<- prometheus.Metric) {
	g.counted.mu.Lock()
	for key, s := range g.counted.gates {
		g.summary(to, seriesGateWait, s, key.phase, key.reason)
	}
	g.counted.mu.Unlock()
	var all v1alpha1.GateList
	if g.client.List(ctx, &all, client.UnsafeDisableDeepCopy) != nil {
		return
	}
	gates := map[gateKey]int{{string(v1alpha1.GateWaiting), "Waiting"}: 0}
	for i := range all.Items {
		if s := &all.Items[i].Status; s.Phase != "" {
			gates[gateKey{string(s.Phase), s.Reason}]++
		}
	}
	for key, n := range gates {
		g.send(to, seriesGates, float64(n), key.phase, key.reason)
	}
}

func (g *gauges) collectPolicies(ctx context.Context, to chan<- prometheus.Metric) {
	var all v1alpha1.PolicyList
	if g.client.List(ctx, &all, client.UnsafeDisableDeepCopy) != nil {
		return
	}
	for i := range all.Items {
		p := &all.Items[i]
		if len(applicationsOf(p)) == 0 {
			continue
		}
		for name, at := range map[string]*metav1.Time{seriesNext: p.Status.NextRun, seriesLast: p.Status.LastRun, seriesGood: p.Status.LastGood} {
			value := 0.0
			if at != nil {
				value = float64(at.Unix())
			}
			g.send(to, name, value, p.Namespace, p.Name)
		}
		g.send(to, seriesApplications, float64(p.Status.Applications), p.Namespace, p.Name)
		if p.Spec.Drill != nil && p.Spec.Drill.ProvenWithin != "" {
			g.send(to, seriesUnproven, float64(p.Status.Unproven), p.Namespace, p.Name)
		}
	}
}

func (g *gauges) collectBackups(ctx context.Context, to chan<- prometheus.Metric) {
	var all v1alpha1.BackupList
	if g.client.List(ctx, &all, client.UnsafeDisableDeepCopy) != nil {
		return
	}
	phases := map[v1alpha1.Phase]int{v1alpha1.PhasePending: 0}
	for i := range all.Items {
		phases[all.Items[i].Status.Phase]++
	}
	for phase, n := range phases {
		if phase != "" {
			g.send(to, seriesBackups, float64(n), string(phase))
		}
	}
}

func (g *gauges) collectPoints(ctx context.Context, to chan<- prometheus.Metric) {
	var all v1alpha1.RestorePointList
	if g.client.List(ctx, &all, client.UnsafeDisableDeepCopy) != nil {
		return
	}
	type placeKey struct{ namespace, location, state string }
	type appKey struct{ namespace, policy, application string }
	points, newest, proven, drilled := map[placeKey]int{}, map[appKey]int64{}, map[appKey]int64{}, map[appKey]*v1alpha1.PointProof{}
	for i := range all.Items {
		p := &all.Items[i]
		points[placeKey{p.Namespace, p.Spec.Location, p.Spec.State}]++
		if p.Spec.State == stateComplete {
			key := appKey{p.Namespace, p.Spec.Policy, p.Spec.Application}
			newest[key] = max(newest[key], p.Spec.Time.Unix())
			proven[key] = max(proven[key], 0)
			if provenPoint(p) {
				proven[key] = max(proven[key], p.Spec.Time.Unix())
			}
			if proof := p.Spec.Proof; proof != nil && proof.RestoreTook != "" && (drilled[key] == nil || drilled[key].Time.Before(&proof.Time)) {
				drilled[key] = proof
			}
		}
	}
	for key, at := range proven {
		g.send(to, seriesProven, float64(at), key.namespace, key.policy, key.application)
	}
	for key, proof := range drilled {
		if took, err := time.ParseDuration(proof.RestoreTook); err == nil {
			g.send(to, seriesRestoreTime, took.Seconds(), key.namespace, key.policy, key.application)
		}
	}
	for key, n := range points {
		g.send(to, seriesPoints, float64(n), key.namespace, key.location, key.state)
	}
	for key, at := range newest {
		g.send(to, seriesNewest, float64(at), key.namespace, key.policy, key.application)
	}
}

func (g *gauges) collectDrills(ctx context.Context, to chan<- prometheus.Metric) {
	var all v1alpha1.DrillList
	if g.client.List(ctx, &all, client.UnsafeDisableDeepCopy) != nil {
		return
	}
	phases := map[v1alpha1.Phase]int{v1alpha1.PhasePending: 0}
	for i := range all.Items {
		phases[all.Items[i].Status.Phase]++
	}
	for phase, n := range phases {
		if phase != "" {
			g.send(to, seriesDrills, float64(n), string(phase))
		}
	}
}

func (g *gauges) collectJobs(ctx context.Context, to chan<- prometheus.Metric) {
	var all batchv1.JobList
	if g.client.List(ctx, &all, client.UnsafeDisableDeepCopy) != nil {
		return
	}
	type jobKey struct{ work, state string }
	jobs := map[jobKey]int{}
	for _, work := range []string{workBackup, workRestore, workLocation, workActions, workDrill, workTidy} {
		jobs[jobKey{work, "running"}] = 0
	}
	for i := range all.Items {
		name := map[state]string{running: "running", succeeded: "succeeded", failed: "failed"}[outcomeOf(&all.Items[i]).state]
		jobs[jobKey{all.Items[i].Labels[LabelWork], name}]++
	}
	for key, n := range jobs {
		g.send(to, seriesJobs, float64(n), key.work, key.state)
	}
}
