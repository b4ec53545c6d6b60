package evidence

import (
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Report is what a check of statements found.
type Report struct {
	Vault string `json:"vault"`
	// When the document was written; nil for what is no document.
	Written    *time.Time `json:"written,omitempty"`
	Statements int        `json:"statements"`
	From       time.Time  `json:"from"` // of the oldest and the newest statement
	To         time.Time  `json:"to"`
	Points     int        `json:"points"`   // that were made
	Deleted    int        `json:"deleted"`  // of these
	Unsigned   []string   `json:"unsigned"` // hashes of statements that no key signed
	// Signers counts the good signatures by the id of their key.
	Signers map[string]int `json:"signers"`
	Heads   []string       `json:"heads"`  // hashes of the statements that nothing follows
	Faults  []Fault        `json:"faults"` // by which something was altered, dropped, moved or added
	Notes   []string       `json:"notes,omitempty"`

	living map[string]Point // points that were made and not deleted
	gone   map[string]Point
	late   int
}

// Fault is one thing that is wrong.
type Fault struct {
	Line int    `json:"line,omitempty"` // of the document, from 1; 0 for the whole
	Hash string `json:"hash,omitempty"` // of the statement
	What string `json:"what"`
}

func (f Fault) String() string {
	switch {
	case f.Line > 0:
		return fmt.Sprintf("line %d: %s", f.Line, f.What)
	case f.Hash != "":
		return fmt.Sprintf("statement %.16s: %s", f.Hash, f.What)
	}
	return f.What
}

// newReport is a report of nothing; its lists are never null in JSON.
func newReport() *Report {
	return &Report{
		Unsigned: []string{}, Signers: map[string]int{}, Heads: []string{}, Faults: []Fault{},
		living: map[string]Point{}, gone: map[string]Point{},
	}
}

func (r *Report) fault(line int, hash, format string, a ...any) {
	r.Faults = append(r.Faults, Fault{line, hash, fmt.Sprintf(format, a...)})
}

// Check checks statements, each of which stands after those that it follows, as Sort puts them.
func Check(statements []*Statement, keys []PublicKey) *Report {
	r := newReport()
	r.Statements = len(statements)
	seen, followed := map[string]bool{}, map[string]bool{}
	for i, s := range statements {
		r.statement(i+1, s, keys, seen, followed)
	}
	for _, s := range statements {
		if !followed[s.Hash] && !slices.Contains(r.Heads, s.Hash) {
			r.Heads = append(r.Heads, s.Hash)
		}
	}
	slices.Sort(r.Heads)
	if r.late > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("of %d points a later run said that they were made, for the run that made them was cut short", r.late))
	}
	return r
}

func (r *Report) statement(line int, s *Statement, keys []PublicKey, seen, followed map[string]bool) {
	switch err := s.sealed.signedBy(keys); {
	case err == nil:
		r.Signers[s.sealed.keyID]++
	case errors.Is(err, errUnsigned):
		if r.Unsigned = append(r.Unsigned, s.Hash); len(r.Unsigned) <= maxProblems {
			r.Notes = append(r.Notes, fmt.Sprintf("statement %.16s is not signed: %s", s.Hash, s.Deed))
		}
	default:
		r.fault(line, s.Hash, "%v", err)
	}
	if r.Vault == "" {
		r.Vault, r.From, r.To = s.Vault, s.Time, s.Time
	}
	if s.Time.Before(r.From) {
		r.From = s.Time
	}
	if s.Time.After(r.To) {
		r.To = s.Time
	}
	if s.Vault != r.Vault {
		r.fault(line, s.Hash, "it is of another vault")
	}
	if seen[s.Hash] {
		r.fault(line, s.Hash, "it is there twice")
	}
	seen[s.Hash] = true
	for _, p := range s.Previous {
		if !seen[p] {
			r.fault(line, s.Hash, "it follows statement %.16s, which is not before it", p)
		}
		followed[p] = true
	}
	r.deed(line, s)
}

// deed follows what becomes of points.
func (r *Report) deed(line int, s *Statement) {
	for _, p := range s.Points {
		was, made := r.living[p.ID]
		if made && (was.Root != p.Root || s.What == Committed && was.Record != p.Record) {
			r.fault(line, s.Hash, "what it says point %s holds is not what was said when that was made", p.ID)
		}
		switch s.What {
		case Committed:
			if _, gone := r.gone[p.ID]; !made && !gone {
				r.Points++
				r.living[p.ID] = p
				if s.Made.Late {
					r.late++
				}
			}
		case Deleted:
			if made {
				r.Deleted++
			}
			r.gone[p.ID] = p
			delete(r.living, p.ID)
		}
	}
}

// Compare sets what the statements say against the points that a vault lists. Points from before the first statement need none.
func (r *Report) Compare(listed []Listed) {
	if r.Statements == 0 {
		r.Notes = append(r.Notes, "there is no evidence yet: it begins with the next point")
		return
	}
	there := map[string]bool{}
	for _, l := range listed {
		there[l.ID] = true
		p, known := r.living[l.ID]
		gone, deleted := r.gone[l.ID]
		switch {
		case known && p.Root != l.Root, deleted && gone.Root != l.Root:
			r.fault(0, "", "point %s is not the one that was made: its root is another", l.ID)
		case !known && deleted:
			r.Notes = append(r.Notes, "point "+l.ID+" is still listed, though its deletion was begun")
		case !known && !l.Time.Before(r.From):
			r.fault(0, "", "point %s is listed, and no statement says that it was made", l.ID)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(r.living)) {
		if !there[id] {
			r.fault(0, "", "point %s was made, and is neither listed nor said to be deleted", id)
		}
	}
}

// Listed is a point that a vault lists.
type Listed struct {
	ID   string
	Root string
	Time time.Time
}

// Contains sets what an earlier document had against this one's statements: none may be missing.
func (r *Report) Contains(later, earlier []*Statement) {
	there := map[string]bool{}
	for _, s := range later {
		there[s.Hash] = true
	}
	for _, s := range earlier {
		if !there[s.Hash] {
			r.fault(0, s.Hash, "the earlier document has it, this one does not")
		}
	}
}

// Sort puts each statement after those that it follows, older before newer.
func Sort(statements []*Statement) []*Statement {
	waiting := make(map[string]int, len(statements)) // for so many before it
	after := map[string][]*Statement{}
	here := map[string]bool{}
	for _, s := range statements {
		here[s.Hash] = true
	}
	var ready queue
	for _, s := range statements {
		for _, p := range s.Previous {
			if here[p] {
				waiting[s.Hash]++
				after[p] = append(after[p], s)
			}
		}
		if waiting[s.Hash] == 0 {
			ready = append(ready, s)
		}
	}
	heap.Init(&ready)
	sorted := make([]*Statement, 0, len(statements))
	for len(ready) > 0 {
		s, _ := heap.Pop(&ready).(*Statement)
		sorted = append(sorted, s)
		for _, next := range after[s.Hash] {
			if waiting[next.Hash]--; waiting[next.Hash] == 0 {
				heap.Push(&ready, next)
			}
		}
	}
	return sorted
}

// queue holds statements whose time has come, the oldest first.
type queue []*Statement

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return cmp.Or(q[i].Time.Compare(q[j].Time), cmp.Compare(q[i].Hash, q[j].Hash)) < 0
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push and Pop are for package heap.
func (q *queue) Push(x any) {
	s, _ := x.(*Statement)
	*q = append(*q, s)
}

// Pop takes the last one off.
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}
