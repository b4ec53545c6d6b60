package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/github"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/notify"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/worker"
)

// deployedRepository is a repository that an application is deployed from. What git and ssh read from files is written when it is captured,
// and goes with the capture.
type deployedRepository struct {
	*git.Source
	url     string
	options git.SourceOptions
	files   map[string]string // contents, by what they are
}

// Files of a capture.
const (
	fileCA         = "ca.pem"
	fileKey        = "key"
	fileKnownHosts = "known_hosts"
)

func (a *app) deployedRepository(r worker.Repository, secrets *notify.Secrets) (worker.RepositorySource, error) {
	for _, s := range []fault.Secret{r.Password, r.SSHKey} {
		secrets.Add(s)
	}
	o := git.SourceOptions{SkipLFS: !r.LFS}
	o.Insecure, o.NetrcFile = r.Insecure, os.DevNull
	o.Username, o.Password = r.Username, r.Password
	if r.App != nil {
		secrets.Add(r.App.PrivateKey)
		p, err := github.New(github.Options{
			URL: r.App.URL, App: &github.App{ID: r.App.ID, InstallationID: r.App.InstallationID, PrivateKey: r.App.PrivateKey},
			Client: forge.ClientOptions{UserAgent: "backstay/" + a.Version, Budget: &forge.Budget{}, Clock: a.Clock},
		})
		if err != nil {
			return nil, err
		}
		o.Credentials = p.GitCredentials
	}
	source, err := git.NewSource(r.URL, o)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for name, content := range map[string]string{fileCA: r.CA, fileKey: r.SSHKey.Reveal(), fileKnownHosts: r.KnownHosts} {
		if content != "" {
			files[name] = content
		}
	}
	return &deployedRepository{source, r.URL, o, files}, nil
}

// Capture writes the repository into the point.
func (r *deployedRepository) Capture(ctx context.Context, to point.Sink) (err error) {
	if len(r.files) == 0 {
		return r.Source.Capture(ctx, to)
	}
	const op = "open a repository"
	dir, err := os.MkdirTemp("", "backstay-git-*") // mode 0700
	if err != nil {
		return fault.Wrap(op, fault.ErrRefused, err, "")
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	o := r.options
	for name, at := range map[string]*string{fileCA: &o.CAFile, fileKey: &o.KeyFile, fileKnownHosts: &o.KnownHostsFile} {
		content, has := r.files[name]
		if !has {
			continue
		}
		*at = filepath.Join(dir, name)
		if err := os.WriteFile(*at, []byte(content), 0o600); err != nil {
			return fault.Wrap(op, fault.ErrRefused, err, "")
		}
	}
	source, err := git.NewSource(r.url, o)
	if err != nil {
		return err
	}
	return source.Capture(ctx, to)
}
