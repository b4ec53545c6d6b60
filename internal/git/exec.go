package git

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/backstay/backstay/internal/fault"
)

// stderrKept bounds what is kept of a program's error output, in bytes.
const stderrKept = 8 << 10

// killDelay is how long a program's pipes may stay open after it was killed, held by a child of its own.
const killDelay = 5 * time.Second

// gitCommand prepares git on the repository whose git directory is dir, or outside any repository where dir is "". It runs in
// a clean environment: no configuration but the repository's own and the lines below, no prompt, no hook, no network, no
// other way to run a program. Arguments that are paths must be absolute. The program and its children die with ctx.
func gitCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	if dir != "" {
		args = append([]string{"--git-dir=" + dir}, args...)
	}
	cmd := command(ctx, "git", args...)
	cmd.Dir = string(os.PathSeparator) // the current directory may be gone, or lie in a repository that git would discover
	cmd.Env = append(cleanEnviron(neededEnviron(os.Environ())),
		"HOME="+os.DevNull, "XDG_CONFIG_HOME="+os.DevNull, "GIT_CONFIG_GLOBAL="+os.DevNull)
	cmd.Env = append(cmd.Env, configEnviron(
		"protocol.allow", "never",
		"core.hooksPath", os.DevNull,
		"core.fsmonitor", "false",
		"safe.bareRepository", "explicit",
		"credential.helper", "",
		"transfer.bundleURI", "false",
		"gc.auto", "0",
		"maintenance.auto", "false",
		"advice.graftFileDeprecated", "false", // which GIT_GRAFT_FILE would bring into every error text
	)...)
	return cmd
}

// command prepares a program in a process group of its own, which is killed when ctx ends.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	ownGroup(cmd)
	cmd.WaitDelay = killDelay
	return cmd
}

// cleanEnviron drops from environ what steers git and what is secret to Backstay, and adds what keeps git from asking,
// fetching and rewriting. HOME stays.
func cleanEnviron(environ []string) []string {
	var env []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "GIT_") || strings.HasPrefix(name, "BACKSTAY_") || strings.HasPrefix(name, "SSH_ASKPASS") {
			continue
		}
		env = append(env, kv)
	}
	return append(env, "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=", "GIT_NO_LAZY_FETCH=1", "GIT_NO_REPLACE_OBJECTS=1",
		"GIT_OPTIONAL_LOCKS=0", "GIT_GRAFT_FILE="+os.DevNull)
}

// neededEnviron keeps of environ what a program needs to run and to reach a server. What else is there, such as the keys to
// where a vault lies, is nothing for a program that reads what others wrote.
func neededEnviron(environ []string) []string {
	needed := []string{
		"PATH", "HOME", "XDG_CONFIG_HOME", "TMPDIR", "USER", "LOGNAME", "LANG", "LD_LIBRARY_PATH", "SSH_AUTH_SOCK",
		"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "SYSTEMROOT",
	}
	return slices.DeleteFunc(slices.Clone(environ), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return !slices.Contains(needed, strings.ToUpper(name))
	})
}

// configEnviron gives git configuration by environment, in pairs of key and value.
func configEnviron(pairs ...string) []string {
	env := []string{"GIT_CONFIG_COUNT=" + strconv.Itoa(len(pairs)/2)}
	for i := 0; i+1 < len(pairs); i += 2 {
		n := strconv.Itoa(i / 2)
		env = append(env, "GIT_CONFIG_KEY_"+n+"="+pairs[i], "GIT_CONFIG_VALUE_"+n+"="+pairs[i+1])
	}
	return env
}

// child is a running program whose error output is kept for its error.
type child struct {
	cmd     *exec.Cmd
	stderr  tail
	secrets []fault.Secret
}

// start starts cmd. memory limits its address space in bytes, where the system can; 0 means no limit.
// The caller must call wait.
func start(cmd *exec.Cmd, memory int64, secrets ...fault.Secret) (*child, error) {
	c := &child{cmd: cmd, secrets: secrets}
	if cmd.Stderr == nil {
		cmd.Stderr = &c.stderr
	}
	if err := cmd.Start(); err != nil {
		return nil, startError(cmd, err)
	}
	if memory > 0 {
		if err := limitMemory(cmd.Process.Pid, memory); err != nil {
			cmd.Cancel() //nolint:errcheck // the limit's error is the one to tell
			cmd.Wait()   //nolint:errcheck // killed on purpose
			return nil, fault.Wrap("limit the memory of "+programName(cmd), nil, err, "")
		}
	}
	return c, nil
}

// run starts cmd and waits for it.
func run(cmd *exec.Cmd, memory int64, secrets ...fault.Secret) error {
	c, err := start(cmd, memory, secrets...)
	if err != nil {
		return err
	}
	return c.wait()
}

// wait waits for the program's end. An error tells what the program said; its class is for the caller to find.
func (c *child) wait() error {
	err := c.cmd.Wait()
	if err == nil {
		return nil
	}
	return &programError{program: programName(c.cmd), err: err, said: c.said()}
}

// said is the error output so far on one line, fit for messages.
func (c *child) said() string { return printable(fault.Redact(c.stderr.String(), c.secrets...)) }

// programName is what messages call a program: what a shell runs goes by the name it is given there.
func programName(cmd *exec.Cmd) string {
	if len(cmd.Args) > 3 && cmd.Args[0] == "sh" && cmd.Args[1] == "-c" {
		return cmd.Args[3]
	}
	return cmd.Args[0]
}

// programError is the failure of a program.
type programError struct {
	program string
	said    string
	err     error
}

func (e *programError) Error() string {
	var exit *exec.ExitError
	switch {
	case e.said == "":
		return e.program + ": " + e.err.Error()
	case errors.As(e.err, &exit) && !exit.Exited(): // by a signal, of which the program could say nothing
		return e.program + ": " + e.err.Error() + ": " + e.said
	}
	return e.program + ": " + e.said
}

func (e *programError) Unwrap() error { return e.err }

func startError(cmd *exec.Cmd, err error) error {
	program := programName(cmd)
	if errors.Is(err, exec.ErrNotFound) {
		return fault.Wrap("", fault.ErrUnsupported, errors.New(program+" is not installed"), "install "+program+" and make sure it is in PATH")
	}
	return fault.Wrap("start "+program, nil, err, "")
}

// tail is a writer that keeps the last bytes written to it.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if extra := len(t.kept) - stderrKept; extra > 0 {
		t.kept = append(t.kept[:0], t.kept[extra:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}

// printable puts text written by others on one line that no terminal acts on.
func printable(text string) string {
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	kept := lines[:0]
	for _, line := range lines {
		if line = strings.TrimSpace(line); line != "" {
			kept = append(kept, line)
		}
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.Join(kept, "; "))
}
