package vault

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/content/index"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"github.com/backstay/backstay/internal/point"
)

// Labels of kopia's manifests. The prefix makes them visible to `kopia snapshot list --tags`.
const (
	labelType      = manifest.TypeLabelKey
	labelState     = "tag:backstay" // listedPoint or draftPoint
	labelID        = "tag:id"
	labelKind      = "tag:kind"
	labelSubject   = "tag:subject"
	labelPolicy    = "tag:policy"
	labelTime      = "tag:time"
	labelOutcome   = "tag:state"
	labelBytes     = "tag:bytes"
	labelRevisions = "tag:revisions" // JSON, those of parts left out where it would be longer than maxRevisions

	listedPoint = "point"
	draftPoint  = "draft"

	typeHold    = "backstay-hold"
	labelPoint  = "point"
	labelReason = "reason"
	labelHeld   = "time"

	typeProof = "backstay-proof" // labelPoint says of which point; the rest is its body

	maxRevisions = 4 << 10
)

// manifestContents is kopia's prefix of the contents that hold manifests.
const manifestContents content.IDPrefix = manifest.ContentPrefix

// listing is what all manifests of the vault say.
type listing struct {
	points   []saved // newest first
	drafts   []saved // checkpoints, newest first
	holds    map[string][]hold
	proofs   map[string][]proof
	contents int // kopia contents that hold manifests
	unread   []unread
}

// saved is a point, or the checkpoint of a draft, as its manifest's labels tell it.
type saved struct {
	point.Point
	draft    bool
	manifest manifest.ID
	root     object.ID
}

type hold struct {
	point.Hold
	point    string // its id
	manifest manifest.ID
}

// unread is a content of manifests that could not be read.
type unread struct {
	id  content.ID
	err error
}

// manifestEntry is one version of a manifest as kopia stores it.
type manifestEntry struct {
	ID       manifest.ID       `json:"id"`
	Labels   map[string]string `json:"labels"`
	Modified time.Time         `json:"modified"`
	Deleted  bool              `json:"deleted"`
	Data     struct {          // of a snapshot, whose rest is not needed, or a proof
		Incomplete string `json:"incomplete"`
		RootEntry  struct {
			Object json.RawMessage `json:"obj"`
		} `json:"rootEntry"`
		proofBody
	} `json:"data"`
}

// manifests reads all manifests. It does so past kopia's own loader, which keeps all bodies in memory, writes the lot anew when
// there are sixteen contents of them, and gives up altogether when one of them cannot be read.
func (v *Vault) manifests(ctx context.Context) (*listing, error) {
	if err := v.rep.Refresh(ctx); err != nil {
		return nil, storageFault("read indexes", err)
	}
	v.manifestsMu.Lock()
	known := v.understood
	v.manifestsMu.Unlock()
	var mu sync.Mutex
	understood, entries := map[content.ID][]version{}, map[manifest.ID]version{}
	l := &listing{holds: map[string][]hold{}, proofs: map[string][]proof{}}
	contents := v.rep.ContentReader()
	err := contents.IterateContents(ctx, content.IterateOptions{
		Range:    index.PrefixRange(manifestContents),
		Parallel: 8,
	}, func(i content.Info) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		read, found := known[i.ContentID]
		var err error
		if !found {
			read, err = readVersions(ctx, contents, i.ContentID)
		}
		mu.Lock()
		defer mu.Unlock()
		l.contents++
		if err != nil {
			l.unread = append(l.unread, unread{i.ContentID, err})
			return nil
		}
		understood[i.ContentID] = read
		for _, e := range read {
			v.newest.Store(max(v.newest.Load(), e.modified.UnixNano()))
			if old, ok := entries[e.id]; !ok || e.modified.After(old.modified) {
				entries[e.id] = e
			}
		}
		return nil
	})
	if err != nil {
		return nil, storageFault("list manifests", err)
	}
	v.manifestsMu.Lock()
	v.understood = understood // and no longer those that are gone
	v.manifestsMu.Unlock()
	for _, e := range entries {
		l.add(e.meaning)
	}
	for _, list := range [][]saved{l.points, l.drafts} {
		sort.Slice(list, func(i, j int) bool {
			a, b := list[i], list[j]
			if !a.Time.Equal(b.Time) {
				return a.Time.After(b.Time)
			}
			return a.ID > b.ID
		})
	}
	return l, nil
}

// readVersions reads one content of manifests.
func readVersions(ctx context.Context, contents content.Reader, id content.ID) ([]version, error) {
	read, err := readManifests(ctx, contents, id)
	if err != nil {
		return nil, err
	}
	versions := make([]version, len(read))
	for i, e := range read {
		versions[i] = version{e.ID, e.Modified, understand(e)}
	}
	return versions, nil
}

// readManifests decodes one content of manifests.
func readManifests(ctx context.Context, contents content.Reader, id content.ID) ([]manifestEntry, error) {
	b, err := contents.GetContent(ctx, id)
	if err != nil {
		return nil, err
	}
	unzip, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("unpack manifests: %w", err)
	}
	return decodeManifests(unzip)
}

// decodeManifests decodes {"entries":[…]}.
func decodeManifests(r io.Reader) ([]manifestEntry, error) {
	d := json.NewDecoder(r)
	for _, want := range []json.Token{json.Delim('{'), "entries", json.Delim('[')} {
		got, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("parse manifests: %w", err)
		}
		if got != want {
			return nil, fmt.Errorf("parse manifests: %v where %v belongs", got, want)
		}
	}
	var entries []manifestEntry
	for d.More() {
		var e manifestEntry
		if err := d.Decode(&e); err != nil {
			return nil, fmt.Errorf("parse manifests: %w", err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// version is one version of a manifest, the newest of which holds.
type version struct {
	id       manifest.ID
	modified time.Time
	meaning  any // saved, hold, proof, or nil for what is deleted or kopia's own
}

// understand finds out what a manifest is. It lets go of the rest of it at once, for there may be many.
func understand(e manifestEntry) any {
	if e.Deleted {
		return nil
	}
	switch e.Labels[labelType] {
	case typeHold:
		at, _ := time.Parse(time.RFC3339Nano, e.Labels[labelHeld])
		return hold{point.Hold{Reason: e.Labels[labelReason], Time: at}, e.Labels[labelPoint], e.ID}
	case typeProof:
		if p := e.Data.Proof; p != nil && p.Point == e.Labels[labelPoint] {
			return proof{*p, e.ID}
		}
	case snapshot.ManifestType:
		if s, ok := savedFrom(e); ok && (s.draft || e.Data.Incomplete == "") {
			return s
		}
	}
	return nil
}

// add lists what a manifest is.
func (l *listing) add(meaning any) {
	switch m := meaning.(type) {
	case hold:
		l.holds[m.point] = append(l.holds[m.point], m)
	case proof:
		l.proofs[m.Point] = append(l.proofs[m.Point], m)
	case saved:
		if m.draft {
			l.drafts = append(l.drafts, m)
		} else {
			l.points = append(l.points, m)
		}
	}
}

// savedFrom reads a point from its labels.
func savedFrom(e manifestEntry) (saved, bool) {
	state := e.Labels[labelState]
	if state != listedPoint && state != draftPoint {
		return saved{}, false
	}
	s := saved{manifest: e.ID, draft: state == draftPoint, Point: point.Point{
		ID:      e.Labels[labelID],
		Subject: point.Subject{Kind: e.Labels[labelKind], Name: e.Labels[labelSubject]},
		Policy:  e.Labels[labelPolicy],
		State:   point.State(e.Labels[labelOutcome]),
	}}
	var err error
	if s.Time, err = time.Parse(time.RFC3339Nano, e.Labels[labelTime]); err != nil || !validID(s.ID) {
		return s, false
	}
	s.Bytes, _ = strconv.ParseInt(e.Labels[labelBytes], 10, 64)
	if r := e.Labels[labelRevisions]; r != "" && json.Unmarshal([]byte(r), &s.Revisions) != nil {
		return s, false
	}
	return s, json.Unmarshal(e.Data.RootEntry.Object, &s.root) == nil
}

// labelsOf is the reverse of savedFrom.
func labelsOf(p *point.Point, state string) map[string]string {
	labels := map[string]string{
		labelState:   state,
		labelID:      p.ID,
		labelKind:    p.Subject.Kind,
		labelSubject: p.Subject.Name,
		labelTime:    p.Time.UTC().Format(time.RFC3339Nano),
		labelOutcome: string(p.State),
		labelBytes:   strconv.FormatInt(p.Bytes, 10),
	}
	if p.Policy != "" {
		labels[labelPolicy] = p.Policy
	}
	for _, revisions := range []map[string]string{p.Revisions, deployedRevisions(p)} {
		if r, err := json.Marshal(revisions); err == nil && len(revisions) > 0 && len(r) <= maxRevisions {
			labels[labelRevisions] = string(r)
			break
		}
	}
	return labels
}

// deployedRevisions are those by which points are looked for.
func deployedRevisions(p *point.Point) map[string]string {
	revisions := maps.Clone(p.Revisions)
	maps.DeleteFunc(revisions, func(key, _ string) bool { return !point.IsDeployment(key) })
	return revisions
}

// holdsOf returns the holds on a point, oldest first.
func (l *listing) holdsOf(id string) []point.Hold {
	var holds []point.Hold
	for _, h := range l.holds[id] {
		holds = append(holds, h.Hold)
	}
	sort.Slice(holds, func(i, j int) bool { return holds[i].Time.Before(holds[j].Time) })
	return holds
}

// find returns the point of an id.
func (l *listing) find(id string) (saved, bool) {
	for _, s := range l.points {
		if s.ID == id {
			return s, true
		}
	}
	return saved{}, false
}

// deletion is how kopia stores that a manifest is deleted.
type deletion struct {
	ID       manifest.ID       `json:"id"`
	Labels   map[string]string `json:"labels"`
	Modified time.Time         `json:"modified"`
	Deleted  bool              `json:"deleted"`
	Data     any               `json:"data"`
}

// maxDeletions keeps a content of deletions well below where kopia would cut it.
const maxDeletions = 1000

// deleteManifests deletes manifests. Like manifests it goes past kopia's own way, which would first load them all. Of two versions
// the later holds, so a deletion is dated later than anything read: a clock behind the one that wrote would lose it in silence.
func deleteManifests(ctx context.Context, w repo.RepositoryWriter, v *Vault, ids []manifest.ID) error {
	at := v.now().UTC()
	if newest := time.Unix(0, v.newest.Load()).UTC(); !at.After(newest) {
		at = newest.Add(time.Nanosecond)
	}
	for batch := range slices.Chunk(ids, maxDeletions) {
		var list struct {
			Entries []deletion `json:"entries"`
		}
		for _, id := range batch {
			list.Entries = append(list.Entries, deletion{ID: id, Modified: at, Deleted: true})
		}
		var b bytes.Buffer
		zip := gzip.NewWriter(&b)
		if err := json.NewEncoder(zip).Encode(list); err != nil {
			return fmt.Errorf("encode deletions: %w", err)
		}
		if err := zip.Close(); err != nil {
			return fmt.Errorf("encode deletions: %w", err)
		}
		oid, err := writeMeta(ctx, w, manifestContents, b.Bytes())
		if err != nil {
			return storageFault("delete manifests", err)
		}
		if _, _, ok := oid.ContentID(); !ok {
			return fmt.Errorf("delete manifests: %d bytes were cut", b.Len())
		}
	}
	return nil
}
