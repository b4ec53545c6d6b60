package github

import (
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

// Decode reads an archive of GitHub's answers as the neutral model. Marks that the archive's account wrote are believed.
// Errors: fault.ErrUnsupported for an archive of another forge; of the Source fault.ErrCorrupt, which names the record.
func Decode(r *archive.Reader) (neutral.Source, error) {
	a, err := forge.OpenArchived(r, dialect)
	if err != nil {
		return nil, err
	}
	return &source{Archived: a, host: r.Header().Host, account: r.Header().Account}, nil
}

// source is a repository of an archive.
type source struct {
	forge.Archived
	host, account string
}

// number is an integer that may be anything in an answer: what is none is 0.
type number int64

// UnmarshalJSON implements json.Unmarshaler.
func (n *number) UnmarshalJSON(b []byte) error {
	value, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		value = 0
	}
	*n = number(value)
	return nil
}

func (n number) text() string { return strconv.FormatInt(int64(n), 10) }

// id is a number that names something; "" for one that does not.
func (n number) id() string {
	if n <= 0 {
		return ""
	}
	return n.text()
}

// moment is a time that may be anything: what is none is zero.
type moment struct{ time.Time }

// UnmarshalJSON implements json.Unmarshaler.
func (m *moment) UnmarshalJSON(b []byte) error {
	if m.Time.UnmarshalJSON(b) != nil {
		m.Time = time.Time{}
	}
	return nil
}

// words is a text that may be anything: what is none is "".
type words string

// UnmarshalJSON implements json.Unmarshaler.
func (w *words) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) != nil {
		text = ""
	}
	*w = words(text)
	return nil
}

// nodes is a list of GraphQL.
type nodes[T any] struct {
	Nodes []T `json:"nodes"`
}

// person is a user; null for one who left GitHub.
type person struct {
	Login words  `json:"login"`
	Name  words  `json:"name"`
	Email words  `json:"email"`
	ID    number `json:"id"`
	URL   words  `json:"html_url"`
}

// user is a person in the neutral model. Who left GitHub is its user "ghost".
func (p *person) user() neutral.User {
	if p == nil || p.Login == "" {
		return neutral.User{Login: "ghost"}
	}
	return neutral.User{Login: string(p.Login), Name: string(p.Name), Email: string(p.Email), ID: p.ID.id(), URL: string(p.URL)}
}

// somebody is a person who need not have been there: nobody for null.
func (p *person) somebody() neutral.User {
	if p == nil {
		return neutral.User{}
	}
	return p.user()
}

func users(people []person) (all []neutral.User) {
	for _, p := range people {
		all = append(all, p.user())
	}
	return all
}

// authored is what all things that somebody wrote have.
type authored struct {
	ID        number `json:"id"`
	Author    *person
	User      *person `json:"user"`
	URL       words   `json:"html_url"`
	Created   moment  `json:"created_at"`
	Updated   moment  `json:"updated_at"`
	Body      words   `json:"body"`
	Reactions any     `json:"-"`
}

func (s *source) origin(a authored) neutral.Origin {
	return neutral.Origin{
		Forge: s.host, URL: string(a.URL), ID: a.ID.text(), Author: a.User.user(), Created: a.Created.Time, Updated: a.Updated.Time,
	}
}

// decode reads a record.
func decode(r archive.Record, into any) error {
	if err := json.Unmarshal(r.Raw, into); err != nil {
		return fault.Wrap("decode "+r.String(), fault.ErrCorrupt, err, "")
	}
	return nil
}

// all decodes the records of a list, one by one.
func all[T any](records iter.Seq2[archive.Record, error], each func(r archive.Record, o *T)) error {
	for r, err := range records {
		if err != nil {
			return err
		}
		var o T
		if err := decode(r, &o); err != nil {
			return err
		}
		each(r, &o)
	}
	return nil
}

// numberOf is the number that a record has in its name; 0 for none.
func numberOf(key archive.Key) int64 {
	n, err := strconv.ParseInt(key.ID, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// Items implements neutral.Source. Issues and pull requests share their numbers.
func (s *source) Items(ctx context.Context) iter.Seq2[*neutral.Item, error] {
	return func(yield func(*neutral.Item, error) bool) {
		pinned, err := s.pinned(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		for r, err := range s.All(ctx, "issues") {
			var item *neutral.Item
			if err == nil {
				item, err = s.item(ctx, r)
			}
			if err == nil {
				item.Pinned = pinned[item.Number]
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}

// issue is an issue or a pull request of REST's list of issues, or a pull request of its list of those.
type issue struct {
	authored
	NodeID     words       `json:"node_id"`
	Number     number      `json:"number"`
	Title      words       `json:"title"`
	State      words       `json:"state"`
	Reason     words       `json:"state_reason"`
	Closed     moment      `json:"closed_at"`
	ClosedBy   *person     `json:"closed_by"`
	Locked     bool        `json:"locked"`
	LockReason words       `json:"active_lock_reason"`
	Labels     []labelName `json:"labels"`
	Milestone  *titled     `json:"milestone"`
	Assignees  []person    `json:"assignees"`
	Draft      bool        `json:"draft"`
	Pull       *struct{}   `json:"pull_request"`
	Head       *branch     `json:"head"`
	Base       *branch     `json:"base"`
	Parent     words       `json:"parent_issue_url"`
}

type titled struct {
	Title words `json:"title"`
}

// labelName is the name of a label: GitHub gives the label, or its name alone.
type labelName string

// UnmarshalJSON implements json.Unmarshaler.
func (l *labelName) UnmarshalJSON(b []byte) error {
	var o struct {
		Name words `json:"name"`
	}
	if json.Unmarshal(b, &o) != nil {
		json.Unmarshal(b, &o.Name) //nolint:errcheck // words take everything
	}
	*l = labelName(o.Name)
	return nil
}

// item reads an issue or pull request with all that belongs to it.
func (s *source) item(ctx context.Context, r archive.Record) (*neutral.Item, error) {
	var o issue
	if err := decode(r, &o); err != nil {
		return nil, err
	}
	item := &neutral.Item{
		Origin: s.origin(o.authored), Number: numberOf(r.Key), Title: string(o.Title), Body: string(o.Body),
		Closed: o.State == "closed", ClosedAt: o.Closed.Time, ClosedBy: o.ClosedBy.somebody(), Reason: string(o.Reason),
		Locked: o.Locked, LockReason: string(o.LockReason), Assignees: users(o.Assignees),
	}
	if !item.Closed {
		item.Reason = "" // "reopened"
	}
	if o.Milestone != nil {
		item.Milestone = string(o.Milestone.Title)
	}
	for _, label := range o.Labels {
		if label != "" {
			item.Labels = append(item.Labels, string(label))
		}
	}
	if parent := referred(string(o.Parent)); parent != "" {
		item.Links = append(item.Links, neutral.Link{Kind: "parent", To: parent})
	}
	if err := s.belongings(ctx, r.Key, o, item); err != nil {
		return nil, err
	}
	neutral.Recall(item, s.account)
	return item, nil
}

// belongings reads what is on an item.
func (s *source) belongings(ctx context.Context, key archive.Key, o issue, item *neutral.Item) (err error) {
	if item.Comments, err = s.comments(ctx, key); err != nil {
		return err
	}
	if item.Reactions, err = s.reactions(ctx, key, "reactions"); err != nil {
		return err
	}
	if err := s.timeline(ctx, key, item); err != nil {
		return err
	}
	if o.Pull == nil && o.Base == nil {
		return nil
	}
	return s.pull(ctx, o, item)
}

func (s *source) comments(ctx context.Context, key archive.Key) (found []*neutral.Comment, err error) {
	err = all(s.Children(ctx, key, "comments"), func(_ archive.Record, o *authored) {
		found = append(found, &neutral.Comment{Origin: s.origin(*o), Item: numberOf(key), Body: string(o.Body)})
	})
	for _, c := range found {
		if err == nil {
			c.Reactions, err = s.reactions(ctx, archive.Key{Collection: "comments", ID: c.ID}, "comment-reactions")
		}
	}
	slices.SortStableFunc(found, func(a, b *neutral.Comment) int { return a.Created.Compare(b.Created) })
	return found, err
}

// referred makes "owner/name#17" of the address of an issue in the API; "" of what is none.
func referred(address string) string {
	_, path, found := strings.Cut(address, "/repos/")
	parts := strings.Split(path, "/")
	if !found || len(parts) != 4 || parts[2] != "issues" {
		return ""
	}
	return parts[0] + "/" + parts[1] + "#" + parts[3]
}
