package cli

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/bitbucket"
	"github.com/backstay/backstay/internal/forge/gitea"
	"github.com/backstay/backstay/internal/forge/github"
	"github.com/backstay/backstay/internal/forge/gitlab"
	"github.com/backstay/backstay/internal/forge/onedev"
	"github.com/backstay/backstay/internal/forge/sourcehut"
	"github.com/backstay/backstay/internal/git"
)

// Kinds of forges, as files, flags and reports name them.
const (
	kindGitHub    = "github"
	kindGitLab    = "gitlab"
	kindGitea     = "gitea"
	kindForgejo   = "forgejo"
	kindGogs      = "gogs"
	kindBitbucket = "bitbucket"
	kindOneDev    = "onedev"
	kindSourcehut = "sourcehut"
)

// provider is a forge that lets git in, too.
type provider interface {
	forge.Provider
	forge.GitAccess
}

// entry is how a forge is reached, with its secrets at hand.
type entry struct {
	kind            string
	url, username   string
	token, password fault.Secret
	app             *github.App
	ssh             *v1alpha1.SSH
	caFile          string
	selection       forge.Selection
	makes           bool // repositories are made there
	client          forge.ClientOptions
}

// forgeField is where a source names a forge of a kind.
type forgeField struct {
	kind string
	f    **v1alpha1.Forge
}

func forgeFields(s *v1alpha1.Source) []forgeField {
	return []forgeField{
		{kindGitHub, &s.GitHub},
		{kindGitLab, &s.GitLab},
		{kindGitea, &s.Gitea},
		{kindForgejo, &s.Forgejo},
		{kindGogs, &s.Gogs},
		{kindBitbucket, &s.Bitbucket},
		{kindOneDev, &s.OneDev},
		{kindSourcehut, &s.Sourcehut},
	}
}

// forgeOf returns the forge that a source names, and its kind; nil for none.
func forgeOf(s v1alpha1.Source) (kind string, f *v1alpha1.Forge) {
	for _, field := range forgeFields(&s) {
		if *field.f != nil {
			return field.kind, *field.f
		}
	}
	return "", nil
}

// setForge sets the forge of a kind in a source.
func setForge(s *v1alpha1.Source, kind string, f *v1alpha1.Forge) error {
	for _, field := range forgeFields(s) {
		if field.kind == kind {
			*field.f = f
			return nil
		}
	}
	return unknownForge(kind)
}

// mirrorOf returns the forge that a mirror is on, and its kind; nil for none.
func mirrorOf(m v1alpha1.Mirror) (kind string, access *v1alpha1.Access) {
	for _, set := range []struct {
		kind   string
		access *v1alpha1.Access
	}{
		{kindGitHub, m.GitHub},
		{kindGitLab, m.GitLab},
		{kindGitea, m.Gitea},
		{kindForgejo, m.Forgejo},
		{kindGogs, m.Gogs},
		{kindOneDev, m.OneDev},
		{kindSourcehut, m.Sourcehut},
	} {
		if set.access != nil {
			return set.kind, set.access
		}
	}
	return "", nil
}

func unknownForge(kind string) error {
	var kinds []string
	for _, field := range forgeFields(&v1alpha1.Source{}) {
		kinds = append(kinds, field.kind)
	}
	return fault.New(fmt.Sprintf("forge %q", kind), fault.ErrInvalid, "not known", "one of "+strings.Join(kinds, ", "))
}

// provider makes the provider of a forge.
func (e entry) provider() (provider, error) {
	switch e.kind {
	case kindGitHub:
		return github.New(github.Options{
			URL: e.url, Token: e.token, App: e.app, Username: e.username, Password: e.password,
			Selection: e.selection, Copies: e.makes, Client: e.client,
		})
	case kindGitLab:
		return gitlab.New(gitlab.Options{
			URL: e.url, Token: e.token, Username: e.username, Password: e.password, Copies: e.makes, Client: e.client,
		})
	case kindGitea, kindForgejo, kindGogs:
		address := e.url
		if address == "" && e.kind == kindForgejo {
			address = "https://codeberg.org"
		}
		return gitea.New(gitea.Options{
			URL: address, Gogs: e.kind == kindGogs, Token: e.token, Username: e.username, Password: e.password,
			Selection: e.selection, Copies: e.makes, Client: e.client,
		})
	case kindBitbucket:
		return bitbucket.New(bitbucket.Options{URL: e.url, Token: e.token, Username: e.username, Password: e.password, Client: e.client})
	case kindOneDev:
		return onedev.New(onedev.Options{URL: e.url, Token: e.token, Username: e.username, Password: e.password, Client: e.client})
	case kindSourcehut:
		return sourcehut.New(sourcehut.Options{URL: e.url, Token: e.token, Client: e.client})
	}
	return nil, unknownForge(e.kind)
}

// git says how the forge's repositories are reached.
func (e entry) git() git.Options {
	o := git.Options{CAFile: e.caFile, UserAgent: e.client.UserAgent}
	if e.ssh != nil {
		o.KeyFile, o.KnownHostsFile = e.ssh.KeyFile, e.ssh.KnownHostsFile
	}
	return o
}

// subjectName names an account in points where its source does not: the forge's host, and the account.
func subjectName(host string, f *v1alpha1.Forge) string {
	switch {
	case f.Organization != "":
		return host + "/" + strings.Trim(f.Organization, "/")
	case f.User != "":
		return host + "/" + f.User
	}
	return host
}

// place is a URL without what might be secret in it, for reports.
func place(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "?"
	}
	return u.Scheme + "://" + u.Host + u.Path
}
