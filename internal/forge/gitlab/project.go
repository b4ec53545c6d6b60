package gitlab

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// snippetPrefix tells the IDs of snippets from those of projects, which GitLab counts apart.
const snippetPrefix = "snippet-"

// project is what is read of a project. Fields that the server leaves out, as it does with those that the token may not see, are zero.
type project struct {
	ID            int64     `json:"id"`
	Path          string    `json:"path_with_namespace"`
	Description   string    `json:"description"`
	DefaultBranch string    `json:"default_branch"`
	Visibility    string    `json:"visibility"`
	CodeAccess    string    `json:"repository_access_level"` // "enabled", "private", "disabled"
	HTTPURL       string    `json:"http_url_to_repo"`
	SSHURL        string    `json:"ssh_url_to_repo"`
	WebURL        string    `json:"web_url"`
	Archived      bool      `json:"archived"`
	Empty         bool      `json:"empty_repo"`
	Stars         int       `json:"star_count"`
	Active        time.Time `json:"last_activity_at"`
	ForkedFrom    *struct{} `json:"forked_from_project"`
	WikiEnabled   *bool     `json:"wiki_enabled"`
	WikiAccess    string    `json:"wiki_access_level"`
	Mirror        bool      `json:"mirror"`
	Statistics    struct {
		Repository int64 `json:"repository_size"`
		LFS        int64 `json:"lfs_objects_size"`
	} `json:"statistics"`
}

// decodeProject reads a project as listed; wikis asks for the addresses of its wiki.
//
// Mark stays "": nothing that GitLab lists changes with every push. last_activity_at moves at most once an hour, not for branches and
// tags made on the web, and its updates can get lost (gitlab-org/gitlab issues 295486, 505462 and 581897); updated_at is the database
// record's. GraphQL has the last commit of one branch only. So git's own list of refs is asked for, one request a repository.
func (p *Provider) decodeProject(raw json.RawMessage, wikis bool) (forge.Repository, error) {
	var in project
	if err := json.Unmarshal(raw, &in); err != nil {
		return forge.Repository{}, fault.Wrap("gitlab project", fault.ErrUnavailable, err, "")
	}
	cut := strings.LastIndexByte(in.Path, '/')
	if in.ID <= 0 || cut <= 0 || cut == len(in.Path)-1 {
		return forge.Repository{}, fault.New("gitlab project", fault.ErrUnavailable,
			fmt.Sprintf("the server listed one without ID or path: %d %q", in.ID, in.Path), "")
	}
	r := forge.Repository{
		ID: strconv.FormatInt(in.ID, 10), Owner: in.Path[:cut], Name: in.Path[cut+1:],
		HTTPURL: p.onSite(in.HTTPURL, in.Path+".git"), SSHURL: in.SSHURL, WebURL: in.WebURL,
		Description: in.Description, DefaultBranch: in.DefaultBranch,
		Private: in.isPrivate(), Fork: in.ForkedFrom != nil, Archived: in.Archived, Empty: in.Empty,
		Stars: in.Stars, Active: in.Active, Size: max(in.Statistics.Repository, 0) + max(in.Statistics.LFS, 0),
		Raw: raw,
	}
	if wikis && in.hasWiki() {
		r.WikiHTTPURL, r.WikiSSHURL = forge.WikiBeside(r.HTTPURL), forge.WikiBeside(r.SSHURL)
	}
	return r, nil
}

// isPrivate tells also of projects that everybody sees, but for the code or the wiki.
func (in project) isPrivate() bool {
	return in.Visibility != "public" || in.CodeAccess == "private" || in.WikiAccess == "private"
}

// hasWiki is whether the project has its wiki switched on; whether it has pages the listing does not say.
func (in project) hasWiki() bool {
	if in.WikiAccess != "" {
		return in.WikiAccess != "disabled"
	}
	return in.WikiEnabled == nil || *in.WikiEnabled
}

// snippet is what is read of a snippet, personal or of a project.
type snippet struct {
	ID         int64     `json:"id"`
	Title      string    `json:"title"`
	Visibility string    `json:"visibility"`
	HTTPURL    string    `json:"http_url_to_repo"`
	SSHURL     string    `json:"ssh_url_to_repo"`
	WebURL     string    `json:"web_url"`
	Updated    time.Time `json:"updated_at"`
	Author     struct {
		Username string `json:"username"`
	} `json:"author"`
}

// decodeSnippet reads a snippet; its owner is the author, or the project it belongs to.
func (p *Provider) decodeSnippet(raw json.RawMessage) (forge.Repository, error) {
	var in snippet
	if err := json.Unmarshal(raw, &in); err != nil {
		return forge.Repository{}, fault.Wrap("gitlab snippet", fault.ErrUnavailable, err, "")
	}
	id := strconv.FormatInt(in.ID, 10)
	owner := in.Author.Username
	path := "snippets/" + id + ".git"
	if web, err := url.Parse(in.WebURL); err == nil {
		inside := strings.TrimPrefix(web.Path, p.site.Path+"/")
		if of, _, found := strings.Cut(inside, "/-/snippets/"); found {
			owner, path = of, of+"/"+path
		}
	}
	if in.ID <= 0 || owner == "" {
		return forge.Repository{}, fault.New("gitlab snippet", fault.ErrUnavailable, "the server listed one without ID or author", "")
	}
	return forge.Repository{
		ID: snippetPrefix + id, Owner: owner, Name: id, Class: forge.Gist,
		HTTPURL: p.onSite(in.HTTPURL, path), SSHURL: in.SSHURL, WebURL: in.WebURL,
		Description: in.Title, Private: in.Visibility != "public", Active: in.Updated, Raw: raw,
	}, nil
}

// onSite is an address for git that certainly is the configured server's. path is used where the server lists none.
func (p *Provider) onSite(listed, path string) string {
	return cmp.Or(forge.OnSite(p.site, listed), p.site.JoinPath(path).String())
}
