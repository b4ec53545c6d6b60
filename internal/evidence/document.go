package evidence

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// sealType is the payload type of the last line of a document.
const sealType = "application/vnd.backstay.evidence-end+json"

// maxLines is the most statements that a document has.
const maxLines = 10_000_000

// ending is what the last line of a document says of those before it: what is altered, dropped, moved or cut off does not fit it.
type ending struct {
	Version    int       `json:"version"`
	Vault      string    `json:"vault"`
	Time       time.Time `json:"time"` // when the document was written
	Statements int       `json:"statements"`
	Heads      []string  `json:"heads"`
	SHA256     string    `json:"sha256"` // of the lines before, line breaks included, hexadecimal
}

const endingVersion = 1

// Write writes a document: each statement on a line, after those that it follows, and a last line that is signed with the key.
func Write(w io.Writer, vault string, statements []*Statement, key *Key, now time.Time) error {
	const op = "write evidence"
	if key == nil {
		return fault.New(op, fault.ErrInvalid, "no key to sign the document with", "")
	}
	statements = Sort(statements)
	sum := sha256.New()
	to := io.MultiWriter(w, sum)
	for _, s := range statements {
		if _, err := fmt.Fprintf(to, "%s\n", s.Line); err != nil {
			return fault.Wrap(op, nil, err, "")
		}
	}
	end := ending{
		Version: endingVersion, Vault: vault, Time: now.UTC(), Statements: len(statements),
		Heads: Check(statements, nil).Heads, SHA256: hex.EncodeToString(sum.Sum(nil)),
	}
	payload, err := json.Marshal(end)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	line, err := seal(sealType, payload, key)
	if err == nil {
		_, err = fmt.Fprintf(w, "%s\n", line)
	}
	return fault.Wrap(op, nil, err, "")
}

// Read reads a document and checks it. What is wrong with it is in the report; an error means that it could not be read.
// The statements are those that could be understood.
func Read(from io.Reader, keys []PublicKey) ([]*Statement, *Report, error) {
	d := document{sum: sha256.New(), keys: keys}
	in := bufio.NewReaderSize(from, 64<<10)
	for {
		line, err := readLine(in)
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, fault.ErrCorrupt) {
			d.wrong = append(d.wrong, Fault{Line: d.lines + 1, What: err.Error()})
			break
		}
		if err != nil {
			return nil, nil, fault.Wrap("read evidence", nil, err, "")
		}
		d.take(line)
	}
	return d.statements, d.report(), nil
}

// readLine reads a line without its break. The last one must have one, too: a file that was cut short has none.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		some, err := in.ReadSlice('\n')
		line = append(line, some...)
		switch {
		case len(line) > MaxLine+1:
			return nil, corrupt("it is longer than %d bytes", MaxLine)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, corrupt("it is cut short")
		case err != nil:
			return nil, err
		}
		return line[:len(line)-1], nil
	}
}

// document is one that is being read.
type document struct {
	keys       []PublicKey
	statements []*Statement
	at         []int // lines of the statements
	lines      int
	sum        hash.Hash // of all lines before the ending
	end        *ending
	endAt      int
	wrong      []Fault
}

func (d *document) take(line []byte) {
	d.lines++
	if d.end != nil {
		d.wrong = append(d.wrong, Fault{Line: d.lines, What: "it stands after the end"})
		return
	}
	if d.lines > maxLines {
		d.wrong = append(d.wrong[:min(len(d.wrong), 1)], Fault{Line: d.lines, What: "there are too many lines"})
		return
	}
	if opened, err := open(line); err == nil && opened.payloadType == sealType {
		d.takeEnd(opened)
		return
	}
	_, _ = d.sum.Write(append(line, '\n')) // never fails
	s, err := Parse(line)
	if err != nil {
		d.wrong = append(d.wrong, Fault{Line: d.lines, What: err.Error()})
		return
	}
	d.statements, d.at = append(d.statements, s), append(d.at, d.lines)
}

func (d *document) takeEnd(opened *sealed) {
	d.endAt = d.lines
	if err := opened.signedBy(d.keys); err != nil {
		d.wrong = append(d.wrong, Fault{Line: d.lines, What: err.Error()})
	}
	d.end = &ending{}
	if json.Unmarshal(opened.payload, d.end) != nil || d.end.Version != endingVersion {
		d.wrong = append(d.wrong, Fault{Line: d.lines, What: "it is no end of a document that this version knows"})
	}
}

func (d *document) report() *Report {
	r := Check(d.statements, d.keys)
	for i, f := range r.Faults {
		if f.Line > 0 {
			r.Faults[i].Line = d.at[f.Line-1]
		}
	}
	r.Faults = append(r.Faults, d.wrong...)
	switch e := d.end; {
	case e == nil:
		r.fault(0, "", "the document has no end: it was cut short")
	case len(d.statements) > 0 && e.Vault != r.Vault:
		r.fault(d.endAt, "", "the end is of another vault")
	case e.Statements != d.endAt-1:
		r.fault(d.endAt, "", "%d statements were written, %d are there", e.Statements, d.endAt-1)
	case e.SHA256 != hex.EncodeToString(d.sum.Sum(nil)):
		r.fault(d.endAt, "", "the lines are not those that were written, or not in their order")
	case !slices.Equal(e.Heads, r.Heads):
		r.fault(d.endAt, "", "the statements that nothing follows are not those that were written")
	}
	if d.end != nil {
		r.Vault, r.Written = d.end.Vault, &d.end.Time
	}
	return r
}
