package controller_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/controller"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/kubetest"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

// world is a cluster with a controller on it that has its own rights and no others. The test plays the Job controller and the worker.
type world struct {
	*testing.T
	admin   client.Client
	own     *kube.Cluster // the controller's
	system  string
	clock   *clock
	start   func() (stop func())
	running bool // a controller does
}

// clock is the controller's: the real one, and what a test adds to it.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead) // objects have the API server's times, so the controller's clock goes with them
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// newWorld makes a system namespace and, unless the test does so itself by start, starts a controller.
func newWorld(t *testing.T, change ...func(*controller.Options)) *world {
	t.Helper()
	config := kubetest.Start(t)
	admin, err := kube.New(config)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, admin: admin.Client, system: kubetest.Namespace(t, config), clock: &clock{}}
	w.apply("controller.yaml")
	w.apply("argocd.yaml")
	t.Cleanup(w.wipe)
	if w.own, err = admin.As(w.system, "backstay-controller"); err != nil {
		t.Fatal(err)
	}
	o := controller.Options{
		Cluster: w.own, System: w.system, Image: "backstay:test", ServiceAccount: "backstay-worker", WorkerFlags: []string{"--cluster-name", "test"},
		Now: w.clock.now, Log: slog.New(slog.NewTextHandler(logTo(t), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, c := range change {
		c(&o)
	}
	w.start = func() func() {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- controller.Run(ctx, o) }()
		w.running = true
		var once sync.Once
		stop := func() {
			once.Do(func() {
				w.running = false
				cancel()
				if err := <-ended; err != nil {
					t.Error("controller: ", err)
				}
			})
		}
		t.Cleanup(stop)
		return stop
	}
	return w
}

// wipe removes what the test made: the next one's controller would find work in it.
func (w *world) wipe() {
	ctx := context.Background() // the test's own context is over
	lists := []client.ObjectList{
		&v1alpha1.PolicyList{}, &v1alpha1.BackupList{}, &v1alpha1.RestoreList{}, &v1alpha1.RestorePointList{}, &v1alpha1.LocationList{},
		&v1alpha1.GateList{}, &v1alpha1.DrillList{},
	}
	for _, list := range lists {
		if err := w.admin.List(ctx, list); err != nil {
			w.Fatal(err)
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			w.Fatal(err)
		}
		for _, item := range items {
			o, is := item.(client.Object)
			if !is {
				w.Fatalf("%T is no object", item)
			}
			o.SetFinalizers(nil)
			if err := errors.Join(w.admin.Update(ctx, o), client.IgnoreNotFound(w.admin.Delete(ctx, o))); client.IgnoreNotFound(err) != nil {
				w.Error(err)
			}
		}
	}
}

func logTo(t *testing.T) io.Writer {
	if !testing.Verbose() {
		return io.Discard
	}
	l := &testLog{to: t.Output()}
	t.Cleanup(func() { // informers that were told to end say so a moment later
		l.mu.Lock()
		defer l.mu.Unlock()
		l.to = io.Discard
	})
	return l
}

// testLog is the log of a test, which nobody may write to once it is over.
type testLog struct {
	mu sync.Mutex
	to io.Writer
}

// Write implements io.Writer.
func (l *testLog) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to.Write(text)
}

// apply applies a manifest of deploy/rbac with the test's namespace in the place of Backstay's own.
func (w *world) apply(name string) {
	w.Helper()
	for _, document := range documents(w.T, name, w.system) {
		var u unstructured.Unstructured
		if err := yaml.Unmarshal([]byte(document), &u.Object); err != nil {
			w.Fatal(err)
		}
		switch u.GetKind() { // each test has its own
		case "ClusterRoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding":
			u.SetName(u.GetName() + "-" + w.system)
			if spec, is := u.Object["spec"].(map[string]any); is && spec["policyName"] != nil {
				spec["policyName"] = u.GetName()
			}
			w.Cleanup(func() { _ = w.admin.Delete(context.Background(), &u) }) // the test's own context is over
		}
		if err := w.admin.Create(w.Context(), &u); err != nil && !apierrors.IsAlreadyExists(err) {
			w.Fatal(err)
		}
	}
}

// freePort is below those that the kernel gives to whoever asks for any: another process would get one of them before the controller listens,
// or while it is started anew.
func freePort(t *testing.T) string {
	t.Helper()
	const first, most = 20000, 12000
	for range 100 {
		port := strconv.Itoa(first + rand.IntN(most)) //nolint:gosec // nobody is to be kept from guessing it
		if l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

func (w *world) create(o client.Object) {
	w.Helper()
	if err := w.admin.Create(w.Context(), o); err != nil {
		w.Fatal(err)
	}
}

func (w *world) get(o client.Object) error {
	return w.admin.Get(w.Context(), client.ObjectKeyFromObject(o), o)
}

const patience = time.Minute // of a machine that runs everything at once

// eventually waits until check finds no fault.
func (w *world) eventually(what string, check func() string) {
	w.Helper()
	last := ""
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) { // waits for another process
		if last = check(); last == "" {
			return
		}
	}
	w.Fatalf("%s: %s", what, last)
}

// cached gives the controller's cache, which nobody can look into, ample time to have what was written last.
func (w *world) cached() {
	w.Helper()
	time.Sleep(time.Second)
}

// seen waits until the controller has a policy in its cache: a sync that it sees before goes by none, and is not looked at again.
func (w *world) seen(p *v1alpha1.Policy) {
	w.Helper()
	if !w.running { // one that starts later begins with all that is there
		return
	}
	w.eventually("policy "+p.Name+" is seen", func() string {
		if err := w.get(p); err != nil {
			return err.Error()
		}
		if p.Status.ObservedGeneration != p.Generation {
			return fmt.Sprintf("generation %d of %d is", p.Status.ObservedGeneration, p.Generation)
		}
		return ""
	})
}

// served waits until the API server serves kinds that were defined a moment ago: a controller that finds them missing looks again after half a
// minute.
func (w *world) served(group, version string, kinds ...string) {
	w.Helper()
	for _, kind := range kinds {
		w.eventually("kind "+kind, func() string {
			list := &unstructured.UnstructuredList{}
			list.SetAPIVersion(group + "/" + version)
			list.SetKind(kind + "List")
			if err := w.admin.List(w.Context(), list, client.Limit(1)); err != nil {
				return err.Error()
			}
			return ""
		})
	}
}

// status changes an object's status, as the worker does, and tries again where the controller was faster.
func (w *world) status(o client.Object, change func()) {
	w.Helper()
	w.eventually("write status", func() string {
		if err := w.get(o); err != nil {
			return err.Error()
		}
		change()
		if err := w.admin.Status().Update(w.Context(), o); err != nil {
			return err.Error()
		}
		return ""
	})
}

// jobs lists the Jobs of a kind of work.
func (w *world) jobs(work string) []batchv1.Job {
	w.Helper()
	var all batchv1.JobList
	if err := w.admin.List(w.Context(), &all, client.InNamespace(w.system), client.MatchingLabels{controller.LabelWork: work}); err != nil {
		w.Fatal(err)
	}
	return all.Items
}

// job waits until there is one Job of a kind of work that has not ended.
func (w *world) job(work string) *batchv1.Job {
	w.Helper()
	var found *batchv1.Job
	w.eventually("job of "+work, func() string {
		found = nil
		for _, j := range w.jobs(work) {
			if len(j.Status.Conditions) == 0 && j.DeletionTimestamp.IsZero() {
				if found != nil {
					return "more than one runs"
				}
				found = &j
			}
		}
		if found == nil {
			return "there is none"
		}
		return ""
	})
	return found
}

// end ends a Job as the Job controller would.
func (w *world) end(j *batchv1.Job, conditions ...batchv1.JobCondition) {
	w.Helper()
	w.status(j, func() {
		now := metav1.NewTime(w.clock.now())
		j.Status.StartTime = &j.CreationTimestamp
		j.Status.Conditions = nil
		for i := range conditions {
			c := conditions[i]
			c.Status, c.LastTransitionTime = corev1.ConditionTrue, now
			j.Status.Conditions = append(j.Status.Conditions, c)
			if c.Type == batchv1.JobComplete {
				j.Status.CompletionTime, j.Status.Succeeded = &now, 1
			}
		}
	})
}

func (w *world) succeed(j *batchv1.Job) {
	w.Helper()
	w.end(j, batchv1.JobCondition{Type: batchv1.JobSuccessCriteriaMet}, batchv1.JobCondition{Type: batchv1.JobComplete})
}

func (w *world) fail(j *batchv1.Job, reason, message string) {
	w.Helper()
	w.end(j, batchv1.JobCondition{Type: batchv1.JobFailureTarget, Reason: reason, Message: message},
		batchv1.JobCondition{Type: batchv1.JobFailed, Reason: reason, Message: message})
}

// gone deletes a Job whose pods have ended, as the garbage collector does.
func (w *world) gone(j *batchv1.Job) {
	w.Helper()
	w.eventually("deletion of job "+j.Name, func() string {
		if err := w.get(j); err != nil {
			return ""
		}
		if j.DeletionTimestamp.IsZero() {
			return "it is not deleted"
		}
		j.Finalizers = nil
		if err := w.admin.Update(w.Context(), j); err != nil {
			return err.Error()
		}
		return ""
	})
}

func (w *world) location(namespace string) *v1alpha1.Location {
	w.Helper()
	l := &v1alpha1.Location{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "vault"},
		Spec: v1alpha1.LocationSpec{
			URL:      "s3://bucket?endpoint=s3.example",
			Password: v1alpha1.Secret{SecretKeyRef: &v1alpha1.SecretKeyRef{Name: "vault", Key: "password"}},
		},
	}
	w.create(l)
	return l
}

// event waits for an event of a reason.
func (w *world) event(namespace, reason string) {
	w.Helper()
	w.eventually("event "+reason, func() string {
		var all corev1.EventList
		if err := w.admin.List(w.Context(), &all, client.InNamespace(namespace)); err != nil {
			return err.Error()
		}
		for _, e := range all.Items {
			if e.Reason == reason {
				return ""
			}
		}
		return "there is none"
	})
}

// condition says how a condition stands: Ready=False/Denied.
func condition(all []metav1.Condition, kind string) string {
	c := meta.FindStatusCondition(all, kind)
	if c == nil {
		return "none"
	}
	return string(c.Status) + "/" + c.Reason
}

func (w *world) object(namespace string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
}

func (w *world) namespace() string {
	w.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "app-"}}
	w.create(ns)
	return ns.Name
}
