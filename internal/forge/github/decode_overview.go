package github

import (
	"context"
	"strings"

	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// Overview implements neutral.Source.
func (s *source) Overview(ctx context.Context) (*neutral.Overview, error) {
	o := &neutral.Overview{Items: int64(s.r.Count("issues")), Discussions: int64(s.r.Count("discussions"))}
	for _, part := range []func(context.Context, *neutral.Overview) error{s.settings, s.labels, s.milestones} {
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
	return all(s.r.All(ctx, "settings"), func(_ archive.Record, raw *settings) {
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
	return all(s.r.All(ctx, "labels"), func(_ archive.Record, raw *label) {
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
	return all(s.r.All(ctx, "milestones"), func(r archive.Record, raw *milestone) {
		o.Milestones = append(o.Milestones, &neutral.Milestone{
			Number: numberOf(r.Key), Title: string(raw.Title), Description: string(raw.Description),
			Closed: strings.EqualFold(string(raw.State), "closed"), Due: raw.Due.Time, ClosedAt: raw.Closed.Time,
			Created: raw.Created.Time, Updated: raw.Updated.Time,
		})
	})
}
