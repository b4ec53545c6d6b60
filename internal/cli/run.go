package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/config"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/policy"
	"github.com/backstay/backstay/internal/protect"
)

const runHelp = `
Run backs up what policies declare, at the times they say: whole accounts of forges and single repositories, into restore
points, plain copies and mirrors. It goes on until it is stopped, and takes changes of the files over as they are made; where
those are wrong, it says so and keeps to what it has.

With --once every policy runs now, one after the other, whatever its schedule. Locations must have a vault already: see
location create.

Several processes, here or on other machines, share the work on large accounts when each says the same --shared-run: a name for
this one run. One of them makes the point, and any of them may end at any time. See docs/scale.md.`

const runExample = `  backstay run -f /etc/backstay
  backstay run -f policy.yaml --once --json
  backstay run -f policy.yaml --once --policy nightly --dry-run
  backstay run -f policy.yaml --once --shared-run "$(date +%F)"`

// leastTerm leaves a process time to say that it is there, also on a machine that is busy.
const leastTerm = 5 * time.Second

type runOptions struct {
	files    []string
	policies []string
	once     bool
	process  processOptions
}

// processOptions are those of a process that runs policies.
type processOptions struct {
	dryRun      bool
	listen      string // address of metrics; "" for none
	metricsPath string // of their URL
	logFile     string // beside standard error; "" for none
	logMaxAge   policy.Duration
	timeFormat  string         // of the log, a layout of Go; "" for RFC 3339
	silent      bool           // nothing on standard error
	shared      protect.Shared // run with other processes; no name for none
	level       slog.Level
}

func newRunCommand(a *app) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:     "run -f FILE|DIR",
		GroupID: groupPolicies,
		Short:   "Back up what policies declare, on their schedules",
		Long:    exits(runHelp, "3   with --once: something is missing in what was made"),
		Example: runExample,
		Args:    takes(0, 0),
		RunE:    a.runs(func(ctx context.Context, _ []string) error { return a.runDeclared(ctx, o) }),
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&o.files, "file", "f", nil, "`FILE` of policies, or directory of such files; repeat for more")
	flags.BoolVar(&o.once, "once", false, "run every policy once, now, and end")
	flags.StringArrayVar(&o.policies, "policy", nil, "only the policy `NAME`; repeat for more")
	flags.StringVar(&o.process.shared.Run, "shared-run", "", "with --once: share the work with all processes that say the same `NAME`")
	flags.DurationVar(&o.process.shared.Term, "shared-term", protect.DefaultTerm, "with --shared-run: take over the work of a process after such a `TIME` of silence")
	o.process.bind(cmd)
	return cmd
}

func (o *processOptions) bind(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&o.dryRun, "dry-run", false, "with --once: only list what would be backed up")
	flags.StringVar(&o.listen, "metrics-listen", "", "serve metrics for Prometheus at `ADDRESS`, such as :9178")
	flags.StringVar(&o.metricsPath, "metrics-path", "/metrics", "`PATH` of the metrics")
	flags.StringVar(&o.logFile, "log-file", "", "write the lines of runs to `FILE`, too")
	flags.Var(&o.logMaxAge, "log-max-age", "remove parts of the log file that are older, such as 30d; nothing said keeps all")
	flags.StringVar(&o.timeFormat, "log-time-format", "", "`LAYOUT` of times in the log, as Go has them")
}

// runsDocument is what `run --once --json` prints.
type runsDocument struct {
	Version int         `json:"version"`
	Runs    []point.Run `json:"runs"`
}

func (a *app) runDeclared(ctx context.Context, o runOptions) error {
	if len(o.files) == 0 {
		return fault.New("run", fault.ErrInvalid, "no file", "say where the policies are: -f FILE or -f DIR")
	}
	if o.process.dryRun && !o.once {
		return fault.New("run", fault.ErrInvalid, "--dry-run goes with --once", "")
	}
	if o.process.shared.Run != "" && !o.once {
		return fault.New("run", fault.ErrInvalid, "--shared-run goes with --once", "a name is for one run")
	}
	if o.process.shared.Term < leastTerm {
		return fault.New("run", fault.ErrInvalid, fmt.Sprintf("--shared-term %s is less than %s", o.process.shared.Term, leastTerm), "")
	}
	d, err := a.newDaemon(o.process)
	if err != nil {
		return err
	}
	d.load = func() (declared, error) {
		set, err := config.Load(o.files...)
		if err != nil {
			return declared{}, err
		}
		if len(set.Policies) == 0 { // a directory that is not mounted must not look like work done
			return declared{}, fault.New("read configuration", fault.ErrInvalid, "no policy is declared in "+strings.Join(o.files, ", "), "")
		}
		policies, err := only(set.Policies, o.policies)
		return declared{policies: policies, locations: set.Locations}, err
	}
	return errors.Join(d.run(ctx, o.once), d.close())
}

// only chooses policies by name; no names choose all.
func only(policies []v1alpha1.Policy, names []string) ([]v1alpha1.Policy, error) {
	if len(names) == 0 {
		return policies, nil
	}
	var chosen []v1alpha1.Policy
	for _, name := range names {
		i := slices.IndexFunc(policies, func(p v1alpha1.Policy) bool { return p.Name == name })
		if i < 0 {
			return nil, fault.New(fmt.Sprintf("find policy %q", name), fault.ErrNotFound, "", "")
		}
		chosen = append(chosen, policies[i])
	}
	return chosen, nil
}

// tellReports prints what --once did.
func (d *daemon) tellReports() error {
	a := d.app
	if a.global.json {
		return a.document(runsDocument{documentVersion, append([]point.Run{}, d.reports...)})
	}
	for _, r := range d.reports {
		for _, s := range r.Sources {
			line := fmt.Sprintf("%s: %s", s.Subject.Name, repositoriesLine(s))
			if s.Point != "" {
				line += ", point " + shortID(s.Point)
			}
			a.say("%s", line)
		}
		a.say("%s %s: %s after %.1f s", "policy", r.Policy, a.verdict(r.State), r.Finished.Sub(r.Started).Seconds())
	}
	return nil
}

// repositoriesLine counts a source's repositories by how they fared.
func repositoriesLine(s point.SourceRun) string {
	counts := map[point.State]int{}
	unchanged := 0
	for _, r := range s.Repositories {
		counts[r.State]++
		if r.State == point.Stored && r.Unchanged {
			unchanged++
		}
	}
	line := plural(int64(len(s.Repositories)), "repository", "repositories")
	for _, state := range []point.State{point.Stored, point.Carried, point.Skipped, point.Vanished, point.Failed} {
		if counts[state] > 0 {
			line += fmt.Sprintf(", %d %s", counts[state], state)
		}
		if state == point.Stored && unchanged > 0 {
			line += fmt.Sprintf(" (%d unchanged)", unchanged)
		}
	}
	return line
}
