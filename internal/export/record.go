package export

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// recordName is the file that says whose copy lies there. It is in the repository's git directory, where git passes over it, and
// goes along into zip files and other places.
const recordName = ".backstay"

const (
	recordVersion = 1
	maxRecord     = 64 << 20 // bytes
)

// record says what a copy is of and what it holds. It is the last file written of a copy, and written before the first one, too,
// so that nothing else is ever taken for ours.
type record struct {
	Version  int               `json:"version"`
	Of       string            `json:"of"`                 // "github.com/acme/api"; may lie under another name
	Time     time.Time         `json:"time,omitzero"`      // when what the copy holds was captured; zero before it was whole once
	Updating bool              `json:"updating,omitempty"` // a run has begun to change the copy and has not ended
	Parts    map[slot]contents `json:"parts,omitempty"`
	// Kept are tips that refs named once and name no more, newest first. Refs of the copy keep them reachable.
	Kept []string `json:"kept,omitempty"`
}

// contents is one part of a copy.
type contents struct {
	Part point.Part `json:"part"`
	// Sums are the SHA-256 of files whose names do not say what is in them. They spare writing what is there already.
	Sums map[string]string `json:"sums,omitempty"`
}

// whole tells whether the copy was finished once.
func (r *record) whole() bool { return r != nil && len(r.Parts) > 0 }

func (r *record) encode() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", " ")
	_ = e.Encode(r) // of strings, numbers and times only: it cannot fail
	return b.Bytes()
}

func decodeRecord(raw []byte) (*record, error) {
	var r record
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fault.Wrap("read "+recordName, fault.ErrCorrupt, err, "")
	}
	if r.Version != recordVersion {
		return nil, fault.New("read "+recordName, fault.ErrUnsupported, "written by another version", "use the version that wrote the copy, or a newer one")
	}
	for _, oid := range r.Kept {
		if !isOID(oid) {
			return nil, fault.New("read "+recordName, fault.ErrCorrupt, "it keeps what is no object id", "")
		}
	}
	return &r, nil
}

// readRecord reads the record of a copy; nil where there is none.
func readRecord(ctx context.Context, from files, at site) (*record, error) {
	raw, err := readLimited(ctx, from, at.record(), maxRecord)
	if errors.Is(err, fault.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return decodeRecord(raw)
}
