package bitbucket

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// links are addresses by what they lead to.
type links struct {
	HTML struct {
		Href string `json:"href"`
	} `json:"html"`
	Clone []struct {
		Name string `json:"name"` // "https", "ssh"
		Href string `json:"href"`
	} `json:"clone"`
}

// repository is what is read of a repository.
type repository struct {
	UUID        string    `json:"uuid"`
	FullName    string    `json:"full_name"`
	Description string    `json:"description"`
	Private     bool      `json:"is_private"`
	Parent      *struct{} `json:"parent"`
	Wiki        bool      `json:"has_wiki"`
	Language    string    `json:"language"`
	Size        int64     `json:"size"`
	Updated     time.Time `json:"updated_on"`
	MainBranch  *struct {
		Name string `json:"name"`
	} `json:"mainbranch"`
	Links links `json:"links"`
}

// decode reads a repository as listed; wikis asks for the addresses of its wiki.
//
// Mark stays "": Bitbucket does not say what moves updated_on, so that a push may not. Git's own list of refs is asked for, one request
// a repository.
func (p *Provider) decode(raw json.RawMessage, wikis bool) (forge.Repository, error) {
	var in repository
	if err := json.Unmarshal(raw, &in); err != nil {
		return forge.Repository{}, fault.Wrap("bitbucket repository", fault.ErrUnavailable, err, "")
	}
	workspace, slug, _ := strings.Cut(in.FullName, "/")
	if in.UUID == "" || workspace == "" || slug == "" || strings.Contains(slug, "/") {
		return forge.Repository{}, fault.New("bitbucket repository", fault.ErrUnavailable,
			fmt.Sprintf("the server listed one without ID or name: %q %q", in.UUID, in.FullName), "")
	}
	r := forge.Repository{
		ID: in.UUID, Owner: workspace, Name: slug,
		WebURL: in.Links.HTML.Href, Description: in.Description,
		Private: in.Private, Fork: in.Parent != nil, Empty: in.MainBranch == nil,
		Size: max(in.Size, 0), Active: in.Updated, Raw: raw,
	}
	r.HTTPURL, r.SSHURL = p.clones(in.Links, in.FullName+".git")
	if in.MainBranch != nil {
		r.DefaultBranch = in.MainBranch.Name
	}
	if in.Language != "" {
		r.Languages = []string{in.Language}
	}
	if wikis && in.Wiki {
		r.WikiHTTPURL, r.WikiSSHURL = wikiURL(r.HTTPURL), wikiURL(r.SSHURL)
	}
	return r, nil
}

// clones are the addresses for git: over https certainly on the site, for the token goes nowhere else, and without the user's name
// that Bitbucket puts into them.
func (p *Provider) clones(l links, path string) (overHTTP, overSSH string) {
	for _, clone := range l.Clone {
		switch clone.Name {
		case "https", "http":
			overHTTP = forge.OnSite(p.site, clone.Href)
		case "ssh":
			overSSH = clone.Href
		}
	}
	return cmp.Or(overHTTP, p.site.JoinPath(path).String()), overSSH
}

func wikiURL(repository string) string {
	if repository == "" {
		return ""
	}
	return strings.TrimSuffix(repository, ".git") + ".git/wiki"
}

// snippet is what is read of a snippet.
type snippet struct {
	ID      string    `json:"id"`
	Title   string    `json:"title"`
	Private bool      `json:"is_private"`
	Updated time.Time `json:"updated_on"`
	Links   links     `json:"links"`
}

// decodeSnippet reads a snippet of a workspace.
func (p *Provider) decodeSnippet(raw json.RawMessage, workspace string) (forge.Repository, error) {
	var in snippet
	if err := json.Unmarshal(raw, &in); err != nil {
		return forge.Repository{}, fault.Wrap("bitbucket snippet", fault.ErrUnavailable, err, "")
	}
	if in.ID == "" || strings.Contains(in.ID, "/") {
		return forge.Repository{}, fault.New("bitbucket snippet", fault.ErrUnavailable, fmt.Sprintf("the server listed one with ID %q", in.ID), "")
	}
	r := forge.Repository{
		ID: snippetPrefix + workspace + "/" + in.ID, Owner: workspace, Name: in.ID, Class: forge.Gist,
		WebURL: in.Links.HTML.Href, Description: in.Title, Private: in.Private, Active: in.Updated, Raw: raw,
	}
	r.HTTPURL, r.SSHURL = p.clones(in.Links, "snippets/"+workspace+"/"+in.ID+".git")
	return r, nil
}
