// Package cli is the command line: it parses what users write, puts the product together, and tells what came of it.
//
// Each command is a constructor that binds flags to an options struct, and a run method that does the work.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/protect"
)

// Process is what the command line needs of the process around it.
type Process struct {
	Args    []string // without the program's name
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Getenv  func(string) string
	Clock   protect.Clock
	Version string
}

// app is the command line of one process.
type app struct {
	Process
	global  globalOptions
	started bool // flags and arguments were good, and the command began
	told    messages

	// openStore opens the vault that the options name. Tests put a store in memory in its place.
	openStore func(ctx context.Context, want access) (store, error)
}

// store is an open store of points.
type store interface {
	protect.Store
	Close(ctx context.Context) error
}

// globalOptions are those of every command.
type globalOptions struct {
	location        string
	passwordFile    string
	passwordCommand string
	evidenceKey     string
	json            bool
	quiet           bool
	logFormat       logFormat
}

// Run runs the command that p.Args name and returns the exit status, which is that of fault.Of for the command's error.
func Run(ctx context.Context, p Process) int {
	a := &app{Process: p}
	a.openStore = a.openVault
	return a.run(ctx)
}

func (a *app) run(ctx context.Context) (exit int) {
	a.told.w, a.told.clock = a.Stderr, a.Clock
	defer func() {
		if bug := recover(); bug != nil {
			exit = a.told.fail(fault.Wrap("bug", nil, fmt.Errorf("%v\n%s", bug, debug.Stack()), "please report this with the lines above"))
		}
	}()
	root := newRootCommand(a)
	root.SetArgs(a.Args)
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if !a.started {
		if fault.Of(err).Exit == 1 {
			err = fault.Wrap("", fault.ErrInvalid, err, "")
		}
		a.told.json = a.told.json || slices.Contains(a.Args, "--json") // flags after a wrong one were not read
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, context.Canceled) {
		err = fault.Wrap("", context.Canceled, err, "") // whatever broke did so because the run was interrupted
	}
	return a.told.fail(err)
}

func (a *app) configureMessages() {
	a.told.json = a.global.json || a.global.logFormat == logJSON
	a.told.quiet = a.global.quiet
}

// runner is the body of a command.
type runner func(ctx context.Context, args []string) error

// runs makes a cobra body of a runner.
func (a *app) runs(run runner) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.started = true
		a.configureMessages()
		return run(cmd.Context(), args)
	}
}

// withStore opens the store, runs do, and closes the store again.
func (a *app) withStore(ctx context.Context, want access, do func(store) error) error {
	s, err := a.openStore(ctx, want)
	if err != nil {
		return err
	}
	err = do(s)
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	return errors.Join(err, s.Close(tidy))
}

// closeTime bounds how long closing may take after an interrupt.
const closeTime = 30 * time.Second
