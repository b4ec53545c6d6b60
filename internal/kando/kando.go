// Package kando is the command that the containers of Blueprints call: it moves data between a container and the place that a Profile
// names, and prints outputs of phases. Commands, flags and printed lines are the published ones.
package kando

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/internal/fault"
)

// Options are what kando needs of the process around it.
type Options struct {
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Getenv  func(string) string
	Clock   func() time.Time
	Version string
}

// tool is a kando in its process.
type tool struct{ Options }

const help = `
Kando pushes what a Blueprint's container makes to the place that a Profile names, and pulls it back. The Profile comes as JSON, as
published, or by file: --profile @FILE, $KANDO_PROFILE or $KANDO_PROFILE_FILE keep its credentials off the command line.`

const example = `  mysqldump --all-databases | kando location push --profile @/run/profile.json --path mysql/dump.sql -
  kando location pull --profile @/run/profile.json --path mysql/dump.sql - | mysql
  kando output dumpPath mysql/dump.sql`

// NewCommand makes the command and all below it.
func NewCommand(o Options) *cobra.Command {
	t := &tool{o}
	cmd := &cobra.Command{
		Use:     "kando <command>",
		Short:   "Move data of Blueprints, and print outputs of their phases",
		Long:    help[1:],
		Example: example,
		Version: o.Version,
		Args:    noCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringP("verbosity", "v", "warn", "taken for compatibility; kando tells what matters")
	cmd.AddCommand(newLocationCommand(t), newOutputCommand(t), newChronicleCommand(t), newStreamCommand(t), newProfileCommand(t))
	return cmd
}

// noCommand refuses an argument where a command belongs.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fault.New("", fault.ErrInvalid, fmt.Sprintf("unknown command %q", args[0]), "see `"+cmd.CommandPath()+" --help`")
}

// group is a command that has but commands.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: name + " <command>", Short: short, Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}

// exactly checks the number of arguments.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return fault.New("arguments", fault.ErrInvalid, fmt.Sprintf("%d are wanted, %d are given", n, len(args)), "usage: "+cmd.UseLine())
	}
}

// warn tells what the caller should see and a script need not.
func (t *tool) warn(format string, a ...any) {
	fmt.Fprintf(t.Stderr, "kando: "+format+"\n", a...)
}

// run makes a cobra body.
func run(do func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error { return do(cmd.Context(), args) }
}
