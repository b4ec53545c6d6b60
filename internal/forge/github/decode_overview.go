package github

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// Overview implements neutral.Source.
func (s *source) Overview(ctx context.Context) (*neutral.Overview, error) {
	o := &neutral.Overview{Items: int64(s.Count("issues")), Discussions: int64(s.Count("discussions"))}
	for _, part := range []func(context.Context, *neutral.Overview) error{
		s.settings, s.labels, s.milestones, s.releases, s.rules, s.rulesets, s.hooks, s.keys, s.collaborators, s.teams, s.projects,
	} {
		if err := part(ctx, o); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// settings is a repository, by the names of REST.
type settings struct {
	Description   words `json:"description"`
	Homepage      words `json:"homepage"`
	Private       bool  `json:"private"`
	Archived      bool  `json:"archived"`
	DefaultBranch named `json:"default_branch"`
	HasIssues     bool  `json:"has_issues"`
	HasWiki       bool  `json:"has_wiki"`
	HasProjects   bool  `json:"has_projects"`
	Merge         bool  `json:"allow_merge_commit"`
	Squash        bool  `json:"allow_squash_merge"`
	Rebase        bool  `json:"allow_rebase_merge"`
	DeleteBranch  bool  `json:"delete_branch_on_merge"`
	Topics        nodes[struct {
		Topic struct {
			Name words `json:"name"`
		} `json:"topic"`
	}] `json:"topics"`
	Pinned nodes[struct {
		Issue struct {
			Number number `json:"number"`
		} `json:"issue"`
	}] `json:"pinned"`
}

func (s *source) settings(ctx context.Context, o *neutral.Overview) error {
	return all(s.All(ctx, "settings"), func(_ archive.Record, raw *settings) {
		o.Settings = neutral.Settings{
			Description: string(raw.Description), Homepage: string(raw.Homepage), DefaultBranch: string(raw.DefaultBranch),
			Archived: raw.Archived, Private: raw.Private, HasIssues: raw.HasIssues, HasWiki: raw.HasWiki, HasProjects: raw.HasProjects,
			DeleteBranch: raw.DeleteBranch,
		}
		for _, topic := range raw.Topics.Nodes {
			o.Settings.Topics = append(o.Settings.Topics, string(topic.Topic.Name))
		}
		for i, allowed := range []bool{raw.Merge, raw.Squash, raw.Rebase} {
			if allowed {
				o.Settings.Merges = append(o.Settings.Merges, []string{"merge", "squash", "rebase"}[i])
			}
		}
	})
}

func (s *source) labels(ctx context.Context, o *neutral.Overview) error {
	type label struct {
		Name        words `json:"name"`
		Color       words `json:"color"`
		Description words `json:"description"`
	}
	return all(s.All(ctx, "labels"), func(_ archive.Record, raw *label) {
		o.Labels = append(o.Labels, &neutral.Label{Name: string(raw.Name), Color: strings.ToLower(string(raw.Color)), Description: string(raw.Description)})
	})
}

func (s *source) milestones(ctx context.Context, o *neutral.Overview) error {
	type milestone struct {
		Title       words  `json:"title"`
		Description words  `json:"description"`
		State       words  `json:"state"`
		Due         moment `json:"due_on"`
		Closed      moment `json:"closed_at"`
		Created     moment `json:"created_at"`
		Updated     moment `json:"updated_at"`
	}
	return all(s.All(ctx, "milestones"), func(r archive.Record, raw *milestone) {
		o.Milestones = append(o.Milestones, &neutral.Milestone{
			Number: numberOf(r.Key), Title: string(raw.Title), Description: string(raw.Description),
			Closed: strings.EqualFold(string(raw.State), "closed"), Due: raw.Due.Time, ClosedAt: raw.Closed.Time,
			Created: raw.Created.Time, Updated: raw.Updated.Time,
		})
	})
}

// pinned are the numbers of pinned issues.
func (s *source) pinned(ctx context.Context) (map[int64]bool, error) {
	pinned := map[int64]bool{}
	err := all(s.All(ctx, "settings"), func(_ archive.Record, raw *settings) {
		for _, n := range raw.Pinned.Nodes {
			pinned[int64(n.Issue.Number)] = true
		}
	})
	return pinned, err
}

func (s *source) releases(ctx context.Context, o *neutral.Overview) error {
	type release struct {
		authored
		By         *person `json:"author"`
		Tag        words   `json:"tag_name"`
		Target     words   `json:"target_commitish"`
		Name       words   `json:"name"`
		Draft      bool    `json:"draft"`
		Prerelease bool    `json:"prerelease"`
		Immutable  bool    `json:"immutable"`
		Published  moment  `json:"published_at"`
	}
	var keys []archive.Key
	err := all(s.All(ctx, "releases"), func(r archive.Record, raw *release) {
		raw.User = raw.By
		o.Releases = append(o.Releases, &neutral.Release{
			Origin: s.origin(raw.authored), Tag: string(raw.Tag), Target: string(raw.Target), Name: string(raw.Name), Body: string(raw.Body),
			Draft: raw.Draft, Prerelease: raw.Prerelease, Immutable: raw.Immutable, Published: raw.Published.Time,
		})
		keys = append(keys, r.Key)
	})
	for i, r := range o.Releases {
		if err != nil {
			return err
		}
		err = s.assets(ctx, keys[i], r)
		neutral.RecallRelease(r, s.account)
	}
	slices.SortStableFunc(o.Releases, func(a, b *neutral.Release) int { return a.Created.Compare(b.Created) })
	return err
}

// assets reads the assets of a release. Their bytes are told by the record of their file.
func (s *source) assets(ctx context.Context, release archive.Key, to *neutral.Release) error {
	err := all(s.Children(ctx, release, "assets"), func(_ archive.Record, raw *asset) {
		to.Assets = append(to.Assets, &neutral.Asset{
			File:    neutral.File{URL: string(raw.URL), Name: string(raw.Name), Type: string(raw.Type), Size: int64(max(raw.Size, 0))},
			Release: to.Tag, Label: string(raw.Label), Downloads: int64(raw.Downloads), Created: raw.Created.Time,
		})
	})
	for _, a := range to.Assets {
		if err != nil {
			return err
		}
		err = s.stored(ctx, &a.File)
	}
	return err
}

// stored fills in what became of a file.
func (s *source) stored(ctx context.Context, f *neutral.File) error {
	known, err := s.File(ctx, f.URL)
	if err != nil {
		return err
	}
	f.SHA256, f.Reason = known.SHA256, known.Reason
	return nil
}

// rules reads the protection of branches.
func (s *source) rules(ctx context.Context, o *neutral.Overview) error {
	type rule struct {
		Pattern   words   `json:"pattern"`
		Approvals number  `json:"approvals"`
		Checks    []words `json:"checks"`
		Restricts bool    `json:"restricts_pushes"`
		Push      nodes[struct {
			Actor *struct {
				Login words `json:"login"`
				Slug  words `json:"slug"`
			} `json:"actor"`
		}] `json:"push"`
		ForcePush bool `json:"force_push"`
		Delete    bool `json:"delete"`
		Signed    bool `json:"signed"`
		Linear    bool `json:"linear"`
		Admins    bool `json:"admins"`
	}
	return all(s.All(ctx, "rules"), func(_ archive.Record, raw *rule) {
		r := &neutral.Rule{
			Name: string(raw.Pattern), Pattern: string(raw.Pattern), Approvals: int(min(max(raw.Approvals, 0), 1000)), ForcePush: raw.ForcePush,
			Delete: raw.Delete, Signed: raw.Signed, Linear: raw.Linear, Admins: raw.Admins,
		}
		for _, check := range raw.Checks {
			r.Checks = append(r.Checks, string(check))
		}
		if raw.Restricts {
			r.PushBy = []string{}
		}
		for _, n := range raw.Push.Nodes {
			if n.Actor != nil {
				r.PushBy = append(r.PushBy, string(n.Actor.Login+n.Actor.Slug))
			}
		}
		o.Rules = append(o.Rules, r)
	})
}

// ruleset is a set of rules for branches or tags.
type ruleset struct {
	Name        words `json:"name"`
	Target      words `json:"target"`
	Enforcement words `json:"enforcement"`
	Bypass      []any `json:"bypass_actors"`
	Conditions  struct {
		Ref struct {
			Include []words `json:"include"`
		} `json:"ref_name"`
	} `json:"conditions"`
	Rules []struct {
		Type       words `json:"type"`
		Parameters struct {
			Approvals number `json:"required_approving_review_count"`
			Checks    []struct {
				Context words `json:"context"`
			} `json:"required_status_checks"`
		} `json:"parameters"`
	} `json:"rules"`
}

// rulesets reads those in force as rules, one for each pattern.
func (s *source) rulesets(ctx context.Context, o *neutral.Overview) error {
	return all(s.All(ctx, "rulesets"), func(_ archive.Record, raw *ruleset) {
		o.Rules = append(o.Rules, raw.inForce(o.Settings.DefaultBranch)...)
	})
}

// inForce are the rules of a set, one for each pattern.
func (raw *ruleset) inForce(defaultBranch string) (rules []*neutral.Rule) {
	if raw.Enforcement != "active" || (raw.Target != "branch" && raw.Target != "tag") {
		return nil
	}
	for _, ref := range raw.Conditions.Ref.Include {
		pattern := strings.TrimPrefix(strings.TrimPrefix(string(ref), "refs/heads/"), "refs/tags/")
		switch ref {
		case "~ALL":
			pattern = "*"
		case "~DEFAULT_BRANCH":
			pattern = defaultBranch
		}
		rules = append(rules, raw.rule(pattern))
	}
	return rules
}

func (raw *ruleset) rule(pattern string) *neutral.Rule {
	r := &neutral.Rule{
		Name: string(raw.Name), Pattern: pattern, Tags: raw.Target == "tag", ForcePush: true, Delete: true, Admins: len(raw.Bypass) == 0,
	}
	for _, rule := range raw.Rules {
		switch rule.Type {
		case "non_fast_forward":
			r.ForcePush = false
		case "deletion":
			r.Delete = false
		case "required_signatures":
			r.Signed = true
		case "required_linear_history":
			r.Linear = true
		case "update":
			r.PushBy = []string{}
		case "pull_request":
			r.Approvals = int(min(max(rule.Parameters.Approvals, 0), 1000))
		case "required_status_checks":
			for _, check := range rule.Parameters.Checks {
				r.Checks = append(r.Checks, string(check.Context))
			}
		}
	}
	return r
}

func (s *source) hooks(ctx context.Context, o *neutral.Overview) error {
	type hook struct {
		Active bool    `json:"active"`
		Events []words `json:"events"`
		Config struct {
			URL         words `json:"url"`
			ContentType words `json:"content_type"`
		} `json:"config"`
	}
	return all(s.All(ctx, "hooks"), func(_ archive.Record, raw *hook) {
		h := &neutral.Hook{ContentType: string(raw.Config.ContentType), Active: raw.Active}
		if u, err := url.Parse(string(raw.Config.URL)); err == nil {
			u.User = nil
			h.URL = u.String()
		}
		for _, event := range raw.Events {
			h.Events = append(h.Events, string(event))
		}
		o.Hooks = append(o.Hooks, h)
	})
}

func (s *source) keys(ctx context.Context, o *neutral.Overview) error {
	type key struct {
		Title    words `json:"title"`
		Key      words `json:"key"`
		ReadOnly bool  `json:"read_only"`
	}
	return all(s.All(ctx, "keys"), func(_ archive.Record, raw *key) {
		o.Keys = append(o.Keys, &neutral.DeployKey{Title: string(raw.Title), Key: string(raw.Key), ReadOnly: raw.ReadOnly})
	})
}

func (s *source) collaborators(ctx context.Context, o *neutral.Overview) error {
	type collaborator struct {
		User       *person `json:"user"`
		Permission words   `json:"permission"`
	}
	return all(s.All(ctx, "collaborators"), func(_ archive.Record, raw *collaborator) {
		o.Collaborators = append(o.Collaborators, &neutral.Collaborator{User: raw.User.user(), Permission: permission(raw.Permission)})
	})
}

// teams are collaborators whose names have a slash: an organisation owns the repository.
func (s *source) teams(ctx context.Context, o *neutral.Overview) error {
	type team struct {
		Slug       words `json:"slug"`
		Permission words `json:"permission"`
	}
	owner, _, _ := strings.Cut(s.Header().Repository, "/")
	return all(s.All(ctx, "teams"), func(_ archive.Record, raw *team) {
		who := neutral.User{Login: owner + "/" + string(raw.Slug)}
		o.Collaborators = append(o.Collaborators, &neutral.Collaborator{User: who, Permission: permission(raw.Permission)})
	})
}

// permission is the model's word for GitHub's two sets of them.
func permission(word words) string {
	switch p := strings.ToLower(string(word)); p {
	case "pull":
		return "read"
	case "push":
		return "write"
	default:
		return p
	}
}
