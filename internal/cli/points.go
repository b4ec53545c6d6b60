package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

const pointsHelp = `
Points lists restore points, newest first. Their times are in UTC. With app/NAME it lists those of an application that Backstay on a
Kubernetes cluster knows. --app NAME does so too, but reads the vault where --location or BACKSTAY_LOCATION is a path or URL: no cluster is
needed then. --revision chooses those that were made while a revision was live that Argo CD or Flux had deployed.`

type pointsOptions struct {
	pointFilter
	application, revision string
	cluster               clusterOptions
}

func newPointsCommand(a *app) *cobra.Command {
	var o pointsOptions
	cmd := &cobra.Command{
		Use:     "points [app/NAME]",
		GroupID: groupPoints,
		Short:   "List restore points",
		Long:    exits(pointsHelp),
		Example: "  backstay points\n  backstay points --subject github.com/acme/api --json\n  backstay points app/shop\n" +
			"  backstay points --app shop --revision 3f2a91c",
		Args: takes(0, 1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			if len(args) == 1 {
				var is bool
				if o.application, is = applicationOf(args[0]); !is {
					return fault.New("points", fault.ErrInvalid, args[0]+" is no application", "say app/NAME; --subject chooses other points")
				}
			}
			switch {
			case o.application != "" && o.subject != "":
				return fault.New("points", fault.ErrInvalid, "--subject means nothing for an application", "")
			case len(args) == 1, o.application != "" && !a.namesPlace():
				return a.applicationPoints(ctx, o)
			}
			return a.points(ctx, o)
		}),
	}
	cmd.Flags().StringVar(&o.application, "app", "", "only points of the application `NAME`, as app/NAME; of the vault where --location is a path or URL")
	cmd.Flags().StringVar(&o.revision, "revision", "", "only points made while `SHA` was live: a commit, its first seven digits or more, or a chart's version")
	o.cluster.bind(cmd.Flags())
	o.pointFilter.bind(cmd)
	return cmd
}

// pointFilter chooses points by flags.
type pointFilter struct{ subject, policy string }

func (f *pointFilter) bind(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.subject, "subject", "", "only points of the subject `NAME`")
	cmd.Flags().StringVar(&f.policy, "policy", "", "only points of the policy `NAME`")
}

// list returns the points chosen, newest first. A subject's name is enough: its kind need not be told. Where points are lost,
// those that are left come with the error.
func (f *pointFilter) list(ctx context.Context, s store) ([]point.Point, error) {
	all, err := s.Points(ctx, point.Filter{Policy: f.policy})
	chosen := []point.Point{} // never null in JSON
	for _, p := range all {
		if f.subject == "" || p.Subject.Name == f.subject {
			chosen = append(chosen, p)
		}
	}
	return chosen, err
}

// pointsDocument is what `points --json` prints.
type pointsDocument struct {
	Version int           `json:"version"`
	Points  []point.Point `json:"points"`
}

// namesPlace reports whether the location is named by its path or URL: else it is the name of a Location on a cluster, or none.
func (a *app) namesPlace() bool {
	return strings.ContainsAny(cmp.Or(a.global.location, a.Getenv(envLocation)), "/:")
}

func (a *app) points(ctx context.Context, o pointsOptions) error {
	return a.withStore(ctx, toRead, func(s store) error {
		points, alarm := o.list(ctx, s)
		points = slices.DeleteFunc(points, func(p point.Point) bool { return !o.chooses(p) })
		if alarm != nil && len(points) == 0 {
			return alarm
		}
		return errors.Join(alarm, a.tellPoints(points))
	})
}

// chooses reports whether a point is of the application and revision that are wanted.
func (o pointsOptions) chooses(p point.Point) bool {
	if o.application != "" && (p.Subject.Kind != point.SubjectApplication || path.Base(p.Subject.Name) != o.application) {
		return false
	}
	return o.revision == "" || p.MadeAt(o.revision)
}

func (a *app) tellPoints(points []point.Point) error {
	if a.global.json {
		return a.document(pointsDocument{documentVersion, points})
	}
	if len(points) == 0 {
		a.say("no points")
		return nil
	}
	rows, revisions, proven := make([][]string, len(points)), make([][]string, len(points)), make([]string, len(points))
	for i, p := range points {
		rows[i] = []string{shortID(p.ID), stamp(p.Time), p.Subject.Name, string(p.State), size(p.Bytes), fit(holdsOf(p))}
		_, revisions[i] = p.DeployedBy()
		proven[i] = provenOf(p)
	}
	heads, rows := withRevisions([]string{"ID", "TIME (UTC)", "SUBJECT", "STATE", "SIZE", "HOLD"}, rows, revisions)
	return a.table(withColumn(heads, rows, "PROVEN", proven))
}

// withRevisions puts the revisions that were live before the last column of a table, where there are any.
func withRevisions(heads []string, rows, revisions [][]string) ([]string, [][]string) {
	cells := make([]string, len(rows))
	for i := range rows {
		var short []string
		for _, r := range revisions[i] {
			short = append(short, shortID(r))
		}
		cells[i] = strings.Join(short, " ")
	}
	return withColumn(heads, rows, "REVISION", cells)
}

// withColumn puts a column before the last one of a table, where it says anything.
func withColumn(heads []string, rows [][]string, head string, cells []string) ([]string, [][]string) {
	if strings.Join(cells, "") == "" {
		return heads, rows
	}
	last := len(heads) - 1
	for i := range rows {
		rows[i] = slices.Insert(rows[i], last, cells[i])
	}
	return slices.Insert(heads, last, head), rows
}

// shortID is enough of an id to refer to it in any vault of a person's making.
func shortID(id string) string { return id[:min(len(id), 12)] }

// holdsOf tells why a point is on hold.
func holdsOf(p point.Point) string {
	var reasons []string
	for _, h := range p.Holds {
		reasons = append(reasons, h.Reason)
	}
	return strings.Join(reasons, "; ")
}

// fit cuts text to what a column of a table has room for.
func fit(text string) string {
	const room = 60
	if cut := []rune(text); len(cut) > room {
		return string(cut[:room-1]) + "…"
	}
	return text
}

const referenceHelp = `
A point is named by its id, by the first digits of it (four at least), by latest, or by latest:SUBJECT.`

const showPointHelp = `
Show tells what is in a restore point: its parts, their states, and what was expected against what was stored.` + referenceHelp

type showOptions struct {
	asOf timeFlag
	refs bool
}

func newShowCommand(a *app) *cobra.Command {
	var o showOptions
	cmd := &cobra.Command{
		Use:               "show POINT",
		GroupID:           groupPoints,
		Short:             "Tell what is in a restore point",
		Long:              exits(showPointHelp),
		Example:           "  backstay show latest\n  backstay show 3f2a91c0 --refs",
		Args:              takes(1, 1),
		ValidArgsFunction: a.completePoints(1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			return a.show(ctx, args[0], o)
		}),
	}
	cmd.Flags().BoolVar(&o.refs, "refs", false, "list the refs of the point's repositories")
	o.asOf.bind(cmd)
	return cmd
}

// showDocument is what `show --json` prints.
type showDocument struct {
	Version  int          `json:"version"`
	Point    point.Point  `json:"point"`
	Ledger   point.Ledger `json:"ledger"`
	Finished time.Time    `json:"finished"`
	Tool     string       `json:"tool"`
	Dumps    []shownDump  `json:"dumps,omitempty"` // of databases
	Refs     []shownRef   `json:"refs,omitempty"`  // with --refs
}

func (a *app) show(ctx context.Context, ref string, o showOptions) error {
	return a.withStore(ctx, toRead, func(s store) error {
		p, err := protect.Resolve(ctx, s, ref, o.asOf.Time)
		if err != nil {
			return err
		}
		record, tree, err := s.Open(ctx, p.ID)
		if err != nil {
			return err
		}
		record.Point.Holds, record.Point.Proof = p.Holds, p.Proof
		doc := showDocument{
			Version: documentVersion, Point: record.Point, Ledger: record.Ledger, Finished: record.Finished, Tool: record.Tool,
		}
		if doc.Dumps, err = dumpsOf(ctx, record.Point.Parts, tree); err == nil && o.refs {
			doc.Refs, err = refsOf(ctx, record.Point.Parts, tree)
		}
		if err != nil {
			return err
		}
		switch {
		case a.global.json:
			return a.document(doc)
		case o.refs:
			return a.tellRefs(doc.Refs)
		}
		return a.tellRecord(record, doc.Dumps)
	})
}

func (a *app) tellRecord(r *point.Record, dumps []shownDump) error {
	p := r.Point
	for _, line := range append([][2]string{
		{"point", p.ID},
		{"subject", p.Subject.Name + " (" + p.Subject.Kind + ")"},
		{"policy", p.Policy},
		{"taken", stamp(p.Time) + " UTC, in " + r.Finished.Sub(p.Time).Round(100*time.Millisecond).String()},
		{"skew", skewLine(p.Parts)},
		{"made by", r.Tool},
		{"on hold", holdsOf(p)},
		{"proven", proofLine(p.Proof)},
	}, deploymentLines(p.Deployment)...) {
		if line[1] != "" {
			fmt.Fprintf(a.Stdout, "%-8s %s\n", line[0], printable(line[1]))
		}
	}
	fmt.Fprintln(a.Stdout)
	p.Parts = slices.SortedFunc(slices.Values(p.Parts), func(a, b point.Part) int { return strings.Compare(a.Name, b.Name) })
	rows := make([][]string, len(p.Parts))
	for i, part := range p.Parts {
		rows[i] = []string{part.Name, part.Kind, string(part.State), size(part.Bytes), size(part.NewBytes), countsOf(part)}
	}
	if err := a.table([]string{"PART", "KIND", "STATE", "SIZE", "NEW", "COUNTED"}, rows); err != nil {
		return err
	}
	fmt.Fprintln(a.Stdout)
	for _, part := range p.Parts {
		for _, remark := range append(remarks(part), dumpRemarks(p, part, dumps)...) {
			fmt.Fprintln(a.Stdout, printable(part.Name+": "+remark))
		}
	}
	_, err := fmt.Fprintf(a.Stdout, "%s: %s\n", a.verdict(p.State), printable(ledgerLine(p.Parts, r.Ledger)))
	return err
}

// deploymentLines tell what had deployed a point's application.
func deploymentLines(d *point.Deployment) [][2]string {
	if d == nil {
		return nil
	}
	lines := [][2]string{{"deployed", "by " + d.Name}}
	for _, s := range d.Sources {
		from := strings.TrimSpace(s.URL + " " + s.Path + s.Chart)
		if s.Part != "" {
			from += ", in " + s.Part
		}
		lines = append(lines, [2]string{"from", from}, [2]string{"revision", s.From}, [2]string{"next", s.To})
	}
	if d.Manifests != "" {
		lines = append(lines, [2]string{"applied", "sha256:" + d.Manifests})
	}
	for _, image := range d.Images {
		lines = append(lines, [2]string{"image", image})
	}
	return lines
}

func countsOf(p point.Part) string {
	var counts []string
	for _, c := range briefCounts(p) {
		text := fmt.Sprintf("%d of %d %s", c.Stored, c.Expected, c.Of)
		if c.Excluded > 0 {
			text += fmt.Sprintf(" (%d excluded)", c.Excluded)
		}
		counts = append(counts, text)
	}
	return strings.Join(counts, ", ")
}

// skewLine tells how far apart the moments are that parts are of.
func skewLine(parts []point.Part) string {
	if skew := point.Skew(parts); skew > 0 {
		return skew.Round(time.Millisecond).String() + " between the first and the last moment that parts are of"
	}
	return ""
}

// remarks are what a part's line in the table has no room for.
func remarks(p point.Part) []string {
	var all []string
	if p.CarriedFrom != nil {
		all = append(all, "the copy of "+stamp(*p.CarriedFrom)+" UTC stands in")
	}
	if p.Reason != "" {
		all = append(all, p.Reason)
	}
	if p.Kind == point.KindMetadata {
		all = append(all, recordsOf(p))
	}
	for _, c := range p.Counts {
		for _, item := range c.MissingAtSource {
			all = append(all, "missing at source: "+item)
		}
	}
	if p.Revision != "" {
		all = append(all, "at "+p.Revision)
	}
	return append(all, p.Notes...)
}

const diffHelp = `
Diff tells what changed from one restore point to another: refs of repositories, issues, comments and releases, files of directories.` + referenceHelp

func newDiffCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "diff POINT POINT",
		GroupID:           groupPoints,
		Short:             "Tell what changed between two restore points",
		Long:              exits(diffHelp),
		Example:           "  backstay diff 3f2a91c0 latest",
		Args:              takes(2, 2),
		ValidArgsFunction: a.completePoints(2),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			return a.diff(ctx, args[0], args[1])
		}),
	}
}

// diffDocument is what `diff --json` prints.
type diffDocument struct {
	Version int              `json:"version"`
	Before  string           `json:"before"`
	After   string           `json:"after"`
	Changes []protect.Change `json:"changes"`
}

func (a *app) diff(ctx context.Context, before, after string) error {
	return a.withStore(ctx, toRead, func(s store) error {
		old, err := protect.Resolve(ctx, s, before, time.Time{})
		if err != nil {
			return err
		}
		fresh, err := protect.Resolve(ctx, s, after, time.Time{})
		if err != nil {
			return err
		}
		doc := diffDocument{Version: documentVersion, Before: old.ID, After: fresh.ID, Changes: []protect.Change{}}
		shown := 0
		tell := func(c protect.Change) {
			shown++
			if a.global.json {
				doc.Changes = append(doc.Changes, c)
				return
			}
			fmt.Fprintln(a.Stdout, printable(changeLine(c)))
		}
		if err := protect.Diff(ctx, s, old.ID, fresh.ID, a.differs(), tell); err != nil {
			return err
		}
		if a.global.json {
			return a.document(doc)
		}
		if shown == 0 {
			a.say("no difference")
		}
		return nil
	})
}

func changeLine(c protect.Change) string {
	sign := map[string]string{"added": "+", "removed": "-", "changed": "~"}[c.What]
	line := sign + " " + c.Part
	if c.Item != "" {
		line += " " + c.Item
	}
	switch {
	case c.Before != "" && c.After != "":
		return line + "  " + c.Before + " -> " + c.After
	case c.Before+c.After != "":
		return line + "  " + c.Before + c.After
	}
	return line
}

// timeFlag is a point in time. A date alone means the end of that day; without a zone it is local time.
type timeFlag struct{ time.Time }

func (t *timeFlag) bind(cmd *cobra.Command) {
	cmd.Flags().Var(t, "as-of", "with latest: the newest point not later than `TIME` (2026-01-31, \"2026-01-31 12:00\", RFC 3339)")
}

func (t *timeFlag) String() string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339)
}

// Set and Type make timeFlag a flag.
func (t *timeFlag) Set(s string) error {
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04"} {
		if parsed, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			t.Time = parsed
			return nil
		}
	}
	day, err := time.ParseInLocation(time.DateOnly, s, time.Local)
	if err != nil {
		return fault.New("time", fault.ErrInvalid, "not a date or time", `write 2026-01-31, "2026-01-31 12:00" or 2026-01-31T12:00:00Z`)
	}
	t.Time = day.AddDate(0, 0, 1).Add(-time.Nanosecond)
	return nil
}

func (*timeFlag) Type() string { return "time" }
