package function

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

// deployment makes a Deployment with a number of pods, and plays its controller: status follows the specification.
func (l *lab) deployment(name string, replicas int32) *appsv1.Deployment {
	l.Helper()
	labels := map[string]string{"app": name}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: l.ns, Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "none"}}},
			},
		},
	}
	l.ok(l.cluster.Client.Create(l.Context(), d))
	return d
}

// replicas is how many pods a Deployment shall have.
func (l *lab) replicas(name string) int32 {
	l.Helper()
	var d appsv1.Deployment
	l.ok(l.cluster.Client.Get(l.Context(), client.ObjectKey{Namespace: l.ns, Name: name}, &d))
	return *d.Spec.Replicas
}

func (l *lab) settle(name string, there, ready int32) {
	l.Helper()
	var d appsv1.Deployment
	l.ok(l.cluster.Client.Get(l.Context(), client.ObjectKey{Namespace: l.ns, Name: name}, &d))
	d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: there, ReadyReplicas: ready}
	l.ok(l.cluster.Client.Status().Update(l.Context(), &d))
}

func TestScaleWorkload(t *testing.T) {
	l := newLab(t)
	l.deployment("web", 3)
	l.settle("web", 3, 3)
	l.pod("web-7-x", ready(), "main")
	yes := true
	var pod corev1.Pod
	l.ok(l.cluster.Client.Get(t.Context(), client.ObjectKey{Namespace: l.ns, Name: "web-7-x"}, &pod))
	pod.Labels = map[string]string{"app": "web"}
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-7", UID: "x", Controller: &yes}}
	l.ok(l.cluster.Client.Update(t.Context(), &pod))
	c := l.call(map[string]any{"replicas": "0", "kind": "Deployment", "name": "web", "namespace": l.ns})
	c.Save = func(_ context.Context, output map[string]any) error {
		if n := l.replicas("web"); n != 3 || output[outputReplicas] != int64(3) {
			t.Errorf("%v is saved while there are %d", output, n)
		}
		return nil
	}
	type end struct {
		output map[string]any
		err    error
	}
	ended := make(chan end, 1)
	go func() {
		output, err := l.run(t.Context(), "ScaleWorkload", c)
		ended <- end{output, err}
	}()
	for l.replicas("web") != 0 {
		time.Sleep(5 * time.Millisecond)
	}
	l.settle("web", 0, 0)
	select {
	case e := <-ended:
		t.Fatalf("a pod is left, and it ended: %v", e)
	case <-time.After(50 * time.Millisecond):
	}
	l.ok(l.cluster.Client.Delete(t.Context(), &pod, client.GracePeriodSeconds(0)))
	if e := <-ended; e.err != nil || !maps.Equal(e.output, map[string]any{outputReplicas: int64(3)}) {
		t.Errorf("%v", e)
	}

	c.Saved, c.Save = map[string]any{outputReplicas: float64(3)}, nil
	output, err := l.run(t.Context(), "ScaleWorkload", c)
	if err != nil || fmt.Sprint(output[outputReplicas]) != "3" {
		t.Errorf("run again: %v, %v", output, err)
	}
}

func TestScaleWorkloadOfAction(t *testing.T) {
	l := newLab(t)
	l.deployment("web", 1)
	c := l.call(map[string]any{"replicas": 2, "waitForReady": false})
	if _, err := l.run(t.Context(), "ScaleWorkload", c); !errors.Is(err, fault.ErrInvalid) {
		t.Errorf("without a workload: %v", err)
	}
	c.Params.Deployment = &blueprint.WorkloadParams{Namespace: l.ns, Name: "web"}
	output, err := l.run(t.Context(), "ScaleWorkload", c)
	if err != nil || output[outputReplicas] != int64(1) || l.replicas("web") != 2 || len(l.saved) != 1 {
		t.Errorf("%v, %v, %d pods, saved %v", output, err, l.replicas("web"), l.saved)
	}
	l.settle("web", 2, 1)
	c.Args["waitForReady"] = true
	ctx, pass := newOverdue(t.Context())
	defer pass()
	direct, reads := l.cluster.Client, 0
	l.cluster.Client = watched{direct, func() {
		if reads++; reads == 3 { // what there was, and how far it is: that is known by now
			pass()
		}
	}}
	_, err = l.run(ctx, "ScaleWorkload", c)
	l.cluster.Client = direct
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "it has 2 pods, 1 of them ready, and should have 2") {
		t.Errorf("never ready: %v", err)
	}
	for _, replicas := range []any{"-1", "many", 1.5, nil, "99999999999"} {
		c.Args["replicas"] = replicas
		if _, err := l.run(t.Context(), "ScaleWorkload", c); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("replicas %v: %v", replicas, err)
		}
	}
	c.Args["replicas"], c.Args["name"] = "1", "none"
	if _, err := l.run(t.Context(), "ScaleWorkload", c); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("a workload that is not there: %v", err)
	}
}
