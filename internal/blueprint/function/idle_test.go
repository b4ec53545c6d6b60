package function

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/fault"
)

func TestWorkInPodOfOurOwn(t *testing.T) {
	l := newLab(t)
	l.claim("data", "1Gi")
	yes := int64(0)
	left := &corev1.Pod{ // by a run that was killed
		ObjectMeta: metav1.ObjectMeta{Namespace: l.ns, Name: "backstay-abcde12345", Labels: map[string]string{labelPhase: "abcde12345"}},
		Spec:       corev1.PodSpec{TerminationGracePeriodSeconds: &yes, Containers: []corev1.Container{{Name: container, Image: "old"}}},
	}
	l.ok(l.cluster.Client.Create(t.Context(), left))
	l.kubelet(node{
		status: func(*corev1.Pod) *corev1.PodStatus {
			s := ready()
			s.ContainerStatuses = []corev1.ContainerStatus{{Name: container, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
			return &s
		},
		exec: func(_, _ string, _ []string, stdin io.Reader, stdout, stderr io.Writer) int {
			script := make([]byte, len("echo secret\n"))
			if _, err := io.ReadFull(stdin, script); err != nil || string(script) != "echo secret\n" {
				t.Errorf("script %q, %v", script, err)
			}
			_, _ = io.WriteString(stdout, "out")
			_, _ = io.WriteString(stderr, "complaint")
			return 12
		},
	})
	ctx, cancel := context.WithDeadline(t.Context(), l.now().Add(time.Hour))
	defer cancel()
	c := l.call(map[string]any{"namespace": l.ns, "podLabels": map[string]any{"team": "shop"}})
	var pod corev1.Pod
	own := ownPod{namespace: l.ns, image: l.options.Image, volumes: map[string]string{"data": "/data"}}
	err := l.options.inPod(ctx, c, own, func(ctx context.Context, run shell) error {
		l.ok(l.cluster.Client.Get(ctx, client.ObjectKeyFromObject(left), &pod))
		var out, complaint strings.Builder
		status, err := run(ctx, "echo secret\n", &out, &complaint)
		if status != 12 || err != nil || out.String() != "out" || complaint.String() != "complaint" {
			t.Errorf("status %d, %v, said %q and %q", status, err, out.String(), complaint.String())
		}
		return errors.New("work failed")
	})
	if err == nil || !strings.Contains(err.Error(), "work failed") {
		t.Errorf("error %v", err)
	}
	main := pod.Spec.Containers[0]
	if pod.UID == left.UID || pod.UID == types.UID("") || pod.Labels["team"] != "shop" || *pod.Spec.ActiveDeadlineSeconds < 3500 ||
		*main.SecurityContext.RunAsUser != 0 || main.VolumeMounts[0].MountPath != "/data" {
		t.Errorf("pod %+v", pod.Spec)
	}
	for _, ran := range l.ran {
		if strings.Contains(ran, "secret") {
			t.Errorf("a command line shows the script: %s", ran)
		}
	}
	if err := l.cluster.Client.Get(t.Context(), client.ObjectKeyFromObject(left), &pod); !apierrors.IsNotFound(err) && pod.DeletionTimestamp == nil {
		t.Errorf("the pod is left: %v", err)
	}
	own.volumes["none"] = "/none"
	if err := l.options.inPod(ctx, c, own, nil); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("a claim that is not there: %v, want not found", err)
	}
}
