package database

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// ManifestFile is the file of a part that says what the others are.
const ManifestFile = "dump.json"

// ManifestVersion is the version of Manifest that this build writes.
const ManifestVersion = 1

// Manifest is ManifestFile.
type Manifest struct {
	Version int    `json:"version"` // of this document; 1
	Engine  string `json:"engine"`
	Server  string `json:"server,omitempty"` // its version, as it says
	Tool    string `json:"tool,omitempty"`   // that dumped it, and its version
	Instant
	Files []File   `json:"files"`
	Notes []string `json:"notes,omitempty"` // what a restore must know
}

// File is one stream of a dump.
type File struct {
	Name      string   `json:"name"`
	Databases []string `json:"databases,omitempty"` // that it holds
	Tables    int64    `json:"tables"`              // that it holds, as far as the dump tells
	Position  string   `json:"position,omitempty"`  // that it is of, where files are of different ones
	Bytes     int64    `json:"bytes"`
	SHA256    string   `json:"sha256"`
}

// Dump is a dump that stands.
type Dump struct {
	client   *client
	manifest Manifest
	streams  []stream
	count    point.Count  // of databases; filled by the time all streams are read
	release  func() error // lets go what the dump holds at the server; may be nil
}

// stream is one file of a dump, before it is read.
type stream struct {
	file File
	open func(ctx context.Context) (io.ReadCloser, error)
	// check looks at what passes; nil for what cannot be told.
	check ending
	// finish is called after the end, to say what was seen.
	finish func(f *File) error
}

// Instant is the moment that the dump is of.
func (d *Dump) Instant() Instant { return d.manifest.Instant }

// Close stops what still runs. Idempotent.
func (d *Dump) Close() error {
	if d.release == nil {
		return nil
	}
	release := d.release
	d.release = nil
	return release()
}

// Capture takes the dump into a part, and ends it: stored, or failed for what the server or its tools did wrong. An error means that the
// run cannot go on: the vault failed, or ctx ended. The dump is closed.
func (d *Dump) Capture(ctx context.Context, w point.PartWriter) error {
	err := d.capture(ctx, w)
	closed := d.Close()
	var ofVault vaultError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &ofVault):
		return ofVault.error
	case err == nil:
		err = closed
	}
	if err != nil {
		return w.Fail(ctx, fault.Wrap("dump "+d.client.name(), nil, d.client.explained(err), ""))
	}
	stands := d.manifest.Stands
	return w.Store(ctx, point.Part{
		Revision: d.manifest.Position, Captured: &stands, Counts: []point.Count{d.count}, Notes: d.manifest.Notes,
	})
}

// vaultError marks an error of the vault, after which a run cannot go on.
type vaultError struct{ error }

func (d *Dump) capture(ctx context.Context, w point.PartWriter) error {
	for _, s := range d.streams {
		if err := d.stream(ctx, w, s); err != nil {
			return err
		}
	}
	document, err := json.MarshalIndent(d.manifest, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Put(ctx, point.Entry{Name: ManifestFile, Mode: 0o600}, strings.NewReader(string(document)+"\n"), point.Text)
	return ofVault(err)
}

func ofVault(err error) error {
	if err == nil {
		return nil
	}
	return vaultError{err}
}

func (d *Dump) stream(ctx context.Context, w point.PartWriter, s stream) error {
	from, err := s.open(ctx)
	if err != nil {
		return err
	}
	through := newDumped(from, s.check)
	n, err := w.Put(ctx, point.Entry{Name: s.file.Name, Mode: 0o600}, through, point.Text)
	closed := from.Close()
	switch {
	case through.err != nil:
		return through.err
	case err != nil:
		return ofVault(err)
	case closed != nil:
		return closed
	case n != through.bytes:
		return ofVault(fmt.Errorf("%s: %d bytes were stored of %d", s.file.Name, n, through.bytes))
	}
	s.file.Bytes, s.file.SHA256 = n, through.sha256()
	if s.finish != nil {
		if err := s.finish(&s.file); err != nil {
			return err
		}
	}
	d.manifest.Files = append(d.manifest.Files, s.file)
	return nil
}
