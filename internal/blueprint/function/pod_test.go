package function

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

const podName = "backstay-abcde12345"

// task is a call of KubeTask.
func (l *lab) task() blueprint.Call {
	return l.call(map[string]any{"image": "tools", "command": []any{"dump"}})
}

// hello prints a line and an output.
func hello(w io.Writer, _, _ string, _ bool) {
	fmt.Fprintf(w, "hello\n%s {\"key\":\"tag\",\"value\":\"v1\"}\n", marker)
}

func TestNewPod(t *testing.T) {
	o := Options{System: "backstay", ServiceAccount: "worker"}
	spec := corev1.PodSpec{Containers: []corev1.Container{{Name: container, Image: "tools", Command: []string{"dump"}}}}
	c := blueprint.Call{ID: "abcde12345", Namespace: "shop", Owner: metav1.OwnerReference{Kind: "ActionSet", Name: "backup-1", UID: "u-1"}}
	c.Params = &blueprint.Params{
		PodLabels: map[string]string{"team": "a", "set": "yes"}, PodAnnotations: map[string]string{"note": "a"},
		PodOverride: map[string]any{"containers": []any{map[string]any{"name": "container", "imagePullPolicy": "Always"}}},
	}
	c.Args = map[string]any{
		"podLabels": map[string]any{"team": "b", labelPhase: "forged"}, "podAnnotations": "{note: b}",
		"podOverride": map[string]any{
			"restartPolicy": "Always", "priorityClassName": "low",
			"containers": []any{
				map[string]any{"name": "container", "imagePullPolicy": "Never", "env": []any{map[string]any{"name": "A", "value": "1"}}},
				map[string]any{"name": "side", "image": "side"},
			},
		},
	}
	pod, err := o.newPod(c, spec)
	if err != nil {
		t.Fatal(err)
	}
	if pod.Name != podName || pod.Namespace != "shop" || len(pod.OwnerReferences) != 1 || pod.OwnerReferences[0].UID != "u-1" {
		t.Errorf("%s/%s of %v", pod.Namespace, pod.Name, pod.OwnerReferences)
	}
	want := map[string]string{"team": "b", "set": "yes", labelPhase: "abcde12345", blueprint.LabelActionSet: "u-1"}
	if !maps.Equal(pod.Labels, want) || pod.Annotations["note"] != "b" {
		t.Errorf("labels %v, annotations %v", pod.Labels, pod.Annotations)
	}
	main := pod.Spec.Containers[0]
	if main.Name != container || main.Image != "tools" || main.ImagePullPolicy != corev1.PullAlways || len(main.Env) != 1 || len(pod.Spec.Containers) != 2 {
		t.Errorf("containers %+v", pod.Spec.Containers)
	}
	if pod.Spec.RestartPolicy != corev1.RestartPolicyNever || pod.Spec.PriorityClassName != "low" || pod.Spec.ServiceAccountName != "" {
		t.Errorf("restart %s, priority %s, account %q", pod.Spec.RestartPolicy, pod.Spec.PriorityClassName, pod.Spec.ServiceAccountName)
	}
	c.Args = map[string]any{"namespace": "backstay"}
	if pod, err = o.newPod(c, spec); err != nil || pod.Spec.ServiceAccountName != "worker" || len(pod.OwnerReferences) != 0 {
		t.Errorf("in Backstay's own namespace: %v, account %q, owners %v", err, pod.Spec.ServiceAccountName, pod.OwnerReferences)
	}
	for _, override := range []any{"a string", map[string]any{"containers": "all"}, []any{}} {
		c.Args = map[string]any{"podOverride": override}
		if _, err = o.newPod(c, spec); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("podOverride %v: %v", override, err)
		}
	}
}

func TestKubeTask(t *testing.T) {
	l := newLab(t)
	l.kubelet(node{status: life(0), log: hello})
	got, err := l.run(t.Context(), "KubeTask", l.task())
	l.ok(err)
	if !maps.Equal(got, map[string]any{"tag": "v1"}) || !slices.Equal(l.log, []string{"hello"}) {
		t.Errorf("output %v, log %q", got, l.log)
	}
	if left := l.pods(); len(left) > 0 {
		t.Errorf("pods are left: %q", left)
	}
}

func TestPodStandsUntilItsEndIsSaved(t *testing.T) {
	l := newLab(t)
	l.kubelet(node{status: life(0), log: hello})
	c := l.task()
	var after []func(context.Context) error
	c.After = func(do func(context.Context) error) { after = append(after, do) }
	_, err := l.run(t.Context(), "KubeTask", c)
	l.ok(err)
	if there := l.pods(); !slices.Equal(there, []string{podName}) {
		t.Fatalf("pods %q", there)
	}
	l.ok(after[0](t.Context()))
	l.ok(after[0](t.Context()))
	if left := l.pods(); len(left) > 0 {
		t.Errorf("pods are left: %q", left)
	}
}

func TestKubeTaskFails(t *testing.T) {
	l := newLab(t)
	l.kubelet(node{status: life(3), log: func(w io.Writer, _, _ string, _ bool) {
		io.WriteString(w, strings.Repeat("progress ", 1000)+"\ndisk full\n")
	}})
	_, err := l.run(t.Context(), "KubeTask", l.task())
	if !errors.Is(err, fault.ErrRefused) || !strings.Contains(err.Error(), "container container ended with status 3: progress") ||
		!strings.HasSuffix(err.Error(), "disk full") || len(err.Error()) > 1000 {
		t.Errorf("%v", err)
	}
	if left := l.pods(); len(left) > 0 {
		t.Errorf("pods are left: %q", left)
	}
}

func waiting(reason, message string) corev1.PodStatus {
	state := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	return corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{Name: container, Image: "tools", State: state}}}
}

func TestPodThatCannotStart(t *testing.T) {
	unschedulable := corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "0/3 nodes are available",
	}}}
	tests := []struct {
		name   string
		status corev1.PodStatus
		after  time.Duration
		want   string
	}{
		{"no such image", waiting("ErrImagePull", "not found"), imageGrace, "image tools: ErrImagePull not found"},
		{"a Secret is missing", waiting("CreateContainerConfigError", `secret "x" not found`), imageGrace, `CreateContainerConfigError secret "x" not found`},
		{"no node", unschedulable, scheduleGrace, "no node takes it: 0/3 nodes are available"},
		{"a bad name", waiting("InvalidImageName", ""), 0, "image tools: InvalidImageName"},
	}
	l := newLab(t)
	var status atomic.Pointer[corev1.PodStatus]
	l.kubelet(node{status: func(*corev1.Pod) *corev1.PodStatus { return status.Load() }})
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			status.Store(&test.status)
			ended := make(chan error)
			go func() {
				_, err := l.run(t.Context(), "KubeTask", l.task())
				ended <- err
			}()
			if test.after > 0 {
				l.looked(ended) // the time is asked for once something hinders the pod
				l.later(test.after - time.Second)
				select {
				case err := <-ended:
					t.Fatalf("it ended a second early: %v", err)
				case <-time.After(50 * time.Millisecond):
				}
				l.later(time.Second)
			}
			if err := <-ended; !errors.Is(err, fault.ErrRefused) || !strings.Contains(err.Error(), "it cannot start: ") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if left := l.pods(); len(left) > 0 {
				t.Errorf("pods are left: %q", left)
			}
		})
	}
}

func TestTaskIsTakenOver(t *testing.T) {
	l := newLab(t)
	reading, goOn := make(chan struct{}, 1), make(chan struct{})
	l.kubelet(node{
		status: func(pod *corev1.Pod) *corev1.PodStatus {
			select {
			case <-goOn:
				return exited(pod, 0)
			default:
				return running(pod)
			}
		},
		log: func(w io.Writer, pod, c string, follow bool) {
			hello(w, pod, c, follow)
			w.(http.Flusher).Flush()
			select {
			case reading <- struct{}{}:
			default: // the log is read again and again until the pod is seen to have ended
			}
			<-goOn
		},
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := l.run(ctx, "KubeTask", l.task())
		ended <- err
	}()
	<-reading
	for saved := false; !saved; time.Sleep(5 * time.Millisecond) {
		l.mu.Lock()
		saved = len(l.saved) > 0
		l.mu.Unlock()
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("stopped: %v", err)
	}
	if len(l.saved) != 1 || !maps.Equal(l.saved[0], map[string]any{"tag": "v1"}) {
		t.Errorf("saved %v", l.saved)
	}
	var pod corev1.Pod
	l.ok(l.cluster.Client.Get(t.Context(), client.ObjectKey{Namespace: l.ns, Name: podName}, &pod))
	close(goOn)
	c := l.task()
	c.After = func(func(context.Context) error) {}
	got, err := l.run(t.Context(), "KubeTask", c)
	l.ok(err)
	if !maps.Equal(got, map[string]any{"tag": "v1"}) {
		t.Errorf("output %v", got)
	}
	uid := pod.UID
	l.ok(l.cluster.Client.Get(t.Context(), client.ObjectKey{Namespace: l.ns, Name: podName}, &pod))
	if pod.UID != uid {
		t.Error("it was another pod")
	}
}

func TestPodGoesWhenNobodyComesBack(t *testing.T) {
	l := newLab(t)
	var there atomic.Pointer[func()] // what happens once there is a pod
	l.kubelet(node{status: func(*corev1.Pod) *corev1.PodStatus {
		(*there.Load())()
		return nil
	}})
	for name, end := range map[string]func() context.Context{
		"a deadline": func() context.Context {
			ctx, pass := newOverdue(t.Context())
			there.Store(&pass)
			return ctx
		},
		"called off": func() context.Context {
			ctx, cancel := context.WithCancelCause(t.Context())
			off := func() { cancel(fault.New("", fault.ErrRefused, "the ActionSet was deleted", "")) }
			there.Store(&off)
			return ctx
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := l.run(end(), "KubeTask", l.task()); err == nil {
				t.Error("it passed")
			}
			if left := l.pods(); len(left) > 0 {
				t.Errorf("pods are left: %q", left)
			}
		})
	}
}

func TestPodOfSomebodyElse(t *testing.T) {
	l := newLab(t)
	l.pod(podName, ready(), "main")
	_, err := l.run(t.Context(), "KubeTask", l.task())
	if !errors.Is(err, fault.ErrExists) {
		t.Errorf("%v", err)
	}
	if there := l.pods(); len(there) != 1 {
		t.Errorf("it was deleted")
	}
}

func TestLogThatBreaks(t *testing.T) {
	l := newLab(t)
	var reads atomic.Int32
	l.kubelet(node{
		status: func(pod *corev1.Pod) *corev1.PodStatus {
			if reads.Load() > 2 {
				return exited(pod, 0)
			}
			return running(pod)
		},
		log: func(w io.Writer, pod, c string, follow bool) {
			io.WriteString(w, "first\nsecond\n")
			switch reads.Add(1) {
			case 1:
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			case 2: // as some nodes end it when they rotate it
			default:
				hello(w, pod, c, follow)
			}
		},
	})
	got, err := l.run(t.Context(), "KubeTask", l.task())
	l.ok(err)
	if !maps.Equal(got, map[string]any{"tag": "v1"}) || !slices.Equal(l.log, []string{"first", "second", "hello"}) {
		t.Errorf("output %v, log %q", got, l.log)
	}
}

func TestPodIsDeletedMeanwhile(t *testing.T) {
	l := newLab(t)
	reading := make(chan struct{}, 10)
	l.kubelet(node{status: running, log: func(w io.Writer, _, _ string, _ bool) {
		w.(http.Flusher).Flush()
		reading <- struct{}{}
		<-t.Context().Done() // the node does not tell
	}})
	ended := make(chan error)
	go func() {
		_, err := l.run(t.Context(), "KubeTask", l.task())
		ended <- err
	}()
	<-reading
	l.ok(l.cluster.Client.Delete(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: l.ns, Name: podName}}, client.GracePeriodSeconds(0)))
	if err := <-ended; !errors.Is(err, fault.ErrRefused) || !strings.Contains(err.Error(), "somebody deleted the pod") {
		t.Errorf("%v", err)
	}
}
