package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/gitea"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

// formatGitea is a directory for each repository that Gitea and Forgejo read themselves, on the server.
const formatGitea = "gitea-restore-repo"

// dumpRestore says that repositories go into what a forge's own command or import reads.
type dumpRestore struct {
	format string
	site   string
}

func (o *dumpRestore) bind(flags *pflag.FlagSet) {
	flags.StringVar(&o.format, "format", "", "with --to: what a forge itself reads, as `FORMAT`: "+formatGitea+" or "+formatGitLab)
	flags.StringVar(&o.site, "site", "", "with "+formatGitea+": the `URL` of the server that it is for, whose users are the authors again by name and number")
}

// check refuses what does not go with a format.
func (o restoreOptions) checkDump() error {
	switch {
	case o.dump.format == "" && o.dump.site != "":
		return fault.New("restore", fault.ErrInvalid, "--site goes with --format", "")
	case o.dump.format == "":
		return nil
	case o.dump.format != formatGitea && o.dump.format != formatGitLab:
		return fault.New("restore", fault.ErrInvalid, fmt.Sprintf("there is no format %q", o.dump.format), "the formats are "+formatGitea+" and "+formatGitLab)
	case o.forge != "" || isURL(o.to):
		return fault.New("restore", fault.ErrInvalid, "--format is for a directory or a file", "name it with --to")
	case o.dump.format == formatGitLab && (o.dump.site != "" || o.owner != ""):
		return fault.New("restore", fault.ErrInvalid, "--site and --owner do not go with "+formatGitLab, "they are chosen where the file is imported")
	case o.checkout || len(o.refs) > 0 || o.force || o.pullRequests || o.visibility != "":
		return fault.New("restore", fault.ErrInvalid, "--checkout, --ref, --force, --pull-requests and --visibility do not go with --format", "")
	}
	return nil
}

// restoreDump writes a directory DIR/HOST/OWNER/NAME for each repository that the point has metadata of, or an archive of one.
func (a *app) restoreDump(ctx context.Context, ref string, o restoreOptions) error {
	if o.to == "" {
		return fault.New("restore", fault.ErrInvalid, "no destination", "say where with --to")
	}
	root, remove, err := o.stage()
	if err != nil {
		return err
	}
	defer remove()
	observe, wipe := a.observer()
	defer wipe()
	return a.withStore(ctx, toRead, func(s store) error {
		began := a.Clock()
		p, err := protect.Resolve(ctx, s, ref, o.asOf.Time)
		if err != nil {
			return err
		}
		record, _, err := s.Open(ctx, p.ID)
		if err != nil {
			return err
		}
		doc := restoreDocument{Version: documentVersion, Point: p.ID}
		parts, lacking := dumpParts(record.Point.Parts, o.part)
		if len(parts) == 0 && lacking == nil {
			return fault.New("restore", fault.ErrNotFound, "the point has no metadata of such a repository", "back up with metadata: true")
		}
		metadata := a.dumper(o)
		if o.dump.format == formatGitLab {
			if err := onlyOne(record.Point.Parts, o.part); err != nil {
				return err
			}
			metadata = a.importer(o)
		}
		for _, part := range parts {
			done, err := protect.Restore(ctx, s, p.ID, protect.Restoration{
				Part: part.name, To: filepath.Join(root, part.place), Restorers: map[string]protect.Restorer{
					point.KindGit: func(ctx context.Context, from point.Reader, part point.Part, to string) ([]string, error) {
						return nil, git.RestoreBare(ctx, from, to, git.RestoreOptions{Part: part.Name, Observe: observe})
					},
					point.KindMetadata: metadata,
				},
			})
			for i := range done {
				if done[i].To != "" && root != o.to {
					done[i].To = o.to
				}
			}
			doc.Parts = append(doc.Parts, done...)
			if lacking = errors.Join(lacking, err); err != nil && !errors.Is(err, fault.ErrIncomplete) {
				break
			}
		}
		wipe()
		doc.Seconds = seconds(a.Clock().Sub(began))
		return errors.Join(lacking, a.tellRestore(doc, p.Subject.Name+" as of "+stamp(p.Time)+" UTC"))
	})
}

// dumpPart is a part, and where it goes below the directory.
type dumpPart struct{ name, place string }

// dumpParts are the parts of the repositories that there is metadata of, the git parts of each before that. name is the end of a
// repository's, "" for all. A repository whose git part is not there is lacking.
func dumpParts(all []point.Part, name string) (found []dumpPart, lacking error) {
	there := map[string]bool{}
	for _, p := range all {
		there[p.Name] = p.State == point.Stored || p.State == point.Carried
	}
	for _, p := range all {
		repository, err := repositoryPart(p.Name)
		if p.Kind != point.KindMetadata || err != nil || !there[p.Name] {
			continue
		}
		bare := strings.TrimSuffix(repository, ".git")
		inner := strings.TrimPrefix(bare, "git/")
		if name != "" && p.Name != name && !strings.HasSuffix("/"+inner, "/"+strings.TrimSuffix(name, ".git")) {
			continue
		}
		if !there[repository] {
			lacking = errors.Join(lacking, fault.New("restore "+p.Name, fault.ErrIncomplete, repository+" is not in the point", ""))
			continue
		}
		place := filepath.FromSlash(inner)
		found = append(found, dumpPart{repository, filepath.Join(place, gitea.DumpGit)})
		if wiki := bare + ".wiki.git"; there[wiki] {
			found = append(found, dumpPart{wiki, filepath.Join(place, gitea.DumpWiki)})
		}
		found = append(found, dumpPart{p.Name, place})
	}
	return found, lacking
}

// plannedParts are the parts with metadata of the repositories that a name is of.
func plannedParts(all []point.Part, name string) (names []string) {
	found, _ := dumpParts(all, name) // a git part that is not there is no matter of a plan
	for _, p := range found {
		if _, err := repositoryPart(p.name); err == nil {
			names = append(names, p.name)
		}
	}
	return names
}

// dumper writes the metadata beside the git parts, which are there.
func (a *app) dumper(o restoreOptions) protect.Restorer {
	return func(ctx context.Context, from point.Reader, part point.Part, to string) ([]string, error) {
		options, header, err := sourceOf(ctx, from)
		if err != nil {
			return nil, err
		}
		plan, err := forge.PlanMetadata(ctx, options.From, gitea.DumpKeeps())
		if err != nil {
			return nil, err
		}
		a.tellPlan(part.Name, plan)
		report, err := gitea.WriteDump(ctx, gitea.Dump{
			Dir: to, Source: options.From, Repository: header.Repository, Owner: o.owner, Forge: header.Dialect, Host: header.Host, Site: o.dump.site,
		})
		if err != nil {
			return nil, err
		}
		return dumpNotes(to, o.owner, header.Repository, report), nil
	}
}

// missingNamed is how many files that are missing are named.
const missingNamed = 10

func dumpNotes(dir, owner, repository string, report gitea.DumpReport) []string {
	of, name, _ := strings.Cut(repository, "/")
	if owner != "" {
		of = owner
	}
	notes := []string{
		strings.Join([]string{
			plural(report.Issues, "issue", "issues"), plural(report.Pulls, "pull request", "pull requests"), plural(report.Comments, "comment", "comments"),
			plural(report.Reviews, "review", "reviews"), plural(report.Releases, "release", "releases"), plural(report.Files, "file", "files"),
		}, ", "),
		fmt.Sprintf("on the server: gitea restore-repo --repo_dir %s --owner_name %s --repo_name %s", dir, of, name),
	}
	if report.Private {
		notes = append(notes, "restore-repo makes it public: set FORCE_PRIVATE in [repository] of app.ini before")
	}
	if _, err := os.Stat(filepath.Join(dir, gitea.DumpGit, "lfs")); err == nil {
		notes = append(notes, "restore-repo takes no Git LFS objects: push them afterwards, with git lfs push --all from "+filepath.Join(dir, gitea.DumpGit))
	}
	return append(notes, missingNotes(report.Missing)...)
}

func missingNotes(all []string) (notes []string) {
	for i, missing := range all {
		if i == missingNamed {
			return append(notes, fmt.Sprintf("and %s more", plural(int64(len(all)-i), "file", "files")))
		}
		notes = append(notes, "left out: "+missing)
	}
	return notes
}
