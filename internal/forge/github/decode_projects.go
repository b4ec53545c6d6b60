package github

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// project is a project of GraphQL.
type project struct {
	Title       words  `json:"title"`
	Description words  `json:"description"`
	Readme      words  `json:"readme"`
	URL         words  `json:"html_url"`
	Owner       person `json:"owner"`
	Public      bool   `json:"public"`
	Closed      bool   `json:"closed"`
	Created     moment `json:"created_at"`
	Updated     moment `json:"updated_at"`
	Fields      nodes[struct {
		Name          words       `json:"name"`
		Type          words       `json:"type"`
		Options       []labelName `json:"options"`
		Configuration struct {
			Iterations []titled `json:"iterations"`
			Completed  []titled `json:"completed"`
		} `json:"configuration"`
	}] `json:"fields"`
	Views nodes[labelName] `json:"views"`
}

// projects reads projects with their items.
func (s *source) projects(ctx context.Context, o *neutral.Overview) error {
	var keys []archive.Key
	err := all(s.All(ctx, "projects"), func(r archive.Record, raw *project) {
		keys = append(keys, r.Key)
		o.Projects = append(o.Projects, raw.neutral())
	})
	for i, p := range o.Projects {
		if err == nil {
			p.Items, err = s.projectItems(ctx, keys[i])
		}
	}
	slices.SortStableFunc(o.Projects, forge.ByTime(func(p *neutral.Project) time.Time { return p.Created }))
	return err
}

func (raw *project) neutral() *neutral.Project {
	p := &neutral.Project{
		Title: string(raw.Title), Description: string(raw.Description), Readme: string(raw.Readme), URL: string(raw.URL), Owner: raw.Owner.user(),
		Public: raw.Public, Closed: raw.Closed, Created: raw.Created.Time, Updated: raw.Updated.Time,
	}
	for _, f := range raw.Fields.Nodes {
		field := neutral.ProjectField{Name: string(f.Name), Type: strings.ToLower(string(f.Type))}
		for _, option := range f.Options {
			field.Options = append(field.Options, string(option))
		}
		for _, iteration := range append(f.Configuration.Completed, f.Configuration.Iterations...) {
			field.Options = append(field.Options, string(iteration.Title))
		}
		p.Fields = append(p.Fields, field)
	}
	for _, view := range raw.Views.Nodes {
		p.Views = append(p.Views, string(view))
	}
	return p
}

// projectItem is a line of a project.
type projectItem struct {
	Created  moment `json:"created_at"`
	Type     words  `json:"type"`
	Archived bool   `json:"archived"`
	Content  *struct {
		Number     number `json:"number"`
		Title      words  `json:"title"`
		Body       words  `json:"body"`
		Repository *struct {
			Name words `json:"full_name"`
		} `json:"repository"`
	} `json:"content"`
	Values nodes[projectValue] `json:"values"`
}

// projectValue has one of its values, by the type of its field.
type projectValue struct {
	Field struct {
		Name words `json:"name"`
	} `json:"field"`
	Text   words    `json:"text"`
	Number *float64 `json:"number"`
	Date   words    `json:"date"`
	Name   words    `json:"name"`  // of what one chose
	Title  words    `json:"title"` // of an iteration
}

func (s *source) projectItems(ctx context.Context, of archive.Key) (items []*neutral.ProjectItem, err error) {
	err = all(s.Children(ctx, of, "project-items"), func(_ archive.Record, raw *projectItem) {
		i := &neutral.ProjectItem{Created: raw.Created.Time, Archived: raw.Archived, Draft: raw.Type == "DRAFT_ISSUE"}
		if c := raw.Content; c != nil {
			i.Title, i.Body = string(c.Title), string(c.Body)
			if c.Repository != nil && c.Repository.Name != "" {
				i.To = string(c.Repository.Name) + "#" + c.Number.text()
			}
		}
		for _, v := range raw.Values.Nodes {
			if value := v.value(); v.Field.Name != "" && value != "" {
				i.Values = append(i.Values, neutral.ProjectValue{Field: string(v.Field.Name), Value: value})
			}
		}
		items = append(items, i)
	})
	slices.SortStableFunc(items, forge.ByTime(func(i *neutral.ProjectItem) time.Time { return i.Created }))
	return items, err
}

func (v *projectValue) value() string {
	if v.Number != nil {
		return strconv.FormatFloat(*v.Number, 'f', -1, 64)
	}
	return string(cmp.Or(v.Text, v.Date, v.Name, v.Title))
}
