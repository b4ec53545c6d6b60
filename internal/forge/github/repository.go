package github

import (
	"encoding/json"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// repository is what we read of the REST API's repository objects, and of GraphQL's, whose fields are asked for by these names.
type repository struct {
	ID            int64      `json:"id"`
	Name          string     `json:"name"`
	Owner         account    `json:"owner"`
	Private       bool       `json:"private"`
	Fork          bool       `json:"fork"`
	Archived      bool       `json:"archived"`
	Empty         bool       `json:"empty"` // only GraphQL tells
	Description   string     `json:"description"`
	WebURL        string     `json:"html_url"`
	SSHURL        string     `json:"ssh_url"`
	DefaultBranch named      `json:"default_branch"`
	Language      named      `json:"language"`
	Stars         int        `json:"stargazers_count"`
	Kilobytes     int64      `json:"size"`
	HasWiki       *bool      `json:"has_wiki"`
	Pushed        *time.Time `json:"pushed_at"` // null where nobody ever pushed
	Created       *time.Time `json:"created_at"`
}

// named is a name: a string in REST, an object with a name in GraphQL.
type named string

// UnmarshalJSON implements json.Unmarshaler.
func (n *named) UnmarshalJSON(b []byte) error {
	if strings.HasPrefix(string(b), "{") {
		var object struct {
			Name string `json:"name"`
		}
		err := json.Unmarshal(b, &object)
		*n = named(object.Name)
		return err
	}
	var text string
	err := json.Unmarshal(b, &text)
	*n = named(text)
	return err
}

// decode makes a repository of its object. answered is when GitHub gave it, by GitHub's clock.
func (p *Provider) decode(raw json.RawMessage, answered time.Time) (forge.Repository, error) {
	var o repository
	if err := json.Unmarshal(raw, &o); err != nil {
		return forge.Repository{}, fault.Wrap("repository object", fault.ErrCorrupt, err, "")
	}
	if o.ID <= 0 || !plain(o.Owner.Login) || !plain(o.Name) {
		return forge.Repository{}, fault.New("repository object", fault.ErrCorrupt, "it has no id, owner and name of GitHub's", "")
	}
	r := forge.Repository{
		ID: strconv.FormatInt(o.ID, 10), Owner: o.Owner.Login, Name: o.Name,
		SSHURL: o.SSHURL, WebURL: o.WebURL,
		Description: o.Description, DefaultBranch: string(o.DefaultBranch),
		Private: o.Private, Fork: o.Fork, Archived: o.Archived, Empty: o.Empty, Stars: o.Stars,
		Size: min(max(o.Kilobytes, 0), 1<<50) * 1024,
		Raw:  raw,
	}
	// Not the clone_url of the answer: credentials go only to the host that the user named.
	r.HTTPURL = p.web.JoinPath(r.Owner, r.Name+".git").String()
	if o.HasWiki == nil || *o.HasWiki {
		r.WikiHTTPURL, r.WikiSSHURL = wikiOf(r.HTTPURL), wikiOf(r.SSHURL)
	}
	if o.Language != "" {
		r.Languages = []string{string(o.Language)}
	}
	switch {
	case o.Pushed != nil:
		r.Active, r.Mark = *o.Pushed, forge.MarkOf(*o.Pushed, answered)
	case o.Created != nil:
		r.Active = *o.Created
	}
	return r, nil
}

func wikiOf(address string) string {
	if repository, ok := strings.CutSuffix(address, ".git"); ok {
		return repository + ".wiki.git"
	}
	return ""
}

// gist is what we read of a gist's object. Its names of files stay in the raw answer.
type gist struct {
	ID          string     `json:"id"`
	Owner       account    `json:"owner"` // null where a visitor made it
	Public      bool       `json:"public"`
	Description string     `json:"description"`
	PullURL     string     `json:"git_pull_url"`
	WebURL      string     `json:"html_url"`
	Updated     *time.Time `json:"updated_at"`
}

// decodeGist makes a repository of a gist's object. It gets no mark: nothing says that each push moves updated_at.
func (p *Provider) decodeGist(raw json.RawMessage, _ time.Time) (forge.Repository, error) {
	var o gist
	if err := json.Unmarshal(raw, &o); err != nil {
		return forge.Repository{}, fault.Wrap("gist object", fault.ErrCorrupt, err, "")
	}
	if o.Owner.Login == "" {
		o.Owner.Login = "anonymous"
	}
	if !plain(o.ID) || !plain(o.Owner.Login) {
		return forge.Repository{}, fault.New("gist object", fault.ErrCorrupt, "it has no id and owner of GitHub's", "")
	}
	address, err := p.gistAddress(o)
	if err != nil {
		return forge.Repository{}, fault.Wrap("gist "+o.ID, fault.ErrCorrupt, err, "")
	}
	r := forge.Repository{
		ID:    "gist:" + o.ID, // ids of old gists are numbers, as those of repositories are
		Owner: o.Owner.Login, Name: o.ID, Class: forge.Gist,
		HTTPURL: address.String(), SSHURL: "git@" + address.Hostname() + ":" + strings.TrimPrefix(address.Path, "/"),
		WebURL: o.WebURL, Description: o.Description, Private: !o.Public, Raw: raw,
	}
	if o.Updated != nil {
		r.Active = *o.Updated
	}
	return r, nil
}

// gistAddress is where git finds a gist: https://gist.github.com/ID.git, or below a path of an instance that has one host for all.
// The host is ours to say, for credentials go there.
func (p *Provider) gistAddress(o gist) (*url.URL, error) {
	answered, err := url.Parse(o.PullURL)
	if err != nil {
		return nil, errors.New("its address is no URL")
	}
	file := o.ID + ".git"
	switch strings.TrimPrefix(answered.Path, "/") {
	case "gist/" + file:
		return p.web.JoinPath("gist", file), nil
	case file:
		address := *p.web
		if strings.HasPrefix(answered.Host, "gist.") {
			address.Host = "gist." + address.Host
		}
		return address.JoinPath(file), nil
	}
	return nil, errors.New("its address is none that GitHub gives to gists")
}

// plain reports whether s can be the name of an account, a repository or a gist: GitHub has letters, digits, "-", "_" and ".".
func plain(s string) bool {
	if s == "" || s == "." || s == ".." || len(s) > 255 {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		return !letter && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	}) < 0
}
