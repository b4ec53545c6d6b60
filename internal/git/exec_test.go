package git

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
)

func TestGitRunsInACleanEnvironment(t *testing.T) {
	for name, value := range map[string]string{
		"GIT_DIR": "/nowhere", "GIT_TRACE": "1", "GIT_EXTERNAL_DIFF": "evil", "BACKSTAY_PASSWORD": "secret", "AWS_SECRET_ACCESS_KEY": "secret",
		"SSH_ASKPASS": "evil", "https_proxy": "http://proxy.example", "HOME": "/home/ana",
	} {
		t.Setenv(name, value)
	}
	env := map[string]string{}
	for _, kv := range gitCommand(t.Context(), "", "version").Env { // the last of a name counts
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
	}
	for _, name := range []string{"GIT_DIR", "GIT_TRACE", "GIT_EXTERNAL_DIFF", "BACKSTAY_PASSWORD", "AWS_SECRET_ACCESS_KEY", "SSH_ASKPASS"} {
		if value, ok := env[name]; ok {
			t.Errorf("%s=%s is passed on", name, value)
		}
	}
	for name, want := range map[string]string{
		"HOME": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1",
		"GIT_NO_REPLACE_OBJECTS": "1", "https_proxy": "http://proxy.example",
	} {
		if env[name] != want {
			t.Errorf("%s=%q, want %q", name, env[name], want)
		}
	}
}

func TestGitSeesOurConfigurationOnly(t *testing.T) {
	dir := sampleRepo(t)
	home := t.TempDir()
	stockGit(t, "", "config", "-f", filepath.Join(home, ".gitconfig"), "core.hooksPath", "/evil")
	t.Setenv("HOME", home)
	stockGit(t, dir, "config", "core.hooksPath", "/evil/of/the/repository")
	cmd := gitCommand(t.Context(), filepath.Join(dir, ".git"), "config", "--get", "core.hooksPath")
	out, err := cmd.Output()
	if err != nil || strings.TrimSpace(string(out)) != "/dev/null" {
		t.Errorf("hooks are looked for in %q: %v", out, err)
	}
}

func TestErrorOfAProgram(t *testing.T) {
	err := run(gitCommand(t.Context(), "", "no-such-command", "hunter2secret"), 0, "hunter2secret")
	var failed *programError
	if !errors.As(err, &failed) || !strings.HasPrefix(err.Error(), "git: ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q", err)
	}
	err = run(command(t.Context(), "sh", "-c", "printf 'the token is hunter2secret\\033[1m\\n' >&2; exit 3"), 0, "hunter2secret")
	if text := err.Error(); strings.Contains(text, "hunter2") || strings.Contains(text, "\x1b") || !strings.Contains(text, "the token is [secret]") {
		t.Errorf("error %q", text)
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("the exit status is lost: %v", err)
	}
	if err := run(command(t.Context(), "no-such-program-anywhere"), 0); !errors.Is(err, fault.ErrUnsupported) || len(fault.Hints(err)) == 0 {
		t.Errorf("a program that is not there: %v", err)
	}
}

func TestErrorOutputIsBounded(t *testing.T) {
	err := run(command(t.Context(), "sh", "-c", "yes words | head -c 1000000 >&2; echo the end >&2; exit 1"), 0)
	if n := len(err.Error()); n > 2*stderrKept || !strings.HasSuffix(err.Error(), "the end") {
		t.Errorf("error of %d bytes that ends %q", n, err.Error()[n-20:])
	}
}

func TestMemoryLimit(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux limits a process that is running")
	}
	// reads the megabytes into one variable, when it is told to
	const script = "read go; x=$(head -c 20000000 /dev/zero | tr '\\0' a); test ${#x} = 20000000"
	if err := run(command(t.Context(), "sh", "-c", script), 0); err != nil {
		t.Fatalf("without limit: %v", err)
	}
	cmd := command(t.Context(), "sh", "-c", script)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c, err := start(cmd, 15<<20)
	if err != nil {
		t.Fatal(err)
	}
	in.Close() // the limit is set
	if err := c.wait(); err == nil {
		t.Error("a program took more memory than it may")
	}
}

func TestCanceledProgram(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c, err := start(command(ctx, "sleep", "600"), 0)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := c.wait(); err == nil || !errors.Is(err, context.Canceled) && !strings.Contains(err.Error(), "killed") {
		t.Errorf("canceled: %v", err)
	}
}
