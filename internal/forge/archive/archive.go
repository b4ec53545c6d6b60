// Package archive keeps what a forge says of a repository beside its code, as it answered: a log of records in the part of a restore
// point. A later record of a key takes the place of an earlier one, so a run adds what changed and takes everything else over unread.
package archive

import (
	"encoding/json"
	"time"
)

// Version is the version of the archive that this build writes.
const Version = 1

// Where things are in the part.
const (
	HeaderFile = "archive.json" // the Header
	SegmentDir = "segments"     // 00000001.ndjson and on: records, one a line, segments in the order of their names
	FileDir    = "files"        // release assets and attachments by their SHA-256: files/ab/ab12…
)

// Key names a record: "issues/17".
type Key struct {
	Collection string // "issues"; the table of the collections is in docs/metadata.md
	ID         string // the forge's own, unique in the collection of one repository: a number where people use one
}

// Record is one thing of a forge, as it answered.
type Record struct {
	Key
	Parent  Key             // what it belongs to: of a comment the issue; zero for the repository itself
	Updated time.Time       // by the forge's word; zero where it has none
	Seen    time.Time       // when this state of it was first read
	Gone    time.Time       // when the forge was found to have it no more; zero while it has. Raw is what it was before
	Raw     json.RawMessage // an object
}

// Header is archive.json: what the archive is of, and how far it is.
type Header struct {
	Version    int    `json:"version"`
	Dialect    string `json:"dialect"`           // how Raw is read: "github", "gitlab", "gitea", "bitbucket", "onedev", "sourcehut"
	Host       string `json:"host"`              // "github.com"
	Repository string `json:"repository"`        // "acme/api", now
	ID         string `json:"id,omitempty"`      // the forge's own
	Account    string `json:"account,omitempty"` // whose credentials read it. Provenance marks (package neutral) that it wrote are believed
	// Began is when the reading began that is under way: zero where the last one came to its end. What it has read by then is not read
	// again. Mark is the forge's word for what there was at that moment.
	Began time.Time `json:"began,omitzero"`
	Mark  string    `json:"mark,omitempty"`
	// Collections by their names. One that could not be read says why.
	Collections map[string]Progress `json:"collections"`
}

// Progress is how far a collection has been read.
type Progress struct {
	Until  time.Time `json:"until,omitzero"`   // everything that changed before was read; the next reading begins a little earlier
	Cursor string    `json:"cursor,omitempty"` // of a first reading that is under way
	Swept  time.Time `json:"swept,omitzero"`   // when it was last compared with all that the forge has
	Living int64     `json:"living"`           // records that are not gone
	Gone   int64     `json:"gone,omitempty"`
	Total  int64     `json:"total"`            // that the forge says there are; -1 where it does not
	Mark   string    `json:"mark,omitempty"`   // the forge's word for the state of it that was last read to its end
	Read   time.Time `json:"read,omitzero"`    // when it was last read to its end
	Reason string    `json:"reason,omitempty"` // why it is not there, or not whole: switched off, a missing scope
	// Waiting are parents that were read, and whose records were not when a reading broke off: until a request's worth was together.
	Waiting []Waiting `json:"waiting,omitempty"`
}

// Waiting is a record that waits for what belongs to it to be read.
type Waiting struct {
	Collection string    `json:"c"`
	ID         string    `json:"id"`
	Changed    time.Time `json:"changed,omitzero"` // when the root that it belongs to changed
}

// Key is the record's.
func (w Waiting) Key() Key { return Key{w.Collection, w.ID} }

// File is the raw of a record of the collection "files": what became of an address that stood in a body, or of a release's asset.
type File struct {
	URL    string `json:"url"`
	Name   string `json:"name,omitempty"`
	Type   string `json:"type,omitempty"` // media type, by the server's word
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256,omitempty"` // "" for one that was not fetched, for Reason
	Digest string `json:"digest,omitempty"` // by the forge's word: "sha256:ab12…", or another word that changes with the content
	Reason string `json:"reason,omitempty"`
}

// FilesCollection holds the Files; their IDs are the URLs.
const FilesCollection = "files"
