package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/offline"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

const exportHelp = `
Export writes what a point has of repositories beside their code (issues, pull requests, reviews, discussions, releases, with their
files) in a form that people read without a forge, and without Backstay.`

const exportHTMLHelp = `
Html writes pages: open DIR/index.html in a browser, from the disk. They load nothing from elsewhere. DIR must be empty or not there.
What people wrote is shown without scripts; pictures and attachments that the point has are beside the pages.`

const exportSQLiteHelp = `
Sqlite writes one database, for the command sqlite3 and whatever else reads it. FILE must be empty or not there. The files of
releases and attachments are listed in it; their bytes are not.`

func newExportCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "export",
		GroupID: groupPoints,
		Short:   "Write issues, reviews and releases of a point for people to read offline",
		Long:    strings.TrimSpace(exportHelp),
		Args:    subcommandOnly,
		RunE:    showHelp,
	}
	cmd.AddCommand(
		newExportFormatCommand(a, exportFormat{
			name: "html", target: "DIR", short: "Write pages for a browser", help: exportHTMLHelp,
			example: "  backstay export html latest --to pages\n  backstay export html latest:github.com/acme --part acme/api --to pages",
			begin:   func(_ context.Context, at, title string) (exporter, error) { return offline.NewSite(at, title) },
		}),
		newExportFormatCommand(a, exportFormat{
			name: "sqlite", target: "FILE", short: "Write an SQLite database", help: exportSQLiteHelp,
			example: "  backstay export sqlite latest --to acme.db\n  backstay export sqlite latest --as-of 2026-01-31 --to acme.db",
			begin:   func(ctx context.Context, at, _ string) (exporter, error) { return offline.NewDatabase(ctx, at) },
		}),
	)
	return cmd
}

// exporter writes repositories one after another.
type exporter interface {
	Add(ctx context.Context, r offline.Repository) error
	// Finish ends well. It is called once, after the last Add.
	Finish(ctx context.Context) (offline.Counts, error)
	// Close gives up what is held, in any case.
	Close() error
}

// exportFormat is a way to write metadata.
type exportFormat struct {
	name, target, short, help, example string

	begin func(ctx context.Context, at, title string) (exporter, error)
}

type exportOptions struct {
	to    string
	parts []string
	asOf  timeFlag
}

func newExportFormatCommand(a *app, f exportFormat) *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   f.name + " POINT --to " + f.target,
		Short: f.short,
		Long: exits(f.help, "3   written, but the point lacks some of what was asked for",
			"6   there is something at the destination", "7   the stored data is damaged"),
		Example:           f.example,
		Args:              takes(1, 1),
		ValidArgsFunction: a.completePoints(1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			if o.to == "" {
				return fault.New("export", fault.ErrInvalid, "no destination", "say where with --to "+f.target)
			}
			return a.export(ctx, args[0], f, o)
		}),
	}
	cmd.Flags().StringVar(&o.to, "to", "", "`"+f.target+"` to write, empty or not there")
	cmd.Flags().StringArrayVar(&o.parts, "part", nil, "only the repository `NAME`, or its part; the end of it is enough: acme/api; repeat for more")
	o.asOf.bind(cmd)
	_ = cmd.RegisterFlagCompletionFunc("part", a.completeParts)
	return cmd
}

// exportDocument is what `export --json` prints.
type exportDocument struct {
	Version int            `json:"version"`
	Point   string         `json:"point"`
	To      string         `json:"to"`
	Counts  offline.Counts `json:"counts"`
	Parts   []string       `json:"parts"`
	Seconds float64        `json:"seconds"`
}

func (a *app) export(ctx context.Context, ref string, f exportFormat, o exportOptions) error {
	if err := offline.Vacant(o.to); err != nil {
		return err
	}
	return a.withStore(ctx, toRead, func(s store) error {
		began := a.Clock()
		p, err := protect.Resolve(ctx, s, ref, o.asOf.Time)
		if err != nil {
			return err
		}
		record, from, err := s.Open(ctx, p.ID)
		if err != nil {
			return err
		}
		parts, lacking, err := exportParts(record.Point.Parts, o.parts)
		switch {
		case err != nil:
			return err
		case len(parts) == 0 && lacking != nil:
			return lacking
		case len(parts) == 0:
			return fault.New("export", fault.ErrNotFound, "the point has no such metadata", "back up with metadata: true")
		}
		doc := exportDocument{Version: documentVersion, Point: p.ID, To: o.to, Parts: []string{}}
		what := p.Subject.Name + " as of " + stamp(p.Time) + " UTC"
		err = offline.Stage(o.to, func(tmp string) (err error) {
			to, err := f.begin(ctx, tmp, what)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, to.Close()) }()
			for _, part := range parts {
				if err := addPart(ctx, to, protect.Within(from, part.Name), part.Name); err != nil {
					return fault.Wrap(part.Name, nil, err, "")
				}
				doc.Parts = append(doc.Parts, part.Name)
			}
			doc.Counts, err = to.Finish(ctx)
			return err
		})
		if err != nil {
			return err
		}
		doc.Seconds = seconds(a.Clock().Sub(began))
		return errors.Join(lacking, a.tellExport(doc, what))
	})
}

// addPart adds a repository's metadata.
func addPart(ctx context.Context, to exporter, from point.Reader, name string) error {
	options, _, err := sourceOf(ctx, from)
	if err != nil {
		return err
	}
	inner := strings.TrimSuffix(strings.TrimPrefix(name, "forge/"), "/metadata")
	return to.Add(ctx, offline.Repository{Name: inner, Source: options.From})
}

// exportParts are the metadata of the repositories that are wanted, all for no names. What should be there and is not is lacking;
// a name that means nothing is an error.
func exportParts(all []point.Part, names []string) (found []point.Part, lacking, err error) {
	meant := make([]bool, len(names))
	var lacks []error
	for _, p := range all {
		if p.Kind != point.KindMetadata {
			continue
		}
		i := slices.IndexFunc(names, func(name string) bool { return namesRepository(p.Name, name) })
		if i >= 0 {
			meant[i] = true
		} else if len(names) > 0 {
			continue
		}
		switch p.State {
		case point.Stored, point.Carried:
			found = append(found, p)
		case point.Failed:
		default:
			continue // left out on purpose, or vanished
		}
		lacks = append(lacks, protect.Lacks(p)...)
	}
	for i, name := range names {
		if !meant[i] {
			err = errors.Join(err, fault.New(fmt.Sprintf("find part %q", name), fault.ErrNotFound, "the point has no metadata of it", ""))
		}
	}
	return found, errors.Join(lacks...), err
}

// namesRepository reports whether a name means a part of metadata: its own name, its repository's, or the end of one of them.
func namesRepository(part, name string) bool {
	name = strings.TrimSuffix(strings.TrimSuffix(name, "/metadata"), ".git")
	return name != "" && strings.HasSuffix("/"+strings.TrimSuffix(part, "/metadata"), "/"+strings.TrimPrefix(name, "git/"))
}

func (a *app) tellExport(doc exportDocument, what string) error {
	if a.global.json {
		return a.document(doc)
	}
	c := doc.Counts
	counts := []string{
		plural(c.Repositories, "repository", "repositories"), plural(c.Issues, "issue", "issues"), plural(c.Pulls, "pull request", "pull requests"),
		plural(c.Comments, "comment", "comments"), plural(c.Releases, "release", "releases"),
	}
	if c.Projects > 0 {
		counts = append(counts, plural(c.Projects, "project", "projects"))
	}
	a.say("%s: %s, %s", doc.To, strings.Join(counts, ", "), plural(c.Files, "file", "files"))
	if c.Missing > 0 {
		a.say("note: the point does not have the bytes of %s", plural(c.Missing, "file", "files"))
	}
	a.say("%s, %.1f s", what, doc.Seconds)
	return nil
}
