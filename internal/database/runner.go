package database

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// Command is a program of a database server to run.
type Command struct {
	Argv []string // what anybody on the machine may read
	// Env is the whole environment of the program, beside where programs are found. Secrets are handed over here, and nowhere else.
	Env    map[string]string
	Stdin  io.Reader // nothing where nil
	Stdout io.Writer // dropped where nil
}

// Runner runs commands where the tools of a server are: on this machine, or in a pod.
type Runner interface {
	// Run runs a command to its end. One that ended badly is *Ended. One that could not be run is fault.ErrNotFound where the program
	// is not there. When ctx ends, so does the program, wherever it can be stopped.
	Run(ctx context.Context, c Command) error
}

// Ended is the end of a program that ended badly.
type Ended struct {
	Program string
	Status  int    // -1 where it was killed
	Said    string // the end of what it complained of
}

func (e *Ended) Error() string {
	text := fmt.Sprintf("%s ended with status %d", e.Program, e.Status)
	if e.Status < 0 {
		text = e.Program + " was killed"
	}
	if e.Said != "" {
		text += ": " + e.Said
	}
	return text
}

// Local runs programs on this machine, with an environment of their own: what the user has set for them does not count.
type Local struct{}

// killedTime is how long a program that was killed may hold on to its output.
const killedTime = 5 * time.Second

// Run satisfies Runner.
func (Local) Run(ctx context.Context, c Command) error {
	if len(c.Argv) == 0 {
		return fault.New("run a program", fault.ErrInvalid, "none is named", "")
	}
	cmd := exec.CommandContext(ctx, c.Argv[0], c.Argv[1:]...)
	if errors.Is(cmd.Err, exec.ErrNotFound) {
		return fault.New("", fault.ErrNotFound, c.Argv[0]+" is not installed", "")
	}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}
	for name, value := range c.Env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var said tail
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = c.Stdin, c.Stdout, &said, killedTime
	err := cmd.Run()
	var exited *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fault.Wrap("", nil, ctx.Err(), "")
	case errors.As(err, &exited):
		return &Ended{Program: c.Argv[0], Status: exited.ExitCode(), Said: said.String()}
	}
	return fault.Wrap("run "+c.Argv[0], nil, err, "")
}

// mostSaid is how much of what a program complains of is kept, in bytes: the end says why.
const mostSaid = 2 << 10

// tail keeps the end of what is written to it.
type tail struct{ kept []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - mostSaid; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	text := strings.ToValidUTF8(string(bytes.TrimSpace(t.kept)), "?")
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }), "; ")
}
