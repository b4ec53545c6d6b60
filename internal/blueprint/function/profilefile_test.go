package function

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

const profilePath = "/dev/shm/backstay-abcde12345/profile.json"

// byFile gives a call a profile by file.
func byFile(c blueprint.Call) blueprint.Call {
	c.Params.ProfileFile = &blueprint.ProfileFile{Path: profilePath, Content: []byte(`{"secret":"hunter2"}`)}
	return c
}

func TestProfileOfPod(t *testing.T) {
	l := newLab(t)
	var secret *corev1.Secret
	var spec corev1.PodSpec
	l.kubelet(node{log: hello, status: func(pod *corev1.Pod) *corev1.PodStatus {
		if pod.Status.Phase == corev1.PodRunning && secret == nil {
			var s corev1.Secret
			if l.cluster.Client.Get(t.Context(), client.ObjectKey{Namespace: l.ns, Name: podName}, &s) != nil {
				t.Error("there is no Secret")
			}
			secret, spec = &s, pod.Spec
		}
		return life(0)(pod)
	}})
	c := byFile(l.call(map[string]any{
		"backgroundImage": "tools", "backgroundCommand": []any{"dump"},
		"outputImage": "tools", "outputCommand": []any{"sh", "-c", "kando location push --profile '{\"Path\":\"" + profilePath + "\"}' -"},
	}))
	_, err := l.run(t.Context(), "MultiContainerRun", c)
	l.ok(err)
	if string(secret.Data["profile.json"]) != `{"secret":"hunter2"}` || len(secret.OwnerReferences) != 1 || secret.OwnerReferences[0].Kind != "Pod" {
		t.Errorf("Secret %q of %v", secret.Data, secret.OwnerReferences)
	}
	for _, c := range spec.Containers {
		mounted := slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == "/dev/shm/backstay-abcde12345" && m.ReadOnly })
		if mounted != (c.Name == outputContainer) {
			t.Errorf("container %s mounts %v", c.Name, c.VolumeMounts)
		}
	}
	if err := l.cluster.Client.Get(t.Context(), client.ObjectKey{Namespace: l.ns, Name: podName}, secret); !apierrors.IsNotFound(err) {
		t.Errorf("the Secret is left: %v", err)
	}
}

func TestProfileThatNobodyNames(t *testing.T) {
	l := newLab(t)
	l.kubelet(node{log: hello, status: func(pod *corev1.Pod) *corev1.PodStatus {
		if hasProfile(pod) {
			t.Error("the pod has the profile")
		}
		return life(0)(pod)
	}})
	_, err := l.run(t.Context(), "KubeTask", byFile(l.task()))
	l.ok(err)
}

func TestProfileInContainer(t *testing.T) {
	l := newLab(t)
	l.pod("web-0", ready(), "main", "side")
	var content []string
	lacksKando := false
	l.kubelet(node{exec: func(_, _ string, command []string, stdin io.Reader, _, _ io.Writer) int {
		switch strings.Join(command[:min(3, len(command))], " ") {
		case "kando profile put":
			if lacksKando {
				return 127
			}
			text, _ := io.ReadAll(stdin)
			l.mu.Lock()
			content = append(content, string(text))
			l.mu.Unlock()
		case "push " + profilePath:
			return 1
		}
		return 0
	}})
	args := map[string]any{"namespace": l.ns, "pods": "web-0", "containers": "main side", "command": []any{"push", profilePath}}
	if _, err := l.run(t.Context(), "KubeExecAll", byFile(l.call(args))); !errors.Is(err, fault.ErrRefused) {
		t.Errorf("a command that fails: %v", err)
	}
	order := func(part string) (at []int) {
		for i, ran := range l.ran {
			if strings.Contains(ran, part) {
				at = append(at, i)
			}
		}
		return at
	}
	if puts, runs, drops := order("profile put"), order(": push"), order("profile drop "+profilePath); !slices.Equal(puts, []int{0, 1}) ||
		!slices.Equal(runs, []int{2, 3}) || !slices.Equal(drops, []int{4, 5}) {
		t.Errorf("ran %q", l.ran)
	}
	if !slices.Equal(content, []string{`{"secret":"hunter2"}`, `{"secret":"hunter2"}`}) {
		t.Errorf("put %q", content)
	}
	if strings.Contains(strings.Join(l.ran, "\n"), "hunter2") {
		t.Errorf("a command line has the secret: %q", l.ran)
	}
	l.ran, lacksKando = nil, true
	_, err := l.run(t.Context(), "KubeExecAll", byFile(l.call(args)))
	if !errors.Is(err, fault.ErrRefused) || !strings.Contains(err.Error(), "bring the profile to pod web-0") || len(order(": push")) > 0 {
		t.Errorf("without kando: %v, ran %q", err, l.ran)
	}
	l.ran = nil
	args["command"] = []any{"push"}
	_, err = l.run(t.Context(), "KubeExecAll", byFile(l.call(args)))
	if err != nil || len(l.ran) != 2 {
		t.Errorf("a command that does not name it: %v, ran %q", err, l.ran)
	}
}
