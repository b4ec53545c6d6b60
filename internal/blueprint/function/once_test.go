package function

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

// shellOf runs commands as a node does: they go on when who asked for them is gone.
func shellOf(_, _ string, command []string, _ io.Reader, stdout, stderr io.Writer) int {
	c := exec.Command(command[0], command[1:]...) //nolint:noctx // it ends by itself
	c.Stdout, c.Stderr = stdout, stderr
	if err := c.Run(); err != nil {
		var ended *exec.ExitError
		if errors.As(err, &ended) {
			return ended.ExitCode()
		}
		return 127
	}
	return 0
}

// deferred is a call of a deferPhase that leaves a line in a file for each time that it runs, and what tidies up after it.
func (l *lab) deferred(command ...any) (c blueprint.Call, after func()) {
	l.Helper()
	var todo []func(context.Context) error
	c = l.call(map[string]any{"namespace": l.ns, "pod": "web-0", "command": command})
	c.ID, c.Deferred = filepath.Base(l.TempDir())+strings.ReplaceAll(l.ns, "/", ""), true
	c.After = func(do func(context.Context) error) { todo = append(todo, do) }
	return c, func() {
		for _, do := range todo {
			l.ok(do(context.Background()))
		}
		if left, _ := filepath.Glob("/dev/shm/backstay-" + c.ID); len(left) != 0 {
			l.Errorf("left: %v", left)
		}
	}
}

func TestDeferPhaseInAContainerIsDoneOnce(t *testing.T) {
	l := newLab(t)
	l.pod("web-0", ready(), "main")
	l.kubelet(node{exec: shellOf})
	lines, goOn := filepath.Join(t.TempDir(), "lines"), filepath.Join(t.TempDir(), "go-on")
	t.Cleanup(func() { _ = os.WriteFile(goOn, nil, 0o600) })
	c, after := l.deferred("sh", "-c", "echo once >>"+lines+"; until [ -e "+goOn+" ]; do sleep 0.1; done; exit 3")
	ctx, kill := context.WithCancel(t.Context())
	go func() {
		for ctx.Err() == nil {
			if text, _ := os.ReadFile(lines); len(text) > 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		kill()
	}()
	if _, err := l.run(ctx, "KubeExec", c); !errors.Is(err, context.Canceled) {
		t.Fatalf("killed: %v", err)
	}
	l.ok(os.WriteFile(goOn, nil, 0o600))
	for range 2 { // the second finds that it has ended
		if _, err := l.run(t.Context(), "KubeExec", c); !errors.Is(err, fault.ErrRefused) || !strings.Contains(err.Error(), "sh ended with status 3") {
			t.Errorf("taken up: %v", err)
		}
	}
	if text, _ := os.ReadFile(lines); string(text) != "once\n" {
		t.Errorf("it left %q", text)
	}
	after()
}

func TestDeferPhaseInAContainerThatStartedAnew(t *testing.T) {
	l := newLab(t)
	l.pod("web-0", ready(), "main")
	l.kubelet(node{exec: shellOf})
	c, after := l.deferred("true")
	mark := "/dev/shm/backstay-" + c.ID
	l.ok(os.Mkdir(mark, 0o700))
	gone := exec.Command("true") //nolint:noctx // it ends at once
	l.ok(gone.Run())
	l.ok(os.WriteFile(filepath.Join(mark, "process"), []byte(strconv.Itoa(gone.Process.Pid)), 0o600))
	if _, err := l.run(t.Context(), "KubeExec", c); !errors.Is(err, fault.ErrRefused) || !strings.Contains(err.Error(), "did not come to its end") {
		t.Errorf("%v", err)
	}
	after()
}

func TestDeferPhaseWithoutAShell(t *testing.T) {
	l := newLab(t)
	l.pod("web-0", ready(), "main")
	l.kubelet(node{exec: func(_, _ string, command []string, _ io.Reader, _, _ io.Writer) int {
		if command[0] == "sh" {
			return 127
		}
		return 0
	}})
	c, after := l.deferred("release")
	_, err := l.run(t.Context(), "KubeExec", c)
	l.ok(err)
	if last := l.ran[len(l.ran)-1]; last != "web-0/main: release" {
		t.Errorf("ran %q", last)
	}
	after()
}
