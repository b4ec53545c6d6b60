// Package point is the vocabulary of restore points: what they are of, what they hold, and the narrow interfaces by which
// leaves write and read them. It uses the standard library only and does nothing but answer questions about its values.
package point

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kinds of parts.
const (
	KindGit     = "git"     // a bare repository
	KindLFS     = "lfs"     // the Git LFS objects of a repository, inside its bare repository
	KindDir     = "dir"     // a directory tree with attributes
	KindListing = "listing" // what a forge says of the repositories of an account, as it answered
	KindIssues  = "issues"  // the issues of a repository, as its forge answered
	// KindMetadata is what a forge knows of a repository beside its code: an archive, as package forge/archive has it.
	KindMetadata = "metadata"
	KindObjects  = "objects"  // Kubernetes objects of one namespace, or of the cluster, one file each
	KindVolume   = "volume"   // the file tree in a Kubernetes volume, as KindDir
	KindBlock    = "block"    // the bytes of a Kubernetes volume in block mode: one file, image
	KindDatabase = "database" // dumps of a database server: dump.json, and one stream for each database
)

// Kinds of subjects.
const (
	SubjectRepository = "repository"
	SubjectDirectory  = "directory"
	SubjectAccount    = "account" // repositories of a forge that are listed together
	// SubjectApplication is what runs on a Kubernetes cluster and belongs together; its name is CLUSTER/APPLICATION.
	SubjectApplication = "application"
	SubjectDatabase    = "database" // a database server that is no part of an application
)

// Subject is what a restore point is of.
type Subject struct {
	Kind string `json:"kind"`
	Name string `json:"name"` // unique within the vault: "github.com/acme/api"
}

// State says how a part, or a whole point, came out.
type State string

// States of parts. A point is Complete or Incomplete.
const (
	Stored  State = "stored"  // everything the source has of it was written in this run, or was there unchanged
	Carried State = "carried" // the source failed; an older good copy stands in for it
	Skipped State = "skipped" // left out on purpose, for the reason given
	Failed  State = "failed"  // not in the point, for the reason given
	// Vanished was in the last point, and the source has it no more. The last point that has it is held.
	Vanished State = "vanished"

	Complete   State = "complete"
	Incomplete State = "incomplete"
)

// Part is one separately restorable piece of a point.
type Part struct {
	Name        string     `json:"name"` // path in the point's tree without leading slash: "git/github.com/acme/api.git"
	Kind        string     `json:"kind"`
	State       State      `json:"state"`
	Reason      string     `json:"reason,omitempty"`      // why it is carried, skipped or failed
	CarriedFrom *time.Time `json:"carriedFrom,omitempty"` // when the copy that stands in was captured; only where carried
	Bytes       int64      `json:"bytes"`                 // size of the part's files
	NewBytes    int64      `json:"newBytes"`              // of these, bytes written in this run, before compression and deduplication
	Unchanged   bool       `json:"unchanged,omitempty"`   // stored by taking all of it over from the copy before
	Revision    string     `json:"revision,omitempty"`    // the source's own name of the state captured: the commit HEAD named
	ID          string     `json:"id,omitempty"`          // the source's name of the thing itself, the same over renames: "github.com:1296269"
	Mark        string     `json:"mark,omitempty"`        // the source's word for the state captured: while it says the same, nothing moved
	Checked     *time.Time `json:"checked,omitempty"`     // when the source itself was last asked, for parts that a Mark may spare
	Captured    *time.Time `json:"captured,omitempty"`    // the moment that the content is of, where the source knows it; parts of one instant differ by the skew
	Counts      []Count    `json:"counts,omitempty"`      // expected against stored
	Notes       []string   `json:"notes,omitempty"`       // findings that take nothing away from the part: fsck warnings, alarms
}

// AlarmNote begins a note that is an alarm: the source may have been damaged, and the last good point was put on hold.
const AlarmNote = "alarm: "

// Count sets what the source says it has against what was stored, for one sort of item of a part.
type Count struct {
	Of              string   `json:"of"` // "refs", "lfs objects"
	Expected        int64    `json:"expected"`
	Stored          int64    `json:"stored"`
	Excluded        int64    `json:"excluded,omitempty"`        // left out on purpose; Notes say by which rule
	MissingAtSource []string `json:"missingAtSource,omitempty"` // named by the source, which has them no more
}

// Closes reports whether every expected item is accounted for.
func (c Count) Closes() bool {
	return c.Stored+c.Excluded+int64(len(c.MissingAtSource)) == c.Expected
}

// Ledger sums the parts of a point.
type Ledger struct {
	Expected        int   `json:"expected"` // parts
	Stored          int   `json:"stored"`
	Unchanged       int   `json:"unchanged"` // of the stored
	Carried         int   `json:"carried"`
	Skipped         int   `json:"skipped"`
	Failed          int   `json:"failed"`
	Vanished        int   `json:"vanished"`
	MissingAtSource int   `json:"missingAtSource"` // items of stored parts
	Closed          bool  `json:"closed"`          // every part is stored or skipped, and every count closes
	Bytes           int64 `json:"bytes"`
	NewBytes        int64 `json:"newBytes"`
}

// LedgerOf sums parts.
func LedgerOf(parts []Part) Ledger {
	l := Ledger{Expected: len(parts), Closed: true}
	for _, p := range parts {
		switch p.State {
		case Stored:
			l.Stored++
			if p.Unchanged {
				l.Unchanged++
			}
		case Carried:
			l.Carried++
		case Skipped:
			l.Skipped++
		case Vanished:
			l.Vanished++
		default:
			l.Failed++
		}
		l.Bytes += p.Bytes
		l.NewBytes += p.NewBytes
		for _, c := range p.Counts {
			l.MissingAtSource += len(c.MissingAtSource)
			l.Closed = l.Closed && (c.Closes() || p.State != Stored)
		}
	}
	l.Closed = l.Closed && l.Carried == 0 && l.Failed == 0 && l.Vanished == 0
	return l
}

// State is Complete when the ledger closes and holds at least one stored part, else Incomplete.
func (l Ledger) State() State {
	if l.Closed && l.Stored > 0 {
		return Complete
	}
	return Incomplete
}

// Point is a restore point as the catalog lists it. Parts is filled by Reader.Record only; listing reads no trees.
type Point struct {
	ID      string    `json:"id"` // 32 hexadecimal digits
	Subject Subject   `json:"subject"`
	Policy  string    `json:"policy,omitempty"`
	Time    time.Time `json:"time"` // when the capture began, or the moment that was captured, UTC
	State   State     `json:"state"`
	Holds   []Hold    `json:"holds,omitempty"`
	Proof   *Proof    `json:"proof,omitempty"` // of the newest drill; nil before the first
	Bytes   int64     `json:"bytes"`
	Parts   []Part    `json:"parts,omitempty"`
	// Revisions the point was taken at, by what they are of: {"git/github.com/acme/api.git": "<commit>"}.
	// Of what a GitOps engine deployed, by its name as Deployment has it, with # and a number where it has several sources:
	// {"argocd/argocd/shop": "<commit>"}, the revision that was live; empty where the application was of none, or between two.
	Revisions map[string]string `json:"revisions,omitempty"`
	// What deployed the application that the point is of; filled as Parts is.
	Deployment *Deployment `json:"deployment,omitempty"`
}

// Deployment is what a GitOps engine had deployed of an application when the point was made.
type Deployment struct {
	Name    string           `json:"name"` // ENGINE/NAMESPACE/NAME: argocd/argocd/shop
	Sources []DeployedSource `json:"sources,omitempty"`
	// Images that ran, by digest, sorted: registry.example/shop@sha256:….
	Images []string `json:"images,omitempty"`
	// SHA-256 of the objects that the engine had applied, as it names them, with their specs; the same for the same configuration.
	Manifests string `json:"manifests,omitempty"`
}

// DeployedSource is where the configuration came from.
type DeployedSource struct {
	URL   string `json:"url"` // without credentials
	Path  string `json:"path,omitempty"`
	Chart string `json:"chart,omitempty"` // of Helm; then revisions are its versions
	From  string `json:"from,omitempty"`  // the revision that was live; empty at the first sync
	To    string `json:"to,omitempty"`    // the one that came, where the point was made for a sync
	Part  string `json:"part,omitempty"`  // of this point, which holds the repository
}

// Revisions are those that were live, as Point.Revisions has them.
func (d Deployment) Revisions() map[string]string {
	all := map[string]string{}
	for i, s := range d.Sources {
		name := d.Name
		if len(d.Sources) > 1 {
			name = fmt.Sprintf("%s#%d", d.Name, i+1)
		}
		if s.From != "" {
			all[name] = s.From
		}
	}
	if len(all) == 0 {
		all[d.Name] = "" // nothing yet
	}
	return all
}

// IsDeployment reports whether a key of Point.Revisions is a deployment's, and not a part's.
func IsDeployment(key string) bool {
	return strings.HasPrefix(key, "argocd/") || strings.HasPrefix(key, "flux/")
}

// DeployedBy reads what deployed a point's application, and the revisions that were live of each of its sources, out of its Revisions.
// The name is empty where nothing did, or several did.
func (p Point) DeployedBy() (deployment string, live []string) {
	numbers := map[string]int{}
	for key := range p.Revisions {
		name, number, _ := strings.Cut(key, "#")
		if !IsDeployment(key) {
			continue
		}
		if deployment != "" && deployment != name {
			return "", nil
		}
		deployment = name
		numbers[key], _ = strconv.Atoi(number) // 0 for the only one
	}
	for _, key := range slices.SortedFunc(maps.Keys(numbers), func(a, b string) int { return numbers[a] - numbers[b] }) {
		if r := p.Revisions[key]; r != "" {
			live = append(live, r)
		}
	}
	return deployment, live
}

// MadeAt reports whether a point was made while a revision was live: a commit, or how it begins, with seven digits at least, or a chart's
// version.
func (p Point) MadeAt(revision string) bool {
	_, live := p.DeployedBy()
	return slices.ContainsFunc(live, func(r string) bool { return SameRevision(r, revision) })
}

// SameRevision reports whether a full revision is the one that somebody names: by all of it, or by its first digits, seven at least.
func SameRevision(full, named string) bool {
	const least = 7
	return named != "" && (full == named || len(named) >= least && strings.Trim(named, "0123456789abcdef") == "" && strings.HasPrefix(full, named))
}

// Skew is the time between the first and the last moment that parts are of; 0 where fewer than two say so. Parts that are copies of
// an earlier time do not count.
func Skew(parts []Part) time.Duration {
	var first, last time.Time
	for _, p := range parts {
		if p.Captured == nil || p.State != Stored {
			continue
		}
		if first.IsZero() || p.Captured.Before(first) {
			first = *p.Captured
		}
		if p.Captured.After(last) {
			last = *p.Captured
		}
	}
	return last.Sub(first)
}

// Hold keeps a point from expiring.
type Hold struct {
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`
}

// Record is /backstay.json, the last file written into a point.
type Record struct {
	Version  int       `json:"version"` // of this document; 1
	Point    Point     `json:"point"`   // with Parts
	Ledger   Ledger    `json:"ledger"`
	Finished time.Time `json:"finished"`
	Tool     string    `json:"tool"` // "backstay 0.1.0"
}

// UnfinishedPrefix begins the names of what a restore puts into a directory before it is done. Where it was killed, the next one
// removes it; the directory counts as empty.
const UnfinishedPrefix = ".backstay-"

// RecordVersion is the version of Record that this build writes.
const RecordVersion = 1

// Content says how a file is best cut and compressed.
type Content int

// Contents.
const (
	Text   Content = iota // JSON, lists, manifests: compressed
	Packed                // compressed already and never edited in place: packs, LFS objects, assets
	Block                 // images of disks, cut into fixed megabytes
	Tree                  // ordinary files: cut by content
)

// Entry is one file, directory or symbolic link in a point's tree.
type Entry struct {
	Name string      // as listed, the base name; as put, the slash-separated path below the part
	Mode fs.FileMode // type and permission bits; put with permissions 0, a file gets 0644 and a directory 0755
	Size int64       // bytes of a file; sum of the files below a directory; ignored by Put
	Time time.Time   // of modification; put as zero, the time of the point is taken
	UID  uint32
	GID  uint32
	Link string // where a symbolic link points
}

// Reader reads the tree of one point. Paths are slash-separated, relative to the part or point it was opened on; "." is the root.
// A path that is not there gives an error that is fault.ErrNotFound; bytes that do not check give fault.ErrCorrupt.
// Safe for concurrent use.
type Reader interface {
	List(ctx context.Context, path string) ([]Entry, error)
	Open(ctx context.Context, path string) (io.ReadSeekCloser, error)
	// Extract writes the file or the tree at path to dest on the local disk, which must not exist, reading in parallel. A vault also
	// writes a file onto dest where that is a block device.
	// Modes and times are restored; owners only where the process may.
	Extract(ctx context.Context, path, dest string) error
}

// Prior is the newest good copy of a part in the vault: of an earlier point, or of a run that was cut short.
type Prior struct {
	Reader           // rooted at the part
	Part   Part      // its entry in that point's record, state Stored or Carried
	Time   time.Time // when it was captured
}

// Sink takes the parts of a draft. Safe for concurrent use; each part is named in exactly one call. A part may lie inside the
// directory of another, as LFS objects do in their repository; what lies in it belongs to the inner part alone.
type Sink interface {
	// Part opens a part for writing. It never fails for what the source does; an error means that the vault cannot be written.
	Part(ctx context.Context, name, kind string) (PartWriter, error)
	// Skip leaves a part out on purpose.
	Skip(name, kind, reason string)
	// Last lists the parts of the last point that the same policy made of the subject, brought up to date by what was ended in a
	// run of it since that was cut short. It is empty where there is none. Points of other policies do not count: what they do not
	// have, they may not have wanted.
	Last(ctx context.Context) ([]Part, error)
	// Renamed tells, before the part is opened, that its thing went by another name before: where the part has no prior copy, it
	// and the parts inside it take those of the old name.
	Renamed(name, before string)
	// Vanish ends a part that Last has and the source has no more, and holds the last point that has it.
	Vanish(ctx context.Context, name, kind, reason string) error
}

// PartWriter writes one part. Put and Keep are safe for concurrent use. An error from the reader given to Put comes back
// as it is and leaves nothing behind; every other error means that the vault failed, and the run must stop.
// Exactly one of Store and Fail must end it.
type PartWriter interface {
	// Prior is the newest good copy of this part, nil when there is none.
	Prior() *Prior
	// Put writes e below the part, reading a file's bytes from r to its end; parents are made as needed. It returns the bytes
	// read. For a directory or a symbolic link r is nil.
	Put(ctx context.Context, e Entry, r io.Reader, c Content) (int64, error)
	// Keep takes the entry at path, file or directory, over from Prior without reading it. "." keeps the whole part, but not the
	// parts inside it.
	Keep(ctx context.Context, path string) error
	// Alarm records a finding that may mean the source was damaged, and holds the last point that has the part from expiring.
	Alarm(ctx context.Context, finding string) error
	// Store ends the part as stored, or as carried where CarriedFrom is set. The vault fills in Name, Kind, State, Bytes, NewBytes. What
	// is composed of shards says in NewBytes what these brought, unless it is Unchanged.
	Store(ctx context.Context, p Part) error
	// Fail ends the part as failed. Where there is a Prior, it is carried in its place with its date. What was put is dropped.
	Fail(ctx context.Context, reason error) error
}

// Saver is a PartWriter that can make what was put and kept so far last, as Store would, and go on: the next run has it as its Prior
// where this one is cut short. In a published point it never shows: there, the part is what it was when it was ended.
type Saver interface {
	Save(ctx context.Context, p Part) error
}

// Draft is a point being made. It is invisible until Commit, but checkpointed while it grows: the next run on the same subject
// finds the parts that were ended as their Prior.
type Draft interface {
	Sink
	// Checkpoint makes what was ended so far last, also if the draft is never committed. Drafts checkpoint themselves, too.
	Checkpoint(ctx context.Context) error
	// Commit publishes the point after checking that all it refers to is in the vault. Where no part was stored it publishes
	// nothing and returns the reasons of the parts that failed.
	Commit(ctx context.Context) (*Receipt, error)
	// Abandon ends the draft without a point. What was checkpointed stays. Idempotent; a no-op after Commit.
	Abandon(ctx context.Context) error
}

// Dated is a draft that can be told which moment its point is of, where that is not when the draft began: the parts were captured
// before, as shards.
type Dated interface {
	At(moment time.Time)
}

// Revised is a draft that can be told what a GitOps engine had deployed of its subject: nothing but revisions, where several had.
type Revised interface {
	Deployed(d *Deployment, revisions map[string]string)
}

// Receipt is what Commit hands back.
type Receipt struct {
	Record
	StoredBytes int64 // bytes this run wrote to the location, everything included
	// Warnings are what the vault noticed that somebody must see to. The point itself is good.
	Warnings []string `json:"warnings,omitempty"`
}

// Filter chooses points. Zero fields choose all.
type Filter struct {
	Subject *Subject
	Policy  string
}

// Report is what verifying found. It is good when Faults is empty.
type Report struct {
	Points int     `json:"points"`
	Files  int64   `json:"files"`
	Bytes  int64   `json:"bytes"` // read and checked
	Blobs  int64   `json:"blobs"` // objects of the location compared with the checksums taken when they were written
	Faults []Fault `json:"faults,omitempty"`
}

// Fault is one thing that is not as it was stored.
type Fault struct {
	Point string `json:"point,omitempty"`
	Path  string `json:"path,omitempty"`
	Blob  string `json:"blob,omitempty"`
	What  string `json:"what"`
}

// String names the place and what is wrong there.
func (f Fault) String() string {
	s := f.What
	for _, place := range []string{f.Blob, f.Path, f.Point} {
		if place != "" {
			s = place + ": " + s
		}
	}
	return s
}

// Event is progress. Front ends turn events into bars, lines or nothing.
type Event struct {
	Part  string // name of the part, "" for the whole run
	What  string // "refs", "receiving", "indexing", "storing", "restoring", "verifying"; one word
	Done  int64
	Total int64  // 0 while unknown
	Unit  string // "B" for bytes, else a plural noun
	Text  string // a remark worth a line of its own, "" for plain progress
}

// Observer is told of progress. Safe for concurrent use; it must return at once.
type Observer func(Event)
