package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/notify"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

const backupHelp = `
Backup makes a restore point of a git repository: all its refs, everything they reach, and its Git LFS objects.
The repository is named by a URL (https, ssh, git, file), by user@host:path, or by a local path. Only what is new since the
last point is fetched, and only what the vault does not have is stored.

With --forge it makes one point of an account: every repository that the forge lists for the token, or for --user or
--organization, with its wiki. The argument is then the address of the server, where it is not the public one.

app/NAMESPACE is an application on a Kubernetes cluster: the objects and the volumes of that namespace, at one instant. Backstay on
the cluster makes the point; --location is then the name of a Location there, and --policy the policy that says how.

mysql://USER@HOST:PORT/DATABASE is a database server, MySQL or MariaDB; postgres:// and redis:// are others, and sqlite:PATH is a file.
Without DATABASE it is all of the server's. ?tls=verify, require or disable says how the connection is protected, ?socket=PATH where the
server listens on this machine. Its password comes from BACKSTAY_DATABASE_PASSWORD or --database-password-file.

The user name and password or token for a git server come from BACKSTAY_GIT_USERNAME and BACKSTAY_GIT_PASSWORD, from
--git-token-file, or from your netrc file; never from the URL.`

const backupExample = `  backstay backup .
  backstay backup https://github.com/acme/api.git
  backstay backup git@github.com:acme/api.git --json
  backstay backup --forge github
  backstay backup --forge github --organization acme --metadata
  backstay backup --forge gitea --organization acme https://git.example.com
  backstay backup --directory /srv/data
  backstay backup mysql://backup@db.example.com?tls=verify
  backstay backup app/shop`

type backupOptions struct {
	gitOptions
	directory bool
	policy    string
	account   accountOptions
	cluster   clusterOptions
	database  databaseOptions
}

// accountOptions name the repositories of a forge.
type accountOptions struct {
	forge        string
	user         string
	organization string
	metadata     bool
}

func newBackupCommand(a *app) *cobra.Command {
	var o backupOptions
	cmd := &cobra.Command{
		Use:     "backup REPOSITORY | --forge FORGE [URL] | DATABASE | app/NAMESPACE",
		GroupID: groupPoints,
		Short:   "Make a restore point of a repository, an account, a database or an application",
		Long:    exits(backupHelp, "3   the point was made, but something is missing in it"),
		Example: backupExample,
		Args: func(cmd *cobra.Command, args []string) error {
			if o.account.forge != "" {
				return takes(0, 1)(cmd, args)
			}
			return takes(1, 1)(cmd, args)
		},
		RunE: a.runs(func(ctx context.Context, args []string) error {
			return a.backup(ctx, strings.Join(args, ""), o)
		}),
	}
	o.gitOptions.bind(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&o.allRefs, "all-refs", false, "take also refs that forges make up, such as refs/pull/*/merge")
	flags.BoolVar(&o.skipLFS, "skip-lfs", false, "leave Git LFS objects out")
	flags.BoolVar(&o.directory, "directory", false, "back up a plain directory with its files, not a git repository")
	flags.StringVar(&o.account.forge, "forge", "", "back up an account of a `FORGE`: github, gitlab, gitea, forgejo, gogs, bitbucket, onedev, sourcehut")
	flags.StringVar(&o.account.user, "user", "", "with --forge: the account `NAME`; default is the token's own and all it is a member of")
	flags.StringVar(&o.account.organization, "organization", "", "with --forge: the organisation, group or workspace `NAME`")
	flags.BoolVar(&o.account.metadata, "metadata", false, "with --forge: also issues, pull requests, releases and all else that the forge knows beside the code")
	o.cluster.bind(flags)
	o.database.bind(flags)
	flags.StringVar(&o.policy, "policy", "", "record that the point belongs to the policy `NAME`")
	return cmd
}

// backupDocument is what `backup --json` prints.
type backupDocument struct {
	Version     int          `json:"version"`
	Point       point.Point  `json:"point"`
	Ledger      point.Ledger `json:"ledger"`
	Requests    int64        `json:"requests"` // to the source
	StoredBytes int64        `json:"storedBytes"`
	Seconds     float64      `json:"seconds"`
}

func (a *app) backup(ctx context.Context, what string, o backupOptions) error {
	if application, is := applicationOf(what); is && !o.directory && o.account.forge == "" {
		return a.backupApplication(ctx, application, o)
	}
	observe, wipe := a.observer()
	src, err := a.source(ctx, what, o, observe)
	if err != nil {
		return err
	}
	return a.withStore(ctx, toWriteOrCreate, func(s store) error {
		began := a.Clock()
		receipt, err := protect.Backup(ctx, s, src, o.policy)
		wipe()
		if receipt == nil {
			return err
		}
		doc := backupDocument{
			Version: documentVersion, Point: receipt.Point, Ledger: receipt.Ledger,
			StoredBytes: receipt.StoredBytes, Seconds: seconds(a.Clock().Sub(began)),
		}
		if counted, ok := src.(interface{ Requests() int64 }); ok {
			doc.Requests = counted.Requests()
		}
		if warned, ok := src.(interface{ Warnings() []string }); ok {
			receipt.Warnings = append(receipt.Warnings, warned.Warnings()...)
		}
		for _, warning := range receipt.Warnings { // of the vault: whoever runs nothing but backups must hear of them
			a.told.notice("%s", warning)
		}
		return errors.Join(err, a.tellBackup(doc))
	})
}

func (a *app) tellBackup(doc backupDocument) error {
	for _, p := range doc.Point.Parts {
		for _, note := range p.Notes {
			if strings.HasPrefix(note, point.AlarmNote) { // whoever asks for less must hear of this all the same
				a.told.notice("%s: %s; the last good point is on hold", p.Name, note)
			}
		}
	}
	if a.global.json {
		return a.document(doc)
	}
	a.say("point %s of %s", doc.Point.ID, doc.Point.Subject.Name)
	for _, p := range doc.Point.Parts {
		for _, note := range p.Notes {
			if !strings.HasPrefix(note, point.AlarmNote) {
				a.say("note: %s: %s", p.Name, note)
			}
		}
		for _, c := range p.Counts {
			for _, item := range c.MissingAtSource {
				a.say("missing at source: %s: %s", p.Name, item)
			}
		}
	}
	a.say("%s: %s, %s, %s stored, %.1f s", a.verdict(doc.Point.State), ledgerLine(doc.Point.Parts, doc.Ledger),
		plural(doc.Requests, "request", "requests"), size(doc.StoredBytes), doc.Seconds)
	return nil
}

// source is what a user named on the command line.
func (a *app) source(ctx context.Context, what string, o backupOptions, observe point.Observer) (protect.Source, error) {
	switch {
	case o.account.forge != "":
		return a.accountSource(ctx, what, o, observe)
	case o.account != accountOptions{}:
		return nil, fault.New("backup", fault.ErrInvalid, "--user, --organization and --metadata go with --forge", "")
	case o.directory:
		return a.directorySource(what)
	case isDatabase(what):
		return a.databaseSource(what, o)
	}
	return a.gitSource(what, o.gitOptions, observe)
}

// accountSource is an account of a forge, reached with the token for git servers.
func (a *app) accountSource(ctx context.Context, address string, o backupOptions, observe point.Observer) (protect.Source, error) {
	if o.directory {
		return nil, fault.New("backup", fault.ErrInvalid, "--directory and --forge are given", "give one of them")
	}
	if o.account.user != "" && o.account.organization != "" {
		return nil, fault.New("backup", fault.ErrInvalid, "--user and --organization are given", "give one of them")
	}
	access, err := a.forgeAccess(address, o.gitOptions)
	if err != nil {
		return nil, err
	}
	lfs := !o.skipLFS
	src := v1alpha1.Source{}
	f := &v1alpha1.Forge{Access: access, User: o.account.user, Organization: o.account.organization, LFS: &lfs, Metadata: o.account.metadata}
	if err := setForge(&src, o.account.forge, f); err != nil {
		return nil, err
	}
	planned, err := a.newBuilder(observe).source(ctx, src, v1alpha1.PolicySpec{})
	return planned.Source, err
}

// forgeAccess is how a forge is reached with the token for git servers.
func (a *app) forgeAccess(address string, o gitOptions) (v1alpha1.Access, error) {
	connection, err := a.gitConnection(o)
	if err != nil {
		return v1alpha1.Access{}, err
	}
	access := v1alpha1.Access{URL: address, Username: connection.Username, CAFile: o.caFile}
	if connection.Password != "" {
		access.Token = &v1alpha1.Secret{Value: connection.Password.Reveal()}
	}
	return access, nil
}

// newBuilder makes what commands name by flags.
func (a *app) newBuilder(observe point.Observer) *builder {
	b := &builder{app: a, secrets: &notify.Secrets{}, budget: &forge.Budget{}, observe: observe, warn: func(message string) { a.told.notice("%s", message) }}
	if dir := a.cacheDir(); dir != "" {
		b.cache, _ = forge.NewCache(dir, maxCache) // without it requests are only dearer
	}
	return b
}

// gitOptions say how a repository is reached, and what of it is taken.
type gitOptions struct {
	tokenFile string
	caFile    string
	allRefs   bool
	skipLFS   bool
}

func (o *gitOptions) bind(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.tokenFile, "git-token-file", "", "read the token or password for the git server from `FILE`")
	cmd.Flags().StringVar(&o.caFile, "ca-file", "", "trust also the certificate authorities in `FILE` (PEM)")
}
