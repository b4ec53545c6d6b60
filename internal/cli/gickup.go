package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/config"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/policy"
)

const gickupHelp = `
Gickup runs gickup's configuration files as they are: every document, every key, its copies and mirrors. Where the first document
has a cron, it stays and runs at those times. Called by the name gickup, the program is this command.

With --location there are restore points, too, and the copies are taken from them. --lint tells what gickup ignores, mangles or
loses in the files, and what is done here instead. --convert writes the same as native files, which run takes.`

const gickupExample = `  backstay gickup conf.yml
  backstay gickup --lint conf.yml
  backstay gickup --location /srv/vault conf.yml
  backstay gickup --convert policies conf.yml`

type gickupOptions struct {
	dryRun, debug, silent bool
	version               bool
	lint                  bool
	convert               string
}

func newGickupCommand(a *app) *cobra.Command {
	var o gickupOptions
	cmd := &cobra.Command{
		Use:     "gickup [conf.yml]...",
		GroupID: groupPolicies,
		Short:   "Run gickup's configuration as it is",
		Long:    exits(gickupHelp, "3   something could not be backed up, or was not copied", "6   --convert: the directory is not empty"),
		Example: gickupExample,
		Args:    takes(0, -1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			if len(args) == 0 {
				args = []string{"conf.yml"}
			}
			return a.gickup(ctx, args, o)
		}),
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.dryRun, "dryrun", false, "only list what would be backed up")
	flags.BoolVar(&o.debug, "debug", false, "tell more")
	flags.BoolVar(&o.silent, "silent", false, "tell nothing; the exit status stays what it is")
	flags.BoolVar(&o.version, "version", false, "print the version")
	flags.BoolVar(&o.lint, "lint", false, "tell what is wrong with the files, and run nothing")
	flags.StringVar(&o.convert, "convert", "", "write native files into `DIR`, and run nothing")
	return cmd
}

func (a *app) gickup(ctx context.Context, files []string, o gickupOptions) error {
	if o.version {
		a.say("%s", a.Version)
		return nil
	}
	conf, err := config.ReadGickup(a.gickupEnvironment(), files...)
	if err != nil {
		return err
	}
	switch {
	case o.lint:
		return a.lintGickup(conf)
	case o.convert != "":
		return a.convertGickup(conf, o.convert)
	}
	return a.runGickup(ctx, conf, files, o)
}

func (a *app) gickupEnvironment() config.Environment {
	return config.Environment{
		Lookup: func(name string) (string, bool) {
			value := a.Getenv(name)
			return value, value != ""
		},
		Home: a.Getenv("HOME"),
	}
}

func (a *app) runGickup(ctx context.Context, conf *config.Gickup, files []string, o gickupOptions) error {
	process := conf.Process()
	level := slog.LevelInfo
	if o.debug {
		level = slog.LevelDebug
	}
	d, err := a.newDaemon(processOptions{
		logFile: process.LogFile, logMaxAge: policy.Duration{Days: process.LogMaxAge}, timeFormat: process.TimeFormat,
		listen: process.Listen, metricsPath: process.MetricsPath, dryRun: o.dryRun, silent: o.silent, level: level,
	})
	if err != nil {
		return err
	}
	if a.global.location != "" {
		d.open = func(ctx context.Context, _ v1alpha1.Policy) (store, string, error) {
			s, err := a.openStore(ctx, toWriteOrCreate)
			return s, place(a.global.location), err
		}
	}
	var told []string
	d.load = func() (declared, error) {
		conf, err := config.ReadGickup(a.gickupEnvironment(), files...)
		if err != nil {
			return declared{}, err
		}
		policies, err := conf.Policies()
		if err == nil {
			told = d.tellFindings(conf, told)
		}
		return declared{policies: policies}, err
	}
	policies, err := conf.Policies()
	if err != nil {
		return errors.Join(err, d.close())
	}
	scheduled := slices.ContainsFunc(policies, func(p v1alpha1.Policy) bool { return p.Spec.Schedule != nil })
	return errors.Join(d.run(ctx, o.dryRun || !scheduled), d.close())
}

// tellFindings logs what is to be known of the files, once for each state of them.
func (d *daemon) tellFindings(conf *config.Gickup, told []string) []string {
	var now []string
	for _, f := range conf.Lint() {
		if f.Severity != config.Info {
			now = append(now, f.String())
		}
	}
	if !slices.Equal(now, told) {
		for _, line := range now {
			tell(d.log, slog.LevelWarn, line)
		}
	}
	return now
}

// gickupDocument is what `gickup --lint --json` prints.
type gickupDocument struct {
	Version  int              `json:"version"`
	Findings []config.Finding `json:"findings"`
}

func (a *app) lintGickup(conf *config.Gickup) error {
	if a.global.json {
		return a.document(gickupDocument{documentVersion, append([]config.Finding{}, conf.Lint()...)})
	}
	for _, f := range conf.Lint() {
		if _, err := fmt.Fprintln(a.Stdout, printable(f.String())); err != nil {
			return unwritten(err)
		}
		for _, line := range []string{"gickup: " + f.Gickup, "backstay: " + f.Backstay} {
			fmt.Fprintln(a.Stdout, "    "+printable(line))
		}
	}
	a.say("%s", plural(int64(len(conf.Lint())), "finding", "findings"))
	return nil
}

func (a *app) convertGickup(conf *config.Gickup, dir string) error {
	written, err := conf.Convert(dir)
	if err != nil {
		return fault.Wrap("convert", nil, err, "")
	}
	for _, file := range slices.Concat(written.Files, written.Secrets) {
		a.say("wrote %s", file)
	}
	a.say("run it with: backstay run -f %s %s", dir, strings.Join(written.Flags, " "))
	return nil
}
