package vault

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// past is an earlier point, or a checkpoint, of a draft's subject. Its record is read when it is asked for.
type past struct {
	saved
	listed bool

	mu     sync.Mutex
	record *point.Record
	root   *node // the directories above parts are opened once
	broken bool
	parts  map[string]*point.Part // of the record, by name
	inside map[string][]string    // paths of the parts inside a part, below it, by its name
}

// recall notes the subject's past from the manifests.
func (d *draft) recall(l *listing) {
	points := map[string]int{} // by policy: one that runs often must not hide another's
	for _, s := range l.points {
		if s.Subject == d.point.Subject && points[s.Policy] < lookBack {
			points[s.Policy]++
			d.past = append(d.past, &past{saved: s, listed: true})
		}
	}
	drafts := 0
	for _, s := range l.drafts {
		if s.Subject != d.point.Subject {
			continue
		}
		if drafts++; drafts <= draftsBack {
			d.past = append(d.past, &past{saved: s})
		}
		if s.Policy == d.point.Policy { // others have runs of their own to take up again
			d.left = append(d.left, s.manifest)
		}
	}
	slices.SortStableFunc(d.past, func(a, b *past) int { return b.Time.Compare(a.Time) })
}

// load reads the record of an earlier point. A point that is damaged is passed over: it gives nil.
func (p *past) load(ctx context.Context, v *Vault) (*point.Record, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken || p.record != nil {
		return p.record, nil
	}
	record, r, err := v.openSaved(ctx, p.saved)
	if errors.Is(err, fault.ErrCorrupt) || errors.Is(err, fault.ErrNotFound) {
		p.broken = true
		return nil, nil //nolint:nilnil // no record
	}
	if err != nil {
		return nil, err
	}
	p.record, p.root = record, r.root
	p.parts, p.inside = map[string]*point.Part{}, map[string][]string{}
	for i := range record.Point.Parts {
		part := &record.Point.Parts[i]
		p.parts[part.Name] = part
	}
	for name := range p.parts {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if p.parts[dir] != nil {
				p.inside[dir] = append(p.inside[dir], name[len(dir)+1:])
			}
		}
	}
	return record, nil
}

// find returns the node of a part. The directory in which the parts of an account lie is as long as the account is large.
func (p *past) find(ctx context.Context, v *Vault, name string) (*node, error) {
	names, err := elements(name)
	if err != nil {
		return nil, err
	}
	outermost, above, err := p.findOutermost(ctx, v, names)
	if err != nil {
		return nil, err
	}
	return (&reader{v, outermost}).find(ctx, relative(names[above:]))
}

// relative is the path of names; "." for none.
func relative(names []string) string {
	if len(names) == 0 {
		return "."
	}
	return strings.Join(names, "/")
}

// findOutermost follows names as far as the first that ends the name of a part, and tells how far that is.
func (p *past) findOutermost(ctx context.Context, v *Vault, names []string) (n *node, above int, _ error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n = p.root
	for above < len(names) && (above == 0 || p.parts[strings.Join(names[:above], "/")] == nil) {
		if err := n.open(ctx, v.rep); err != nil {
			return nil, 0, err
		}
		if n = n.kids[storedName(names[above])]; n == nil {
			return nil, 0, fault.New(quote(strings.Join(names, "/")), fault.ErrNotFound, "no such file in the point", "")
		}
		above++
	}
	return n, above, nil
}

// prior is a point.Prior with its tree.
type prior struct {
	point.Prior
	node *node
}

// prior finds the newest good copy of a part; nil if there is none. Where it passes over a damaged one, it sees to it that what is
// lost can be stored again.
func (d *draft) prior(ctx context.Context, name string) (*prior, error) {
	damaged := false
	found, err := d.seekPrior(ctx, name, &damaged)
	if err == nil && damaged {
		err = d.forgetLost(ctx)
	}
	return found, err
}

func (d *draft) seekPrior(ctx context.Context, name string, damaged *bool) (*prior, error) {
	for _, p := range d.past {
		record, err := p.load(ctx, d.v)
		if err != nil {
			return nil, err
		}
		if record == nil {
			*damaged = true
			continue
		}
		part := p.parts[name]
		if part == nil || !good(part.State) {
			continue
		}
		found, err := d.take(ctx, p, *part)
		if errors.Is(err, fault.ErrCorrupt) || errors.Is(err, fault.ErrNotFound) {
			*damaged = true
			continue // an older copy may be whole
		}
		return found, err
	}
	return nil, nil //nolint:nilnil // there is none
}

// good reports whether a part of that state can stand in for a later one.
func good(s point.State) bool { return s == point.Stored || s == point.Carried }

// take makes a prior of a part of an earlier point, without the parts that lie inside it, and checks that it is all there.
func (d *draft) take(ctx context.Context, p *past, part point.Part) (*prior, error) {
	n, err := p.find(ctx, d.v, part.Name)
	if err != nil {
		return nil, err
	}
	var inside [][]string
	for _, below := range p.inside[part.Name] {
		inside = append(inside, strings.Split(below, "/"))
	}
	bare, err := n.without(ctx, d.w, inside)
	if err != nil {
		return nil, err
	}
	if bare == nil {
		bare = newDir(n.entry.Name)
	}
	if err := d.present(ctx, bare); err != nil {
		return nil, err
	}
	at := p.Time
	if part.CarriedFrom != nil {
		at = *part.CarriedFrom
	}
	return &prior{Prior: point.Prior{Reader: &reader{d.v, bare}, Part: part, Time: at}, node: bare}, nil
}

// lastParts is what the last point of the subject and policy has, brought up to date by the checkpoints since.
type lastParts struct {
	parts  []point.Part      // by name
	ids    map[string]string // of parts that have one, by name
	before map[string]string // names in the last point of what goes by another name since
}

// Last lists the parts of the last point of the subject and policy, and what was ended since.
func (d *draft) Last(ctx context.Context) ([]point.Part, error) {
	ctx, done, err := d.v.operation(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	last, err := d.recallLast(ctx)
	if err != nil {
		return nil, fault.Wrap("read the last point of "+d.point.Subject.Name, nil, err, "")
	}
	return slices.Clone(last.parts), nil
}

// recallLast gathers lastParts, once.
func (d *draft) recallLast(ctx context.Context) (*lastParts, error) {
	d.lastMu.Lock()
	defer d.lastMu.Unlock()
	if d.last != nil {
		return d.last, nil
	}
	last := &lastParts{ids: map[string]string{}, before: map[string]string{}}
	seen, named := map[string]bool{}, map[string]string{} // names; ids to names
	for _, p := range d.past {                            // newest first
		if p.Policy != d.point.Policy {
			continue // it may take other repositories, or see others
		}
		record, err := p.load(ctx, d.v)
		if err != nil {
			return nil, err
		}
		if record == nil {
			continue
		}
		for _, part := range record.Point.Parts {
			switch now := named[part.ID]; {
			case seen[part.Name], !p.listed && !good(part.State): // of a run that was not published, only what it stored counts
				continue
			case part.ID != "" && now != "" && now != part.Name:
				last.before[now] = part.Name
			case part.ID != "":
				named[part.ID], last.ids[part.Name] = part.Name, part.ID
			}
			seen[part.Name] = true
			last.parts = append(last.parts, part)
		}
		if p.listed {
			break
		}
	}
	gone := map[string]bool{}
	for _, old := range last.before {
		gone[old] = true
	}
	last.parts = slices.DeleteFunc(last.parts, func(p point.Part) bool { _, below := within(p.Name, gone); return below })
	slices.SortFunc(last.parts, func(a, b point.Part) int { return strings.Compare(a.Name, b.Name) })
	d.last = last
	return last, nil
}

// within tells whether a part is one of names, or lies inside one, and which.
func within[V any](name string, names map[string]V) (dir string, found bool) {
	for dir = name; dir != "."; dir = path.Dir(dir) {
		if _, ok := names[dir]; ok {
			return dir, true
		}
	}
	return "", false
}

// Renamed tells that a part, and what lies inside it, went by another name before.
func (d *draft) Renamed(name, before string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.renamed[name] = before
}

// before is the name that a part had before; "" where it had no other. A run that was cut short may have known it.
func (d *draft) before(ctx context.Context, name string) (string, error) {
	d.mu.Lock()
	dir, found := within(name, d.renamed)
	old := d.renamed[dir]
	d.mu.Unlock()
	if !found {
		last, err := d.recallLast(ctx)
		if err != nil {
			return "", err
		}
		if dir, found = within(name, last.before); !found {
			return "", nil
		}
		old = last.before[dir]
	}
	return old + name[len(dir):], nil
}

// priorBefore finds the newest good copy of a part under the name it had before; nil if there is none.
func (d *draft) priorBefore(ctx context.Context, name string) (*prior, error) {
	before, err := d.before(ctx, name)
	if err != nil || before == "" {
		return nil, err
	}
	return d.prior(ctx, before)
}

// Vanish ends a part that the source has no more, and holds the last point that has it.
func (d *draft) Vanish(ctx context.Context, name, kind, reason string) error {
	if err := d.takeName(name, false); err != nil {
		return err
	}
	d.end(ended{part: point.Part{Name: name, Kind: kind, State: point.Vanished, Reason: reason}})
	return d.holdLast(ctx, name, reason)
}

// holdLast holds the last point that has a good copy of the part, under the name it had there.
func (d *draft) holdLast(ctx context.Context, name, reason string) error {
	before, err := d.before(ctx, name)
	if err != nil {
		return err
	}
	for _, past := range d.past {
		if !past.listed {
			continue
		}
		record, err := past.load(ctx, d.v)
		if err != nil {
			return err
		}
		if record == nil {
			continue
		}
		for _, name := range []string{name, before} {
			if part := past.parts[name]; part != nil && good(part.State) {
				return d.hold(ctx, past.ID, point.AlarmNote+name+": "+reason)
			}
		}
	}
	return nil
}

// hold holds a point, unless the draft has given reasons enough for that.
func (d *draft) hold(ctx context.Context, id, reason string) error {
	d.mu.Lock()
	d.held[id]++
	enough := d.held[id] > maxHolds
	d.mu.Unlock()
	if enough {
		return nil
	}
	return d.v.Hold(ctx, id, reason)
}
