package vault

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// What a point's tree cannot hold lies beside it, in one file of a part, one JSON document a line. The name is taken: a file of that
// name in a captured directory cannot be stored.
const (
	attributesDir = ".backstay"
	// AttributesFile is that file. It is written anew by each capture, and has the time of it.
	AttributesFile = attributesDir + "/attributes.ndjson"
	maxAttributes  = 16 << 20 // bytes of one line
)

// attributes is one line: what is special about one path.
type attributes struct {
	Path          text     `json:"path"`
	Xattrs        []xattr  `json:"xattrs,omitempty"` // POSIX ACLs and capabilities among them
	HardLinkTo    *text    `json:"hardLinkTo,omitempty"`
	Special       *special `json:"special,omitempty"`       // it is not in the tree
	NoPermissions bool     `json:"noPermissions,omitempty"` // mode 0000, which the tree takes for unknown
	Sparse        bool     `json:"sparse,omitempty"`        // the file has holes
}

type xattr struct {
	Name  text   `json:"name"`
	Value []byte `json:"value"`
}

// special is a named pipe or a device.
type special struct {
	Type  string    `json:"type"` // "fifo", "char" or "block"
	Mode  uint32    `json:"mode"` // permission bits as the system counts them
	UID   uint32    `json:"uid"`
	GID   uint32    `json:"gid"`
	Time  time.Time `json:"time"`
	Major uint32    `json:"major,omitempty"`
	Minor uint32    `json:"minor,omitempty"`
}

// text is a string of any bytes. In JSON it is a string, or an object of its bytes where it is not valid UTF-8.
type text string

type textBytes struct {
	Bytes []byte `json:"bytes"`
}

// MarshalJSON writes the text without loss.
func (s text) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(s)) {
		return json.Marshal(string(s))
	}
	return json.Marshal(textBytes{[]byte(s)})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *text) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		var raw textBytes
		if err := json.Unmarshal(b, &raw); err != nil {
			return err
		}
		*s = text(raw.Bytes)
		return nil
	}
	return json.Unmarshal(b, (*string)(s))
}

// attributesWriter writes the file of attributes while the tree is captured, from the first line on.
type attributesWriter struct {
	w    point.PartWriter
	pipe *io.PipeWriter
	done chan error
}

// put writes one line. An error means that the vault failed.
func (a *attributesWriter) put(ctx context.Context, line attributes) error {
	b, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("encode attributes: %w", err)
	}
	if a.pipe == nil {
		r, w := io.Pipe()
		a.pipe, a.done = w, make(chan error, 1)
		go func() {
			_, err := a.w.Put(ctx, point.Entry{Name: AttributesFile, Mode: 0o600}, r, point.Text)
			_ = r.CloseWithError(errors.Join(err, io.ErrClosedPipe)) // never fails; unblocks put
			a.done <- err
		}()
	}
	_, err = a.pipe.Write(append(b, '\n'))
	return err
}

// close ends the file, or drops it for a failure, and waits until it is written.
func (a *attributesWriter) close(failure error) error {
	if a.pipe == nil {
		return failure
	}
	_ = a.pipe.CloseWithError(failure) // never fails; nil ends the file
	err := <-a.done
	a.pipe = nil
	if failure != nil {
		return failure
	}
	return err
}

// readAttributes calls each for every line.
func readAttributes(r io.Reader, each func(attributes) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxAttributes)
	for n := 1; lines.Scan(); n++ {
		var a attributes
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			return fault.Wrap(fmt.Sprintf("line %d of %s", n, AttributesFile), fault.ErrCorrupt, err, "")
		}
		if err := each(a); err != nil {
			return err
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fault.Wrap(AttributesFile, fault.ErrCorrupt, lines.Err(), "")
	}
	return lines.Err()
}
