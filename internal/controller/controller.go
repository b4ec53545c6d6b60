// Package controller reconciles the kinds of backstay.io. It moves no data and reads no location: it starts Jobs that run this program,
// and keeps the status of objects. All it knows is in the cluster: killed at any instant, the next one goes on.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/gitops"
	"github.com/backstay/backstay/internal/kube"
)

// Options are what the controller needs. Cluster, System, Image, Now and Log must be said.
type Options struct {
	Cluster        *kube.Cluster
	System         string // Backstay's own namespace, in which Jobs run
	Image          string // of worker Jobs
	PullPolicy     corev1.PullPolicy
	PullSecrets    []corev1.LocalObjectReference
	ServiceAccount string   // of worker Jobs; of System
	WorkerFlags    []string // after what tells a worker its work
	JobsAtOnce     int      // of one kind of work; those that come later wait. Default 2
	MaxJobs        int      // of all kinds, but for those that a sync waits for; 0 for no bound
	// JobsPerNamespace bounds the Jobs of one kind for objects of one namespace beside Backstay's own; 0 for no bound.
	JobsPerNamespace int
	MaxShards        int // pods that share the work of a run, where its policy asks for that. Default 8
	// ForeignActionSets are namespaces whose ActionSets another runs: Kanister, or K10.
	ForeignActionSets []string
	LocationEvery     time.Duration
	TidyEvery         time.Duration // both: after the end of the last such Job. Default an hour
	LeaderElect       bool
	Metrics           string // host:port that serves metrics; empty for none
	Health            string // host:port that serves /healthz and /readyz; empty for none
	Webhook           string // host:port at which the API server asks before syncs; empty for none
	Now               func() time.Time
	Log               *slog.Logger
}

const (
	defaultJobsAtOnce = 2
	defaultEvery      = time.Hour
	leaseName         = "backstay-controller"
	eventSource       = "backstay"
	definitionsLook   = 30 * time.Second // for definitions of others' kinds that are installed later
)

// controller is what all reconcilers share.
type controller struct {
	Options
	client  client.Client // reads Backstay's kinds and worker Jobs from a cache
	direct  client.Reader // reads at the API server
	events  record.EventRecorder
	counted *counted
}

// Run reconciles until ctx ends. An error is fault.ErrUnavailable where leadership or the API server was lost.
func Run(ctx context.Context, o Options) error {
	if err := o.limits(); err != nil {
		return err
	}
	if o.LocationEvery == 0 {
		o.LocationEvery = defaultEvery
	}
	if o.TidyEvery == 0 {
		o.TidyEvery = defaultEvery
	}
	log := logr.FromSlogHandler(o.Log.Handler())
	crlog.SetLogger(log)
	m, err := manager.New(o.Cluster.Config, o.manager(log))
	if err != nil {
		return fault.Wrap("start the controller", fault.ErrUnavailable, err, "")
	}
	c := &controller{Options: o, client: m.GetClient(), direct: m.GetAPIReader(), events: m.GetEventRecorderFor(eventSource), counted: &counted{}}
	for _, add := range []func(manager.Manager) error{
		c.addBackups, c.addRuns, c.addRestores, c.addLocations, c.addRestorePoints, c.addPolicies, c.addActionSets, c.addTidy, c.addFarewell,
		c.addDeployments, c.addWebhook, c.addRecords, c.addGates, c.addFluxGates,
		c.addDrills, c.addDrillPlans,
	} {
		if err := add(m); err != nil {
			return fmt.Errorf("start the controller: %w", err)
		}
	}
	if err := errors.Join(m.AddHealthzCheck("ping", healthz.Ping), m.AddReadyzCheck("ping", healthz.Ping)); err != nil {
		return fmt.Errorf("start the controller: %w", err)
	}
	gauges := newGauges(c)
	if err := metrics.Registry.Register(gauges); err != nil {
		return fmt.Errorf("start the controller: %w", err)
	}
	defer metrics.Registry.Unregister(gauges)
	return fault.Wrap("run the controller", fault.ErrUnavailable, m.Start(ctx), "")
}

// whenServed begins a watch of a kind that is another's when the API server serves it and lets us read it, be it later: a controller that
// cannot list what it watches would end the whole process.
func (c *controller) whenServed(m manager.Manager, what string, ready func(context.Context) error, watch func(manager.Manager) error) error {
	return m.Add(manager.RunnableFunc(func(ctx context.Context) error { // of the leader
		told := ""
		for {
			err := ready(ctx)
			if err == nil {
				return begin(ctx, m, watch)
			}
			if text := err.Error(); text != told {
				told = text
				c.Log.Info("a kind is not worked on yet", "kind", what, "reason", text)
			}
			if kube.Pause(ctx, definitionsLook) != nil {
				return nil
			}
		}
	}))
}

// manager keeps the cache small: of Jobs only those that the controller made, of namespaces its own, of Applications little, and of objects no
// managed fields. Everything else that is read is read at the API server.
func (o Options) manager(log logr.Logger) manager.Options {
	anyName := true // the names of controllers must be unique in a process, and tests run several
	return manager.Options{
		Scheme: o.Cluster.Client.Scheme(),
		Logger: log,
		Cache: cache.Options{
			DefaultTransform: trim,
			ByObject: map[client.Object]cache.ByObject{
				&batchv1.Job{}:      {Namespaces: map[string]cache.Config{o.System: {}}, Label: hasWork()},
				&corev1.Namespace{}: {Field: fields.OneTermEqualSelector(metav1.ObjectNameField, o.System)},
			},
		},
		LeaderElection:                o.LeaderElect,
		LeaderElectionID:              leaseName,
		LeaderElectionNamespace:       o.System,
		LeaderElectionReleaseOnCancel: true,
		Metrics:                       metricsserver.Options{BindAddress: addressOr0(o.Metrics)},
		HealthProbeBindAddress:        addressOr0(o.Health),
		Controller:                    config.Controller{SkipNameValidation: &anyName},
	}
}

// trim leaves of what is cached what is read.
func trim(o any) (any, error) {
	if u, is := o.(*unstructured.Unstructured); is && u.GroupVersionKind() == gitops.ApplicationKind() {
		gitops.Trim(u)
		return u, nil
	}
	return cache.TransformStripManagedFields()(o)
}

func hasWork() labels.Selector {
	s, err := labels.Parse(LabelWork)
	if err != nil { // a constant that is no label is a bug that every test finds
		return labels.Nothing()
	}
	return s
}

// addressOr0 is what controller-runtime takes: 0 for none.
func addressOr0(address string) string {
	if address == "" {
		return "0"
	}
	return address
}
