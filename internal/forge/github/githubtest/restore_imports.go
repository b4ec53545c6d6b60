package githubtest

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/backstay/backstay/internal/forge/forgetest"
)

// The import of issues is not documented: this is what its users report, and what was written about it while it was tried out.

// issueImport is an issue that is to be made. It is made when it was asked after for the second time.
type issueImport struct {
	id     int64
	began  time.Time
	status string
	number int64 // once it is made
	errors []any
	issue  importedIssue
	says   []importedComment
}

type importedIssue struct {
	Title, Body string
	Closed      bool
	Labels      []string
	Milestone   int64
	Created     time.Time `json:"created_at"`
	Updated     time.Time `json:"updated_at"`
	ClosedAt    time.Time `json:"closed_at"`
}

type importedComment struct {
	Body    string
	Created time.Time `json:"created_at"`
}

// canImport reports whether there are imports, and they were asked for as they want to be.
func (x *exchange) canImport() bool {
	if x.NoImports {
		x.notFound()
		return false
	}
	if x.r.Header.Get("Accept") != "application/vnd.github.golden-comet-preview+json" {
		x.answer(http.StatusUnsupportedMediaType, map[string]any{"message": "If you would like to help us test the Import API, you must specify a custom media type."})
		return false
	}
	return true
}

func (x *exchange) importIssue(r forgetest.Repo, m *Metadata) {
	var body struct {
		Issue    importedIssue
		Comments []importedComment
	}
	if !x.canImport() || !x.body(&body) {
		return
	}
	i := &issueImport{id: m.next(), began: x.now(), status: "pending", issue: body.Issue, says: body.Comments}
	m.imports = append(m.imports, i)
	x.answer(http.StatusAccepted, x.importObject(r, i))
}

func (x *exchange) importObject(r forgetest.Repo, i *issueImport) map[string]any {
	at := x.rest + "/repos/" + r.FullName()
	o := map[string]any{
		"id": i.id, "status": i.status, "url": fmt.Sprintf("%s/import/issues/%d", at, i.id), "import_issues_url": at + "/import/issues",
		"repository_url": at, "created_at": stamp(i.began), "updated_at": stamp(i.began),
	}
	if i.number > 0 {
		o["issue_url"] = fmt.Sprintf("%s/issues/%d", at, i.number)
	}
	if i.errors != nil {
		o["errors"] = i.errors
	}
	return o
}

func (x *exchange) listImports(r forgetest.Repo, m *Metadata) {
	since, err := time.Parse(time.RFC3339, x.r.URL.Query().Get("since"))
	if !x.canImport() {
		return
	}
	all := []any{}
	for _, i := range m.imports {
		if err == nil && !i.began.Before(since) {
			all = append(all, x.importObject(r, i))
		}
	}
	x.answer(http.StatusOK, all)
}

func (x *exchange) importStatus(r forgetest.Repo, m *Metadata) {
	if !x.canImport() {
		return
	}
	for _, i := range m.imports {
		if strconv.FormatInt(i.id, 10) == x.r.PathValue("import") {
			x.goOn(m, i)
			x.answer(http.StatusOK, x.importObject(r, i))
			return
		}
	}
	x.notFound()
}

// goOn takes an import a step further.
func (x *exchange) goOn(m *Metadata, i *issueImport) {
	switch {
	case i.status == "pending":
		i.status = "importing"
	case i.status != "importing":
	case i.issue.Title == "" || i.issue.Title == m.Refused || utf8.RuneCountInString(i.issue.Body) > maxBody:
		i.status = "failed"
		i.errors = []any{map[string]any{"location": "/issue", "resource": "Issue", "field": "body", "value": "…", "code": "invalid"}}
	default:
		i.status = "imported"
		i.number = x.makeImported(m, i).Number
	}
}

func (x *exchange) makeImported(m *Metadata, i *issueImport) *Item {
	item := m.add(&Item{
		Title: i.issue.Title, Body: i.issue.Body, User: x.me(), Labels: i.issue.Labels, Milestone: i.issue.Milestone, Created: i.issue.Created,
		Updated: i.issue.Updated,
	})
	if item.Created.IsZero() {
		item.Created = x.now()
	}
	if item.Updated.IsZero() {
		item.Updated = item.Created
	}
	if i.issue.Closed {
		item.Closed, item.ClosedBy, item.ClosedAt, item.Reason = true, x.me(), i.issue.ClosedAt, "completed"
		if item.ClosedAt.IsZero() {
			item.ClosedAt = x.now()
		}
	}
	for _, c := range i.says {
		if c.Created.IsZero() {
			c.Created = x.now()
		}
		m.Comments = append(m.Comments, &Comment{ID: m.next(), On: item.Number, User: x.me(), Body: c.Body, Created: c.Created, Updated: c.Created})
	}
	m.edited()
	return item
}
