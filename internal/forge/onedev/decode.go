package onedev

import (
	"cmp"
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

var _ forge.Decoder = Decode

// Decode reads what OneDev answered as the neutral model. Iterations are milestones. What of an issue is a field of its own there, is a
// label where it is one of a few words, and else stands below the text.
func Decode(r *archive.Reader) (neutral.Source, error) {
	a, err := forge.OpenArchived(r, dialect)
	if err != nil {
		return nil, err
	}
	return &source{Archived: a, h: r.Header()}, nil
}

type source struct {
	forge.Archived
	h archive.Header

	known   bool
	address string           // of the project's page
	specs   map[int64]string // names of labels
	numbers map[int64]int64  // of issues, by their IDs
}

// jsonTime is a date in any of the forms that versions write. What is no date is zero.
type jsonTime struct{ time.Time }

// UnmarshalJSON takes anything.
func (t *jsonTime) UnmarshalJSON(raw []byte) error {
	t.Time = timeOf(raw)
	return nil
}

// person is somebody: with names, where the account was told them.
type person struct {
	ID       int64  `json:"id"`
	Name     string `json:"name"`
	FullName string `json:"fullName"`
}

func (p *person) user(id int64) neutral.User {
	switch {
	case p != nil && p.Name != "":
		return neutral.User{Login: p.Name, Name: p.FullName, ID: strconv.FormatInt(id, 10)}
	case id > 0:
		return neutral.User{Name: "user " + strconv.FormatInt(id, 10), ID: strconv.FormatInt(id, 10)}
	}
	return neutral.User{}
}

// learn reads what items refer to by numbers.
func (s *source) learn(ctx context.Context) error {
	if s.known {
		return nil
	}
	s.specs, s.numbers = map[int64]string{}, map[int64]int64{}
	err := forge.DecodeRecords(s.All(ctx, "settings"), func(_ archive.Record, d *settingsDocument) { s.address = d.Web })
	if err != nil {
		return err
	}
	err = forge.DecodeRecords(s.All(ctx, "labels"), func(_ archive.Record, d *labelDocument) { s.specs[d.ID] = d.Name })
	if err != nil {
		return err
	}
	err = forge.DecodeRecords(s.All(ctx, "issues"), func(_ archive.Record, d *identity) { s.numbers[d.ID] = d.Number })
	s.known = err == nil
	return err
}

type settingsDocument struct {
	Description string `json:"description"`
	Issues      *bool  `json:"issueManagement"`
	Web         string `json:"webUrl"` // as the provider knows it
}

type labelDocument struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Color string `json:"color"`
}

// Overview implements neutral.Source.
func (s *source) Overview(ctx context.Context) (*neutral.Overview, error) {
	o := &neutral.Overview{Items: int64(s.Count("issues") + s.Count("pulls"))}
	for _, read := range []func(context.Context, *neutral.Overview) error{
		s.settings, s.labels, s.milestones, s.rules, s.hooks, s.collaborators,
	} {
		if err := read(ctx, o); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// settings do not tell who may see a project: roles decide that.
func (s *source) settings(ctx context.Context, o *neutral.Overview) error {
	return forge.DecodeRecords(s.All(ctx, "settings"), func(_ archive.Record, d *settingsDocument) {
		o.Settings = neutral.Settings{Description: d.Description, Private: true, HasIssues: d.Issues == nil || *d.Issues}
	})
}

// labels are the server's, and what issues have for labels.
func (s *source) labels(ctx context.Context, o *neutral.Overview) error {
	seen := map[string]bool{}
	add := func(name, color string) {
		if name != "" && !seen[name] {
			seen[name] = true
			o.Labels = append(o.Labels, &neutral.Label{Name: name, Color: strings.ToLower(strings.TrimPrefix(color, "#"))})
		}
	}
	err := forge.DecodeRecords(s.All(ctx, "labels"), func(_ archive.Record, d *labelDocument) { add(d.Name, d.Color) })
	if err != nil {
		return err
	}
	return forge.DecodeRecords(s.All(ctx, "issues"), func(_ archive.Record, d *issueDocument) {
		for _, name := range d.labels() {
			add(name, "cccccc")
		}
	})
}

func (s *source) milestones(ctx context.Context, o *neutral.Overview) error {
	type document struct {
		ID          int64    `json:"id"`
		Name        string   `json:"name"`
		Description string   `json:"description"`
		Closed      bool     `json:"closed"`
		DueDay      *int64   `json:"dueDay"`  // since 1970
		DueDate     jsonTime `json:"dueDate"` // of older servers
	}
	return forge.DecodeRecords(s.All(ctx, "milestones"), func(_ archive.Record, d *document) {
		m := &neutral.Milestone{Number: d.ID, Title: d.Name, Description: d.Description, Closed: d.Closed, Due: d.DueDate.Time}
		if d.DueDay != nil && *d.DueDay > 0 && *d.DueDay < 1_000_000 {
			m.Due = time.Unix(*d.DueDay*24*60*60, 0).UTC()
		}
		o.Milestones = append(o.Milestones, m)
	})
}

// rules are for one pattern each; OneDev's take several, and some to leave out.
func (s *source) rules(ctx context.Context, o *neutral.Overview) error {
	type document struct {
		Enabled     *bool    `json:"enabled"`
		Branches    string   `json:"branches"`
		Tags        string   `json:"tags"`
		ForcedPush  bool     `json:"preventForcedPush"`
		Deletion    bool     `json:"preventDeletion"`
		Signed      bool     `json:"commitSignatureRequired"`
		Jobs        []string `json:"jobNames"`
		PreventEdit bool     `json:"preventUpdate"` // of tags
	}
	return forge.DecodeRecords(s.All(ctx, "rules"), func(r archive.Record, d *document) {
		if d.Enabled != nil && !*d.Enabled {
			return
		}
		for _, pattern := range strings.Fields(cmp.Or(d.Branches, d.Tags)) {
			if strings.HasPrefix(pattern, "-") {
				continue
			}
			o.Rules = append(o.Rules, &neutral.Rule{
				Name: pattern, Pattern: pattern, Tags: strings.HasPrefix(r.ID, tagRule), ForcePush: !d.ForcedPush && !d.PreventEdit,
				Delete: !d.Deletion, Signed: d.Signed, Checks: d.Jobs,
			})
		}
	})
}

func (s *source) hooks(ctx context.Context, o *neutral.Overview) error {
	type document struct {
		URL    string   `json:"postUrl"`
		Events []string `json:"eventTypes"`
	}
	return forge.DecodeRecords(s.All(ctx, "hooks"), func(_ archive.Record, d *document) {
		o.Hooks = append(o.Hooks, &neutral.Hook{URL: d.URL, Events: d.Events, ContentType: "json", Active: true})
	})
}

// collaborators have roles, which are the server's own: the API tells what they allow to nobody but administrators.
func (s *source) collaborators(ctx context.Context, o *neutral.Overview) error {
	type document struct {
		UserID int64   `json:"userId"`
		User   *person `json:"user"`
		Role   int64   `json:"roleId"`
	}
	return forge.DecodeRecords(s.All(ctx, "collaborators"), func(_ archive.Record, d *document) {
		c := &neutral.Collaborator{User: d.User.user(d.UserID), Permission: "role " + strconv.FormatInt(d.Role, 10)}
		o.Collaborators = append(o.Collaborators, c)
	})
}

func decodeRaw(r archive.Record, into any) error {
	if err := json.Unmarshal(r.Raw, into); err != nil {
		return fault.Wrap("read "+r.Key.String(), fault.ErrCorrupt, err, "")
	}
	return nil
}
