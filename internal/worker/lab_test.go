package worker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/database"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/gitops"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/kubetest"
	"github.com/backstay/backstay/internal/kube/volume"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/policy"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

const clusterName = "here"

// lab is a real API server and a vault in memory.
type lab struct {
	*testing.T
	config  *rest.Config
	cluster *kube.Cluster // with all rights
	system  string
	store   *memory.Store

	functions    []blueprint.Function
	repositories func(Repository) (RepositorySource, error)
	engine       *engine           // that deploys applications; nil for none
	deployed     *point.Deployment // what points say of it
	history      *history          // of what it deploys
	tools        database.Runner   // of databases, here and in every pod

	unsigned error // why evidence cannot be signed

	mu      sync.Mutex
	opened  error // why the vault cannot be opened
	created int   // vaults
	ticks   atomic.Int64
}

// newLab has a Location named main, whose vault is there or not.
func newLab(t *testing.T) *lab {
	t.Helper()
	config := kubetest.Start(t)
	cluster, err := kube.New(config, blueprint.AddToScheme)
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{T: t, config: config, cluster: cluster, system: kubetest.Namespace(t, config)}
	began := time.Now()
	l.store = memory.New(func() time.Time { return began.Add(time.Duration(l.ticks.Add(1)) * time.Microsecond) })
	l.create(&corev1.Secret{ObjectMeta: l.named("vault"), StringData: map[string]string{"password": "secret"}})
	l.create(&v1alpha1.Location{
		ObjectMeta: l.named("main"),
		Spec: v1alpha1.LocationSpec{
			URL: "s3://bucket/vault", Password: v1alpha1.Secret{SecretKeyRef: &v1alpha1.SecretKeyRef{Name: "vault", Key: "password"}},
		},
	})
	return l
}

func (l *lab) named(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: l.system, Name: name}
}

func (l *lab) create(o client.Object) {
	l.Helper()
	if err := l.cluster.Client.Create(l.Context(), o); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = l.cluster.Client.Delete(context.Background(), o) }) // tidying sees those of every test
}

func (l *lab) get(name string, o client.Object) {
	l.Helper()
	if err := l.cluster.Client.Get(l.Context(), client.ObjectKey{Namespace: l.system, Name: name}, o); err != nil {
		l.Fatal(err)
	}
}

// worker is a new process.
func (l *lab) worker() *Worker { return l.workerOf(l.cluster, open{l.store}) }

func (l *lab) workerOf(c *kube.Cluster, s Store) *Worker { return l.workerAt(c, s, time.Now) }

func (l *lab) workerAt(c *kube.Cluster, s Store, now func() time.Time) *Worker {
	if l.deployed != nil {
		s = revised{s, l.deployed}
	}
	return New(Options{
		Deployment: func(name string) (gitops.Deployment, error) {
			if strings.HasPrefix(name, v1alpha1.EngineArgoCD+"/"+l.system+"/") { // what the API server has of Argo CD
				return gitops.Open(c.Client, name)
			}
			return l.engine.open(name, nil)
		},
		Git:     func(_ context.Context, r Repository, _ ...string) (History, error) { return l.history.reached(r) },
		Cluster: c, System: l.system, Name: clusterName, Now: now, Log: slog.New(slog.DiscardHandler),
		Open: func(_ context.Context, _ volume.Location, create bool) (Store, error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if errors.Is(l.opened, fault.ErrNotFound) && create {
				l.opened = nil
				l.created++
			}
			return s, l.opened
		},
		Signs:      func(context.Context) error { return l.unsigned },
		Repository: l.repositories,
		Tools:      l.tools,
		InPod:      func(*kube.Cluster, string, string, string) database.Runner { return l.tools },
		Maintain:   func(context.Context, Store) error { return nil },
		Functions:  func(*kube.Cluster) []blueprint.Function { return l.functions },
		Retention: func(r *v1alpha1.Retention) (policy.Retention, error) {
			if r == nil {
				return policy.Retention{}, nil
			}
			return policy.Retention{Last: r.Last}, nil
		},
	})
}

// application makes a namespace with a ConfigMap.
func (l *lab) application() string {
	l.Helper()
	name := kubetest.Namespace(l.T, l.config)
	l.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "settings"}, Data: map[string]string{"colour": "blue"}})
	return name
}

// backup makes a Backup of a namespace, of a run of its name.
func (l *lab) backup(name, namespace string, change ...func(*v1alpha1.Backup)) {
	l.Helper()
	b := &v1alpha1.Backup{
		ObjectMeta: l.named(name),
		Spec:       v1alpha1.BackupSpec{Location: "main", Application: v1alpha1.Applications{Namespaces: []string{namespace}}},
	}
	b.Labels = map[string]string{v1alpha1.LabelRun: name}
	for _, c := range change {
		c(b)
	}
	l.create(b)
}

// backedUp runs a Backup to its end.
func (l *lab) backedUp(name, namespace string, change ...func(*v1alpha1.Backup)) v1alpha1.BackupStatus {
	l.Helper()
	l.backup(name, namespace, change...)
	if err := l.worker().Backup(l.Context(), l.system, name); err != nil {
		l.Fatal(err)
	}
	return l.statusOf(name)
}

func (l *lab) statusOf(backup string) v1alpha1.BackupStatus {
	l.Helper()
	var b v1alpha1.Backup
	l.get(backup, &b)
	return b.Status
}

func (l *lab) points() []point.Point {
	l.Helper()
	points, err := l.store.Points(context.Background(), point.Filter{})
	if err != nil {
		l.Fatal(err)
	}
	return points
}

// restorePoints are the objects that stand for points, by the points' ids.
func (l *lab) restorePoints() map[string]v1alpha1.RestorePoint {
	l.Helper()
	var all v1alpha1.RestorePointList
	if err := l.cluster.Client.List(l.Context(), &all, client.InNamespace(l.system)); err != nil {
		l.Fatal(err)
	}
	byPoint := map[string]v1alpha1.RestorePoint{}
	for _, p := range all.Items {
		byPoint[p.Spec.Point] = p
	}
	return byPoint
}

// step is from one write after which a process is killed to the next: each, but for those who look for races.
func step() int64 {
	if testing.Short() {
		return 6
	}
	return 1
}

// doomed is a process that is killed: after so many writes to the API server and the vault, nothing that it does takes effect.
type doomed struct {
	left atomic.Int64
	kill context.CancelFunc
}

var errKilled = errors.New("killed")

// spend counts a write that took effect; the last one kills the process.
func (d *doomed) spend() {
	if d.left.Add(-1) == 0 {
		d.kill()
	}
}

func (d *doomed) dead() bool { return d.left.Load() <= 0 }

// killedAfter runs work in a process that is killed after n writes. It reports whether it came so far.
func (l *lab) killedAfter(n int64, work func(context.Context, *Worker) error) bool {
	l.Helper()
	ctx, kill := context.WithCancel(l.Context())
	defer kill()
	d := &doomed{kill: kill}
	d.left.Store(n)
	config := rest.CopyConfig(l.config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return doomedCalls{next, d} })
	cluster, err := kube.New(config, blueprint.AddToScheme)
	if err != nil {
		l.Fatal(err)
	}
	w := l.workerOf(cluster, doomedStore{l.store, d})
	w.Deployment = func(name string) (gitops.Deployment, error) { return l.engine.open(name, d) }
	err = work(ctx, w)
	if !d.dead() && err != nil {
		l.Fatalf("not killed, and failed: %v", err)
	}
	return d.dead()
}

// doomedCalls are what a process asks an API server. A dead one is refused everything: if it got no answer, it would ask again for as long as
// there is time to put things right.
type doomedCalls struct {
	next http.RoundTripper
	d    *doomed
}

func (c doomedCalls) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.d.dead() {
		const refusal = `{"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403}`
		return &http.Response{
			StatusCode: http.StatusForbidden, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(refusal)),
			Request: r,
		}, nil
	}
	response, err := c.next.RoundTrip(r)
	if err == nil && r.Method != http.MethodGet {
		c.d.spend()
	}
	return response, err
}

type doomedStore struct {
	*memory.Store
	d *doomed
}

func (s doomedStore) Close(context.Context) error { return nil }

func (s doomedStore) Begin(ctx context.Context, subject point.Subject, policy string) (point.Draft, error) {
	if s.d.dead() {
		return nil, errKilled
	}
	draft, err := s.Store.Begin(ctx, subject, policy)
	return doomedDraft{draft, s.d}, err
}

type doomedDraft struct {
	point.Draft
	d *doomed
}

func (d doomedDraft) At(moment time.Time) {
	if dated, is := d.Draft.(point.Dated); is {
		dated.At(moment)
	}
}

func (d doomedDraft) Deployed(by *point.Deployment, revisions map[string]string) {
	if draft, is := d.Draft.(point.Revised); is {
		draft.Deployed(by, revisions)
	}
}

func (d doomedDraft) Commit(ctx context.Context) (*point.Receipt, error) {
	if d.d.dead() {
		return nil, errKilled
	}
	receipt, err := d.Draft.Commit(ctx)
	d.d.spend()
	return receipt, err
}

// open is a vault in memory as an open one.
type open struct{ *memory.Store }

func (open) Close(context.Context) error { return nil }
