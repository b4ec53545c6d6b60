package function

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

// pair is a call of MultiContainerRun.
func (l *lab) pair() blueprint.Call {
	return l.call(map[string]any{
		"initImage": "tools", "initCommand": []any{"mkfifo", "/shared/pipe"}, "sharedVolumeDir": "/shared", "sharedVolumeMedium": "Memory",
		"sharedVolumeSizeLimit": "10Mi",
		"backgroundImage":       "database", "backgroundCommand": []any{"dump"}, "outputImage": "tools", "outputCommand": []any{"push"},
	})
}

func TestMultiContainerRun(t *testing.T) {
	l := newLab(t)
	var seen atomic.Pointer[corev1.PodSpec]
	l.kubelet(node{
		log: func(w io.Writer, _, name string, _ bool) {
			fmt.Fprintf(w, "%s {\"key\":\"of\",\"value\":%q}\n", marker, name)
		},
		status: func(pod *corev1.Pod) *corev1.PodStatus {
			seen.Store(pod.Spec.DeepCopy())
			return life(0)(pod)
		},
	})
	c := l.pair()
	c.Params.PodOverride = map[string]any{"containers": []any{map[string]any{"name": container, "imagePullPolicy": "Never"}}}
	got, err := l.run(t.Context(), "MultiContainerRun", c)
	l.ok(err)
	if !maps.Equal(got, map[string]any{"of": "output"}) {
		t.Errorf("output %v", got)
	}
	spec := seen.Load()
	want := map[string]string{"init": "tools [mkfifo /shared/pipe]", "output": "tools [push]", "background": "database [dump]"}
	for _, c := range append(spec.InitContainers, spec.Containers...) {
		if got := fmt.Sprint(c.Image, " ", c.Command); got != want[c.Name] || c.VolumeMounts[0].MountPath != "/shared" || c.ImagePullPolicy != corev1.PullNever {
			t.Errorf("container %s is %s, of %s, policy %s, want %s", c.Name, got, c.VolumeMounts[0].MountPath, c.ImagePullPolicy, want[c.Name])
		}
		delete(want, c.Name)
	}
	if len(want) > 0 {
		t.Errorf("these are missing: %v", want)
	}
	shared := spec.Volumes[0].EmptyDir
	if shared.Medium != corev1.StorageMediumMemory || shared.SizeLimit.Cmp(resource.MustParse("10Mi")) != 0 {
		t.Errorf("shared volume %v", shared)
	}
}

func TestBackgroundThatFailsIsNotWaitedFor(t *testing.T) {
	l := newLab(t)
	l.kubelet(node{
		status: func(pod *corev1.Pod) *corev1.PodStatus {
			status := running(pod)
			if pod.Status.Phase == corev1.PodRunning {
				status.ContainerStatuses[1].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 2}}
			}
			return status
		},
		log: func(w io.Writer, _, name string, follow bool) {
			fmt.Fprintf(w, "words of %s\n", name)
			w.(http.Flusher).Flush()
			if follow {
				<-t.Context().Done()
			}
		},
	})
	_, err := l.run(t.Context(), "MultiContainerRun", l.pair())
	if !errors.Is(err, fault.ErrRefused) || !strings.Contains(err.Error(), "container background ended with status 2: words of background") {
		t.Errorf("%v", err)
	}
}

func TestForWorkers(t *testing.T) {
	one := func(name string) any { return map[string]any{"name": name, "image": "x"} }
	tests := []struct {
		name       string
		init       bool
		from, want map[string]any
	}{
		{"nothing", true, nil, nil},
		{"others only", true, map[string]any{"containers": []any{one("side")}}, map[string]any{"containers": []any{one("side")}}},
		{
			"for all", true,
			map[string]any{"containers": []any{one("container"), one("side")}, "hostNetwork": true},
			map[string]any{"containers": []any{one("side"), one("background"), one("output")}, "initContainers": []any{one("init")}, "hostNetwork": true},
		},
		{
			"no init", false,
			map[string]any{"containers": []any{one("container")}},
			map[string]any{"containers": []any{one("background"), one("output")}},
		},
		{
			"one has its own", false,
			map[string]any{"containers": []any{one("container"), map[string]any{"name": "output"}}},
			map[string]any{"containers": []any{map[string]any{"name": "output"}, one("background")}},
		},
		{"nonsense", true, map[string]any{"containers": []any{"container", nil}}, map[string]any{"containers": []any{"container", nil}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := forWorkers(test.from, test.init); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestPrepareData(t *testing.T) {
	l := newLab(t)
	for name, mode := range map[string]corev1.PersistentVolumeAccessMode{"data": corev1.ReadWriteOnce, "media": corev1.ReadOnlyMany} {
		l.ok(l.cluster.Client.Create(t.Context(), &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: l.ns, Name: name},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{mode},
				Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			},
		}))
	}
	var seen atomic.Pointer[corev1.PodSpec]
	l.kubelet(node{log: hello, status: func(pod *corev1.Pod) *corev1.PodStatus {
		seen.Store(pod.Spec.DeepCopy())
		return life(5)(pod)
	}})
	c := l.call(map[string]any{
		"namespace": l.ns, "image": "tools", "command": []any{"fix"}, "serviceaccount": "fixer",
		"volumes": map[string]any{"data": "/a", "media": "/b"},
	})
	got, err := l.run(t.Context(), "PrepareData", c)
	if err != nil || !maps.Equal(got, map[string]any{"tag": "v1"}) || !strings.Contains(strings.Join(l.log, "\n"), "ended with status 5") {
		t.Errorf("a failure that does not count: %v, %v, log %q", got, err, l.log)
	}
	spec := seen.Load()
	var mounts []string
	for i, m := range spec.Containers[0].VolumeMounts {
		mounts = append(mounts, fmt.Sprint(m.MountPath, " ", spec.Volumes[i].PersistentVolumeClaim.ClaimName, " ", m.ReadOnly))
	}
	if text := strings.Join(mounts, ", "); text != "/a data false, /b media true" || spec.ServiceAccountName != "fixer" {
		t.Errorf("mounts %s, account %s", text, spec.ServiceAccountName)
	}
	c.Args["failOnError"] = "true"
	if _, err := l.run(t.Context(), "PrepareData", c); !errors.Is(err, fault.ErrRefused) {
		t.Errorf("a failure that counts: %v", err)
	}
	c.Args["volumes"] = map[string]any{"none": "/a"}
	if _, err := l.run(t.Context(), "PrepareData", c); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("no such claim: %v", err)
	}
	delete(c.Args, "volumes")
	if _, err := l.run(t.Context(), "PrepareData", c); !errors.Is(err, fault.ErrInvalid) {
		t.Errorf("no volumes: %v", err)
	}
	c.Params.Deployment = &blueprint.WorkloadParams{PersistentVolumeClaims: map[string]map[string]string{"web-0": {"data": "/var"}}}
	_, _ = l.run(t.Context(), "PrepareData", c)
	if m := seen.Load().Containers[0].VolumeMounts; len(m) != 1 || m[0].MountPath != "/mnt/prepare_data/data" {
		t.Errorf("the workload's: %v", m)
	}
}
