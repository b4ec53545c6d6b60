package cli

import (
	"github.com/spf13/cobra"

	"github.com/backstay/backstay/internal/kando"
)

// kandoMemory is what the garbage collector tries to stay below, in bytes: kando runs in containers made for something else.
const kandoMemory = 48 << 20

func newKandoCommand(a *app) *cobra.Command {
	cmd := kando.NewCommand(kando.Options{
		Stdin: a.Stdin, Stdout: a.Stdout, Stderr: a.Stderr, Getenv: a.Getenv, Clock: a.Clock, Version: a.Version,
	})
	cmd.GroupID = groupPolicies
	cmd.PersistentPreRun = func(*cobra.Command, []string) {
		a.started = true
		a.configureMessages()
		limitMemory(a.Getenv, cgroupMemory, kandoMemory)
	}
	return cmd
}
