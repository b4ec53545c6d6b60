package github

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/neutral"
)

const (
	maxTitle = 256 // characters of a title
	// maxImport is how many bytes of comments come with an issue that is imported. GitHub does not say how many it takes.
	maxImport = 512 << 10
)

// imported is how GitHub says that an import stands.
type imported struct {
	ID     number `json:"id"`
	Status words  `json:"status"` // "pending", "importing", "imported", "failed"
	Issue  words  `json:"issue_url"`
	Errors []struct {
		Location words `json:"location"`
		Field    words `json:"field"`
		Code     words `json:"code"`
		Value    words `json:"value"`
	} `json:"errors"`
}

func (i imported) waiting() bool { return i.Status == "pending" || i.Status == "importing" }

// Import implements forge.MetadataImporter: it opens a pull request again where that is one still, and else imports an issue with its
// comments, dated as they were.
func (t *target) Import(ctx context.Context, _ forge.Repository, i *neutral.Item) (neutral.Written, int, error) {
	w, err := t.open(ctx, i)
	if err != nil || w.ID != "" {
		return w, 0, err
	}
	if t.documented {
		w, err = t.writeIssue(ctx, i)
		return w, 0, err
	}
	comments := importable(i.Comments)
	var began imported
	answer, err := t.p.imports.Do(ctx, http.MethodPost, t.at+"/import/issues", nil, map[string]any{
		"issue": t.importOf(i), "comments": t.importsOf(comments),
	}, &began, http.StatusNotFound, http.StatusGone, http.StatusUnsupportedMediaType)
	if err != nil {
		return neutral.Written{}, 0, err
	}
	if answer.Status >= http.StatusBadRequest {
		t.documented = true
		w, err = t.writeIssue(ctx, i)
		return w, 0, err
	}
	done, err := t.awaitImport(ctx, began)
	if err != nil {
		return neutral.Written{}, 0, err
	}
	if w, err = t.importedAs(done); err == nil && i.Closed {
		w.State = "closed"
	}
	return w, len(comments), err
}

// importable are the first comments that go with an issue.
func importable(all []*neutral.Comment) []*neutral.Comment {
	size := 0
	for n, c := range all {
		if size += len(c.Body); size > maxImport {
			return all[:n]
		}
	}
	return all
}

func (t *target) importOf(i *neutral.Item) map[string]any {
	body := map[string]any{"title": titleOf(i.Title), "body": t.text(i.Body), "closed": i.Closed}
	if labels := t.labelsOf(i); len(labels) > 0 {
		body["labels"] = labels
	}
	if number, ok := t.milestones[i.Milestone]; ok && i.Milestone != "" {
		body["milestone"] = number
	}
	for key, at := range map[string]time.Time{"created_at": i.Created, "updated_at": i.Updated, "closed_at": i.ClosedAt} {
		if !at.IsZero() && (key != "closed_at" || i.Closed) {
			body[key] = at.UTC().Format(time.RFC3339)
		}
	}
	return body
}

func (t *target) importsOf(comments []*neutral.Comment) []map[string]any {
	all := []map[string]any{}
	for _, c := range comments {
		comment := map[string]any{"body": t.text(c.Body)}
		if !c.Created.IsZero() {
			comment["created_at"] = c.Created.UTC().Format(time.RFC3339)
		}
		all = append(all, comment)
	}
	return all
}

// labelsOf are the labels of an item that there are.
func (t *target) labelsOf(i *neutral.Item) []string {
	var names []string
	for _, name := range i.Labels {
		if _, there := t.labels[strings.ToLower(name)]; there {
			names = append(names, name)
		}
	}
	return names
}

// awaitImport waits until GitHub has made an issue, or has refused it.
func (t *target) awaitImport(ctx context.Context, i imported) (imported, error) {
	wait := firstLook
	for n := 0; i.waiting() && i.ID > 0 && n < looks; n++ {
		if err := t.p.imports.Sleep(ctx, wait); err != nil {
			return i, err
		}
		wait = min(2*wait, longestLook)
		if _, err := t.p.imports.Do(ctx, http.MethodGet, t.at+"/import/issues/"+i.ID.text(), nil, nil, &i); err != nil {
			return i, err
		}
	}
	if i.waiting() {
		return i, fault.New("import of an issue", fault.ErrUnavailable, "GitHub has not done it yet", "run it again later")
	}
	return i, nil
}

// importedAs is the issue that an import made.
func (t *target) importedAs(i imported) (neutral.Written, error) {
	n, err := strconv.ParseInt(string(i.Issue[strings.LastIndexByte(string(i.Issue), '/')+1:]), 10, 64)
	switch {
	case i.Status == "imported" && err == nil && n > 0:
		t.taken(n)
		return written("issue", n, n, t.page("issues", n)), nil
	case i.Status == "imported":
		return neutral.Written{}, fault.New("", fault.ErrUnavailable, "the server answered without the issue's number", "run it again")
	}
	said := "GitHub did not import it"
	for _, e := range i.Errors[:min(len(i.Errors), 3)] {
		said += fmt.Sprintf("; %.40s %.40s %.40s %.80q", e.Location, e.Field, e.Code, e.Value)
	}
	return neutral.Written{}, fault.New("", fault.ErrInvalid, said, "")
}

// page is the address of an item's page.
func (t *target) page(kind string, n int64) string {
	return fmt.Sprintf("%s%s/%s/%d", t.p.web, strings.TrimPrefix(t.at, "/repos"), kind, n)
}

// made is what GitHub answers of an issue, a pull request or a comment.
type made struct {
	ID     number `json:"id"`
	Number number `json:"number"`
	URL    words  `json:"html_url"`
}

// writeIssue makes an issue by the documented API, of now.
func (t *target) writeIssue(ctx context.Context, i *neutral.Item) (neutral.Written, error) {
	body := map[string]any{"title": titleOf(i.Title), "body": t.text(i.Body), "labels": append([]string{}, t.labelsOf(i)...)}
	if number, ok := t.milestones[i.Milestone]; ok {
		body["milestone"] = number
	}
	var is made
	if err := t.send(ctx, http.MethodPost, "/issues", body, &is); err != nil {
		return neutral.Written{}, err
	}
	return t.wrote(is)
}

// wrote says what was made.
func (t *target) wrote(is made) (neutral.Written, error) {
	n := int64(is.Number)
	if n <= 0 {
		return neutral.Written{}, fault.New("", fault.ErrUnavailable, "the server answered without its number", "run it again")
	}
	t.taken(n)
	return written("issue", n, n, string(is.URL)), nil
}

func titleOf(title string) string {
	runes := []rune(cmp.Or(strings.TrimSpace(title), "(no title)"))
	return string(runes[:min(len(runes), maxTitle)])
}

// open opens a pull request where it can be one again: it was not merged, and its branches are there, the head as it was. Nothing is
// returned where it has to be an issue, also because GitHub has one open of these branches or sees no commits between them.
func (t *target) open(ctx context.Context, i *neutral.Item) (neutral.Written, error) {
	p := i.Pull
	if p == nil || p.Merged || p.Head == "" || p.Base == "" || p.Head == p.Base || p.HeadOID == "" {
		return neutral.Written{}, nil
	}
	if err := t.listBranches(ctx); err != nil {
		return neutral.Written{}, err
	}
	if t.branches[p.Head] != p.HeadOID || t.branches[p.Base] == "" {
		return neutral.Written{}, nil
	}
	body := map[string]any{"title": titleOf(i.Title), "body": t.text(i.Body), "head": p.Head, "base": p.Base, "draft": p.Draft}
	var is made
	err := t.send(ctx, http.MethodPost, "/pulls", body, &is)
	if refusedBy(err) && p.Draft { // not every repository has drafts
		body["draft"] = false
		err = t.send(ctx, http.MethodPost, "/pulls", body, &is)
	}
	if err != nil {
		if refusedBy(err) {
			err = nil
		}
		return neutral.Written{}, err
	}
	w, err := t.wrote(is)
	if err != nil {
		return w, err
	}
	t.pulls[w.Number], t.bare[w.Number] = true, true
	return w, t.dress(ctx, w, i)
}

// listBranches lists all branches, once: there are as many questions as pull requests.
func (t *target) listBranches(ctx context.Context) error {
	if t.branches != nil {
		return nil
	}
	branches := map[string]string{}
	m := metadata{p: t.p, at: t.at}
	err := m.paged(ctx, "/branches", nil, func(raw json.RawMessage) error {
		var b struct {
			Name   words `json:"name"`
			Commit struct {
				SHA words `json:"sha"`
			} `json:"commit"`
		}
		if err := read("branches", raw, &b); err != nil {
			return err
		}
		branches[string(b.Name)] = string(b.Commit.SHA)
		return nil
	})
	if err == nil {
		t.branches = branches
	}
	return err
}

// dress gives a pull request or a discussion its labels, and its milestone, which it cannot be made with.
func (t *target) dress(ctx context.Context, w neutral.Written, i *neutral.Item) error {
	if !t.bare[w.Number] {
		return nil
	}
	delete(t.bare, w.Number)
	labels := t.labelsOf(i)
	if id := idOf(w, "discussion"); id != "" {
		return t.labelDiscussion(ctx, id, labels)
	}
	body := map[string]any{}
	if len(labels) > 0 {
		body["labels"] = labels
	}
	if number, ok := t.milestones[i.Milestone]; ok {
		body["milestone"] = number
	}
	if len(body) == 0 {
		return nil
	}
	return t.send(ctx, http.MethodPatch, fmt.Sprintf("/issues/%d", w.Number), body, nil)
}

// writeComment comments on an issue, a pull request or a discussion.
func (t *target) writeComment(ctx context.Context, c *neutral.Comment) (neutral.Written, error) {
	if on := idOf(c.On, "discussion"); on != "" {
		return t.discuss(ctx, c, on)
	}
	var is made
	err := t.send(ctx, http.MethodPost, fmt.Sprintf("/issues/%d/comments", c.Item), map[string]any{"body": t.text(c.Body)}, &is)
	return written("comment", int64(is.ID), 0, string(is.URL)), err
}

// writeReview writes a review that comments: nobody can approve what the same account opened. Its comments must have a place in the
// diff of the pull request.
func (t *target) writeReview(ctx context.Context, review *neutral.Review) (neutral.Written, error) {
	unsupported := fault.New("", fault.ErrUnsupported, "it has no place here", "")
	if !t.pulls[review.Item] {
		return neutral.Written{}, unsupported
	}
	body := map[string]any{"body": t.text(review.Body), "event": "COMMENT"}
	if review.OID != "" {
		body["commit_id"] = review.OID
	}
	comments := []map[string]any{}
	for _, c := range review.Comments {
		if c.Code == nil || c.Code.Path == "" || c.Code.Line <= 0 {
			return neutral.Written{}, unsupported
		}
		comment := map[string]any{"path": c.Code.Path, "body": t.text(c.Body), "line": c.Code.Line, "side": side(c.Code)}
		if c.Code.StartLine > 0 && c.Code.StartLine < c.Code.Line {
			comment["start_line"], comment["start_side"] = c.Code.StartLine, side(c.Code)
		}
		comments = append(comments, comment)
	}
	body["comments"] = comments
	var is made
	err := t.send(ctx, http.MethodPost, fmt.Sprintf("/pulls/%d/reviews", review.Item), body, &is)
	if refusedBy(err) {
		err = unsupported
	}
	return written("review", int64(is.ID), 0, string(is.URL)), err
}

func side(c *neutral.Code) string {
	if c.Side == "left" {
		return "LEFT"
	}
	return "RIGHT"
}

// writeState closes, pins and locks an item, or publishes a release.
func (t *target) writeState(ctx context.Context, s *neutral.State) error {
	if s.Release != nil {
		return t.publish(ctx, s)
	}
	if err := t.dress(ctx, s.Written, s.Item); err != nil {
		return err
	}
	if id := idOf(s.Written, "discussion"); id != "" {
		return t.endDiscussion(ctx, id, s)
	}
	at, closed := fmt.Sprintf("/issues/%d", s.Written.Number), s.Written.State == "closed" || s.Written.State == "locked"
	if s.Item.Closed && !closed {
		if err := t.send(ctx, http.MethodPatch, at, map[string]any{"state": "closed"}, nil); err != nil {
			return err
		}
	}
	if s.Item.Pinned && !t.pinned[s.Written.Number] {
		if err := t.pin(ctx, s.Written.Number); err != nil {
			return err
		}
	}
	if !s.Item.Locked || s.Written.State == "locked" {
		return nil
	}
	body := map[string]any{}
	if lockReasons[s.Item.LockReason] {
		body["lock_reason"] = s.Item.LockReason
	}
	return t.send(ctx, http.MethodPut, at+"/lock", body, nil)
}

// lockReasons are those that GitHub takes.
var lockReasons = map[string]bool{"off-topic": true, "too heated": true, "resolved": true, "spam": true}

// pin pins an issue, unless as many are as can be.
func (t *target) pin(ctx context.Context, n int64) error {
	var is struct {
		Node words `json:"node_id"`
	}
	if err := t.send(ctx, http.MethodGet, fmt.Sprintf("/issues/%d", n), nil, &is); err != nil {
		return err
	}
	err := t.mutate(ctx, "pinIssue", "issue { id }", map[string]any{"issueId": is.Node}, nil)
	if refusedBy(err) || errors.Is(err, fault.ErrDenied) {
		return nil
	}
	return err
}
