package cli

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/config"
	"github.com/backstay/backstay/internal/export"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/github"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/notify"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/policy"
	"github.com/backstay/backstay/internal/protect"
	"github.com/backstay/backstay/internal/vault"
)

// maxCache bounds the answers of forges kept for conditional requests, in bytes.
const maxCache = 256 << 20

// builder makes what is declared: plans, vaults, messengers. Secrets are read when they are needed, each time anew.
type builder struct {
	app     *app
	secrets *notify.Secrets // learns every secret that was read
	budget  *forge.Budget   // of all runs together
	cache   *forge.Cache    // nil for none
	observe point.Observer
	warn    func(message string)
	vaults  []v1alpha1.Location // which no directory is to hold
}

// forRun is the builder for one run, whose progress is observed.
func (b *builder) forRun(observe point.Observer, vaults []v1alpha1.Location) *builder {
	c := *b
	c.observe, c.vaults = observe, vaults
	return &c
}

// secret reads a secret; a nil one is empty.
func (b *builder) secret(ctx context.Context, s *v1alpha1.Secret) (fault.Secret, error) {
	if s == nil {
		return "", nil
	}
	value, err := config.Resolve(ctx, *s, config.Lookups{
		Env: func(name string) (string, bool) {
			value := b.app.Getenv(name)
			return value, value != ""
		},
		Home: b.app.Getenv("HOME"),
		Run: func(ctx context.Context, command string) ([]byte, error) {
			value, err := b.app.passwordOf(ctx, command)
			return []byte(value.Reveal()), err
		},
		Warn: b.warn,
	})
	if err != nil {
		return "", err
	}
	b.secrets.Add(value)
	return value, nil
}

// home puts the home directory in the place of a leading ~.
func (b *builder) home(p string) string {
	if rest, ok := strings.CutPrefix(p, "~/"); ok {
		return filepath.Join(b.app.Getenv("HOME"), rest)
	}
	return p
}

// plan is what a run of a policy does, but for the vault.
func (b *builder) plan(ctx context.Context, p v1alpha1.Policy) (protect.Plan, error) {
	plan := protect.Plan{
		Policy: p.Metadata.Name, Clock: b.app.Clock, Observe: b.observe, Parallel: p.Spec.Parallel, Zone: time.Local,
	}
	var err error
	if plan.Retention, err = retention(p.Spec.Retention); err != nil {
		return plan, err
	}
	if s := p.Spec.Schedule; s != nil && s.TimeZone != "" {
		if plan.Zone, err = policy.ParseZone(s.TimeZone); err != nil {
			return plan, err
		}
	}
	names := map[string]bool{}
	for i, s := range p.Spec.Sources {
		source, err := b.source(ctx, s, p.Spec)
		if err != nil {
			return plan, fault.Wrap(fmt.Sprintf("source %d of policy %s", i+1, p.Metadata.Name), nil, err, "")
		}
		name := source.Subject().Name
		if names[name] && p.Spec.Location != "" {
			return plan, fault.New(fmt.Sprintf("source %d of policy %s", i+1, p.Metadata.Name), fault.ErrInvalid,
				"another source is "+name+", too", "give it a name of its own with name:")
		}
		names[name] = true
		plan.Sources = append(plan.Sources, source)
	}
	for i, e := range p.Spec.Exports {
		destination, err := b.export(ctx, e, p.Metadata.Name)
		if err != nil {
			return plan, fault.Wrap(fmt.Sprintf("export %d of policy %s", i+1, p.Metadata.Name), nil, err, "")
		}
		plan.Destinations = append(plan.Destinations, destination)
	}
	for i, m := range p.Spec.Mirrors {
		destination, err := b.mirror(ctx, m)
		if err != nil {
			return plan, fault.Wrap(fmt.Sprintf("mirror %d of policy %s", i+1, p.Metadata.Name), nil, err, "")
		}
		plan.Destinations = append(plan.Destinations, destination)
	}
	return plan, nil
}

func retention(r *v1alpha1.Retention) (policy.Retention, error) {
	if r == nil {
		return policy.Retention{}, nil
	}
	kept := policy.Retention{Last: r.Last, Hourly: r.Hourly, Daily: r.Daily, Weekly: r.Weekly, Monthly: r.Monthly, Yearly: r.Yearly}
	if r.Within == "" {
		return kept, nil
	}
	var err error
	kept.Within, err = policy.ParseDuration(r.Within)
	return kept, err
}

// source makes one source of a policy.
func (b *builder) source(ctx context.Context, s v1alpha1.Source, spec v1alpha1.PolicySpec) (protect.PlannedSource, error) {
	switch kind, f := forgeOf(s); {
	case f != nil:
		return b.account(ctx, kind, s.Name, f, spec)
	case s.Git != nil:
		return b.repository(ctx, s.Name, s.Git)
	case s.Directory != nil:
		return b.directory(s.Name, *s.Directory)
	}
	return protect.PlannedSource{}, fault.New("", fault.ErrInvalid, "it names no forge, repository or directory", "")
}

// directory makes the source of a directory, without the vaults that lie in it.
func (b *builder) directory(name, dir string) (protect.PlannedSource, error) {
	var exclude []string
	for _, l := range b.vaults {
		location, err := vault.ParseLocation(b.home(l.Spec.URL))
		if err != nil {
			return protect.PlannedSource{}, err
		}
		if location.Path() != "" {
			exclude = append(exclude, location.Path())
		}
	}
	src, err := vault.NewDirectory(b.home(dir), b.app.Getenv(envHostname), exclude...)
	if err != nil {
		return protect.PlannedSource{}, err
	}
	subject := src.Subject()
	subject.Name = cmp.Or(name, subject.Name)
	return protect.PlannedSource{Source: protect.Together(subject, src), Type: "directory"}, nil
}

// entry gathers how a forge is reached.
func (b *builder) entry(ctx context.Context, kind string, a v1alpha1.Access) (entry, error) {
	e := entry{kind: kind, url: a.URL, username: a.Username, ssh: a.SSH, caFile: a.CAFile}
	e.client = forge.ClientOptions{
		UserAgent: "backstay/" + b.app.Version, CAFile: a.CAFile, Budget: b.budget, Cache: b.cache, Clock: b.app.Clock,
		Waiting: func(until time.Time) {
			b.warn(fmt.Sprintf("%s allows no more requests until %s: waiting", cmp.Or(place(a.URL), kind), until.UTC().Format(time.RFC3339)))
		},
	}
	var err error
	if e.token, err = b.secret(ctx, a.Token); err != nil {
		return e, err
	}
	if e.password, err = b.secret(ctx, a.Password); err != nil {
		return e, err
	}
	if a.App == nil {
		return e, nil
	}
	key, err := b.secret(ctx, &a.App.PrivateKey)
	e.app = &github.App{ID: a.App.ID, InstallationID: a.App.InstallationID, PrivateKey: key}
	return e, err
}

// account makes the source of a forge's repositories.
func (b *builder) account(
	ctx context.Context, kind, name string, f *v1alpha1.Forge, spec v1alpha1.PolicySpec,
) (protect.PlannedSource, error) {
	e, err := b.entry(ctx, kind, f.Access)
	if err != nil {
		return protect.PlannedSource{}, err
	}
	e.selection = selectionOf(f)
	p, err := e.provider()
	if err != nil {
		return protect.PlannedSource{}, err
	}
	filter, err := b.filter(f)
	if err != nil {
		return protect.PlannedSource{}, err
	}
	account, err := forge.NewAccount(forge.AccountOptions{
		Provider: p, Name: cmp.Or(name, subjectName(p.Host(), f)), Selection: e.selection, Filter: filter, SSH: f.SSH != nil, Issues: f.Issues,
		Git: func(ctx context.Context, _ forge.Repository) (git.SourceOptions, error) {
			o := git.SourceOptions{Options: e.git(), SkipLFS: f.LFS != nil && !*f.LFS, Observe: b.observe}
			if f.SSH != nil {
				return o, nil
			}
			var err error
			o.Username, o.Password, err = p.GitCredentials(ctx)
			return o, err
		},
		Parallel: spec.Parallel, Clock: b.app.Clock, Observe: b.observe,
	})
	if err != nil {
		return protect.PlannedSource{}, err
	}
	return protect.PlannedSource{
		Source: account, Type: kind,
		Repositories: func(ctx context.Context) ([]protect.Repository, error) {
			listed, err := account.Repositories(ctx)
			all := make([]protect.Repository, len(listed))
			for i, r := range listed {
				of := r.Repository()
				all[i] = protect.Repository{Source: r, Part: r.PartName(), Host: p.Host(), Owner: of.Owner, Name: of.Name, Origin: origin{of, p}}
			}
			return all, err
		},
		Stats: func() protect.SourceStats {
			stats := protect.SourceStats{Listed: account.Listed(), Requests: account.Requests(), Warnings: account.Warnings(), Missing: account.Missing()}
			if left, limited := account.Remaining(); limited {
				stats.Remaining = &left
			}
			return stats
		},
	}, nil
}

// origin is a repository as its forge lists it, with what lets others in.
type origin struct {
	repository forge.Repository
	provider   provider
}

func selectionOf(f *v1alpha1.Forge) forge.Selection {
	return forge.Selection{
		User: f.User, Organization: f.Organization, Organizations: f.Organizations, Starred: f.Starred, Contributed: f.Contributed,
		Gists: f.Gists, Wikis: f.Wikis == nil || *f.Wikis, Languages: len(f.Languages) > 0,
	}
}

func (b *builder) filter(f *v1alpha1.Forge) (*forge.Filter, error) {
	rules := forge.Rules{
		Include: f.Include, Exclude: f.Exclude, IncludeOwners: f.IncludeOwners, ExcludeOwners: f.ExcludeOwners, Exact: f.ExactNames,
		Stars: f.Stars, Languages: f.Languages, ExcludeArchived: f.ExcludeArchived, ExcludeForks: f.ExcludeForks,
	}
	if f.ActiveWithin != "" {
		span, err := policy.ParseDuration(f.ActiveWithin)
		if err != nil {
			return nil, err
		}
		now := b.app.Clock()
		rules.ActiveWithin = now.Sub(span.Before(now))
	}
	return forge.NewFilter(rules)
}

// repository makes the source of a single repository, and of the wiki beside it where that is wanted.
func (b *builder) repository(ctx context.Context, name string, g *v1alpha1.Git) (protect.PlannedSource, error) {
	e, err := b.entry(ctx, "", g.Access)
	if err != nil {
		return protect.PlannedSource{}, err
	}
	o := git.SourceOptions{
		Options: e.git(), Hostname: b.app.Getenv(envHostname), SkipLFS: g.LFS != nil && !*g.LFS, Observe: b.observe,
	}
	o.Username, o.Password = e.username, cmp.Or(e.token, e.password)
	address := b.home(g.URL)
	var origin string
	if o.Name, origin, err = nameOf(address, o.Hostname, g); err != nil {
		return protect.PlannedSource{}, err
	}
	src, err := git.NewSource(address, o)
	if err != nil {
		return protect.PlannedSource{}, err
	}
	all := []protect.Source{src}
	if g.Wiki {
		wiki := o
		wiki.Name = strings.TrimSuffix(src.Subject().Name, ".git") + ".wiki"
		beside, err := git.NewSource(strings.TrimSuffix(strings.TrimSuffix(address, "/"), ".git")+".wiki.git", wiki)
		if err != nil {
			return protect.PlannedSource{}, err
		}
		all = append(all, beside)
	}
	subject := src.Subject()
	subject.Name = cmp.Or(name, origin, subject.Name)
	joined := protect.Together(subject, all...)
	host, path, _ := strings.Cut(strings.TrimSuffix(src.Subject().Name, ".git"), "/")
	at := strings.LastIndex(path, "/")
	repository := protect.Repository{Source: joined, Part: src.PartName(), Host: host, Owner: path[:max(at, 0)], Name: path[at+1:]}
	return protect.PlannedSource{
		Source: joined, Type: "git",
		Repositories: func(context.Context) ([]protect.Repository, error) { return []protect.Repository{repository}, nil },
		Stats: func() protect.SourceStats {
			stats := protect.SourceStats{Listed: 1}
			for _, s := range all {
				if counted, ok := s.(interface{ Requests() int64 }); ok {
					stats.Requests += counted.Requests()
				}
			}
			return stats
		},
	}, nil
}

// nameOf is "<host>/<owner>/<name>" of a repository whose owner or name is declared, and "<host>/<path>" of where it is from, for many
// may be declared to be of one name; both are "" for what its address says. A local one is of the host "local" then.
func nameOf(address, hostname string, g *v1alpha1.Git) (name, origin string, _ error) {
	if g.Owner == "" && g.Name == "" {
		return "", "", nil
	}
	u, err := git.ParseURL(address)
	if err != nil {
		return "", "", err
	}
	if u.Scheme == "file" {
		hostname = "local"
	}
	host, path := u.Subject(hostname)
	at := strings.LastIndex(path, "/")
	owner, base := cmp.Or(g.Owner, path[:max(at, 0)]), cmp.Or(g.Name, strings.TrimSuffix(path[at+1:], ".git"))
	return strings.ReplaceAll(host+"/"+strings.Trim(owner, "/")+"/"+base, "//", "/"), host + "/" + path, nil
}

// export makes a destination of plain copies.
func (b *builder) export(ctx context.Context, e v1alpha1.Export, policyName string) (protect.Destination, error) {
	kind, where, err := b.exportPlace(ctx, e)
	if err != nil {
		return protect.Destination{}, err
	}
	exporter, err := export.New(export.Options{
		Place: where, Clock: b.app.Clock, UpdateWorkTree: git.UpdateWorkTree, Lost: git.Lost,
		Layout: export.Layout{
			Structured: e.Structured, Form: e.Form, Zip: e.Zip, Keep: e.Keep, Dated: e.Dated, LFS: e.LFS,
		},
	})
	if err != nil {
		return protect.Destination{}, err
	}
	return protect.Destination{Type: kind, Place: where.String(), Deliver: protect.Copies(exporter, policyName)}, nil
}

// exportPlace opens the place of copies.
func (b *builder) exportPlace(ctx context.Context, e v1alpha1.Export) (string, export.Place, error) {
	switch {
	case e.Local != nil:
		p, err := export.NewLocal(b.home(e.Local.Path))
		return "local", p, err
	case e.S3 != nil:
		p, err := b.s3(ctx, *e.S3)
		return "s3", p, err
	case e.Azure != nil:
		p, err := b.azure(ctx, *e.Azure)
		return "azureblob", p, err
	case e.WebDAV != nil:
		password, err := b.secret(ctx, e.WebDAV.Password)
		if err != nil {
			return "", nil, err
		}
		p, err := export.NewWebDAV(export.WebDAVOptions{
			URL: e.WebDAV.URL, Username: e.WebDAV.Username, Password: password, Path: e.WebDAV.Path,
		})
		return "webdav", p, err
	}
	return "", nil, fault.New("", fault.ErrInvalid, "it names no place", "")
}

func (b *builder) s3(ctx context.Context, o v1alpha1.S3) (export.Place, error) {
	secrets, err := b.all(ctx, o.AccessKey, o.SecretKey, o.SessionToken)
	if err != nil {
		return nil, err
	}
	tag := ""
	if o.SourceTag != nil {
		tag = *o.SourceTag
	}
	return export.NewS3(export.S3Options{
		Bucket: o.Bucket, Endpoint: o.Endpoint, Region: o.Region, AccessKey: secrets[0], SecretKey: secrets[1], SessionToken: secrets[2],
		Insecure: o.Insecure, StorageClass: o.StorageClass, SourceTag: tag,
	})
}

func (b *builder) azure(ctx context.Context, o v1alpha1.Azure) (export.Place, error) {
	secrets, err := b.all(ctx, o.ClientSecret, o.SAS)
	if err != nil {
		return nil, err
	}
	return export.NewAzure(export.AzureOptions{
		URL: o.URL, Container: o.Container, TenantID: o.TenantID, ClientID: o.ClientID, ClientSecret: secrets[0], SAS: secrets[1], UseCLI: o.UseCLI,
	})
}

// all reads several secrets.
func (b *builder) all(ctx context.Context, secrets ...*v1alpha1.Secret) ([]fault.Secret, error) {
	values := make([]fault.Secret, len(secrets))
	for i, s := range secrets {
		var err error
		if values[i], err = b.secret(ctx, s); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// openVault opens the vault at a declared location.
func (b *builder) openVault(ctx context.Context, l v1alpha1.LocationSpec) (store, string, error) {
	location, err := vault.ParseLocation(b.home(l.URL))
	if err != nil {
		return nil, "", err
	}
	password, err := b.secret(ctx, &l.Password)
	if err != nil {
		return nil, "", err
	}
	credentials := map[string]string{}
	for name, s := range l.Credentials {
		value, err := b.secret(ctx, &s)
		if err != nil {
			return nil, "", err
		}
		credentials[name] = value.Reveal()
	}
	o := b.app.vaultOptions()
	o.Env = func(name string) string {
		if value, ok := credentials[name]; ok {
			return value
		}
		return b.app.Getenv(name)
	}
	v, err := vault.Open(ctx, location, password, o)
	if err != nil {
		return nil, "", err
	}
	return v, location.String(), nil
}

// cacheDir is where answers of forges are kept; "" where there is no home.
func (a *app) cacheDir() string {
	if dir := a.Getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "backstay", "forges")
	}
	if home := a.Getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".cache", "backstay", "forges")
	}
	return ""
}
