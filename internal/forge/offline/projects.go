package offline

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/backstay/backstay/internal/forge/neutral"
)

// projectView is a project on its page: a table with a column for each of its fields that some item has something in.
type projectView struct {
	page
	P       *neutral.Project
	Facts   facts
	Columns []string
	Rows    []projectRow
}

// projectRow is an item of a project.
type projectRow struct {
	What, Place, Title, Body string
	Cells                    []string // by column
}

// projectLink leads to a project.
type projectLink struct {
	Title, Place string
	Items        int64
}

// projects writes a page for each project.
func (w *repositoryPages) projects(o *neutral.Overview) (links []projectLink, err error) {
	for i, p := range o.Projects {
		place := fmt.Sprintf("projects/%d.html", i+1)
		v := projectView{page: w.page(p.Title, true), P: p, Facts: projectFacts(p), Columns: columnsOf(p)}
		for _, item := range p.Items {
			v.Rows = append(v.Rows, w.projectRow(item, v.Columns))
		}
		if err := w.write(path.Join(w.place, place), "project", &v.page, &v); err != nil {
			return nil, err
		}
		err := w.index.add(found{
			Place: path.Join(w.place, place), Repository: w.Name, Sort: "project", Title: clean(p.Title), Labels: []string{}, Author: clean(nameOf(p.Owner)),
			Day: day(p.Created), Words: wordsOf(func(take func(string) bool) { eachProjectText(p, take) }),
		})
		if err != nil {
			return nil, err
		}
		w.counts.Projects++
		links = append(links, projectLink{cmp.Or(clean(p.Title), "(no title)"), place, int64(len(p.Items))})
	}
	return links, nil
}

// eachProjectText gives the texts that are the project's own, until take has enough.
func eachProjectText(p *neutral.Project, take func(string) bool) {
	more := take(p.Description) && take(p.Readme)
	for _, item := range p.Items {
		if more && item.Draft {
			more = take(item.Title) && take(item.Body)
		}
	}
}

func projectFacts(p *neutral.Project) facts {
	var f facts
	f.add("owner", person(p.Owner))
	f.when("public", p.Public)
	f.when("closed", p.Closed)
	f.add("created", stamp(p.Created))
	f.add("changed", stamp(p.Updated))
	f.add("views", p.Views...)
	for _, field := range p.Fields {
		f.add("field "+clean(field.Name), strings.TrimSuffix(field.Type+": "+strings.Join(field.Options, ", "), ": "))
	}
	return f
}

// columnsOf are the fields in which some item has something, in the project's order.
func columnsOf(p *neutral.Project) (columns []string) {
	used := map[string]bool{}
	for _, item := range p.Items {
		for _, v := range item.Values {
			used[v.Field] = true
		}
	}
	for _, field := range p.Fields {
		if used[field.Name] && !slices.Contains(columns, field.Name) && field.Type != "title" { // the title has a column of its own
			columns = append(columns, field.Name)
		}
	}
	return columns
}

func (w *repositoryPages) projectRow(item *neutral.ProjectItem, columns []string) projectRow {
	row := projectRow{What: item.To, Title: item.Title, Body: item.Body, Cells: make([]string, len(columns))}
	switch {
	case item.Draft:
		row.What = "draft"
	case item.To == "":
		row.What = "not shown to the account that captured it"
	default:
		row.Place = w.places.referred(item.To)
	}
	if item.Archived {
		row.What += ", archived"
	}
	for _, v := range item.Values {
		if i := slices.Index(columns, v.Field); i >= 0 {
			row.Cells[i] = v.Value
		}
	}
	return row
}

// referred is the page of an item of this repository, by "owner/name#17".
func (p *places) referred(to string) string {
	repository, digits, _ := strings.Cut(to, "#")
	number, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !strings.HasSuffix(strings.ToLower(p.name), "/"+strings.ToLower(repository)) {
		return ""
	}
	return p.item('#', number)
}
