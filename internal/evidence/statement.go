package evidence

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Names that are fixed by in-toto, and by us.
const (
	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "https://backstay.io/evidence/v1"
	payloadType   = "application/vnd.in-toto+json"
)

// What is done to points.
const (
	Committed = "committed" // a point was made
	Deleted   = "deleted"   // points were taken out of the list, or were about to be
	Drilled   = "drilled"   // a point was restored into scratch and looked at
)

// Bounds of a statement.
const (
	MaxPrevious = 8
	MaxSubjects = 1000
	maxProblems = 20
)

// Deed is what a statement says.
type Deed struct {
	What     string    `json:"what"`
	Vault    string    `json:"vault"` // which one, so that another's statements do not pass for its own
	Time     time.Time `json:"time"`  // when the statement was made
	Tool     string    `json:"tool,omitempty"`
	Previous []string  `json:"previous"` // hashes of the statements that nothing followed yet
	Points   []Point   `json:"-"`        // in the statement's subject
	Made     *Made     `json:"made,omitempty"`
	Drill    *Drill    `json:"drill,omitempty"`
}

// String says what was done to which point, and by what: "point 3f2a… of shop/db committed by backstay kando 1.0".
func (d Deed) String() string {
	of := fmt.Sprintf("%d points", len(d.Points))
	if len(d.Points) == 1 {
		of = "point " + d.Points[0].ID
	}
	if d.Made != nil {
		of += " of " + d.Made.Subject.Name
	}
	return fmt.Sprintf("%s %s by %s", of, d.What, cmp.Or(d.Tool, "nobody knows what"))
}

// Point names a point and its content.
type Point struct {
	ID     string
	Record string // SHA-256 of /backstay.json, hexadecimal; empty where only its root is known
	Root   string // the object of its root in the vault, whose name is the hash of all that the point holds
}

// Made is what a point was when it was made.
type Made struct {
	Subject  point.Subject `json:"subject"`
	Policy   string        `json:"policy,omitempty"`
	Captured time.Time     `json:"captured"` // the point's time
	State    point.State   `json:"state"`
	Ledger   point.Ledger  `json:"ledger"`
	// Late: the run that made the point was cut short before it said so; a later one found the point.
	Late bool `json:"late,omitempty"`
}

// Drill is what a drill found, in short.
type Drill struct {
	Started        time.Time     `json:"started"`
	Finished       time.Time     `json:"finished"`
	Proven         bool          `json:"proven"`
	RestoreSeconds float64       `json:"restoreSeconds"`
	Checks         int           `json:"checks"`
	Problems       []point.Check `json:"problems,omitempty"` // the first twenty
	Excepted       []string      `json:"excepted,omitempty"` // parts at which nobody looked
	By             string        `json:"by,omitempty"`
}

// DrillOf shortens a proof.
func DrillOf(p point.Proof) *Drill {
	problems := p.Problems()
	return &Drill{
		Started: p.Started, Finished: p.Finished, Proven: p.Proven, RestoreSeconds: p.RestoreSeconds,
		Checks: len(p.Checks), Problems: problems[:min(len(problems), maxProblems)], Excepted: p.Excepted(), By: p.By,
	}
}

// statement is the payload of an envelope.
type statement struct {
	Type          string     `json:"_type"`
	Subject       []resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     Deed       `json:"predicate"`
}

type resource struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

const (
	digestRecord = "sha256"
	digestRoot   = "kopiaObject"
)

// Statement is a deed in its envelope.
type Statement struct {
	Deed
	Hash   string // by which later ones name it
	Line   []byte // the envelope, without a line break
	sealed *sealed
}

// Signed reports whether the statement has a signature; Check says whether it is good.
func (s *Statement) Signed() bool { return s.sealed.keyID != "" }

// State makes a statement. A nil key leaves it unsigned.
func State(d Deed, key *Key) (*Statement, error) {
	const op = "make evidence"
	d.Time = d.Time.UTC()
	if d.Previous = slices.Clone(d.Previous); d.Previous == nil {
		d.Previous = []string{}
	}
	st := statement{Type: statementType, PredicateType: predicateType, Predicate: d}
	for _, p := range d.Points {
		digest := map[string]string{}
		for name, value := range map[string]string{digestRecord: p.Record, digestRoot: p.Root} {
			if value != "" {
				digest[name] = value
			}
		}
		st.Subject = append(st.Subject, resource{p.ID, digest})
	}
	payload, err := json.Marshal(st)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	line, err := seal(payloadType, payload, key)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	s, err := Parse(line)
	return s, fault.Wrap(op, nil, err, "")
}

// Parse reads the line of one envelope. It does not look at the signature: Check does.
func Parse(line []byte) (*Statement, error) {
	opened, err := open(line)
	if err != nil {
		return nil, err
	}
	if opened.payloadType != payloadType {
		return nil, corrupt("it is no statement")
	}
	var st statement
	if err := json.Unmarshal(opened.payload, &st); err != nil {
		return nil, corrupt("its statement is damaged")
	}
	if st.Type != statementType || st.PredicateType != predicateType {
		return nil, fault.New("", fault.ErrUnsupported, "it is a statement of another kind", "use a newer backstay")
	}
	s := &Statement{Deed: st.Predicate, Hash: hashOf(line), Line: line, sealed: opened}
	for _, r := range st.Subject {
		s.Points = append(s.Points, Point{ID: r.Name, Record: r.Digest[digestRecord], Root: r.Digest[digestRoot]})
	}
	return s, s.wellFormed()
}

// wellFormed says what a statement lacks.
func (s *Statement) wellFormed() error {
	switch {
	case s.Vault == "" || s.Time.IsZero():
		return corrupt("it does not say of which vault it is, and of when")
	case len(s.Previous) > MaxPrevious || len(s.Points) > MaxSubjects:
		return corrupt("it names too much")
	case len(s.Points) == 0 || len(s.Points) > 1 && s.What != Deleted:
		return corrupt("it is of %d points", len(s.Points))
	case s.What == Committed && s.Made == nil, s.What == Drilled && s.Drill == nil:
		return corrupt("it does not say what was %s", s.What)
	}
	return nil
}
