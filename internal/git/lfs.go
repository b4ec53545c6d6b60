package git

import (
	"context"
	"io"
)

// Pointer is what a repository holds in place of a large file.
type Pointer struct {
	OID  string // sha256 of the file, hexadecimal
	Size int64  // bytes
}

// LFSMissing is an object that the source names but does not have.
type LFSMissing struct {
	Pointer
	Reason string // in the server's words where it gave some
}

// ParsePointer reads a pointer file; false means that b is none.
func ParsePointer(b []byte) (Pointer, bool) { return Pointer{}, false }

// LFSDownload hands every object to each, several at a time. The body's last read returns io.EOF only when size and sha256 are right;
// else it returns fault.ErrCorrupt.
func (r *Remote) LFSDownload(ctx context.Context, ps []Pointer, each func(ctx context.Context, p Pointer, body io.Reader) error) (missing []LFSMissing, err error) {
	return nil, nil
}

// LFSUpload sends the objects that the server does not have.
func (r *Remote) LFSUpload(ctx context.Context, ps []Pointer, open func(p Pointer) (io.ReadCloser, error)) error {
	return nil
}
