package cli

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/config"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/github"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/policy"
	"github.com/backstay/backstay/internal/protect"
	"github.com/backstay/backstay/internal/vault"
)

// source makes one source of a policy.
func (b *builder) source(ctx context.Context, s v1alpha1.Source, spec v1alpha1.PolicySpec) (protect.PlannedSource, error) {
	switch kind, f := forgeOf(s); {
	case f != nil:
		return b.account(ctx, kind, s.Name, f, spec)
	case s.Git != nil:
		return b.repository(ctx, s.Name, s.Git)
	case s.Directory != nil:
		return b.directory(s.Name, *s.Directory)
	case s.Database != nil:
		return b.database(ctx, s.Name, s.Database)
	}
	if s.Applications != nil {
		return protect.PlannedSource{}, fault.New("applications", fault.ErrUnsupported, "they are backed up by Backstay on their cluster, not by a run elsewhere",
			"apply the policy to the cluster; docs/kubernetes.md says how")
	}
	return protect.PlannedSource{}, fault.New("", fault.ErrInvalid, "it names no forge, repository, directory or database", "")
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
	caFile, err := b.caFile(ctx, a)
	if err != nil {
		return entry{}, err
	}
	e := entry{kind: kind, url: a.URL, username: a.Username, ssh: a.SSH, caFile: caFile}
	e.client = forge.ClientOptions{
		UserAgent: "backstay/" + b.app.Version, CAFile: caFile, Budget: b.budget, Cache: b.cache, Clock: b.app.Clock,
		Waiting: func(until time.Time) {
			b.warn(fmt.Sprintf("%s allows no more requests until %s: waiting", cmp.Or(place(a.URL), kind), until.UTC().Format(time.RFC3339)))
		},
	}
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

// caFile is the file of the certificate authorities that are trusted besides. Those that come as a secret get one, of that content only.
func (b *builder) caFile(ctx context.Context, a v1alpha1.Access) (string, error) {
	if a.CA == nil {
		return a.CAFile, nil
	}
	if a.CAFile != "" {
		return "", fault.New("read ca", fault.ErrInvalid, "caFile says authorities, too", "leave one of them out")
	}
	authorities, err := b.secret(ctx, a.CA)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(authorities.Reveal()))
	name := filepath.Join(os.TempDir(), "backstay-ca-"+hex.EncodeToString(sum[:])+".pem")
	f, err := os.CreateTemp(filepath.Dir(name), ".backstay-ca-*")
	if err != nil {
		return "", fault.Wrap("write ca", fault.ErrRefused, err, "")
	}
	_, err = f.WriteString(authorities.Reveal())
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fault.Wrap("write ca", fault.ErrRefused, errors.Join(err, os.Remove(f.Name())), "")
	}
	return name, fault.Wrap("write ca", fault.ErrRefused, os.Rename(f.Name(), name), "")
}

// account makes the source of a forge's repositories.
func (b *builder) account(
	ctx context.Context, kind, name string, f *v1alpha1.Forge, spec v1alpha1.PolicySpec,
) (protect.PlannedSource, error) {
	e, err := b.entry(ctx, kind, f.Access)
	if err != nil {
		return protect.PlannedSource{}, err
	}
	e.selection, e.client.FileHosts = selectionOf(f), f.FileHosts
	p, err := e.provider()
	if err != nil {
		return protect.PlannedSource{}, err
	}
	metadata, err := metadataOf(f, kind, p)
	if err != nil {
		return protect.PlannedSource{}, err
	}
	filter, err := b.filter(f)
	if err != nil {
		return protect.PlannedSource{}, err
	}
	account, err := forge.NewAccount(forge.AccountOptions{
		Provider: p, Name: cmp.Or(name, subjectName(p.Host(), f)), Selection: e.selection, Filter: filter, SSH: f.SSH != nil, Issues: f.Issues,
		Metadata: metadata,
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

// metadataOf says what of the forge's metadata is captured; nil for nothing.
func metadataOf(f *v1alpha1.Forge, kind string, p forge.Provider) (*forge.MetadataOptions, error) {
	if !f.Metadata {
		return nil, nil //nolint:nilnil // none is wanted
	}
	if _, reads := p.(forge.MetadataReader); !reads {
		return nil, fault.New("metadata", fault.ErrUnsupported, "it is not read from "+kind, "")
	}
	o := &forge.MetadataOptions{Files: f.Files == nil || *f.Files}
	if f.MaxFile == "" {
		return o, nil
	}
	var err error
	o.MaxFile, err = config.ParseSize(f.MaxFile)
	return o, err
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
