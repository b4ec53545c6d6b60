package function

import (
	"fmt"
	"io"
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

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

func TestKubeTask(t *testing.T) {
	l := newLab(t)
	l.kubelet(node{status: life(0), log: func(w io.Writer, _, _ string, _ bool) {
		fmt.Fprintf(w, "hello\n%s {\"key\":\"tag\",\"value\":\"v1\"}\n", marker)
	}})
	got, err := l.run(t.Context(), "KubeTask", l.call(map[string]any{"image": "tools", "command": []any{"dump"}}))
	l.ok(err)
	if !maps.Equal(got, map[string]any{"tag": "v1"}) {
		t.Errorf("output %v", got)
	}
	if left := l.pods(); len(left) > 0 {
		t.Errorf("pods are left: %q", left)
	}
}
