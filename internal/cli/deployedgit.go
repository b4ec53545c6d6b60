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

func (a *app) deployedRepository(r worker.Repository, secrets *notify.Secrets) (*deployedRepository, error) {
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
	o, remove, err := r.laid()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	source, err := git.NewSource(r.url, o)
	if err != nil {
		return err
	}
	return source.Capture(ctx, to)
}

// laid writes what git and ssh read from files, until remove is called.
func (r *deployedRepository) laid() (o git.SourceOptions, remove func() error, _ error) {
	const op = "open a repository"
	dir, err := os.MkdirTemp("", "backstay-git-*") // mode 0700
	if err != nil {
		return o, nil, fault.Wrap(op, fault.ErrRefused, err, "")
	}
	remove = func() error { return os.RemoveAll(dir) }
	o = r.options
	for name, at := range map[string]*string{fileCA: &o.CAFile, fileKey: &o.KeyFile, fileKnownHosts: &o.KnownHostsFile} {
		content, has := r.files[name]
		if !has {
			continue
		}
		*at = filepath.Join(dir, name)
		if err := os.WriteFile(*at, []byte(content), 0o600); err != nil {
			return o, nil, errors.Join(fault.Wrap(op, fault.ErrRefused, err, ""), remove())
		}
	}
	return o, remove, nil
}

// history is a repository that was fetched, and knows where it came from.
type history struct {
	*git.History
	url     string
	options git.Options
	remove  func() error // of the files that the options name
}

func (h history) Push(ctx context.Context, branch, commit string) error {
	return h.History.Push(ctx, h.url, branch, commit, h.options)
}

func (h history) Close() {
	h.History.Close()
	_ = h.remove() // scratch, in a pod of its own
}

// fetch fetches a repository that an application is deployed from.
func (a *app) fetch(ctx context.Context, r worker.Repository, secrets *notify.Secrets, revisions []string) (worker.History, error) {
	source, err := a.deployedRepository(r, secrets)
	if err != nil {
		return nil, err
	}
	o, remove, err := source.laid()
	if err != nil {
		return nil, err
	}
	h, err := git.FetchHistory(ctx, r.URL, o.Options, "", git.Limits{}, revisions...)
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	return history{h, r.URL, o.Options, remove}, nil
}
