package vault

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/kopia/kopia/repo/blob"

	"github.com/backstay/backstay/internal/evidence"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// A statement of evidence is a leaf of the catalogue. Its name says which statements it follows, so that the newest ones are known
// from a list of names; and it has copies of those that it follows, so that a lost one is brought back from the one after it.

// evidenceName is the name of a statement's leaf, after its prefix, of fixed widths: its hash, the point that it says was made (or
// zeros), and how the hashes begin of the statements that it follows.
type evidenceName struct {
	hash     string
	made     string // id of a point; noPoint for another deed
	previous []string
}

const (
	hashLength     = 2 * sha256.Size // hexadecimal digits
	shortHash      = 16
	followedAtOnce = 4 // statements that one follows; of more, later ones follow the rest
)

var noPoint = strings.Repeat("0", idLength) //nolint:gochecknoglobals // never changed

func (n evidenceName) leaf() blob.ID {
	return evidencePrefix + blob.ID(n.hash+n.made+strings.Join(n.previous, ""))
}

// parseEvidenceName is the reverse of leaf.
func parseEvidenceName(id blob.ID) (n evidenceName, ok bool) {
	rest, ok := strings.CutPrefix(string(id), string(evidencePrefix))
	if !ok || len(rest) < hashLength+idLength || len(rest)%shortHash != 0 {
		return n, false
	}
	n.hash, n.made, rest = rest[:hashLength], rest[hashLength:hashLength+idLength], rest[hashLength+idLength:]
	for ; rest != ""; rest = rest[shortHash:] {
		n.previous = append(n.previous, rest[:shortHash])
	}
	return n, true
}

func nameOf(s *evidence.Statement) evidenceName {
	n := evidenceName{hash: s.Hash, made: noPoint}
	if s.What == evidence.Committed {
		n.made = s.Points[0].ID
	}
	for _, p := range s.Previous {
		n.previous = append(n.previous, p[:shortHash])
	}
	return n
}

// chain is what an open vault knows of its newest statements.
type chain struct {
	mu       sync.Mutex // held while a statement is made: the next one of this process follows it
	listed   bool
	heads    map[string]blob.ID // leaves of the statements that nothing follows, by hash
	followed map[string]bool    // beginnings of the hashes of the others
	lines    map[string]string  // of heads, where they are known
}

// see takes the name of a statement's leaf in.
func (c *chain) see(id blob.ID) {
	n, ok := parseEvidenceName(id)
	if !ok {
		return
	}
	if c.heads == nil {
		c.heads, c.followed, c.lines = map[string]blob.ID{}, map[string]bool{}, map[string]string{}
	}
	for _, p := range n.previous {
		c.followed[p] = true
	}
	if !c.followed[n.hash[:shortHash]] {
		c.heads[n.hash] = id
	}
	for hash := range c.heads {
		if c.followed[hash[:shortHash]] {
			delete(c.heads, hash)
			delete(c.lines, hash)
		}
	}
}

// vaultName names the vault in statements: a hash of what kopia calls it.
func (v *Vault) vaultName() string {
	h := sha256.Sum256(append([]byte("backstay evidence "), v.rep.UniqueID()...))
	return hex.EncodeToString(h[:16])
}

// attest makes a statement, signs it and writes it. A statement that cannot be signed is made all the same, for the next one signs
// over it; the warning says so.
func (v *Vault) attest(ctx context.Context, d evidence.Deed) (warning string, err error) {
	v.chain.mu.Lock()
	defer v.chain.mu.Unlock()
	if !v.chain.listed {
		if err := v.store.ListBlobs(ctx, evidencePrefix, func(m blob.Metadata) error { v.chain.see(m.BlobID); return nil }); err != nil {
			return "", storageFault("list evidence", err)
		}
		v.chain.listed = true
	}
	d.Vault, d.Time, d.Tool = v.vaultName(), v.now().UTC(), v.tool
	var l leaf
	for hash, id := range v.chain.heads {
		if len(d.Previous) == followedAtOnce {
			break
		}
		d.Previous = append(d.Previous, hash)
		if line := v.headLine(ctx, hash, id); line != "" {
			l.Evidence = append(l.Evidence, line)
		}
	}
	slices.Sort(d.Previous)
	key, keyErr := v.signer(ctx)
	if keyErr != nil {
		warning = "evidence is not signed: " + keyErr.Error()
	}
	s, err := evidence.State(d, key)
	if err != nil {
		return warning, err
	}
	l.Evidence = append(l.Evidence, string(s.Line))
	id := nameOf(s).leaf()
	if err := v.writeLeaf(ctx, id, l); err != nil {
		return warning, err
	}
	v.chain.see(id)
	v.chain.lines[s.Hash] = string(s.Line)
	return warning, nil
}

// withWarning adds a warning, if there is one, once.
func withWarning(warnings []string, warning string) []string {
	if warning == "" || slices.Contains(warnings, warning) {
		return warnings
	}
	return append(warnings, warning)
}

// headLine is the statement of a leaf; empty where it cannot be read, for it is only to be copied.
func (v *Vault) headLine(ctx context.Context, hash string, id blob.ID) string {
	if line, known := v.chain.lines[hash]; known {
		return line
	}
	l, err := v.getLeaf(ctx, id)
	if err != nil {
		return ""
	}
	for _, line := range l.Evidence {
		if s, err := evidence.Parse([]byte(line)); err == nil && s.Hash == hash {
			return line
		}
	}
	return ""
}

// attestMade says that a point was made.
func (v *Vault) attestMade(ctx context.Context, s saved, record *point.Record, sum string, late bool) (warning string, err error) {
	p := record.Point
	return v.attest(ctx, evidence.Deed{
		What:   evidence.Committed,
		Points: []evidence.Point{{ID: s.ID, Record: sum, Root: s.root.String()}},
		Made: &evidence.Made{
			Subject: p.Subject, Policy: p.Policy, Captured: p.Time.UTC(), State: p.State, Ledger: record.Ledger, Late: late,
		},
	})
}

// attestFound says of a point that is listed that it was made: the run that made it was cut short before it did. One whose record
// cannot be read is left to Verify.
func (v *Vault) attestFound(ctx context.Context, s saved) (warning string, err error) {
	record, r, err := v.openSaved(ctx, s)
	if errors.Is(err, fault.ErrCorrupt) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	f, err := r.Open(ctx, recordName)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fault.Wrap("read record of point "+s.ID, nil, err, "")
	}
	return v.attestMade(ctx, s, record, hex.EncodeToString(h.Sum(nil)), true)
}

// attestDeleted says that points are about to be deleted: a deletion that is not done does no harm, one that nobody tells of does.
func (v *Vault) attestDeleted(ctx context.Context, points []saved) error {
	for some := range slices.Chunk(points, evidence.MaxSubjects) {
		d := evidence.Deed{What: evidence.Deleted}
		for _, s := range some {
			d.Points = append(d.Points, evidence.Point{ID: s.ID, Root: s.root.String()})
		}
		if _, err := v.attest(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// attestDrilled says what a drill found.
func (v *Vault) attestDrilled(ctx context.Context, s saved, p point.Proof) error {
	_, err := v.attest(ctx, evidence.Deed{
		What: evidence.Drilled, Points: []evidence.Point{{ID: s.ID, Root: s.root.String()}}, Drill: evidence.DrillOf(p),
	})
	return err
}

// signer gives the key that statements are signed with; nil where the options name none.
func (v *Vault) signer(ctx context.Context) (*evidence.Key, error) {
	if v.evidenceKey == nil {
		return nil, nil //nolint:nilnil // no key
	}
	return v.evidenceKey(ctx)
}

// Evidence is the statements of what was done to the points of a vault.
type Evidence struct {
	Vault      string
	Statements []*evidence.Statement // in order
	Lost       []evidence.Fault      // of the leaves that should have more
	points     []evidence.Listed
}

// Report checks the statements, and the vault's points against them.
func (e *Evidence) Report(keys []evidence.PublicKey) *evidence.Report {
	r := evidence.Check(e.Statements, keys)
	r.Vault = e.Vault
	r.Faults = append(r.Faults, e.Lost...)
	r.Compare(e.points)
	return r
}

// Evidence reads all statements, in order, and what points are listed.
func (v *Vault) Evidence(ctx context.Context) (*Evidence, error) {
	op := "read evidence of vault " + v.name
	ctx, done, err := v.operation(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	// What is made and deleted meanwhile is told by two looks at the points, before and after the statements.
	c, err := v.readCatalogue(ctx)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	before, err := v.manifests(ctx)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	e := &Evidence{Vault: v.vaultName()}
	read, err := v.readStatements(ctx)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	e.Statements, e.Lost = read.all(), read.lost()
	after, err := v.manifests(ctx)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	e.settle(before, after, c)
	return e, nil
}

// settle keeps the points that the statements must account for. One that is not in the catalogue yet is being made, or its run was cut
// short: the next run says that it was made.
func (e *Evidence) settle(before, after *listing, c *catalogue) {
	made, deleted := map[string]bool{}, map[string]bool{}
	for _, s := range e.Statements {
		for _, p := range s.Points {
			made[p.ID] = made[p.ID] || s.What == evidence.Committed
			deleted[p.ID] = deleted[p.ID] || s.What == evidence.Deleted
		}
	}
	earlier, later := byID(before.points), byID(after.points)
	for id, s := range earlier {
		_, stays := later[id]
		if made[id] || c.points[id] {
			if stays || !deleted[id] {
				e.points = append(e.points, evidence.Listed{ID: id, Root: s.root.String(), Time: s.Time})
			}
		}
	}
	for id, s := range later {
		if _, was := earlier[id]; !was && made[id] {
			e.points = append(e.points, evidence.Listed{ID: id, Root: s.root.String(), Time: s.Time})
		}
	}
	slices.SortFunc(e.points, func(a, b evidence.Listed) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.ID, b.ID)) })
}

func byID(points []saved) map[string]saved {
	all := make(map[string]saved, len(points))
	for _, s := range points {
		all[s.ID] = s
	}
	return all
}

// attestAgain writes the leaves of statements anew that are lost or damaged, from the copies in others; and says again that points were
// made whose statement nobody has.
func (x *repair) attestAgain(ctx context.Context, l *listing) error {
	read, err := x.v.readStatements(ctx)
	if err != nil {
		return err
	}
	all, made := read.all(), map[string]bool{}
	for _, s := range all {
		made[s.Points[0].ID] = made[s.Points[0].ID] || s.What == evidence.Committed
		if !read.homeless(s) {
			continue
		}
		if err := x.v.writeLeaf(ctx, nameOf(s).leaf(), leaf{Evidence: []string{string(s.Line)}}); err != nil {
			return err
		}
		x.done.Evidence++
	}
	for _, f := range read.lost() {
		x.done.Notes = append(x.done.Notes, "evidence: "+f.String())
	}
	for _, s := range l.points {
		if made[s.ID] || len(all) == 0 || s.Time.Before(all[0].Time) {
			continue
		}
		if _, err := x.v.attestFound(ctx, s); err != nil {
			return err
		}
		x.done.Evidence++
	}
	return nil
}
