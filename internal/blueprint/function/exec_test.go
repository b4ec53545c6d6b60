package function

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/backstay/backstay/internal/fault"
)

func TestKubeExec(t *testing.T) {
	l := newLab(t)
	l.pod("web-0", ready(), "main", "side")
	l.kubelet(node{exec: func(_, _ string, command []string, _ io.Reader, stdout, stderr io.Writer) int {
		fmt.Fprintf(stdout, "hello\n%s {\"key\":\"tag\",\"value\":\"v1\"}\n", marker)
		fmt.Fprintf(stderr, "a complaint with %s {\"key\":\"no\",\"value\":\"output\"}\n", marker)
		if command[0] == "fail" {
			return 7
		}
		return 0
	}})
	got, err := l.run(t.Context(), "KubeExec", l.call(map[string]any{"namespace": l.ns, "pod": "web-0", "command": []any{"sh", "-c", "dump"}}))
	l.ok(err)
	if !maps.Equal(got, map[string]any{"tag": "v1"}) {
		t.Errorf("output %v", got)
	}
	if want := []string{"web-0/main: sh -c dump"}; !slices.Equal(l.ran, want) {
		t.Errorf("ran %q, want %q", l.ran, want)
	}
	for _, want := range []string{"hello", `a complaint with ` + marker + ` {"key":"no","value":"output"}`} {
		if !slices.Contains(l.log, want) {
			t.Errorf("%q is not in the log %q", want, l.log)
		}
	}
	_, err = l.run(t.Context(), "KubeExec", l.call(map[string]any{"namespace": l.ns, "pod": "web-0", "container": "side", "command": []any{"fail"}}))
	if !errors.Is(err, fault.ErrRefused) || !strings.Contains(err.Error(), "fail ended with status 7: a complaint") {
		t.Errorf("a command that failed: %v", err)
	}
}

func TestKubeExecNeedsPod(t *testing.T) {
	l := newLab(t)
	l.pod("done", corev1.PodStatus{Phase: corev1.PodSucceeded}, "main")
	tests := []struct {
		name, pod string
		command   any
		want      error
		says      string
	}{
		{"ended", "done", []any{"true"}, fault.ErrRefused, "the pod has ended: it is Succeeded"},
		{"missing", "none", []any{"true"}, fault.ErrNotFound, `pods "none" not found`},
		{"no command", "done", []any{}, fault.ErrInvalid, "it is empty"},
		{"a map for a command", "done", map[string]any{}, fault.ErrInvalid, "argument command: it is not a list of strings"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := l.run(t.Context(), "KubeExec", l.call(map[string]any{"namespace": l.ns, "pod": test.pod, "command": test.command}))
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, want %v: %s", err, test.want, test.says)
			}
		})
	}
}
