package githubtest

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Metadata is what a repository has beside its code. It is filled before it is served, and then changed by Edit. Users are logins; ""
// is one who left GitHub.
type Metadata struct {
	Labels         []Label
	Milestones     []Milestone
	Topics         []string
	Items          []*Item // by number
	Comments       []*Comment
	ReviewComments []*ReviewComment
	CommitComments []*CommitComment
	Releases       []*Release
	Discussions    []*Discussion
	Rules          []Rule
	Rulesets       []Ruleset
	Hooks          []Hook
	Keys           []Key
	Collaborators  []Collaborator
	Teams          []Team
	Projects       []*Project
	Pinned         []int64 // issues

	// Of repositories that are restored into.
	Branches   map[string]string // commits by name
	Categories []string          // of discussions; with one of them the repository has discussions
	Defaults   int               // the first labels, which every new repository has
	Changed    map[string]any    // settings, by the names of REST
	Burned     []string          // tags that an immutable release had
	Free       bool              // in a plan without rulesets
	Diff       map[string]int64  // lines that reviews can comment on, by path; nil for all
	Refused    string            // title of issues whose import fails
	Limit      int               // how many writes are taken, before further ones have to wait for LimitFor; 0 for all
	LimitFor   time.Duration

	lastID  int64
	imports []*issueImport
	writes  int
	pushed  time.Time // when writes were too many

	mu     sync.Mutex
	sorted *sorted // nil when something changed
	byID   map[int64]*Item
}

// sorted is what has lists with "since", by the times of its newest states.
type sorted struct {
	items          []*Item
	comments       []*Comment
	reviewComments []*ReviewComment
	issues, pulls  []*Item
	discussions    []*Discussion
	comment        map[int64]*Comment
}

// Label of a repository.
type Label struct{ Name, Color, Description string }

// Milestone of a repository.
type Milestone struct {
	Number             int64
	Title, Description string
	Closed             bool
	Due                time.Time
	Created, Updated   time.Time
}

// Reaction of somebody, by REST's word: "+1".
type Reaction struct {
	ID            int64
	Content, User string
	Created       time.Time
}

// Item is an issue, or a pull request where Pull is set.
type Item struct {
	Number           int64
	Title, Body      string
	User             string
	Closed           bool
	Reason           string
	ClosedBy         string
	Locked           bool
	LockReason       string
	Labels           []string
	Milestone        int64 // number
	Assignees        []string
	Created, Updated time.Time
	ClosedAt         time.Time
	Reactions        []Reaction
	Timeline         []Event
	Parent           int64 // number of the issue that it is below
	Pull             *Pull
}

// Pull is what a pull request has beside an issue.
type Pull struct {
	Base, Head       string // branches
	BaseOID, HeadOID string
	HeadRepository   string // "owner/name"; "" where it is gone
	Draft            bool
	MergedAt         time.Time
	MergedBy         string
	MergeOID         string
	Reviewers        []string // that are asked
	Commits          []string
	Reviews          []Review
	Threads          []Thread
}

// Review of a pull request.
type Review struct {
	ID         int64
	User, Body string
	State      string // "APPROVED"
	OID        string
	Submitted  time.Time
}

// Thread is a conversation of a review, by the first of its comments.
type Thread struct {
	First      int64
	ResolvedBy string // "" while it is not
}

// Event is something that happened to an item, by GraphQL's name and fields beside id, actor and createdAt.
type Event struct {
	Type    string // "LabeledEvent"
	Actor   string
	Created time.Time
	Fields  map[string]any
}

// Comment on an item.
type Comment struct {
	ID, On           int64
	User, Body       string
	Created, Updated time.Time
	Reactions        []Reaction
}

// ReviewComment is a comment on a line.
type ReviewComment struct {
	Comment
	Review, ReplyTo int64
	Path, Hunk, OID string
	Line, Start     int64 // 0 for none
	OriginalLine    int64
	Left            bool
}

// CommitComment is a comment on a commit.
type CommitComment struct {
	Comment
	OID, Path string
	Line      int64
}

// Release of a repository.
type Release struct {
	ID                          int64
	Tag, Target, Name, Body     string
	User                        string
	Draft, Prerelease           bool
	Created, Updated, Published time.Time
	Assets                      []Asset
}

// Asset of a release.
type Asset struct {
	ID                        int64
	Name, Label, Type, Digest string
	Content                   []byte
	Downloads                 int64
	Created, Updated          time.Time
	Starter                   bool // its upload broke off
}

func (a Asset) state() string {
	if a.Starter {
		return "open" // "starter" in the documentation's words, which the description does not have
	}
	return "uploaded"
}

// Discussion is a thread that is no issue.
type Discussion struct {
	Number                int64
	Title, Body, Category string
	User                  string
	Created, Updated      time.Time
	Votes                 int64
	Locked, Closed        bool
	Answer                int64 // ID of the comment
	Labels                []string
	Reactions             []Reaction
	Comments              []DiscussionComment
}

// DiscussionComment may have replies.
type DiscussionComment struct {
	ID               int64
	User, Body       string
	Created, Updated time.Time
	Reactions        []Reaction
	Replies          []DiscussionComment
}

// Rule protects branches.
type Rule struct {
	ID        int64
	Pattern   string
	Approvals int64
	Checks    []string
	PushBy    []string
	Linear    bool
	Admins    bool
}

// Ruleset of a repository.
type Ruleset struct {
	ID       int64
	Name     string
	Patterns []string // "refs/heads/main", "~DEFAULT_BRANCH"
	Tags     bool
	Disabled bool
	Rules    []map[string]any // as REST has them
	Bypass   []map[string]any
	Updated  time.Time
}

// Hook calls somebody.
type Hook struct {
	ID     int64
	URL    string
	Events []string
	Active bool
}

// Key is a deploy key.
type Key struct {
	ID         int64
	Title, Key string
	ReadOnly   bool
}

// Collaborator may do something.
type Collaborator struct{ User, Permission string }

// Team may do something.
type Team struct {
	ID               int64
	Slug, Permission string
}

// Edit changes the metadata while it is served.
func (m *Metadata) Edit(f func(m *Metadata)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m)
	m.edited()
}

// edited forgets what is sorted. Called with the lock held.
func (m *Metadata) edited() { m.sorted, m.byID = nil, nil }

// arranged returns what is sorted, and the items by number. Called with the lock held.
func (m *Metadata) arranged() *sorted {
	if m.sorted != nil {
		return m.sorted
	}
	s := &sorted{
		items: slices.Clone(m.Items), comments: slices.Clone(m.Comments), reviewComments: slices.Clone(m.ReviewComments),
		discussions: slices.Clone(m.Discussions), comment: map[int64]*Comment{},
	}
	slices.SortStableFunc(s.items, func(a, b *Item) int { return a.Updated.Compare(b.Updated) })
	slices.SortStableFunc(s.comments, func(a, b *Comment) int { return a.Updated.Compare(b.Updated) })
	slices.SortStableFunc(s.reviewComments, func(a, b *ReviewComment) int { return a.Updated.Compare(b.Updated) })
	slices.SortStableFunc(s.discussions, func(a, b *Discussion) int { return a.Updated.Compare(b.Updated) })
	for _, c := range m.Comments {
		s.comment[c.ID] = c
	}
	for _, i := range s.items {
		if i.Pull != nil {
			s.pulls = append(s.pulls, i)
		} else {
			s.issues = append(s.issues, i)
		}
	}
	m.sorted, m.byID = s, map[int64]*Item{}
	for _, i := range m.Items {
		m.byID[i.Number] = i
	}
	return s
}

// Item finds an issue or a pull request.
func (m *Metadata) item(number int64) *Item {
	m.arranged()
	return m.byID[number]
}

// Grow makes metadata of a size: issues, every tenth of them a pull request, and comments that lie spread over them. What it makes at a
// time is always the same.
func Grow(now time.Time, items, comments int) *Metadata {
	people := []string{"ada", "grace", "linus", ""}
	start := now.Add(-time.Duration(items+comments+3600) * 20 * time.Second).UTC().Truncate(time.Second)
	at := func(i int) time.Time { return start.Add(time.Duration(i) * 20 * time.Second) }
	m := &Metadata{
		Labels:     []Label{{"bug", "d73a4a", "it does not work"}, {"help wanted", "008672", ""}},
		Milestones: []Milestone{{Number: 1, Title: "1.0", Created: start, Updated: start}},
	}
	for i := range items {
		item := &Item{
			Number: int64(i + 1), Title: fmt.Sprintf("item %d", i+1), Body: fmt.Sprintf("it does not work, see #%d", i/2+1), User: people[i%4],
			Closed: i%3 == 0, Created: at(i), Updated: at(i), Timeline: []Event{{
				Type: "LabeledEvent", Actor: people[i%3], Created: at(i), Fields: map[string]any{"label": map[string]any{"__typename": "Label", "name": "bug"}},
			}},
		}
		if item.Closed {
			item.ClosedAt, item.Reason = at(i), "completed"
		}
		if i%10 == 9 {
			item.Reason = ""
			item.Pull = &Pull{Base: "main", Head: fmt.Sprintf("topic-%d", i), BaseOID: oid(0), HeadOID: oid(i + 1), HeadRepository: "grace/fork"}
		}
		m.Items = append(m.Items, item)
	}
	for i := range comments {
		t := at(items + i)
		m.Comments = append(m.Comments, &Comment{
			ID: int64(1_000_000 + i), On: int64(i%max(items, 1) + 1), User: people[(i+1)%4], Body: fmt.Sprintf("comment %d", i), Created: t, Updated: t,
		})
	}
	return m
}

func oid(i int) string { return fmt.Sprintf("%040x", i) }

// after finds where in a sorted list the records of a time and later ones begin.
func after[T any](all []*T, updated func(*T) time.Time, since time.Time) []*T {
	i, _ := slices.BinarySearchFunc(all, since, func(o *T, t time.Time) int {
		return cmp.Or(updated(o).Compare(t), 1) // the first of equal ones
	})
	return all[i:]
}
