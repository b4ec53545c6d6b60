package sourcehut

import (
	"cmp"
	"context"
	"encoding/json"
	"iter"
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

// Decode reads what Sourcehut answered as the neutral model. Tickets are issues; what state one is in is a label, where that is more than
// open or resolved. Mails have no place in the model: the archives of lists are files of the point.
func Decode(r *archive.Reader) (neutral.Source, error) {
	a, err := forge.OpenArchived(r, dialect)
	if err != nil {
		return nil, err
	}
	return &source{a, r.Header()}, nil
}

type source struct {
	forge.Archived
	h archive.Header
}

// The documents, as far as they are read.
type (
	person struct {
		Canonical string `json:"canonicalName"`
		Username  string `json:"username"`
		Mailbox   string `json:"mailbox"`
		Name      string `json:"name"`
		URL       string `json:"externalUrl"`
	}
	label struct {
		Name  string `json:"name"`
		Color string `json:"backgroundColor"`
	}
	ticket struct {
		ID         int64     `json:"id"`
		Created    time.Time `json:"created"`
		Updated    time.Time `json:"updated"`
		Subject    string    `json:"subject"`
		Body       string    `json:"body"`
		Status     string    `json:"status"`
		Resolution string    `json:"resolution"`
		Labels     []label   `json:"labels"`
		Submitter  *person   `json:"submitter"`
		Assignees  []person  `json:"assignees"`
	}
	revision struct {
		Text       string    `json:"text"`
		Superseded *revision `json:"supersededBy"`
	}
	change struct {
		revision
		Type          string  `json:"eventType"`
		Author        *person `json:"author"`
		Editor        *person `json:"editor"`
		Labeler       *person `json:"labeler"`
		Assigner      *person `json:"assigner"`
		Assignee      *person `json:"assignee"`
		Label         label   `json:"label"`
		OldStatus     string  `json:"oldStatus"`
		NewStatus     string  `json:"newStatus"`
		NewResolution string  `json:"newResolution"`
		Mentioned     struct {
			Ref string `json:"ref"`
		} `json:"mentioned"`
	}
	event struct {
		ID      int64     `json:"id"`
		Created time.Time `json:"created"`
		Changes []change  `json:"changes"`
	}
)

func (p *person) user() neutral.User {
	if p == nil {
		return neutral.User{}
	}
	login := cmp.Or(p.Username, strings.TrimPrefix(p.Canonical, "~"))
	if p.Mailbox != "" {
		login = ""
	}
	return neutral.User{Login: login, Name: p.Name, Email: p.Mailbox, URL: p.URL}
}

// text is what a comment says now.
func (r *revision) text() string {
	for r.Superseded != nil {
		r = r.Superseded
	}
	return r.Text
}

// state is a label for what a ticket is beside open or resolved; "" for no more.
func (t *ticket) state() string {
	if t.Status == "" || t.Status == "REPORTED" || t.Status == "RESOLVED" {
		return ""
	}
	return "State: " + plain(t.Status)
}

func plain(word string) string { return strings.ToLower(strings.ReplaceAll(word, "_", " ")) }

// reasons are GitHub's words for why a ticket was resolved.
var reasons = map[string]string{
	"CLOSED": "completed", "FIXED": "completed", "IMPLEMENTED": "completed", "DUPLICATE": "duplicate",
	"WONT_FIX": "not_planned", "BY_DESIGN": "not_planned", "INVALID": "not_planned", "NOT_OUR_BUG": "not_planned",
}

// Overview implements neutral.Source.
func (s *source) Overview(ctx context.Context) (*neutral.Overview, error) {
	o := &neutral.Overview{Items: int64(s.Count("issues"))}
	o.Settings.HasIssues = s.Count("trackers") > 0
	err := forge.DecodeRecords(s.All(ctx, "settings"), func(_ archive.Record, d *repository) {
		o.Settings.Description, o.Settings.Private = d.Description, !strings.EqualFold(d.Visibility, "public")
		if d.HEAD != nil {
			o.Settings.DefaultBranch = strings.TrimPrefix(d.HEAD.Name, "refs/heads/")
		}
	})
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	add := func(l label) {
		if l.Name != "" && !seen[l.Name] {
			seen[l.Name] = true
			o.Labels = append(o.Labels, &neutral.Label{Name: l.Name, Color: strings.ToLower(strings.TrimPrefix(l.Color, "#"))})
		}
	}
	if err := forge.DecodeRecords(s.All(ctx, "labels"), func(_ archive.Record, d *label) { add(*d) }); err != nil {
		return nil, err
	}
	err = forge.DecodeRecords(s.All(ctx, "issues"), func(_ archive.Record, t *ticket) { add(label{t.state(), "#cccccc"}) })
	return o, err
}

// Items implements neutral.Source.
func (s *source) Items(ctx context.Context) iter.Seq2[*neutral.Item, error] {
	return forge.ItemsOf(ctx, s.All(ctx, "issues"), s.item)
}

func (s *source) item(ctx context.Context, record archive.Record) (*neutral.Item, error) {
	var t ticket
	if err := json.Unmarshal(record.Raw, &t); err != nil {
		return nil, fault.Wrap("read "+record.Key.String(), fault.ErrCorrupt, err, "")
	}
	if t.ID <= 0 {
		return nil, fault.New("read "+record.Key.String(), fault.ErrCorrupt, "it has no number", "")
	}
	item := &neutral.Item{
		Origin: neutral.Origin{
			Forge: s.h.Host, URL: s.page(t.ID), ID: s.h.Repository + "-" + strconv.FormatInt(t.ID, 10), Author: t.Submitter.user(),
			Created: t.Created, Updated: t.Updated,
		},
		Number: t.ID, Title: t.Subject, Body: t.Body, Closed: t.Status == "RESOLVED",
	}
	if item.Closed {
		item.Reason = reasons[t.Resolution]
	}
	for _, l := range append(t.Labels, label{Name: t.state()}) {
		if l.Name != "" {
			item.Labels = append(item.Labels, l.Name)
		}
	}
	for i := range t.Assignees {
		item.Assignees = append(item.Assignees, t.Assignees[i].user())
	}
	return item, s.events(ctx, record.Key, item)
}

// page is where a ticket is seen: on the tracker beside the git service.
func (s *source) page(id int64) string {
	rest, ok := strings.CutPrefix(s.h.Host, "git.")
	if !ok || strings.Contains(rest, "_") { // a port, and who knows which the other has
		return ""
	}
	return "https://todo." + rest + "/" + s.h.Repository + "/" + strconv.FormatInt(id, 10)
}

// events are comments, and what else happened.
func (s *source) events(ctx context.Context, key archive.Key, item *neutral.Item) error {
	var all []*event
	err := forge.DecodeRecords(s.Children(ctx, key, "timeline"), func(_ archive.Record, e *event) { all = append(all, e) })
	slices.SortStableFunc(all, forge.ByTime(func(e *event) time.Time { return e.Created }))
	for _, e := range all {
		for i := range e.Changes {
			c := &e.Changes[i]
			if c.Type == "COMMENT" {
				page := item.URL
				if page != "" {
					page += "#event-" + strconv.FormatInt(e.ID, 10)
				}
				item.Comments = append(item.Comments, &neutral.Comment{
					Origin: neutral.Origin{
						Forge: s.h.Host, URL: page, ID: strconv.FormatInt(e.ID, 10), Author: c.Author.user(), Created: e.Created, Updated: e.Created,
					},
					Item: item.Number, Body: c.text(),
				})
				continue
			}
			if made := c.event(e.Created); made != nil {
				item.Events = append(item.Events, made)
				if item.Closed && made.Kind == "closed" {
					item.ClosedAt, item.ClosedBy = made.Created, made.Actor
				}
			}
		}
	}
	return err
}

// event is what GitHub would call a change; nil for what says nothing more than the ticket does.
func (c *change) event(at time.Time) *neutral.Event {
	e := &neutral.Event{Created: at}
	switch c.Type {
	case "STATUS_CHANGE":
		e.Actor = c.Editor.user()
		switch {
		case c.NewStatus == "RESOLVED":
			e.Kind, e.Text = "closed", "closed as "+plain(c.NewResolution)
		case c.OldStatus == "RESOLVED":
			e.Kind, e.Text = "reopened", "reopened"
		default:
			e.Kind, e.Text = "state_changed", "changed state to "+plain(c.NewStatus)
		}
	case "LABEL_ADDED":
		e.Actor, e.Kind, e.Text = c.Labeler.user(), "labeled", "labeled "+c.Label.Name
	case "LABEL_REMOVED":
		e.Actor, e.Kind, e.Text = c.Labeler.user(), "unlabeled", "unlabeled "+c.Label.Name
	case "ASSIGNED_USER":
		e.Actor, e.Kind, e.Text = c.Assigner.user(), "assigned", "assigned "+c.Assignee.user().Login
	case "UNASSIGNED_USER":
		e.Actor, e.Kind, e.Text = c.Assigner.user(), "unassigned", "unassigned "+c.Assignee.user().Login
	case "TICKET_MENTIONED":
		e.Actor, e.Kind, e.Text = c.Author.user(), "cross-referenced", strings.TrimSpace("cross-referenced "+c.Mentioned.Ref)
	case "USER_MENTIONED":
		e.Actor, e.Kind, e.Text = c.Author.user(), "mentioned", "mentioned"
	default:
		return nil
	}
	return e
}
