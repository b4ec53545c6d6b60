// Package memory keeps restore points in memory, exactly to the contract of package point: the store for tests of everything
// that writes, reads or lists points.
package memory

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Store is a protect.Store. Safe for concurrent use.
type Store struct {
	clock func() time.Time

	mu          sync.Mutex
	points      map[string]*saved
	published   int // points so far, gives each its seq
	checkpoints map[place]*ended
}

// place is where a part belongs over all points.
type place struct {
	subject point.Subject
	policy  string
	part    string
}

// saved is a published point. Its record does not hold the holds' newest state: points that are listed get them from holds.
type saved struct {
	seq    int // orders points of the same time
	record point.Record
	parts  map[string]*ended
	files  tree
	holds  []point.Hold
	proof  *point.Proof
}

// New returns an empty store that takes the times of points and holds from clock.
func New(clock func() time.Time) *Store {
	return &Store{clock: clock, points: map[string]*saved{}, checkpoints: map[place]*ended{}}
}

// Begin starts a point of s.
func (s *Store) Begin(ctx context.Context, subject point.Subject, policy string) (point.Draft, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := point.Point{ID: newID(), Subject: subject, Policy: policy, Time: s.clock().UTC()}
	last, _ := s.lastParts(subject, policy)
	return &draft{store: s, point: p, last: last, open: map[string]bool{}, renamed: map[string]string{}, parts: map[string]*ended{}}, nil
}

func newID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: it ends the program instead
	return hex.EncodeToString(id[:])
}

// Points lists points, newest first.
func (s *Store) Points(ctx context.Context, f point.Filter) ([]point.Point, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []point.Point
	for _, saved := range s.newestFirst() {
		p := saved.listed()
		if (f.Subject == nil || *f.Subject == p.Subject) && (f.Policy == "" || f.Policy == p.Policy) {
			list = append(list, p)
		}
	}
	return list, nil
}

// newestFirst returns the points in the order of listing; the caller holds mu.
func (s *Store) newestFirst() []*saved {
	all := make([]*saved, 0, len(s.points))
	for _, p := range s.points {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *saved) int {
		if c := b.record.Point.Time.Compare(a.record.Point.Time); c != 0 {
			return c
		}
		return b.seq - a.seq
	})
	return all
}

func (p *saved) listed() point.Point {
	listed := p.record.Point
	listed.Parts, listed.Deployment, listed.Holds, listed.Proof = nil, nil, slices.Clone(p.holds), p.proof
	return listed
}

// Open reads a point's record and gives access to its tree.
func (s *Store) Open(ctx context.Context, id string) (*point.Record, point.Reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.points[id]
	if p == nil {
		return nil, nil, notFound("open point", id)
	}
	record := p.record
	record.Point.Parts, record.Point.Holds, record.Point.Proof = slices.Clone(record.Point.Parts), slices.Clone(p.holds), p.proof
	return &record, &reader{p.files, record.Point.Time}, nil
}

// Delete takes points out, all of them or none.
func (s *Store) Delete(ctx context.Context, ids ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		switch p := s.points[id]; {
		case p == nil:
			return notFound("delete point", id)
		case len(p.holds) > 0:
			return fault.New("delete point "+id, fault.ErrRefused, "on hold: "+p.holds[0].Reason, "")
		}
	}
	for _, id := range ids {
		delete(s.points, id)
	}
	return nil
}

// Hold puts a hold on a point, once for each reason; an empty reason lifts all its holds.
func (s *Store) Hold(ctx context.Context, id, reason string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.points[id]
	if p == nil {
		return notFound("hold point", id)
	}
	p.hold(reason, s.clock())
	return nil
}

func (p *saved) hold(reason string, now time.Time) {
	if reason == "" {
		p.holds = nil
		return
	}
	if !slices.ContainsFunc(p.holds, func(h point.Hold) bool { return h.Reason == reason }) {
		p.holds = append(p.holds, point.Hold{Reason: reason, Time: now.UTC()})
	}
}

// Prove keeps what a drill of a point found.
func (s *Store) Prove(ctx context.Context, proof point.Proof) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.points[proof.Point]
	if p == nil {
		return notFound("prove point", proof.Point)
	}
	p.proof = &proof
	return nil
}

// holdLast holds the newest point that has a good copy of the part.
func (s *Store) holdLast(subject point.Subject, names []string, reason string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.newestFirst() {
		for _, name := range names {
			if e := p.parts[name]; p.record.Point.Subject == subject && e != nil && e.good() {
				p.hold(reason, s.clock())
				return nil
			}
		}
	}
	return nil
}

// Verify checks points, all of them for no ids; readData compares every byte with the checksum taken when it was put.
func (s *Store) Verify(ctx context.Context, readData bool, ids ...string) (*point.Report, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var chosen []*saved
	for _, id := range ids {
		if s.points[id] == nil {
			return nil, notFound("verify point", id)
		}
		chosen = append(chosen, s.points[id])
	}
	if len(ids) == 0 {
		chosen = s.newestFirst()
	}
	report := &point.Report{Points: len(chosen)}
	for _, p := range chosen {
		for name, f := range p.files {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			report.Files++
			if !readData {
				continue
			}
			report.Bytes += int64(len(f.data))
			if !f.intact() {
				what := "the bytes are not those that were stored"
				report.Faults = append(report.Faults, point.Fault{Point: p.record.Point.ID, Path: name, What: what})
			}
		}
	}
	return report, nil
}

// Corrupt flips a bit of the file at name in a point, and in all points that share it.
func (s *Store) Corrupt(id, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.points[id]
	if p == nil || p.files[path.Clean(name)] == nil || len(p.files[path.Clean(name)].data) == 0 {
		return fmt.Errorf("corrupt %s of %s: no bytes there", name, id)
	}
	p.files[path.Clean(name)].data[0] ^= 1
	return nil
}

// prior finds the newest good copy of a part, in points and checkpoints; of equally old ones the checkpoint's, for it was written later.
func (s *Store) prior(subject point.Subject, part string) *ended {
	s.mu.Lock()
	defer s.mu.Unlock()
	var best *ended
	for at, e := range s.checkpoints {
		if at.subject == subject && at.part == part && (best == nil || e.time.After(best.time)) {
			best = e
		}
	}
	for _, p := range s.newestFirst() {
		e := p.parts[part]
		if p.record.Point.Subject == subject && e != nil && e.good() && (best == nil || e.time.After(best.time)) {
			best = e
		}
	}
	return best
}

// lastParts lists the parts of the newest point of a subject and policy, with the checkpoints since in their places, and tells which names there
// are of things that go by another name since.
func (s *Store) lastParts(subject point.Subject, policy string) (parts []point.Part, before map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, before := map[string]string{}, map[string]string{}
	var newest *saved
	for _, p := range s.newestFirst() {
		if p.record.Point.Subject == subject && p.record.Point.Policy == policy {
			newest = p
			break
		}
	}
	byName := map[string]point.Part{}
	for at, e := range s.checkpoints {
		if at.subject == subject && at.policy == policy && (newest == nil || !e.time.Before(newest.record.Point.Time)) {
			byName[at.part] = e.part
			now[e.part.ID] = at.part
		}
	}
	if newest != nil {
		for _, part := range newest.record.Point.Parts {
			if name := now[part.ID]; part.ID != "" && name != "" && name != part.Name {
				before[name] = part.Name
			}
			if _, newer := byName[part.Name]; !newer {
				byName[part.Name] = part
			}
		}
	}
	for _, old := range before {
		maps.DeleteFunc(byName, func(name string, _ point.Part) bool { return strings.HasPrefix(name+"/", old+"/") })
	}
	return slices.SortedFunc(maps.Values(byName), func(a, b point.Part) int { return strings.Compare(a.Name, b.Name) }), before
}

// checkpoint keeps an ended part for the next run of its subject and policy, unless a newer copy was kept already.
func (s *Store) checkpoint(of point.Point, e *ended) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := place{of.Subject, of.Policy, e.part.Name}
	if old := s.checkpoints[at]; old == nil || !e.time.Before(old.time) {
		s.checkpoints[at] = e
	}
}

// forget drops what was saved of a part that then failed.
func (s *Store) forget(of point.Point, saved *ended) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if saved == nil {
		return
	}
	at := place{of.Subject, of.Policy, saved.part.Name}
	if s.checkpoints[at] == saved {
		delete(s.checkpoints, at)
	}
}

// publish lists a point; checkpoints that it makes superfluous go.
func (s *Store) publish(p *saved) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.published++
	p.seq = s.published
	s.points[p.record.Point.ID] = p
	for name, e := range p.parts {
		at := place{p.record.Point.Subject, p.record.Point.Policy, name}
		if kept := s.checkpoints[at]; kept != nil && !kept.time.After(e.time) {
			delete(s.checkpoints, at)
		}
	}
}
