package github

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

// projectBatch is how many projects one request asks for a page of items of: up to a hundred items with a hundred values each.
const projectBatch = 10

// maxProjects bounds the projects of a repository, which are held until their items are read.
const maxProjects = 1000

const (
	fieldNames = `field { ... on ProjectV2Field { name } ... on ProjectV2SingleSelectField { name } ... on ProjectV2IterationField { name } }`

	iterationFields = `{ id title start_date: startDate duration }`
	fieldFields     = `node_id: id name type: dataType`
	projectFields   = `
  node_id: id id: databaseId number title description: shortDescription readme html_url: url public closed closed_at: closedAt template
  owner { ... on User { login } ... on Organization { login } } creator ` + userFields + ` created_at: createdAt updated_at: updatedAt
  fields(first: 100) { nodes {
    ... on ProjectV2Field { ` + fieldFields + ` }
    ... on ProjectV2SingleSelectField { ` + fieldFields + ` options { id name color description } }
    ... on ProjectV2IterationField { ` + fieldFields + ` configuration { duration start_day: startDay
      iterations ` + iterationFields + ` completed: completedIterations ` + iterationFields + ` } }
  } }
  views(first: 50) { nodes { node_id: id number name layout filter } }`
	projectItemFields = `
  node_id: id id: databaseId type archived: isArchived creator ` + userFields + ` created_at: createdAt updated_at: updatedAt
  content {
    ... on Issue { number title repository { full_name: nameWithOwner } }
    ... on PullRequest { number title repository { full_name: nameWithOwner } }
    ... on DraftIssue { title body assignees(first: 20) { nodes { login } } }
  }
  values: fieldValues(first: 100) { nodes { __typename
    ... on ProjectV2ItemFieldTextValue { text ` + fieldNames + ` }
    ... on ProjectV2ItemFieldNumberValue { number ` + fieldNames + ` }
    ... on ProjectV2ItemFieldDateValue { date ` + fieldNames + ` }
    ... on ProjectV2ItemFieldSingleSelectValue { name option_id: optionId ` + fieldNames + ` }
    ... on ProjectV2ItemFieldIterationValue { title iteration_id: iterationId start_date: startDate duration ` + fieldNames + ` }
  } }`
)

// linked is what the request for the settings told of the projects that are linked to the repository.
type linked struct {
	none   bool
	denied error // the token may not see them, or the server has no such projects
}

const linkedField = "linked_projects"

// settings reads what the repository itself has, and the lists that come with it. With them it asks whether there are projects, so
// that a repository without them costs no request more. GitHub refuses that request as a whole to tokens that may not see projects.
func (m *metadata) settings(ctx context.Context, _ forge.Query) records {
	return each(m.op("settings"), func(yield func(archive.Record) bool) error {
		m.linked = linked{}
		began := false
		var problem error
		own := func(r archive.Record) bool {
			began = true
			if r.Collection == "" {
				r.Key = archive.Key{Collection: "settings", ID: "repository"}
				var projects *connection
				r.Raw, problem = without(r.Raw, linkedField, &projects)
				m.linked.none = projects != nil && projects.Total == 0
			}
			return problem == nil && yield(r)
		}
		err := m.short(ctx, settingsFields+" "+linkedField+": projectsV2(first: 1) { totalCount }", ofSettings(), own)
		if denied := projectsDenied(err); denied != nil && !began {
			m.linked.denied = denied
			err = m.short(ctx, settingsFields, ofSettings(), own)
		}
		return cmp.Or(err, problem)
	})
}

// projectsDenied is why projects are left out; nil for what is no such reason.
func projectsDenied(err error) error {
	switch {
	case errors.Is(err, fault.ErrDenied):
		return fault.Wrap("", nil, err, "give the token the scope read:project; a fine-grained one or an App the organization's Projects: read")
	case errors.Is(err, fault.ErrInvalid):
		return fault.New("", fault.ErrUnsupported, "the server knows no such projects", "")
	}
	return nil
}

// projects reads the projects that are linked to the repository, with all their items, also those of other repositories. They are read
// whole: no time of a project is known to change with the values of its items.
func (m *metadata) projects(ctx context.Context, _ forge.Query) records {
	return each(m.op("projects"), func(yield func(archive.Record) bool) error {
		if m.linked.none || m.linked.denied != nil {
			return m.linked.denied
		}
		var found []archive.Record
		var tooMany error
		stopped := false
		err := m.short(ctx, "", []list{{"projects", "projectsV2", "nodes", projectFields, noded("projects")}}, func(r archive.Record) bool {
			if len(found) == maxProjects {
				tooMany = fault.New("", fault.ErrUnavailable, fmt.Sprintf("the listing has more than %d projects", maxProjects), "")
				return false
			}
			found = append(found, r)
			stopped = !yield(r)
			return !stopped
		})
		if denied := projectsDenied(err); denied != nil {
			return denied
		}
		if err = cmp.Or(err, tooMany); err != nil || stopped {
			return err
		}
		items := nested{"project-items", "", "items(", projectItemFields, noded("project-items")}
		for r, err := range m.inside(ctx, "items of projects", found, []kind{{name: "ProjectV2", lists: []nested{items}}}, projectBatch) {
			if err != nil {
				return err
			}
			if !yield(r) {
				return nil
			}
		}
		return nil
	})
}
