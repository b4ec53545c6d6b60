package githubtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/forge/forgetest"
)

// Project is a project that is linked to the repository.
type Project struct {
	ID, Number                 int64
	Title, Description, Readme string
	Owner                      string // an organisation
	Public, Closed             bool
	Created, Updated           time.Time
	Fields                     []ProjectField
	Views                      []ProjectView
	Items                      []ProjectItem
}

// ProjectField is a column of a project, by GraphQL's type: "TEXT". One with Options has the type SINGLE_SELECT, one with Iterations
// ITERATION.
type ProjectField struct {
	Name, Type          string
	Options, Iterations []string
}

// ProjectView is a way to look at a project: "BOARD_LAYOUT".
type ProjectView struct{ Name, Layout, Filter string }

// ProjectItem is an issue or a pull request by its number and repository, a draft by its title, or neither: one that the token may not
// see.
type ProjectItem struct {
	ID               int64
	Number           int64
	Repository       string
	Pull             bool
	Title, Body      string
	Assignees        []string
	Archived         bool
	Created, Updated time.Time
	Values           map[string]any // by name of the field: a text, or a float64
}

// errScopes is what a token without a scope is told, in place of any answer.
const errScopes = "Your token has not been granted the required scopes to execute this query. The 'projectsV2' field requires one of the " +
	"following scopes: ['read:project'], but your token has only been granted the: ['repo'] scopes."

// seesProjects reports whether the token may ask a query.
func (a *API) seesProjects(query string) bool {
	return !a.NoProjects || !strings.Contains(query, "projectsV2") && !strings.Contains(query, "ProjectV2")
}

func (x *exchange) graphProjects(m *Metadata, r forgetest.Repo) resolver {
	return pages(m.Projects, func(p *Project) object { return x.graphProject(r, p) })
}

func (x *exchange) graphProject(r forgetest.Repo, p *Project) object {
	o := object{
		"__typename": "ProjectV2", "id": nodeID("PVT", r.ID, p.ID), "databaseId": p.ID, "number": p.Number, "title": p.Title,
		"shortDescription": text(p.Description), "readme": text(p.Readme), "url": fmt.Sprintf("%s/orgs/%s/projects/%d", x.web, p.Owner, p.Number),
		"public": p.Public, "closed": p.Closed, "closedAt": nil, "template": false, "owner": object{"__typename": "Organization", "login": p.Owner},
		"creator": x.graphUser("ada"), "createdAt": stamp(p.Created), "updatedAt": stamp(p.Updated),
		"fields": pages(p.Fields, func(f ProjectField) object { return f.graph() }),
		"views": pages(p.Views, func(v ProjectView) object {
			return object{"__typename": "ProjectV2View", "id": "PVTV_" + v.Name, "number": 1, "name": v.Name, "layout": v.Layout, "filter": text(v.Filter)}
		}),
		"items": pages(p.Items, func(i ProjectItem) object { return x.graphProjectItem(r, p, i) }),
	}
	if p.Closed {
		o["closedAt"] = stamp(p.Updated)
	}
	return o
}

func (f ProjectField) graph() object {
	o := object{"__typename": "ProjectV2Field", "id": "PVTF_" + f.Name, "name": f.Name, "dataType": f.Type}
	switch f.Type {
	case "SINGLE_SELECT":
		var options []object
		for _, name := range f.Options {
			options = append(options, object{"__typename": "ProjectV2SingleSelectFieldOption", "id": "o_" + name, "name": name, "color": "GRAY", "description": ""})
		}
		o["__typename"], o["options"] = "ProjectV2SingleSelectField", options
	case "ITERATION":
		var iterations []object
		for _, title := range f.Iterations {
			iterations = append(iterations, object{
				"__typename": "ProjectV2IterationFieldIteration", "id": "i_" + title, "title": title, "startDate": "2026-01-05", "duration": 14,
			})
		}
		o["__typename"] = "ProjectV2IterationField"
		o["configuration"] = object{
			"__typename": "ProjectV2IterationFieldConfiguration", "duration": 14, "startDay": 1, "iterations": iterations, "completedIterations": []object{},
		}
	}
	return o
}

func (x *exchange) graphProjectItem(r forgetest.Repo, p *Project, i ProjectItem) object {
	o := object{
		"__typename": "ProjectV2Item", "id": nodeID("PVTI", r.ID, i.ID), "databaseId": i.ID, "type": "REDACTED", "isArchived": i.Archived, "content": nil,
		"creator": x.graphUser("ada"), "createdAt": stamp(i.Created), "updatedAt": stamp(i.Updated),
		"fieldValues": pages(slices.Sorted(maps.Keys(i.Values)), func(name string) object { return p.graphValue(name, i.Values[name]) }),
	}
	switch {
	case i.Number > 0:
		kind := "Issue"
		o["type"] = "ISSUE"
		if i.Pull {
			kind, o["type"] = "PullRequest", "PULL_REQUEST"
		}
		o["content"] = object{
			"__typename": kind, "number": i.Number, "title": i.Title, "repository": object{"__typename": "Repository", "nameWithOwner": i.Repository},
		}
	case i.Title != "":
		o["type"] = "DRAFT_ISSUE"
		o["content"] = object{
			"__typename": "DraftIssue", "title": i.Title, "body": i.Body,
			"assignees": pages(i.Assignees, func(login string) object { return object{"__typename": "User", "login": login} }),
		}
	}
	return o
}

// graphValue is the value that an item has in a field. Labels, people and the like are those of the issue.
func (p *Project) graphValue(name string, value any) object {
	i := slices.IndexFunc(p.Fields, func(f ProjectField) bool { return f.Name == name })
	if i < 0 {
		return object{"__typename": "ProjectV2ItemFieldLabelValue"}
	}
	field := p.Fields[i].graph()
	switch p.Fields[i].Type {
	case "NUMBER":
		return object{"__typename": "ProjectV2ItemFieldNumberValue", "field": field, "number": value}
	case "DATE":
		return object{"__typename": "ProjectV2ItemFieldDateValue", "field": field, "date": value}
	case "SINGLE_SELECT":
		return object{"__typename": "ProjectV2ItemFieldSingleSelectValue", "field": field, "name": value, "optionId": fmt.Sprint("o_", value)}
	case "ITERATION":
		return object{
			"__typename": "ProjectV2ItemFieldIterationValue", "field": field, "title": value, "iterationId": fmt.Sprint("i_", value), "startDate": "2026-01-05",
			"duration": 14,
		}
	}
	return object{"__typename": "ProjectV2ItemFieldTextValue", "field": field, "text": value}
}
