package bitbucket

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

var _ forge.Decoder = Decode

// Decode reads what Bitbucket answered as the neutral model. Tasks are comments with a box to tick, and what stands on the Downloads
// page is a draft of a release, for other forges have no place for either.
func Decode(r *archive.Reader) (neutral.Source, error) {
	a, err := forge.OpenArchived(r, dialect)
	if err != nil {
		return nil, err
	}
	return &source{a, r.Header()}, nil
}

type source struct {
	forge.Archived
	h archive.Header
}

// The documents, as far as they are read.
type (
	link struct {
		Href string `json:"href"`
	}
	user struct {
		UUID     string `json:"uuid"`
		Nickname string `json:"nickname"`
		Username string `json:"username"` // of teams
		Name     string `json:"display_name"`
		Links    struct {
			HTML link `json:"html"`
		} `json:"links"`
	}
	content struct {
		Raw string `json:"raw"`
	}
	endpoint struct {
		Branch struct {
			Name string `json:"name"`
		} `json:"branch"`
		Commit *struct {
			Hash string `json:"hash"`
		} `json:"commit"`
		Repository *struct {
			FullName string `json:"full_name"`
		} `json:"repository"`
	}
	pullRequest struct {
		ID           int64     `json:"id"`
		Title        string    `json:"title"`
		Description  string    `json:"description"`
		Summary      content   `json:"summary"`
		State        string    `json:"state"` // "OPEN", "MERGED", "DECLINED", "SUPERSEDED"
		Draft        bool      `json:"draft"`
		Author       *user     `json:"author"`
		ClosedBy     *user     `json:"closed_by"`
		Reason       string    `json:"reason"` // given for declining
		Source       endpoint  `json:"source"`
		Destination  endpoint  `json:"destination"`
		Created      time.Time `json:"created_on"`
		Updated      time.Time `json:"updated_on"`
		Reviewers    []user    `json:"reviewers"`
		Participants []struct {
			User  *user     `json:"user"`
			State string    `json:"state"` // "approved", "changes_requested", or null
			At    time.Time `json:"participated_on"`
		} `json:"participants"`
		MergeCommit *struct {
			Hash string `json:"hash"`
		} `json:"merge_commit"`
		Links struct {
			HTML link `json:"html"`
		} `json:"links"`
	}
)

// oid is "" where the commit is gone.
func (e endpoint) oid() string {
	if e.Commit == nil {
		return ""
	}
	return e.Commit.Hash
}

func (u *user) neutral() neutral.User {
	if u == nil {
		return neutral.User{}
	}
	return neutral.User{Login: cmp.Or(u.Nickname, u.Username, u.Name), Name: u.Name, ID: u.UUID, URL: u.Links.HTML.Href}
}

// Overview implements neutral.Source.
func (s *source) Overview(ctx context.Context) (*neutral.Overview, error) {
	o := &neutral.Overview{Items: int64(s.Count("pulls"))}
	for _, read := range []func(context.Context, *neutral.Overview) error{s.settings, s.downloads, s.rules, s.hooks, s.keys, s.collaborators} {
		if err := read(ctx, o); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (s *source) settings(ctx context.Context, o *neutral.Overview) error {
	type document struct {
		repository
		Website   string `json:"website"`
		HasIssues bool   `json:"has_issues"`
	}
	return forge.DecodeRecords(s.All(ctx, "settings"), func(_ archive.Record, d *document) {
		o.Settings = neutral.Settings{
			Description: d.Description, Homepage: d.Website, Private: d.Private, HasIssues: d.HasIssues, HasWiki: d.Wiki,
		}
		if d.MainBranch != nil {
			o.Settings.DefaultBranch = d.MainBranch.Name
		}
	})
}

// downloads are the files of a release that nobody sees until somebody wants it so: it has no tag.
func (s *source) downloads(ctx context.Context, o *neutral.Overview) error {
	const tag = "downloads"
	release := &neutral.Release{
		Origin: neutral.Origin{Forge: s.h.Host, ID: tag}, Tag: tag, Target: o.Settings.DefaultBranch, Name: "Downloads", Draft: true,
	}
	type document struct {
		Name      string    `json:"name"`
		Size      int64     `json:"size"`
		Downloads int64     `json:"downloads"`
		Created   time.Time `json:"created_on"`
		User      *user     `json:"user"`
		Links     struct {
			Self link `json:"self"`
		} `json:"links"`
	}
	var failed error
	err := forge.DecodeRecords(s.All(ctx, "downloads"), func(_ archive.Record, d *document) {
		f, err := s.File(ctx, d.Links.Self.Href)
		if err != nil {
			failed = cmp.Or(failed, err)
			return
		}
		f.Name, f.Size = d.Name, max(f.Size, d.Size)
		release.Assets = append(release.Assets, &neutral.Asset{File: *f, Release: tag, Downloads: d.Downloads, Created: d.Created})
		if release.Created.IsZero() || d.Created.Before(release.Created) {
			release.Created, release.Author = d.Created, d.User.neutral()
		}
	})
	if len(release.Assets) > 0 {
		o.Releases = append(o.Releases, release)
	}
	return cmp.Or(err, failed)
}

// restriction is one of several that make up what is a rule elsewhere.
type restriction struct {
	Kind    string `json:"kind"`
	Match   string `json:"branch_match_kind"` // "glob", "branching_model"
	Pattern string `json:"pattern"`
	Type    string `json:"branch_type"` // "production", of the branching model
	Value   *int   `json:"value"`
	Users   []user `json:"users"`
	Groups  []struct {
		Slug string `json:"slug"`
	} `json:"groups"`
}

// rules are put together from the restrictions of each pattern. Without a restriction, a branch can be deleted and its history changed.
func (s *source) rules(ctx context.Context, o *neutral.Overview) error {
	by := map[string]*neutral.Rule{}
	err := forge.DecodeRecords(s.All(ctx, "rules"), func(_ archive.Record, d *restriction) {
		name := d.Pattern
		if d.Match == "branching_model" {
			name = "branching model: " + d.Type
		}
		rule := by[name]
		if rule == nil {
			rule = &neutral.Rule{Name: name, Pattern: d.Pattern, ForcePush: true, Delete: true}
			by[name] = rule
			o.Rules = append(o.Rules, rule)
		}
		d.apply(rule)
	})
	o.Rules = slices.DeleteFunc(o.Rules, func(r *neutral.Rule) bool { return r.Pattern == "" }) // which branch it is, only the model says
	return err
}

func (d *restriction) apply(rule *neutral.Rule) {
	switch d.Kind {
	case "force":
		rule.ForcePush = false
	case "delete":
		rule.Delete = false
	case "require_approvals_to_merge":
		if d.Value != nil {
			rule.Approvals = max(*d.Value, 0)
		}
	case "push":
		for i := range d.Users {
			rule.PushBy = append(rule.PushBy, d.Users[i].neutral().Login)
		}
		for _, g := range d.Groups {
			rule.PushBy = append(rule.PushBy, g.Slug)
		}
	}
}

func (s *source) hooks(ctx context.Context, o *neutral.Overview) error {
	type document struct {
		URL    string   `json:"url"`
		Active bool     `json:"active"`
		Events []string `json:"events"`
	}
	return forge.DecodeRecords(s.All(ctx, "hooks"), func(_ archive.Record, d *document) {
		o.Hooks = append(o.Hooks, &neutral.Hook{URL: d.URL, Active: d.Active, Events: d.Events, ContentType: "json"})
	})
}

// keys only read: Bitbucket has no others.
func (s *source) keys(ctx context.Context, o *neutral.Overview) error {
	type document struct {
		Label   string `json:"label"`
		Key     string `json:"key"`
		Comment string `json:"comment"`
	}
	return forge.DecodeRecords(s.All(ctx, "keys"), func(_ archive.Record, d *document) {
		key := &neutral.DeployKey{Title: d.Label, Key: d.Key, ReadOnly: true}
		if d.Comment != "" && !strings.HasSuffix(d.Key, d.Comment) {
			key.Key += " " + d.Comment
		}
		o.Keys = append(o.Keys, key)
	})
}

func (s *source) collaborators(ctx context.Context, o *neutral.Overview) error {
	type document struct {
		Permission string `json:"permission"`
		User       *user  `json:"user"`
		Group      struct {
			Slug string `json:"slug"`
			Name string `json:"name"`
		} `json:"group"`
	}
	workspace, _, _ := strings.Cut(s.h.Repository, "/")
	for _, collection := range []string{"collaborators", "teams"} {
		err := forge.DecodeRecords(s.All(ctx, collection), func(_ archive.Record, d *document) {
			c := &neutral.Collaborator{User: d.User.neutral(), Permission: d.Permission}
			if d.User == nil {
				c.User = neutral.User{Login: workspace + "/" + d.Group.Slug, Name: d.Group.Name}
			}
			o.Collaborators = append(o.Collaborators, c)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// decodeRaw reads the raw of a record.
func decodeRaw(r archive.Record, into any) error {
	if err := json.Unmarshal(r.Raw, into); err != nil {
		return errCorrupt(r, err)
	}
	return nil
}
