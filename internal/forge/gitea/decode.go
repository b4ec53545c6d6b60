package gitea

import (
	"cmp"
	"context"
	"encoding/json"
	"iter"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

var _ forge.Decoder = Decode

// Decode reads what Gitea, Forgejo and Gogs answered as the neutral model.
func Decode(r *archive.Reader) (neutral.Source, error) {
	a, err := forge.OpenArchived(r, "gitea")
	if err != nil {
		return nil, err
	}
	return &source{a, r.Header()}, nil
}

type source struct {
	forge.Archived
	h archive.Header
}

// jsonTime is a time of an answer. What is no time, or the forge's way to say none, is zero.
type jsonTime struct{ time.Time }

// UnmarshalJSON takes anything.
func (t *jsonTime) UnmarshalJSON(b []byte) error {
	var at time.Time
	if json.Unmarshal(b, &at) != nil || at.Unix() <= 0 || at.Year() >= 9999 {
		at = time.Time{}
	}
	t.Time = at
	return nil
}

// The documents, as far as they are read.
type (
	userDocument struct {
		ID       int64  `json:"id"`
		Login    string `json:"login"`
		Username string `json:"username"`
		FullName string `json:"full_name"`
		Email    string `json:"email"`
		URL      string `json:"html_url"`
	}
	assetDocument struct {
		ID        int64    `json:"id"`
		Name      string   `json:"name"`
		Size      int64    `json:"size"`
		Downloads int64    `json:"download_count"`
		Created   jsonTime `json:"created_at"`
		URL       string   `json:"browser_download_url"`
		Type      string   `json:"type"` // Forgejo's: "attachment", or "external" for a link
	}
	labelDocument struct {
		Name        string `json:"name"`
		Color       string `json:"color"`
		Description string `json:"description"`
		Exclusive   bool   `json:"exclusive"`
	}
	milestoneDocument struct {
		ID          int64    `json:"id"`
		Title       string   `json:"title"`
		Description string   `json:"description"`
		State       string   `json:"state"`
		Due         jsonTime `json:"due_on"`
		Closed      jsonTime `json:"closed_at"`
		Created     jsonTime `json:"created_at"`
		Updated     jsonTime `json:"updated_at"`
	}
	// textDocument is an issue, a pull request, a comment, a review or a comment of one.
	textDocument struct {
		ID        int64           `json:"id"`
		URL       string          `json:"html_url"`
		User      *userDocument   `json:"user"`
		Author    string          `json:"original_author"`
		AuthorID  int64           `json:"original_author_id"`
		Body      string          `json:"body"`
		Assets    []assetDocument `json:"assets"`
		Created   jsonTime        `json:"created_at"`
		Submitted jsonTime        `json:"submitted_at"`
		Updated   jsonTime        `json:"updated_at"`
	}
	issueDocument struct {
		textDocument
		Number    int64              `json:"number"`
		Title     string             `json:"title"`
		State     string             `json:"state"`
		Closed    jsonTime           `json:"closed_at"`
		Due       jsonTime           `json:"due_date"`
		Locked    bool               `json:"is_locked"`
		PinOrder  int64              `json:"pin_order"`
		Labels    []labelDocument    `json:"labels"`
		Milestone *milestoneDocument `json:"milestone"`
		Assignees []userDocument     `json:"assignees"`
		Assignee  *userDocument      `json:"assignee"` // all that Gogs has
		Pull      *struct {
			Merged   bool     `json:"merged"`
			MergedAt jsonTime `json:"merged_at"`
			Draft    bool     `json:"draft"`
		} `json:"pull_request"`
	}
	branchDocument struct {
		Ref        string `json:"ref"`
		OID        string `json:"sha"`
		Repository *struct {
			FullName string `json:"full_name"`
		} `json:"repo"`
	}
	pullDocument struct {
		Draft     bool            `json:"draft"`
		Merged    bool            `json:"merged"`
		MergedAt  jsonTime        `json:"merged_at"`
		MergeOID  string          `json:"merge_commit_sha"`
		MergedBy  *userDocument   `json:"merged_by"`
		Base      *branchDocument `json:"base"`
		Head      *branchDocument `json:"head"`
		MergeBase string          `json:"merge_base"`
		Requested []userDocument  `json:"requested_reviewers"`
	}
)

func (u *userDocument) user() neutral.User {
	if u == nil {
		return neutral.User{}
	}
	user := neutral.User{Login: cmp.Or(u.Login, u.Username), Name: u.FullName, Email: u.Email, URL: u.URL}
	if u.ID > 0 { // those who are gone, and the forge's own, have none or a negative one
		user.ID = strconv.FormatInt(u.ID, 10)
	}
	return user
}

func users(all []userDocument) []neutral.User {
	var found []neutral.User
	for i := range all {
		found = append(found, all[i].user())
	}
	return found
}

// origin is where a text was written. Of one that was migrated from elsewhere the forge keeps the author's name.
func (s *source) origin(d *textDocument) neutral.Origin {
	o := neutral.Origin{
		Forge: s.h.Host, URL: d.URL, ID: strconv.FormatInt(d.ID, 10), Author: d.User.user(),
		Created: cmp.Or(d.Created, d.Submitted).Time, Updated: d.Updated.Time,
	}
	if d.Author != "" {
		o.Author = neutral.User{Login: d.Author}
	}
	return o
}

// elsewhere reports whether an asset is only a link to another place.
func (a assetDocument) elsewhere() bool { return a.Type == "external" }

// Overview implements neutral.Source.
func (s *source) Overview(ctx context.Context) (*neutral.Overview, error) {
	o := &neutral.Overview{Items: int64(s.Count("issues"))}
	for _, read := range []func(context.Context, *neutral.Overview) error{
		s.settings, s.labels, s.milestones, s.releases, s.rules, s.hooks, s.keys, s.collaborators,
	} {
		if err := read(ctx, o); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// each decodes the living records of a collection. What cannot be decoded is corrupt.
func each[D any](ctx context.Context, s *source, collection string, use func(archive.Record, *D)) error {
	return forge.DecodeRecords(s.All(ctx, collection), use)
}

// of is each for what belongs to parent.
func of[D any](ctx context.Context, s *source, parent archive.Key, collection string, use func(archive.Record, *D)) error {
	return forge.DecodeRecords(s.Children(ctx, parent, collection), use)
}

func (s *source) settings(ctx context.Context, o *neutral.Overview) error {
	type document struct {
		Description   string   `json:"description"`
		Website       string   `json:"website"`
		DefaultBranch string   `json:"default_branch"`
		Archived      bool     `json:"archived"`
		Private       bool     `json:"private"`
		Internal      bool     `json:"internal"`
		HasIssues     *bool    `json:"has_issues"`
		HasWiki       *bool    `json:"has_wiki"`
		HasProjects   bool     `json:"has_projects"`
		Merge         bool     `json:"allow_merge_commits"`
		Squash        bool     `json:"allow_squash_merge"`
		Rebase        bool     `json:"allow_rebase"`
		DeleteBranch  bool     `json:"default_delete_branch_after_merge"`
		Topics        []string `json:"topics"`
	}
	err := each(ctx, s, "settings", func(_ archive.Record, d *document) {
		o.Settings = neutral.Settings{
			Description: d.Description, Homepage: d.Website, Topics: d.Topics, DefaultBranch: d.DefaultBranch, Archived: d.Archived,
			Private: d.Private || d.Internal, HasIssues: on(d.HasIssues), HasWiki: on(d.HasWiki), HasProjects: d.HasProjects, DeleteBranch: d.DeleteBranch,
		}
		for name, allowed := range map[string]bool{"merge": d.Merge, "squash": d.Squash, "rebase": d.Rebase} {
			if allowed {
				o.Settings.Merges = append(o.Settings.Merges, name)
			}
		}
		slices.Sort(o.Settings.Merges)
	})
	if err != nil {
		return err
	}
	return each(ctx, s, "topics", func(_ archive.Record, d *document) { o.Settings.Topics = d.Topics })
}

// labels are the repository's, and those of its organisation that its issues bear.
func (s *source) labels(ctx context.Context, o *neutral.Overview) error {
	seen := map[string]bool{}
	add := func(d labelDocument) {
		if d.Name == "" || seen[d.Name] {
			return
		}
		seen[d.Name] = true
		o.Labels = append(o.Labels, &neutral.Label{
			Name: d.Name, Color: strings.ToLower(strings.TrimPrefix(d.Color, "#")), Description: d.Description, Exclusive: d.Exclusive,
		})
	}
	if err := each(ctx, s, "labels", func(_ archive.Record, d *labelDocument) { add(*d) }); err != nil {
		return err
	}
	type labelled struct {
		Labels []labelDocument `json:"labels"`
	}
	return each(ctx, s, "issues", func(_ archive.Record, d *labelled) {
		for _, l := range d.Labels {
			add(l)
		}
	})
}

func (s *source) milestones(ctx context.Context, o *neutral.Overview) error {
	return each(ctx, s, "milestones", func(_ archive.Record, d *milestoneDocument) {
		o.Milestones = append(o.Milestones, &neutral.Milestone{
			Number: d.ID, Title: d.Title, Description: d.Description, Closed: d.State == "closed", Due: d.Due.Time, ClosedAt: d.Closed.Time,
			Created: d.Created.Time, Updated: d.Updated.Time,
		})
	})
}

func (s *source) releases(ctx context.Context, o *neutral.Overview) error {
	type document struct {
		textDocument
		Author     *userDocument `json:"author"`
		Tag        string        `json:"tag_name"`
		Target     string        `json:"target_commitish"`
		Name       string        `json:"name"`
		Draft      bool          `json:"draft"`
		Prerelease bool          `json:"prerelease"`
		Published  jsonTime      `json:"published_at"`
	}
	var failed error
	err := each(ctx, s, "releases", func(_ archive.Record, d *document) {
		d.User = d.Author
		r := &neutral.Release{
			Origin: s.origin(&d.textDocument), Tag: d.Tag, Target: d.Target, Name: d.Name, Body: d.Body, Draft: d.Draft,
			Prerelease: d.Prerelease, Published: d.Published.Time,
		}
		for _, a := range d.Assets {
			f, err := s.file(ctx, a)
			failed = cmp.Or(failed, err)
			r.Assets = append(r.Assets, &neutral.Asset{File: f, Release: d.Tag, Downloads: a.Downloads, Created: a.Created.Time})
		}
		neutral.RecallRelease(r, s.h.Account)
		o.Releases = append(o.Releases, r)
	})
	slices.SortStableFunc(o.Releases, func(a, b *neutral.Release) int { return a.Created.Compare(b.Created) })
	return cmp.Or(err, failed)
}

// file is an asset with what became of its bytes.
func (s *source) file(ctx context.Context, a assetDocument) (neutral.File, error) {
	f := neutral.File{URL: a.URL, Name: a.Name, Size: a.Size, Reason: "its bytes were not captured"}
	if a.elsewhere() {
		f.Reason = "it is a link to another place"
	}
	key := archive.Key{Collection: archive.FilesCollection, ID: a.URL}
	record, err := s.Get(ctx, key)
	if isNotFound(err) || a.URL == "" {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	var stored archive.File
	if err := json.Unmarshal(record.Raw, &stored); err != nil {
		return f, fault.Wrap("read "+key.String(), fault.ErrCorrupt, err, "")
	}
	f.Type, f.SHA256, f.Reason = stored.Type, stored.SHA256, stored.Reason
	f.Size = max(f.Size, stored.Size)
	return f, nil
}

func (s *source) rules(ctx context.Context, o *neutral.Overview) error {
	type document struct {
		Branch      string   `json:"branch_name"`
		Rule        string   `json:"rule_name"`
		Pattern     string   `json:"name_pattern"`
		Approvals   int      `json:"required_approvals"`
		CheckStatus bool     `json:"enable_status_check"`
		Checks      []string `json:"status_check_contexts"`
		Push        bool     `json:"enable_push"`
		PushList    bool     `json:"enable_push_whitelist"`
		Pushers     []string `json:"push_whitelist_usernames"`
		PushTeams   []string `json:"push_whitelist_teams"`
		Taggers     []string `json:"whitelist_usernames"`
		TagTeams    []string `json:"whitelist_teams"`
		ForcePush   bool     `json:"enable_force_push"`
		Signed      bool     `json:"require_signed_commits"`
		Admins      bool     `json:"block_admin_merge_override"`
	}
	return each(ctx, s, "rules", func(r archive.Record, d *document) {
		if strings.HasPrefix(r.ID, tagRule) {
			o.Rules = append(o.Rules, &neutral.Rule{Name: d.Pattern, Pattern: d.Pattern, Tags: true, PushBy: append(d.Taggers, d.TagTeams...)})
			return
		}
		name := cmp.Or(d.Rule, d.Branch)
		rule := &neutral.Rule{
			Name: name, Pattern: name, Approvals: d.Approvals, ForcePush: d.ForcePush, Signed: d.Signed, Admins: d.Admins,
		}
		if d.CheckStatus {
			rule.Checks = d.Checks
		}
		if d.Push && d.PushList {
			rule.PushBy = append(d.Pushers, d.PushTeams...)
		}
		o.Rules = append(o.Rules, rule)
	})
}

func (s *source) hooks(ctx context.Context, o *neutral.Overview) error {
	type document struct {
		Config map[string]string `json:"config"`
		Events []string          `json:"events"`
		Active bool              `json:"active"`
	}
	return each(ctx, s, "hooks", func(_ archive.Record, d *document) {
		o.Hooks = append(o.Hooks, &neutral.Hook{URL: d.Config["url"], ContentType: d.Config["content_type"], Events: d.Events, Active: d.Active})
	})
}

func (s *source) keys(ctx context.Context, o *neutral.Overview) error {
	type document struct {
		Title    string `json:"title"`
		Key      string `json:"key"`
		ReadOnly bool   `json:"read_only"`
	}
	return each(ctx, s, "keys", func(_ archive.Record, d *document) {
		o.Keys = append(o.Keys, &neutral.DeployKey{Title: d.Title, Key: d.Key, ReadOnly: d.ReadOnly})
	})
}

// collaborators are people and teams. Someone whose permission the account could not ask for may at least read.
func (s *source) collaborators(ctx context.Context, o *neutral.Overview) error {
	type document struct {
		userDocument
		User        *userDocument   `json:"user"`
		Permission  string          `json:"permission"`
		Permissions map[string]bool `json:"permissions"` // of Gogs: "admin", "push", "pull"
		Name        string          `json:"name"`
	}
	err := each(ctx, s, "collaborators", func(_ archive.Record, d *document) {
		if d.User == nil {
			d.User = &d.userDocument
		}
		switch {
		case d.Permission != "":
		case d.Permissions["admin"]:
			d.Permission = "admin"
		case d.Permissions["push"]:
			d.Permission = "write"
		}
		o.Collaborators = append(o.Collaborators, &neutral.Collaborator{User: d.User.user(), Permission: cmp.Or(d.Permission, "read")})
	})
	if err != nil {
		return err
	}
	organization, _, _ := strings.Cut(s.h.Repository, "/")
	return each(ctx, s, "teams", func(r archive.Record, d *document) {
		permission := d.Permission
		if permission == "owner" {
			permission = "admin"
		}
		o.Collaborators = append(o.Collaborators, &neutral.Collaborator{
			User: neutral.User{Login: organization + "/" + d.Name, ID: r.ID}, Permission: cmp.Or(permission, "read"),
		})
	})
}

// Files implements neutral.Source. Texts name attachments with or without the forge's own address.
func (s *source) Files(ctx context.Context) iter.Seq2[*neutral.File, error] {
	return func(yield func(*neutral.File, error) bool) {
		for f, err := range s.Archived.Files(ctx) {
			if !yield(f, err) || err != nil {
				return
			}
			if at := attachment.FindString(f.URL); at != "" && at != f.URL {
				short := *f
				if short.URL = at; !yield(&short, nil) {
					return
				}
			}
		}
	}
}

var attachment = regexp.MustCompile(`/attachments/[0-9a-fA-F-]{36}$`)
