package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
	"github.com/backstay/backstay/internal/scratchdir"
)

const drillHelp = `
Drill proves restore points: each part is restored into a scratch directory, looked at, and deleted. Repositories are checked by git fsck,
their refs are compared with the record, and they are cloned; Git LFS objects and files are read and compared with the hashes that they
are named for; what a forge knows is read whole; trees are counted; manifests are parsed. What is backed up is never touched.

The result stays with the point: "backstay points" shows it as proven since its date, or as failed. A drill that fails takes an earlier proof
away. One that cannot be made, for want of disk or of the store, says nothing of the point and changes nothing.

A subject alone means its newest complete point. --all drills that of every subject, those first that never were or whose drill is longest
ago; --limit says how many. Scratch directories are in TMPDIR: the largest part, and a repository twice, must fit.` + referenceHelp

type drillOptions struct {
	pointFilter
	asOf  timeFlag
	all   bool
	limit int

	// For databases.
	sql              []string
	database, schema string

	application applicationDrill
}

func newDrillCommand(a *app) *cobra.Command {
	var o drillOptions
	var flags *pflag.FlagSet
	cmd := &cobra.Command{
		Use:     "drill POINT|SUBJECT | app/NAME [POINT]",
		GroupID: groupKeeping,
		Short:   "Prove a restore point by restoring it into scratch",
		Long: exits(drillHelp, "3   a check failed: the point is not proven", "6   the scratch directory cannot be made, or is full",
			"7   the vault is damaged"),
		Example: "  backstay drill latest\n  backstay drill github.com/acme\n  backstay drill --all --limit 10\n" +
			"  backstay drill app/shop --http web:80/health",
		Args:              takes(0, 2),
		ValidArgsFunction: a.completePoints(1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			application, is := applicationOf(strings.Join(args[:min(len(args), 1)], ""))
			switch {
			case is:
				if err := misplaced("drill", flags, "for an application", "all", "limit", "subject", "policy"); err != nil {
					return err
				}
				return a.drillApplication(ctx, application, strings.Join(args[1:], ""), o)
			case len(args) > 1:
				return fault.New("drill", fault.ErrInvalid, "too many arguments", "one point at a time; with app/NAME the point comes second")
			}
			if err := misplaced("drill", flags, "without app/NAME", applicationDrillFlags()...); err != nil {
				return err
			}
			if o.limit < 0 {
				return fault.New("drill", fault.ErrInvalid, "--limit is a number of points", "")
			}
			return a.drill(ctx, strings.Join(args, ""), o)
		}),
	}
	cmd.Flags().BoolVar(&o.all, "all", false, "drill the newest complete point of every subject")
	cmd.Flags().IntVar(&o.limit, "limit", 0, "with --all: no more than `N` points")
	cmd.Flags().StringArrayVar(&o.sql, "sql", nil, "ask a restored database `QUERY`, whose first value must not be nothing, NULL, 0 or false; repeat for more")
	cmd.Flags().StringVar(&o.database, "database", "", "with --sql: the part databases/`NAME`; default is the only one of the point")
	cmd.Flags().StringVar(&o.schema, "schema", "", "with --sql: the database `NAME` on that server; default is its only one")
	o.asOf.bind(cmd)
	o.pointFilter.bind(cmd)
	o.application.bind(cmd.Flags())
	flags = cmd.Flags()
	return cmd
}

// drillDocument is what `drill --json` prints.
type drillDocument struct {
	Version int       `json:"version"`
	Drills  []drilled `json:"drills"`
	Seconds float64   `json:"seconds"`
}

// drilled is one drill; it has a proof, or a problem that kept it from being made.
type drilled struct {
	Point   string         `json:"point"`
	Subject point.Subject  `json:"subject"`
	Time    time.Time      `json:"time"`
	Proof   *point.Proof   `json:"proof,omitempty"`
	Problem *point.Problem `json:"problem,omitempty"`
}

func (a *app) drill(ctx context.Context, ref string, o drillOptions) error {
	if o.all == (ref != "") {
		return fault.New("drill", fault.ErrInvalid, "give a point, a subject or --all", "")
	}
	return a.withStore(ctx, toWrite, func(s store) error {
		began := a.Clock()
		points, err := a.toDrill(ctx, s, ref, o)
		if err != nil {
			return err
		}
		observe, wipe := a.observer()
		defer wipe()
		asked := &questions{checks: o.checks()}
		drill, err := a.drillWith(observe, asked)
		if err != nil {
			return err
		}
		doc := drillDocument{Version: documentVersion, Drills: []drilled{}}
		var failed []error
		for _, p := range points {
			proof, err := drill.Prove(ctx, s, p.ID)
			wipe()
			if ctx.Err() != nil {
				return err
			}
			d := drilled{Point: p.ID, Subject: p.Subject, Time: p.Time, Proof: proof}
			if proof == nil {
				problem := protect.ProblemOf(err)
				d.Problem = &problem
			}
			doc.Drills = append(doc.Drills, d)
			failed = append(failed, err)
			a.tellDrill(d)
		}
		failed = append(failed, asked.unasked())
		doc.Seconds = seconds(a.Clock().Sub(began))
		if a.global.json {
			failed = append(failed, a.document(doc))
		} else if o.all {
			a.say("%s, %.1f s", plural(int64(len(doc.Drills)), "drill", "drills"), doc.Seconds)
		}
		return errors.Join(failed...)
	})
}

// toDrill finds the points that are meant.
func (a *app) toDrill(ctx context.Context, s store, ref string, o drillOptions) ([]point.Point, error) {
	if ref != "" && isReference(ref) {
		p, err := protect.Resolve(ctx, s, ref, o.asOf.Time)
		if err != nil {
			return nil, err
		}
		return []point.Point{*p}, nil
	}
	if !o.asOf.IsZero() {
		return nil, fault.New("drill", fault.ErrInvalid, "--as-of goes with latest or latest:SUBJECT", "")
	}
	o.subject = cmp.Or(ref, o.subject)
	points, err := o.list(ctx, s)
	if err != nil {
		return nil, err
	}
	due := protect.ToDrill(points, o.limit)
	if len(due) == 0 {
		return nil, fault.New("drill", fault.ErrNotFound, "no point of "+cmp.Or(o.subject, "any subject"), "`backstay points` lists them")
	}
	return due, nil
}

// isReference tells a reference to a point from the name of a subject.
func isReference(ref string) bool {
	return ref == "latest" || strings.HasPrefix(ref, "latest:") || len(ref) >= 4 && strings.Trim(strings.ToLower(ref), "0123456789abcdef") == ""
}

// checks are the questions to databases that flags ask.
func (o drillOptions) checks() []v1alpha1.SQLCheck {
	var all []v1alpha1.SQLCheck
	for _, query := range o.sql {
		all = append(all, v1alpha1.SQLCheck{Database: o.database, Schema: o.schema, Query: query})
	}
	return all
}

// drillWith is how points are drilled on this machine.
func (a *app) drillWith(observe point.Observer, asked *questions) (protect.Drill, error) {
	restorers, err := a.restorers(context.Background(), restoreOptions{}, observe)
	return protect.Drill{
		Restorers: restorers, Checkers: checkers(asked), Scratch: drillScratch, By: a.machine(), Clock: a.Clock, Observe: observe,
	}, err
}

// drillScratchPrefix begins the names of the directories into which drills restore.
const drillScratchPrefix = "backstay-drill-"

func drillScratch() (dir string, remove func(), err error) {
	d, err := scratchdir.New("", drillScratchPrefix)
	if err != nil {
		return "", nil, fault.Wrap("make a scratch directory", fault.ErrRefused, err, "point TMPDIR to a directory that can be written")
	}
	return d.Path, d.Remove, nil
}

// machine names this machine.
func (a *app) machine() string {
	if name := a.Getenv(envHostname); name != "" {
		return name
	}
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

func (a *app) tellDrill(d drilled) {
	what := d.Subject.Name + " as of " + stamp(d.Time) + " UTC"
	if d.Proof == nil {
		a.say("not drilled: %s: %s", what, d.Problem.What)
		return
	}
	for _, c := range d.Proof.Problems() {
		a.say("failed: %s", protect.ProblemLine(c))
	}
	took := d.Proof.Finished.Sub(d.Proof.Started).Seconds()
	if !d.Proof.Proven {
		a.say("not proven: %s, %d of %s failed, %.1f s", what, len(d.Proof.Problems()), plural(int64(len(d.Proof.Checks)), "check", "checks"), took)
		return
	}
	a.say("proven: %s, %s, restored in %.1f s", what, plural(int64(len(d.Proof.Checks)), "check", "checks"), d.Proof.RestoreSeconds)
}

// provenOf tells in a word or two what is known of a point: "2026-11-20", "2026-11-20 in part", "failed 2026-11-20", or nothing.
func provenOf(p point.Point) string {
	if p.Proof == nil {
		return ""
	}
	return provenOn(p.Proof.Finished, p.Proof.Proven, len(p.Proof.Excepted()) > 0)
}

func provenOn(at time.Time, proven, inPart bool) string {
	day := at.UTC().Format(time.DateOnly)
	switch {
	case !proven:
		return "failed " + day
	case inPart:
		return day + " in part"
	}
	return day
}

// excepted tells of parts at which nobody looked.
func excepted(parts []string) string {
	if len(parts) == 0 {
		return ""
	}
	return "; nobody looked at " + strings.Join(parts, ", ")
}

// proofLine tells what the newest drill of a point found.
func proofLine(p *point.Proof) string {
	if p == nil {
		return ""
	}
	at := stamp(p.Finished) + " UTC"
	if p.By != "" {
		at += " by " + p.By
	}
	if p.Proven {
		but := p.Excepted()
		return fmt.Sprintf("%s: %s passed, restored in %.1f s%s", at, plural(int64(len(p.Checks)-len(but)), "check", "checks"), p.RestoreSeconds, excepted(but))
	}
	var failed []string
	for _, c := range p.Problems() {
		failed = append(failed, protect.ProblemLine(c))
	}
	return "no: the drill of " + at + " failed: " + strings.Join(failed, "; ")
}
