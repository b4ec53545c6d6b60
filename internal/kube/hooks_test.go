package kube_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
	"k8s.io/apimachinery/pkg/util/httpstream/wsstream"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/kubetest"
)

// ward is a real API server whose pods seem to run: the test stands between it and its clients, and carries out commands in pods.
type ward struct {
	*testing.T
	cluster *kube.Cluster
	ns      string
	socket  bool // it speaks WebSocket, else SPDY

	mu      sync.Mutex
	ran     []string // pod/container: command
	refuses int      // so many commands more are cut off
}

func newWard(t *testing.T, socket bool) *ward {
	t.Helper()
	real := kubetest.Start(t)
	w := &ward{T: t, socket: socket, ns: kubetest.Namespace(t, real)}
	base, err := url.Parse(real.Host)
	w.ok(err)
	transport, err := rest.TransportFor(real)
	w.ok(err)
	through := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(base) }, Transport: transport}
	server := httptest.NewServer(http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if strings.HasSuffix(request.URL.Path, "/exec") {
			w.exec(response, request)
			return
		}
		through.ServeHTTP(response, request)
	}))
	t.Cleanup(server.Close)
	w.cluster = with(t, &rest.Config{Host: server.URL})
	return w
}

func (w *ward) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// exec carries out a command: "fail" complains and fails, "hang" does not end, everything else is well.
func (w *ward) exec(response http.ResponseWriter, request *http.Request) {
	path := strings.Split(request.URL.Path, "/")
	query := request.URL.Query()
	if wsstream.IsWebSocketRequest(request) != w.socket {
		http.Error(response, "that is not spoken here", http.StatusBadRequest)
		return
	}
	w.mu.Lock()
	refused := w.refuses > 0
	if refused {
		w.refuses--
	} else {
		w.ran = append(w.ran, fmt.Sprintf("%s/%s: %s", path[len(path)-2], query.Get("container"), strings.Join(query["command"], " ")))
	}
	w.mu.Unlock()
	if refused {
		http.Error(response, "not now", http.StatusServiceUnavailable)
		return
	}
	complaints, status, done := w.streams(response, request)
	if status == nil {
		return
	}
	defer done()
	switch query["command"][0] {
	case "hang":
		<-request.Context().Done()
	case "fail":
		_, _ = complaints.Write([]byte(strings.Repeat("x", 5000) + "\n\x1b[31mthe disk\xff is full\n"))
		w.end(status, metav1.Status{
			Status: metav1.StatusFailure, Reason: "NonZeroExitCode",
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: "ExitCode", Message: "3"}}},
		})
	default:
		w.end(status, metav1.Status{Status: metav1.StatusSuccess})
	}
}

func (w *ward) end(to io.Writer, status metav1.Status) {
	text, _ := json.Marshal(status)
	_, _ = to.Write(text)
}

// streams opens those for complaints and for the command's end.
func (w *ward) streams(response http.ResponseWriter, request *http.Request) (complaints, status io.Writer, done func()) {
	if w.socket {
		const protocol = "v5.channel.k8s.io"
		connection := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{protocol: {Binary: true, Channels: []wsstream.ChannelType{
			wsstream.IgnoreChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.IgnoreChannel,
		}}})
		_, open, err := connection.Open(response, request)
		if err != nil {
			w.Error(err)
			return nil, nil, nil
		}
		return open[2], open[3], func() { _ = connection.Close() }
	}
	if _, err := httpstream.Handshake(request, response, []string{"v4.channel.k8s.io"}); err != nil {
		w.Error(err)
		return nil, nil, nil
	}
	opened := make(chan httpstream.Stream, 3)
	connection := spdy.NewResponseUpgrader().UpgradeResponse(response, request, func(s httpstream.Stream, _ <-chan struct{}) error {
		opened <- s
		return nil
	})
	if connection == nil {
		return nil, nil, nil
	}
	open := map[string]httpstream.Stream{}
	for range 3 {
		s := <-opened
		open[s.Headers().Get(corev1.StreamType)] = s
	}
	return open[corev1.StreamTypeStderr], open[corev1.StreamTypeError], func() {
		for _, s := range open {
			_ = s.Close()
		}
		<-connection.CloseChan()
	}
}

// pod makes a pod whose containers run, of these, the first one by default.
func (w *ward) pod(name string, phase corev1.PodPhase, containers ...string) {
	w.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: name, Labels: map[string]string{"app": "db"}}}
	for _, c := range containers {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c, Image: "none"})
	}
	w.ok(w.cluster.Client.Create(w.Context(), p))
	p.Status.Phase = phase
	if phase == corev1.PodRunning {
		for _, c := range containers {
			state := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
			p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: c, State: state})
		}
	}
	w.ok(w.cluster.Client.Status().Update(w.Context(), p))
}

func (w *ward) application(hooks ...v1alpha1.Hook) kube.Application {
	return kube.Application{Name: "shop", Namespaces: []string{w.ns}, Capture: v1alpha1.Capture{Hooks: hooks}}
}

// hook is one of the pods that have a label.
func hook(app string, before, after []string) v1alpha1.Hook {
	return v1alpha1.Hook{Selector: metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}, Before: before, After: after}
}

// did returns what ran since it was asked last, sorted.
func (w *ward) did() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	ran := w.ran
	w.ran = nil
	slices.Sort(ran)
	return ran
}

func (w *ward) expect(what string, want ...string) {
	w.Helper()
	if got := w.did(); !slices.Equal(got, want) {
		w.Errorf("%s: ran %q, want %q", what, got, want)
	}
}

func TestRestAndRelease(t *testing.T) {
	for name, socket := range map[string]bool{"WebSocket": true, "SPDY": false} {
		t.Run(name, func(t *testing.T) {
			w := newWard(t, socket)
			w.pod("db-0", corev1.PodRunning, "main", "side")
			w.pod("db-1", corev1.PodRunning, "main", "side")
			w.pod("db-2", corev1.PodPending, "main", "side")
			first, all := hook("db", []string{"freeze", "a b"}, []string{"thaw"}), hook("db", []string{"flush"}, nil)
			all.EachPod, all.Container = true, "side"
			a := w.application(first, all)
			var resting []v1alpha1.RestingPod
			var told []int // how many rested, each time
			record := func(pods []v1alpha1.RestingPod) error {
				resting, told = pods, append(told, len(pods))
				return nil
			}
			w.ok(w.cluster.Rest(t.Context(), a, record))
			w.expect("at rest", "db-0/main: freeze a b", "db-0/side: flush", "db-1/side: flush")
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			w.ok(w.cluster.Release(ended, a, resting, record))
			w.expect("released, though interrupted", "db-0/main: thaw")
			if !slices.Equal(told, []int{1, 3, 1, 0}) {
				t.Errorf("on record: %v", told)
			}
		})
	}
}

func TestHookIsOnRecordBeforeItRuns(t *testing.T) {
	w := newWard(t, true)
	w.pod("db-0", corev1.PodRunning, "main")
	refused := errors.New("no status today")
	err := w.cluster.Rest(t.Context(), w.application(hook("db", []string{"freeze"}, nil)), func([]v1alpha1.RestingPod) error { return refused })
	if !errors.Is(err, refused) {
		t.Errorf("%v", err)
	}
	w.expect("not on record")
}

func TestHooksThatFail(t *testing.T) {
	w := newWard(t, true)
	w.pod("db-0", corev1.PodRunning, "main")
	hanging, bad := hook("db", []string{"hang"}, nil), hook("db", nil, nil)
	hanging.Timeout = "3s" // the command must have begun by then
	a := w.application(hook("db", []string{"fail"}, []string{"thaw"}), hook("web", []string{"freeze"}, nil), hanging, bad, hook("db", []string{"flush"}, []string{"fail"}))
	var resting []v1alpha1.RestingPod
	record := func(pods []v1alpha1.RestingPod) error { resting = pods; return nil }
	err := w.cluster.Rest(t.Context(), a, record)
	if err == nil {
		t.Fatal("nothing failed")
	}
	for _, want := range []string{
		"hook 1 in pod " + w.ns + "/db-0: fail ended with status 3: [31mthe disk? is full", "hook 2: no pod runs with labels app=web",
		"hook 3 in pod " + w.ns + "/db-0: hang did not end within 3s", "hook 4 in pod " + w.ns + "/db-0: its command is empty",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if len(err.Error()) > 1500 {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
	w.expect("at rest", "db-0/main: fail", "db-0/main: flush", "db-0/main: hang")
	err = w.cluster.Release(t.Context(), a, resting, record)
	if err == nil || !strings.Contains(err.Error(), "hook 5 in pod") {
		t.Errorf("released: %v", err)
	}
	w.expect("released", "db-0/main: fail", "db-0/main: thaw")
	if len(resting) != 1 || resting[0].Hook != 4 {
		t.Errorf("still at rest: %v", resting)
	}
}

func TestReleaseWaitsForTheWayAndNotForThePod(t *testing.T) {
	w := newWard(t, true)
	w.pod("db-0", corev1.PodRunning, "main")
	a := w.application(hook("db", []string{"freeze"}, []string{"thaw"}))
	var resting []v1alpha1.RestingPod
	record := func(pods []v1alpha1.RestingPod) error { resting = pods; return nil }
	w.ok(w.cluster.Rest(t.Context(), a, record))
	w.mu.Lock()
	w.refuses = 1
	w.mu.Unlock()
	w.ok(w.cluster.Release(t.Context(), a, resting, record))
	w.expect("released in the end", "db-0/main: freeze", "db-0/main: thaw")

	w.ok(w.cluster.Rest(t.Context(), a, record))
	var pod corev1.Pod
	w.ok(w.cluster.Client.Get(t.Context(), client.ObjectKey{Namespace: w.ns, Name: "db-0"}, &pod))
	w.ok(w.cluster.Client.Delete(t.Context(), &pod, client.GracePeriodSeconds(0)))
	w.mu.Lock()
	w.refuses = 1000
	w.mu.Unlock()
	err := w.cluster.Release(t.Context(), a, resting, record)
	if !errors.Is(err, fault.ErrNotFound) || !strings.Contains(err.Error(), "ended while it was at rest") || len(resting) != 0 {
		t.Errorf("%v; at rest: %v", err, resting)
	}
}
