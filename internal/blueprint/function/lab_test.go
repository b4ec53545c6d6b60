package function

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/httpstream/wsstream"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/kubetest"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

// lab is a real API server without nodes: the test stands between it and its clients, and is the kubelet of all pods.
type lab struct {
	*testing.T
	cluster *kube.Cluster
	options Options
	ns      string
	node    *node

	mu    sync.Mutex
	ran   []string // pod/container: command
	log   []string // lines of calls
	saved []map[string]any
	clock time.Time
	asked int // for the time
}

// node is what a lab does with pods; each of its functions may be nil.
type node struct {
	// status is what becomes of a pod, asked each few milliseconds; nil leaves it.
	status func(pod *corev1.Pod) *corev1.PodStatus
	// log is what a container printed.
	log func(w io.Writer, pod, container string, follow bool)
	// exec is a command: what it prints, and its status.
	exec func(pod, container string, command []string, stdin io.Reader, stdout, stderr io.Writer) int
}

func newLab(t *testing.T) *lab {
	t.Helper()
	real := kubetest.Start(t)
	l := &lab{T: t, ns: kubetest.Namespace(t, real), node: &node{}, clock: time.Now()}
	base, err := url.Parse(real.Host)
	l.ok(err)
	transport, err := rest.TransportFor(real)
	l.ok(err)
	through := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(base) }, Transport: transport}
	server := httptest.NewServer(http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		switch path := request.URL.Path; {
		case strings.HasSuffix(path, "/exec"):
			l.exec(response, request)
		case strings.HasSuffix(path, "/log"):
			l.serveLog(response, request)
		default:
			through.ServeHTTP(response, request)
		}
	}))
	t.Cleanup(server.Close)
	l.cluster, err = kube.New(&rest.Config{Host: server.URL})
	l.ok(err)
	l.options = Options{Cluster: l.cluster, System: "backstay", ServiceAccount: "worker", Image: "backstay:test", Now: l.now, Poll: 5 * time.Millisecond}
	return l
}

func (l *lab) now() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	return l.clock
}

// looked waits until a function that watches the time has looked twice more: all that it compares the next time with is of now. That it ends
// before is a fault.
func (l *lab) looked(ended <-chan error) {
	l.Helper()
	asked := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.asked
	}
	for begun := asked(); asked() < begun+2; {
		select {
		case err := <-ended:
			l.Fatalf("it ended before its time: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
}

// overdue is a context whose deadline passes when it is told to, not before.
type overdue struct {
	context.Context //nolint:containedctx // it is one itself
	passed          chan struct{}
}

func newOverdue(ctx context.Context) (_ context.Context, pass func()) {
	o := overdue{ctx, make(chan struct{})}
	return o, sync.OnceFunc(func() { close(o.passed) })
}

func (o overdue) Done() <-chan struct{} { return o.passed }

func (o overdue) Err() error {
	select {
	case <-o.passed:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// watched is a client that tells of each reading of an object before it begins.
type watched struct {
	client.Client
	reads func()
}

func (w watched) Get(ctx context.Context, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
	w.reads()
	return w.Client.Get(ctx, key, o, options...)
}

// later moves the clock.
func (l *lab) later(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock = l.clock.Add(d)
}

func (l *lab) ok(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

// kubelet plays the node until the test ends.
func (l *lab) kubelet(n node) {
	l.node = &n
	if n.status == nil {
		return
	}
	ctx, stop := context.WithCancel(l.Context())
	var playing sync.WaitGroup
	playing.Go(func() {
		for kube.Pause(ctx, 5*time.Millisecond) == nil {
			l.play(ctx, n)
		}
	})
	l.Cleanup(func() { stop(); playing.Wait() })
}

func (l *lab) play(ctx context.Context, n node) {
	var pods corev1.PodList
	if l.cluster.Client.List(ctx, &pods, client.InNamespace(l.ns)) != nil {
		return
	}
	for _, pod := range pods.Items {
		if status := n.status(&pod); status != nil {
			patch, _ := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status}) // not the next one of its name
			_ = l.cluster.Client.Status().Patch(ctx, &pod, client.RawPatch(types.MergePatchType, patch))
		}
	}
}

// serveLog prints a container's log.
func (l *lab) serveLog(response http.ResponseWriter, request *http.Request) {
	path := strings.Split(request.URL.Path, "/")
	query := request.URL.Query()
	if l.node.log == nil {
		http.Error(response, "there is no log", http.StatusInternalServerError)
		return
	}
	l.node.log(response, path[len(path)-2], query.Get("container"), query.Get("follow") == "true")
}

// exec carries out a command.
func (l *lab) exec(response http.ResponseWriter, request *http.Request) {
	const protocol = "v5.channel.k8s.io"
	path, query := strings.Split(request.URL.Path, "/"), request.URL.Query()
	pod, container := path[len(path)-2], query.Get("container")
	l.mu.Lock()
	l.ran = append(l.ran, fmt.Sprintf("%s/%s: %s", pod, container, strings.Join(query["command"], " ")))
	l.mu.Unlock()
	in := wsstream.IgnoreChannel
	if query.Get("stdin") == "true" {
		in = wsstream.ReadChannel
	}
	connection := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{protocol: {Binary: true, Channels: []wsstream.ChannelType{
		in, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.IgnoreChannel,
	}}})
	_, open, err := connection.Open(response, request)
	if err != nil {
		l.Error(err)
		return
	}
	defer connection.Close()
	status := metav1.Status{Status: metav1.StatusSuccess}
	if code := l.node.exec(pod, container, query["command"], open[0], open[1], open[2]); code != 0 {
		status = metav1.Status{
			Status: metav1.StatusFailure, Reason: "NonZeroExitCode",
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: "ExitCode", Message: fmt.Sprint(code)}}},
		}
	}
	text, _ := json.Marshal(status)
	_, _ = open[3].Write(text)
}

// pod makes a pod of the application.
func (l *lab) pod(name string, status corev1.PodStatus, containers ...string) *corev1.Pod {
	l.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: l.ns, Name: name}}
	for _, c := range containers {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c, Image: "none"})
	}
	l.ok(l.cluster.Client.Create(l.Context(), p))
	p.Status = status
	l.ok(l.cluster.Client.Status().Update(l.Context(), p))
	return p
}

// ready is the status of a pod that commands may run in.
func ready() corev1.PodStatus {
	return corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
}

// call is a call of a phase.
func (l *lab) call(args map[string]any) blueprint.Call {
	return blueprint.Call{
		Args: args, Params: &blueprint.Params{}, ID: "abcde12345", Namespace: l.ns,
		Owner: metav1.OwnerReference{APIVersion: "cr.kanister.io/v1alpha1", Kind: "ActionSet", Name: "backup-1", UID: "1234-5678"},
		Log: func(line string) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.log = append(l.log, line)
		},
		Save: func(_ context.Context, output map[string]any) error {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.saved = append(l.saved, output)
			return nil
		},
	}
}

// run runs a function by its name.
func (l *lab) run(ctx context.Context, name string, c blueprint.Call) (map[string]any, error) {
	l.Helper()
	for _, f := range All(l.options) {
		if f.Name == name {
			return f.Run(ctx, c)
		}
	}
	l.Fatalf("there is no function %s", name)
	return nil, nil
}

// pods are the names of the pods that there are.
func (l *lab) pods() []string {
	l.Helper()
	var pods corev1.PodList
	l.ok(l.cluster.Client.List(l.Context(), &pods, client.InNamespace(l.ns)))
	var names []string
	for _, p := range pods.Items {
		names = append(names, p.Name)
	}
	return names
}

// running is the status of a pod whose containers run.
func running(pod *corev1.Pod) *corev1.PodStatus {
	status := &corev1.PodStatus{Phase: corev1.PodRunning}
	for _, c := range pod.Spec.Containers {
		state := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
		status.ContainerStatuses = append(status.ContainerStatuses, corev1.ContainerStatus{Name: c.Name, State: state})
	}
	return status
}

// exited is the status of a pod whose containers have ended.
func exited(pod *corev1.Pod, code int32) *corev1.PodStatus {
	status := &corev1.PodStatus{Phase: corev1.PodSucceeded}
	if code != 0 {
		status.Phase = corev1.PodFailed
	}
	for _, c := range pod.Spec.Containers {
		state := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}
		status.ContainerStatuses = append(status.ContainerStatuses, corev1.ContainerStatus{Name: c.Name, State: state})
	}
	return status
}

// life moves pods from pending to running to ended.
func life(code int32) func(pod *corev1.Pod) *corev1.PodStatus {
	return func(pod *corev1.Pod) *corev1.PodStatus {
		switch pod.Status.Phase {
		case corev1.PodRunning:
			return exited(pod, code)
		case corev1.PodPending:
			return running(pod)
		}
		return nil
	}
}
