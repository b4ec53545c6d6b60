package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/internal/fault"
)

const rootHelp = `Backstay backs up git repositories, and applications on Kubernetes, into an encrypted, deduplicated vault and brings them back.

A vault lives at a location: a directory, or a URL such as s3://bucket/prefix?endpoint=HOST. Without one, Backstay keeps a
vault below your data directory and makes it on first use, with a password that it writes beside its configuration.`

const rootExample = `  backstay backup https://github.com/acme/api.git
  backstay points
  backstay restore latest --to /tmp/api.git`

// Groups of commands in the help text.
const (
	groupPoints   = "points"
	groupKeeping  = "keeping"
	groupLocation = "location"
	groupPolicies = "policies"
)

func newRootCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:           "backstay",
		Short:         "Back up repositories and applications, and bring them back",
		Long:          rootHelp,
		Example:       rootExample,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          subcommandOnly,
		RunE:          showHelp,
	}
	cmd.AddGroup(
		&cobra.Group{ID: groupPoints, Title: "Restore points:"},
		&cobra.Group{ID: groupPolicies, Title: "On a schedule:"},
		&cobra.Group{ID: groupKeeping, Title: "Keeping them:"},
		&cobra.Group{ID: groupLocation, Title: "Where they are:"},
	)
	flags := cmd.PersistentFlags()
	flags.SortFlags = false
	flags.StringVarP(&a.global.location, "location", "l", "", "`URL` or directory of the vault (default $BACKSTAY_LOCATION)")
	flags.StringVar(&a.global.passwordFile, "password-file", "", "read the vault's password from `FILE` (default $BACKSTAY_PASSWORD)")
	flags.StringVar(&a.global.passwordCommand, "password-command", "", "read the vault's password from what the shell `COMMAND` prints")
	flags.StringVar(&a.global.evidenceKey, "evidence-key", "", "sign what is said of points with the key in `FILE` (default $BACKSTAY_EVIDENCE_KEY)")
	flags.BoolVar(&a.global.json, "json", false, "print one JSON document, and errors as JSON on standard error")
	flags.BoolVarP(&a.global.quiet, "quiet", "q", false, "print nothing but errors and what was asked for")
	flags.Var(&a.global.logFormat, "log-format", "`FORMAT` of progress and errors: text or json")
	_ = cmd.RegisterFlagCompletionFunc("log-format", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))

	cmd.AddCommand(
		newBackupCommand(a), newPointsCommand(a), newShowCommand(a), newDiffCommand(a), newRestoreCommand(a), newExportCommand(a), newRollbackCommand(a), newVerifyCommand(a), newDrillCommand(a),
		newHoldCommand(a), newExpireCommand(a), newMaintainCommand(a), newEvidenceCommand(a),
		newRunCommand(a), newConfigCommand(a), newGickupCommand(a), newConvertCommand(a), newBlueprintCommand(a), newKandoCommand(a),
		newLocationCommand(a),
		newGateCommand(a), newControllerCommand(a), newWorkerCommand(a), newMoverCommand(a), newVersionCommand(a),
	)
	return cmd
}

// subcommandOnly refuses arguments of a command that has but subcommands.
func subcommandOnly(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "see `" + cmd.CommandPath() + " --help`"
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return fault.New("", fault.ErrInvalid, fmt.Sprintf("unknown command %q", args[0]), hint)
}

func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// takes checks the number of arguments and names them where it is wrong.
func takes(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && (len(args) <= most || most < 0) {
			return nil
		}
		op, cause := "arguments", "too many"
		if len(args) < least {
			cause = "too few"
		}
		return fault.New(op, fault.ErrInvalid, cause, "usage: "+cmd.UseLine())
	}
}

// exits ends a command's long help with the exit statuses it may have: those of every command, and extra ones.
func exits(text string, extra ...string) string {
	lines := append([]string{
		"0   done",
		"2   a flag, argument or location is wrong",
		"4   the location, point or part is not there",
		"5   wrong password, or access denied",
		"75  the location or source cannot be reached now; try again later",
		"130 interrupted",
	}, extra...)
	slices.SortFunc(lines, func(a, b string) int { return exitOf(a) - exitOf(b) })
	return strings.TrimSpace(text) + "\n\nExit status:\n  " + strings.Join(lines, "\n  ")
}

func exitOf(line string) int {
	number, _, _ := strings.Cut(line, " ")
	n, _ := strconv.Atoi(number)
	return n
}
