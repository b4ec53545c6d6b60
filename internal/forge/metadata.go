package forge

import (
	"context"
	"io"
	"iter"
	"time"

	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// MetadataReader reads what a forge knows of a repository beside its code.
type MetadataReader interface {
	// Dialect names how its records are read: "github".
	Dialect() string
	// Collections says what can be read of the repository, parents before their children. What a forge cannot give is not in it.
	Collections(r Repository) []Collection
}

// Collection is one sort of thing that a repository has. Read is required.
type Collection struct {
	Name string // "issues", "comments", "reviews": of the table in docs/metadata.md
	// Of names the collection whose records have these: they are read for those of its records that changed. "" for what is read of
	// the repository as a whole.
	Of string
	// Wants tells which parents are read at all, where Of is set; nil for all. One that it does not want has no records.
	Wants func(parent archive.Record) bool
	// Batch is how many parents Read takes at once, where Of is set; 0 for one.
	Batch int
	// Read yields records, with Key, Parent, Updated and Raw filled in. Where Since is set, those that changed since Query.Since, the
	// oldest change first; else all there are, and what is not among them is gone.
	Read  func(ctx context.Context, q Query) iter.Seq2[archive.Record, error]
	Since bool
	// Keys yields all that the forge has, with Raw nil, for sweeps: cheaper than Read where a forge can do that. Nil reads all.
	Keys func(ctx context.Context, q Query) iter.Seq2[archive.Record, error]
	// Also names other collections whose records Read yields along with its own: a request that answers for several. It reads all
	// that they have where it reads all of its own, or all that belongs to Query.Parents and to what it yields. They have no
	// Collection of their own.
	Also []string
	// Requests is about how many requests reading n records costs, or where Of is set those of n parents, for estimates; nil for one for
	// each hundred, or each Batch of parents.
	Requests func(n int64) int64
}

// Query says what of a collection is read.
type Query struct {
	Repository Repository
	Since      time.Time        // zero for everything
	Parents    []archive.Record // with Collection.Of, at most Batch
}

// MetadataCounter tells how many records of each collection a repository has, in a request or two. A collection that it does not name
// is not counted.
type MetadataCounter interface {
	Totals(ctx context.Context, r Repository) (map[string]int64, error)
}

// MetadataMarker tells in bulk, for many repositories in a request, whether something changed: a word for each repository, by ID,
// that is another one whenever a record was added, edited or removed, as far as the forge tells. A word may tell it of each collection:
// "issues=2026-01-02T10:00:00Z/17 releases=0". Then only the roots (Collection.Of "") whose words changed are read, and all
// the others, those it does not name too, once in AccountOptions.Recheck.
type MetadataMarker interface {
	MetadataMarks(ctx context.Context, all []Repository) (map[string]string, error)
}

// FileGetter fetches release assets and attachments: with credentials where an address is the forge's own, without elsewhere.
type FileGetter interface {
	// FileURLs finds addresses of files in a record, in its bodies and as assets. Only what is the forge's own or of its store is
	// named: addresses of other hosts are never asked.
	FileURLs(r archive.Record) []archive.File
	// GetFile fetches one. The reader ends with an error where fewer bytes came than were said, or more than limit.
	GetFile(ctx context.Context, r Repository, f archive.File, limit int64) (io.ReadCloser, error)
}

// Decoder reads the records of one dialect as the neutral model.
type Decoder func(r *archive.Reader) (neutral.Source, error)

// MetadataTarget restores into a repository of a forge. Its methods write one thing each and return what the forge made of it. Texts
// come with their provenance marks (neutral.Mark) in them, and with their references rewritten: a target writes them as they are.
type MetadataTarget interface {
	// Keeps says what the forge keeps of each field when it is restored by API. A field that it does not name is lost.
	Keeps() neutral.Fidelity
	// Begin readies the repository, and finds what is there: by marks in texts that the target's own account wrote, else by name.
	Begin(ctx context.Context, r Repository) (neutral.Restored, error)
	// Write makes one thing: *neutral.Settings, *neutral.Label, *neutral.Milestone, *neutral.Item, *neutral.Comment, *neutral.Review,
	// *neutral.Discussion, *neutral.Release, *neutral.Asset, *neutral.Rule, *neutral.Hook, *neutral.DeployKey. One that the forge has not is
	// fault.ErrUnsupported, and what has a text is then written as a comment, a discussion as an Item. Items are written open and releases as drafts, without
	// comments, reviews and assets: those come by themselves, with the Item that they are on by the target's number, and then a
	// *neutral.State. An Asset's bytes are in its Content.
	Write(ctx context.Context, r Repository, thing neutral.Thing) (neutral.Written, error)
	// Upload stores a file that a text refers to, and returns the address to put in its place. fault.ErrUnsupported where a file
	// belongs to an item (MetadataAttacher), or there is no place for it.
	Upload(ctx context.Context, r Repository, f archive.File, content io.Reader) (string, error)
	// Finish does what is left when all is there.
	Finish(ctx context.Context, r Repository) error
}

// MetadataRestorer is a provider whose repositories can be restored into.
type MetadataRestorer interface {
	// Target is for one repository at a time: it remembers what it finds there. Making it sends nothing.
	Target() MetadataTarget
}

// MetadataAttacher is a target whose files belong to an issue or a comment, which must be there first.
type MetadataAttacher interface {
	// Attach stores a file at what was written, unless that has it, and returns its address.
	Attach(ctx context.Context, r Repository, to neutral.Written, f archive.File, content io.Reader) (string, error)
	// Rewrite puts another text in the place of the one that was written.
	Rewrite(ctx context.Context, r Repository, w neutral.Written, text string) error
}

// MetadataImporter is a target that makes an item with what was said on it at once, and keeps dates then.
type MetadataImporter interface {
	// Import makes an item, closed if that is so, with the first of its Comments, and returns how many: the others are written by
	// themselves. Their texts are as those that Write gets. It is called in the place of Write.
	Import(ctx context.Context, r Repository, item *neutral.Item) (w neutral.Written, comments int, err error)
}

// MetadataForeseer is a target that does not number all items in one row, or makes issues of some pull requests: it says beforehand what
// each of them is going to be, for texts refer to those that come later, too.
type MetadataForeseer interface {
	// Foresee takes what is to be written, in that order: of each item its number, and of pull requests the branches. It returns for
	// each Number, Ref and URL.
	Foresee(ctx context.Context, r Repository, items []*neutral.Item) ([]neutral.Written, error)
}
