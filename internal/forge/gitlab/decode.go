package gitlab

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// Decode implements forge.Decoder: records as GitLab answered, in the neutral model.
func Decode(r *archive.Reader) (neutral.Source, error) {
	a, err := forge.OpenArchived(r, "gitlab")
	if err != nil {
		return nil, err
	}
	return &source{Archived: a, h: r.Header()}, nil
}

// source is an archive of GitLab's answers.
type source struct {
	forge.Archived
	h archive.Header
}

// decoded is a record in the form it is wanted in. Numbers and texts that are null are zero; anything else that GitLab would not answer
// is fault.ErrCorrupt.
func decoded[T any](r archive.Record) (in T, err error) {
	if err := json.Unmarshal(r.Raw, &in); err != nil {
		return in, fault.Wrap("read "+r.Key.String(), fault.ErrCorrupt, err, "")
	}
	return in, nil
}

// each decodes records until one fails.
func each[T any](records iter.Seq2[archive.Record, error], f func(in *T, r archive.Record) error) error {
	for record, err := range records {
		if err != nil {
			return err
		}
		in, err := decoded[T](record)
		if err != nil {
			return err
		}
		if err := f(&in, record); err != nil {
			return err
		}
	}
	return nil
}

// user is somebody as GitLab names them. Whoever is gone is "ghost" there, or null.
type user struct {
	ID       int64  `json:"id"`
	Username string `json:"username"`
	Name     string `json:"name"`
	Email    string `json:"public_email"`
	URL      string `json:"web_url"`
}

func (u user) neutral() neutral.User {
	return neutral.User{Login: u.Username, Name: u.Name, Email: u.Email, ID: number(u.ID), URL: u.URL}
}

func people(all []user) (list []neutral.User) {
	for _, u := range all {
		list = append(list, u.neutral())
	}
	return list
}

// origin is what stands on this GitLab.
func (s *source) origin(id, url string, author user, created, updated time.Time) neutral.Origin {
	return neutral.Origin{Forge: s.h.Host, URL: url, ID: id, Author: author.neutral(), Created: created, Updated: updated}
}

// date reads a day, "2026-01-02"; zero for none.
func date(day string) time.Time {
	t, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Items implements neutral.Source. Issues and merge requests are numbered apart: there can be two items of a number, the issue first.
func (s *source) Items(ctx context.Context) iter.Seq2[*neutral.Item, error] {
	return forge.ItemsOf(ctx, forge.ByNumber(s.All(ctx, issuesName), s.All(ctx, pullsName)), s.item)
}

// Overview implements neutral.Source.
func (s *source) Overview(ctx context.Context) (*neutral.Overview, error) {
	o := &neutral.Overview{Items: int64(s.Count(issuesName) + s.Count(pullsName))}
	for _, read := range []func(context.Context, *neutral.Overview) error{
		s.settings, s.labels, s.milestones, s.releases, s.rules, s.hooks, s.keys, s.collaborators,
	} {
		if err := read(ctx, o); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (s *source) settings(ctx context.Context, o *neutral.Overview) error {
	return each(s.All(ctx, settingsName), func(in *struct {
		Description   string   `json:"description"`
		Topics        []string `json:"topics"`
		DefaultBranch string   `json:"default_branch"`
		Archived      bool     `json:"archived"`
		Visibility    string   `json:"visibility"`
		Issues        string   `json:"issues_access_level"`
		Wiki          string   `json:"wiki_access_level"`
		Method        string   `json:"merge_method"`
		Squash        string   `json:"squash_option"`
		DeleteBranch  bool     `json:"remove_source_branch_after_merge"`
	}, _ archive.Record,
	) error {
		o.Settings = neutral.Settings{
			Description: in.Description, Topics: in.Topics, DefaultBranch: in.DefaultBranch, Archived: in.Archived,
			Private: in.Visibility != "public", HasIssues: in.Issues != "disabled", HasWiki: in.Wiki != "disabled",
			HasProjects:  in.Issues != "disabled", // boards come with issues
			DeleteBranch: in.DeleteBranch,
		}
		if merge := map[string]string{"merge": "merge", "rebase_merge": "merge", "ff": "rebase"}[in.Method]; merge != "" {
			o.Settings.Merges = append(o.Settings.Merges, merge)
		}
		if in.Squash != "" && in.Squash != "never" {
			o.Settings.Merges = append(o.Settings.Merges, "squash")
		}
		return nil
	})
}

func (s *source) labels(ctx context.Context, o *neutral.Overview) error {
	return each(s.All(ctx, "labels"), func(in *struct {
		Name        string `json:"name"`
		Color       string `json:"color"`
		Description string `json:"description"`
	}, _ archive.Record,
	) error {
		o.Labels = append(o.Labels, &neutral.Label{
			Name: in.Name, Color: strings.ToLower(strings.TrimPrefix(in.Color, "#")), Description: in.Description,
			Exclusive: strings.Contains(in.Name, "::"), // of those that begin alike an item has one
		})
		return nil
	})
}

func (s *source) milestones(ctx context.Context, o *neutral.Overview) error {
	return each(s.All(ctx, "milestones"), func(in *struct {
		IID         int64     `json:"iid"`
		Title       string    `json:"title"`
		Description string    `json:"description"`
		State       string    `json:"state"`
		Due         string    `json:"due_date"`
		Created     time.Time `json:"created_at"`
		Updated     time.Time `json:"updated_at"`
	}, _ archive.Record,
	) error {
		o.Milestones = append(o.Milestones, &neutral.Milestone{
			Number: in.IID, Title: in.Title, Description: in.Description, Closed: in.State == "closed", Due: date(in.Due),
			Created: in.Created, Updated: in.Updated,
		})
		return nil
	})
}

// levels are access levels of a protected branch or tag.
type levels []struct {
	Level       int    `json:"access_level"`
	Description string `json:"access_level_description"`
}

// names are who may, by GitLab's words: "Maintainers", "No one".
func (l levels) names() (all []string) {
	for _, level := range l {
		all = append(all, level.Description)
	}
	return all
}

func (s *source) rules(ctx context.Context, o *neutral.Overview) error {
	err := each(s.All(ctx, "rules"), func(in *struct {
		Name      string `json:"name"`
		Push      levels `json:"push_access_levels"`
		ForcePush bool   `json:"allow_force_push"`
	}, _ archive.Record,
	) error {
		o.Rules = append(o.Rules, &neutral.Rule{Name: in.Name, Pattern: in.Name, PushBy: in.Push.names(), ForcePush: in.ForcePush, Admins: true})
		return nil
	})
	if err != nil {
		return err
	}
	return each(s.All(ctx, "tag-rules"), func(in *struct {
		Name   string `json:"name"`
		Create levels `json:"create_access_levels"`
	}, _ archive.Record,
	) error {
		o.Rules = append(o.Rules, &neutral.Rule{Name: in.Name, Pattern: in.Name, Tags: true, PushBy: in.Create.names(), Admins: true})
		return nil
	})
}

func (s *source) hooks(ctx context.Context, o *neutral.Overview) error {
	return each(s.All(ctx, "hooks"), func(in *map[string]any, _ archive.Record) error {
		h := &neutral.Hook{ContentType: "json", Active: true}
		h.URL, _ = (*in)["url"].(string)
		for name, value := range *in {
			if kind, ok := strings.CutSuffix(name, "_events"); ok && value == true {
				h.Events = append(h.Events, kind)
			}
		}
		slices.Sort(h.Events)
		o.Hooks = append(o.Hooks, h)
		return nil
	})
}

func (s *source) keys(ctx context.Context, o *neutral.Overview) error {
	return each(s.All(ctx, "keys"), func(in *struct {
		Title string `json:"title"`
		Key   string `json:"key"`
		Push  bool   `json:"can_push"`
	}, _ archive.Record,
	) error {
		o.Keys = append(o.Keys, &neutral.DeployKey{Title: in.Title, Key: in.Key, ReadOnly: !in.Push})
		return nil
	})
}

func (s *source) collaborators(ctx context.Context, o *neutral.Overview) error {
	return each(s.All(ctx, "collaborators"), func(in *struct {
		user
		Level int64 `json:"access_level"`
	}, _ archive.Record,
	) error {
		o.Collaborators = append(o.Collaborators, &neutral.Collaborator{User: in.neutral(), Permission: permission(in.Level)})
		return nil
	})
}

// permission is the role that comes nearest, by what it may do.
func permission(level int64) string {
	switch {
	case level >= 50:
		return "admin"
	case level >= 40:
		return "maintain"
	case level >= 30:
		return "write"
	case level >= 15: // Planner, Reporter
		return "triage"
	}
	return "read"
}

// link is a release's link to a file.
type link struct {
	ID     int64  `json:"id"`
	Name   string `json:"name"`
	URL    string `json:"url"`
	Direct string `json:"direct_asset_url"`
	Type   string `json:"link_type"`
}

// release is what is read of one.
type release struct {
	Tag      string    `json:"tag_name"`
	Name     string    `json:"name"`
	Body     string    `json:"description"`
	Author   user      `json:"author"`
	Created  time.Time `json:"created_at"`
	Released time.Time `json:"released_at"`
	Commit   struct {
		ID string `json:"id"`
	} `json:"commit"`
	Assets struct {
		Links []link `json:"links"`
	} `json:"assets"`
	Links struct {
		Self string `json:"self"`
	} `json:"_links"`
}

func (s *source) releases(ctx context.Context, o *neutral.Overview) error {
	return each(s.All(ctx, "releases"), func(in *release, _ archive.Record) error {
		out := &neutral.Release{
			Origin: s.origin(in.Tag, in.Links.Self, in.Author, in.Created, time.Time{}),
			Tag:    in.Tag, Target: in.Commit.ID, Name: in.Name, Body: in.Body, Published: in.Released,
		}
		neutral.RecallRelease(out, s.h.Account)
		for _, l := range in.Assets.Links {
			asset, err := s.asset(ctx, in.Tag, l)
			if err != nil {
				return err
			}
			out.Assets = append(out.Assets, asset)
		}
		o.Releases = append(o.Releases, out)
		return nil
	})
}

// asset is a link of a release. Its bytes are there where the link leads to the same GitLab.
func (s *source) asset(ctx context.Context, tag string, l link) (*neutral.Asset, error) {
	out := &neutral.Asset{Release: tag, File: neutral.File{URL: l.URL, Name: l.Name, Reason: "it is not this GitLab's, which only links to it"}}
	record, err := s.Get(ctx, archive.Key{Collection: archive.FilesCollection, ID: l.URL})
	if errors.Is(err, fault.ErrNotFound) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	in, err := decoded[archive.File](record)
	if err != nil {
		return nil, err
	}
	out.Type, out.Size, out.SHA256, out.Reason = in.Type, in.Size, in.SHA256, in.Reason
	return out, nil
}
