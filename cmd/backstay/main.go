// Command backstay backs up git repositories and applications on Kubernetes into an encrypted, deduplicated vault and brings them back.
package main

import (
	"context"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
	_ "time/tzdata" // schedules name time zones, and images may have none

	"github.com/backstay/backstay/internal/cli"
)

// version is set by the linker.
var version = "0.1.0-dev"

// softMemory is what the garbage collector tries to stay below, in bytes: a pod of 128 MiB has to do.
const softMemory = 96 << 20

func main() { os.Exit(run()) }

func run() int {
	tuneMemory()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // from then on a second signal ends the process at once
	return cli.Run(ctx, cli.Process{
		Args:    arguments(os.Args),
		Stdin:   os.Stdin,
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
		Getenv:  os.Getenv,
		Clock:   time.Now,
		Version: version,
	})
}

// arguments are those of the command line. A program that is called by the name of one of its commands is that command.
func arguments(argv []string) []string {
	switch name := strings.TrimSuffix(filepath.Base(argv[0]), ".exe"); name {
	case "gickup", "kando":
		return append([]string{name}, argv[1:]...)
	}
	return argv[1:]
}

// tuneMemory leaves alone what the user has set by GOMEMLIMIT.
func tuneMemory() {
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(softMemory)
	}
}
