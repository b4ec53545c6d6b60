// Package neutral is the model that all forges' issues, pull requests and releases come down to when they are restored, so that
// nothing is lost by going from one forge to the next that either of them can say.
package neutral

import (
	"context"
	"io"
	"iter"
	"time"
)

// Source is one repository's metadata at one time.
type Source interface {
	Overview(ctx context.Context) (*Overview, error)
	// Items yields issues and pull requests by their numbers, ascending, each with all that belongs to it.
	Items(ctx context.Context) iter.Seq2[*Item, error]
	// Discussions yields them by number.
	Discussions(ctx context.Context) iter.Seq2[*Discussion, error]
	// Files yields assets and attachments that the source has, by URL.
	Files(ctx context.Context) iter.Seq2[*File, error]
	// Open opens the bytes of a file.
	Open(ctx context.Context, f *File) (io.ReadSeekCloser, error)
}

// Thing is what MetadataTarget.Write makes.
type Thing interface{ thing() }

// Overview is what a repository has that is not numbered.
type Overview struct {
	Settings      Settings
	Labels        []*Label
	Milestones    []*Milestone
	Releases      []*Release
	Rules         []*Rule
	Hooks         []*Hook
	Keys          []*DeployKey
	Collaborators []*Collaborator
	Projects      []*Project
	Items         int64 // issues and pull requests there are
	Discussions   int64
}

// User is somebody, as the forge named them.
type User struct {
	Login string `json:"login"`
	Name  string `json:"name,omitempty"`
	Email string `json:"email,omitempty"`
	ID    string `json:"id,omitempty"`
	URL   string `json:"url,omitempty"`
}

// Origin says where a thing comes from. It is the forge's where somebody wrote it first, over any number of restores.
type Origin struct {
	Forge   string    `json:"forge"`         // host: "github.com"
	URL     string    `json:"url,omitempty"` // of the thing's page
	ID      string    `json:"id"`            // unique on that forge for that sort of thing
	Was     int64     `json:"was,omitempty"` // the number it had there; 0 for what has none, and where it still has it
	Author  User      `json:"author"`
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated,omitzero"`
}

// Settings of a repository.
type Settings struct {
	Description   string
	Homepage      string
	Topics        []string
	DefaultBranch string
	Archived      bool
	Private       bool
	HasIssues     bool
	HasWiki       bool
	HasProjects   bool
	// Merges that are allowed: "merge", "squash", "rebase".
	Merges       []string
	DeleteBranch bool // after a merge
}

// Label of issues and pull requests.
type Label struct {
	Name        string
	Color       string // six hexadecimal digits, lower case
	Description string
	Exclusive   bool
}

// Milestone of issues and pull requests.
type Milestone struct {
	Number      int64 // at the source
	Title       string
	Description string
	Closed      bool
	Due         time.Time
	ClosedAt    time.Time
	Created     time.Time
	Updated     time.Time
}

// Reaction of somebody. Content is GitHub's word: "+1", "-1", "laugh", "hooray", "confused", "heart", "rocket", "eyes"; other forges' own words stay.
type Reaction struct {
	Content string
	User    User
	Created time.Time
}

// Item is an issue or a pull request.
type Item struct {
	Origin
	Number       int64
	Title        string
	Body         string // Markdown
	Closed       bool
	ClosedAt     time.Time
	ClosedBy     User
	Reason       string // why it was closed: "completed", "not_planned", "duplicate"
	Locked       bool
	LockReason   string
	Pinned       bool
	Confidential bool // for members only
	Labels       []string
	Milestone    string // title
	Assignees    []User
	Due          time.Time
	Reactions    []Reaction
	Comments     []*Comment
	Events       []*Event
	Links        []Link
	Pull         *Pull // nil for an issue
}

// Pull is what a pull request has beside an issue.
type Pull struct {
	Base, Head         string // branches
	HeadRepository     string // "owner/name"; "" where it is gone
	BaseOID, HeadOID   string
	Merged             bool
	MergedAt           time.Time
	MergedBy           User
	MergeOID           string
	Draft              bool
	RequestedReviewers []User
	Reviews            []*Review
}

// Comment on an item, a review, a commit or in a discussion.
type Comment struct {
	Origin
	Item      int64 // number of what it is on
	Body      string
	Reactions []Reaction
	Replies   []*Comment // in discussions, and in threads of reviews
	Internal  bool       // for members only
	Answer    bool       // of a discussion
	// Code is what a review's comment, or a commit's, is on; nil for others.
	Code *Code

	On   Written `json:"-"` // the item, as the target made it, while it is restored
	mark Mark    // that Recall found
}

// Code is a place in a diff.
type Code struct {
	Path            string
	OID             string // commit
	OriginalOID     string
	Side            string // "left" or "right"
	Line, StartLine int64  // 0 where it is not on a line, or outdated
	OriginalLine    int64
	Hunk            string
	Resolved        bool
	ResolvedBy      User
}

// Review of a pull request.
type Review struct {
	Origin
	Item     int64
	State    string // "approved", "changes_requested", "commented", "dismissed", "pending"
	OID      string // commit
	Body     string
	Comments []*Comment // with Code
	On       Written    `json:"-"` // as Comment has it
}

// Event is something that happened to an item: Kind is GitHub's word for it ("labeled", "closed", "renamed"); Data is the forge's own.
type Event struct {
	Kind    string
	Actor   User
	Created time.Time
	Text    string // what a person reads: "labeled bug"
}

// Link between items.
type Link struct {
	Kind string // "parent", "blocked_by", "duplicate_of", "relates_to"
	To   string // "owner/name#17"
}

// Discussion is a thread of a repository that is no issue.
type Discussion struct {
	Item
	Category string
	Answered bool
	Votes    int64
}

// Release of a repository.
type Release struct {
	Origin
	Tag        string
	Target     string // branch or commit for a tag that is not there
	Name       string
	Body       string
	Draft      bool
	Prerelease bool
	Immutable  bool
	Published  time.Time
	Assets     []*Asset
}

// Asset is a file of a release.
type Asset struct {
	File
	Release   string // tag
	Label     string
	Downloads int64
	Created   time.Time
	On        Written   `json:"-"` // the release, as the target made it, while it is restored
	Content   io.Reader `json:"-"` // its bytes, while it is written
}

// File is an asset or an attachment.
type File struct {
	URL    string
	Name   string
	Type   string
	Size   int64
	SHA256 string // "" where its bytes are not in the point, for Reason
	Reason string
}

// Rule protects branches or tags.
type Rule struct {
	Name      string
	Pattern   string // glob of branches, or of tags where Tags is set
	Tags      bool
	Approvals int      // required of a pull request
	Checks    []string // required status checks
	PushBy    []string // who may push; nil for nobody named
	ForcePush bool
	Delete    bool
	Signed    bool
	Linear    bool
	Admins    bool // bound too
}

// Hook without its secret.
type Hook struct {
	URL         string // without credentials
	Events      []string
	ContentType string
	Active      bool
}

// DeployKey is the public part.
type DeployKey struct {
	Title, Key string
	ReadOnly   bool
}

// Collaborator may do something in the repository; a team has a name with a slash.
type Collaborator struct {
	User
	Permission string // "read", "triage", "write", "maintain", "admin"
}

// Project is a table or board of issues and pull requests, of this repository and others. No target makes one.
type Project struct {
	Title       string
	Description string
	Readme      string // Markdown
	Owner       User
	URL         string
	Public      bool
	Closed      bool
	Created     time.Time
	Updated     time.Time
	Fields      []ProjectField // in their order
	Views       []string       // names
	Items       []*ProjectItem // the oldest first
}

// ProjectField is a column of a project. Type is GitHub's word in small letters: "text", "number", "date", "single_select", "iteration";
// what the items themselves have, as "labels", has other ones.
type ProjectField struct {
	Name, Type string
	Options    []string // that one is chosen from
}

// ProjectItem is a line of a project: an issue or a pull request, or a draft, which is nothing but that.
type ProjectItem struct {
	Created  time.Time
	To       string // "owner/name#17"; "" for a draft, and for what the account that captured it may not see
	Title    string
	Body     string // of a draft, Markdown
	Draft    bool
	Archived bool
	Values   []ProjectValue // of those fields that the project itself has
}

// ProjectValue is what an item has in a field.
type ProjectValue struct{ Field, Value string }

// State is what an item or a release becomes once all that belongs to it is there: closed, locked, pinned, published. Writing it
// again changes nothing.
type State struct {
	Written Written  // what it is of
	Item    *Item    // one of both is set
	Release *Release // as it is to be
}

func (*Settings) thing()  {}
func (*State) thing()     {}
func (*Label) thing()     {}
func (*Milestone) thing() {}
func (*Item) thing()      {}
func (*Comment) thing()   {}
func (*Review) thing()    {}
func (*Release) thing()   {}
func (*Asset) thing()     {}
func (*Rule) thing()      {}
func (*Hook) thing()      {}
func (*DeployKey) thing() {}

// Restored is what is in a repository before a restore, so that none of it is made again.
type Restored struct {
	Empty  bool               // nothing was there but what a new repository has
	Things map[string]Written // by KeyOf, or the Mark's Key of what bears one
	// Next is the number that the next item gets, where the forge gives them out in order. 0 where an item gets the number that is
	// asked for.
	Next int64
}

// Written is what a target made of a thing.
type Written struct {
	ID      string // the target's
	Number  int64  // of an item
	URL     string
	Ref     string // how a text there refers to it: "!5"; "" for "#" and the number
	Pending bool   // its text is not yet what it is to be (Mark.Pending)
	State   string // of an item "closed" or "locked", of a release "published", as far as Begin saw; "" for what State is to be written of
}

// Fidelity says what becomes of each field of the model at a target, by "sort.field": "item.author".
type Fidelity map[string]Fate

// Fate of a field.
type Fate struct {
	State string // Kept, Changed, Lost
	How   string // of Changed and Lost: "in the text, as 'by NAME on DATE'"
}

// States of a Fate.
const (
	Kept    = "kept"
	Changed = "changed"
	Lost    = "lost"
)
