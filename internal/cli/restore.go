package cli

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

const restoreHelp = `
Restore brings a restore point back, or one part of it.

With --to DIR, a single part goes to DIR itself, which becomes a bare repository with all refs; several parts go to
DIR/<host>/<owner>/<name>.git. DIR must be empty or not there. With --checkout the repository becomes a working clone.
With --to URL a single repository is pushed there: its refs, and its Git LFS objects before them.

With --to mysql://USER@HOST:PORT, or postgres:// or redis://, the dump of a database server is loaded into that server. Databases that
are there already are refused, unless --replace drops them. backup --help says how a server is named.

With --forge, --to is the address of a forge (none is the public one): repositories are made there under owners of their names,
or all under --owner, and pushed with their wikis. With --metadata their issues, pull requests, reviews, labels, milestones and releases
come back, too, where the point has them: what the forge does not keep is told first, and --plan only tells. It can be run again
after it was cut short.

app/NAME is an application on a Kubernetes cluster: its newest complete point, or the one that is named, comes back into its own
namespace or another. The plan is shown first, and done with --yes. Volumes that were there are kept for a day: --undo
brings them back, after a yes, too.

With --format gitea-restore-repo, --to is a directory that gets one for each repository with metadata, DIR/<host>/<owner>/<name>, from
which "gitea restore-repo" on the server makes it with all numbers, dates and authors. With --format gitlab-project-import, --to is a
file of one repository, for "Import project" of GitLab. --plan tells what they lose.

With --as-of, latest means the newest point that is not later than that time. With --ref only the named refs come back.` + referenceHelp

const restoreExample = `  backstay restore latest --to /tmp/api.git
  backstay restore latest:github.com/acme/api --as-of 2026-01-31 --to /tmp/api --checkout
  backstay restore 3f2a91c0 --part wiki --to https://git.example.org/acme/wiki.git
  backstay restore latest --forge gitea --to https://git.example.org
  backstay restore latest:github.com/acme --forge gitea --to https://git.example.org --metadata --plan
  backstay restore latest --format gitea-restore-repo --to /srv/dump --site https://git.example.org
  backstay restore latest --part acme/api --format gitlab-project-import --to api.tar.gz
  backstay restore latest:db.example.com --to mysql://root@127.0.0.1
  backstay restore app/shop --plan
  backstay restore app/shop --only data --yes`

type restoreOptions struct {
	gitOptions
	to       string
	part     string
	refs     []string
	asOf     timeFlag
	checkout bool

	// For a URL.
	force        bool
	pullRequests bool

	// For a forge, where repositories are made.
	forge      string
	owner      string
	visibility string
	metadata   metadataRestore

	// For directories that a forge's own command reads.
	dump dumpRestore

	// For a database server.
	database databaseOptions
	replace  bool

	// For an application.
	cluster     clusterOptions
	application applicationRestore
}

func newRestoreCommand(a *app) *cobra.Command {
	var o restoreOptions
	var flags *pflag.FlagSet
	cmd := &cobra.Command{
		Use:     "restore POINT --to DIR|URL | app/NAME [POINT]",
		GroupID: groupPoints,
		Short:   "Bring a restore point back",
		Long: exits(restoreHelp, "3   restored, but the point lacks some of what was asked for",
			"6   there is something at the destination", "7   the stored data is damaged"),
		Example:           restoreExample,
		Args:              takes(1, 2),
		ValidArgsFunction: a.completePoints(1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			if application, is := applicationOf(args[0]); is {
				err := misplaced("restore", flags, "for an application", "to", "part", "ref", "checkout", "force", "pull-requests", "forge", "owner",
					"visibility", "metadata", "keep-numbers", "format", "site", "git-token-file", "ca-file", "database-password-file", "replace")
				if err != nil {
					return err
				}
				return a.restoreApplication(ctx, application, strings.Join(args[1:], ""), o)
			}
			if len(args) > 1 {
				return fault.New("restore", fault.ErrInvalid, "too many arguments", "one point at a time; with app/NAME the point comes second")
			}
			err := misplaced("restore", flags, "without app/NAME", "to-namespace", "only", "existing", "claim", "object", "storage-class",
				"undo", "yes", "kubeconfig", "context", "namespace")
			if err == nil && !isDatabase(o.to) {
				err = misplaced("restore", flags, "without --to a database server", "replace", "database-password-file")
			}
			if err == nil && !o.metadata.wanted {
				err = misplaced("restore", flags, "without --metadata", "keep-numbers")
			}
			if err == nil && !o.metadata.wanted && o.dump.format == "" {
				err = misplaced("restore", flags, "without app/NAME, --metadata or --format", "plan")
			}
			if err == nil {
				err = o.checkDump()
			}
			switch {
			case err != nil:
				return err
			case o.application.plan:
				return a.planMetadata(ctx, args[0], o)
			case o.dump.format != "":
				return a.restoreDump(ctx, args[0], o)
			}
			return a.restore(ctx, args[0], o)
		}),
	}
	flags = cmd.Flags()
	flags.StringVar(&o.to, "to", "", "`DIR` to restore into, or URL to push to")
	flags.StringVar(&o.part, "part", "", "only the part `NAME`; its end is enough: acme/api")
	flags.StringArrayVar(&o.refs, "ref", nil, "only the `REF`; repeat for more")
	flags.BoolVar(&o.checkout, "checkout", false, "make a clone with a working tree, not a bare repository")
	flags.BoolVar(&o.force, "force", false, "push to a URL that has other refs, too: those of the same name are overwritten")
	flags.BoolVar(&o.pullRequests, "pull-requests", false, "push the heads of pull requests, too, as refs/heads/backup-pr/NUMBER")
	flags.StringVar(&o.forge, "forge", "", "make the repositories at a `FORGE` and push them: github, gitlab, gitea, forgejo, gogs, onedev, sourcehut")
	flags.StringVar(&o.owner, "owner", "", "with --forge: make all of them under the owner `NAME`")
	flags.StringVar(&o.visibility, "visibility", "", "with --forge: private (default), public, internal, limited or unlisted")
	o.metadata.bind(flags)
	o.dump.bind(flags)
	o.database.bind(flags)
	flags.BoolVar(&o.replace, "replace", false, "to a database server: drop databases that are there and not empty")
	o.asOf.bind(cmd)
	o.gitOptions.bind(cmd)
	o.application.bind(flags)
	o.cluster.bind(flags)
	_ = cmd.RegisterFlagCompletionFunc("part", a.completeParts)
	_ = cmd.MarkFlagDirname("to")
	_ = cmd.RegisterFlagCompletionFunc("only", cobra.FixedCompletions([]cobra.Completion{v1alpha1.OnlyData, v1alpha1.OnlyConfig}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("existing", cobra.FixedCompletions(
		[]cobra.Completion{v1alpha1.ExistingKeep, v1alpha1.ExistingReplace, v1alpha1.ExistingFail}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// restoreDocument is what `restore --json` prints.
type restoreDocument struct {
	Version int                `json:"version"`
	Point   string             `json:"point"`
	Parts   []protect.Restored `json:"parts"`
	Seconds float64            `json:"seconds"`
}

func (a *app) restore(ctx context.Context, ref string, o restoreOptions) error {
	if o.to == "" && o.forge == "" {
		return fault.New("restore", fault.ErrInvalid, "no destination", "say where with --to DIR or --to URL")
	}
	observe, wipe := a.observer()
	defer wipe()
	restorers, err := a.restorers(ctx, o, observe)
	if err != nil {
		return err
	}
	if o.forge == "" && !isURL(o.to) && !isDatabase(o.to) {
		if err := protect.Vacant(o.to); err != nil {
			return err
		}
	}
	return a.withStore(ctx, toRead, func(s store) error {
		began := a.Clock()
		p, err := protect.Resolve(ctx, s, ref, o.asOf.Time)
		if err != nil {
			return err
		}
		done, err := protect.Restore(ctx, s, p.ID, protect.Restoration{
			Part: o.part, To: cmp.Or(o.to, o.forge), Single: o.forge == "" && (isURL(o.to) || isDatabase(o.to)), Finds: o.forge != "", Restorers: restorers,
			Last: point.KindMetadata,
		})
		wipe()
		if len(done) == 0 {
			return err
		}
		doc := restoreDocument{documentVersion, p.ID, done, seconds(a.Clock().Sub(began))}
		return errors.Join(err, a.tellRestore(doc, p.Subject.Name+" as of "+stamp(p.Time)+" UTC"))
	})
}

func (a *app) tellRestore(doc restoreDocument, what string) error {
	if a.global.json {
		return a.document(doc)
	}
	for _, r := range doc.Parts {
		if r.To != "" {
			a.say("restored %s to %s", r.Part.Name, r.To)
		}
		for _, note := range r.Notes {
			a.say("note: %s: %s", r.Part.Name, note)
		}
	}
	a.say("%s, %.1f s", what, doc.Seconds)
	return nil
}

// isURL tells a place to push to from a directory, by the rules by which backup reads the name of a repository.
func isURL(to string) bool {
	u, err := git.ParseURL(to)
	return strings.Contains(to, "://") || err == nil && u.Scheme != "file"
}
