package vault

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/readonly"
)

// sum is what was written under the name of a blob.
type sum struct {
	ID     blob.ID `json:"id"`
	Len    int64   `json:"len"`
	SHA256 string  `json:"sha256"` // hexadecimal
}

// witness stands between kopia and the location. It counts what is written and remembers its checksums until they are recorded
// in the catalogue.
type witness struct {
	blob.Storage

	mu     sync.Mutex
	sums   []sum
	staged map[blob.ID][]byte // where not nil, format blobs are held back here
}

func newWitness(st blob.Storage, readOnly bool) *witness {
	if readOnly {
		st = readonly.NewWrapper(st)
	}
	return &witness{Storage: st}
}

// writtenKey finds, in a context, the counter of the draft for which a blob is written.
type writtenKey struct{}

// countWritten makes every blob put under the context count in n.
func countWritten(ctx context.Context, n *atomic.Int64) context.Context {
	return context.WithValue(ctx, writtenKey{}, n)
}

// PutBlob writes a blob and remembers its checksum.
func (w *witness) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	hash := sha256.New()
	if _, err := data.WriteTo(hash); err != nil {
		return err
	}
	if w.stage(id, data) {
		return nil
	}
	if err := w.Storage.PutBlob(ctx, id, data, o); err != nil {
		return err
	}
	if n, ok := ctx.Value(writtenKey{}).(*atomic.Int64); ok {
		n.Add(int64(data.Length()))
	}
	if provesItself(id) {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sums = append(w.sums, sum{ID: id, Len: int64(data.Length()), SHA256: hex.EncodeToString(hash.Sum(nil))})
	return nil
}

// provesItself reports whether a blob is checked without a recorded checksum: by its name, by a copy, or by how it is sealed.
func provesItself(id blob.ID) bool {
	return strings.HasPrefix(string(id), string(cataloguePrefix)) || id == maintenanceBlob || slices.Contains(formatBlobs, id)
}

// DeleteBlob deletes a blob; there is no need to remember its checksum then.
func (w *witness) DeleteBlob(ctx context.Context, id blob.ID) error {
	if err := w.Storage.DeleteBlob(ctx, id); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sums = slices.DeleteFunc(w.sums, func(s sum) bool { return s.ID == id })
	return nil
}

// pending returns the checksums that are not recorded yet.
func (w *witness) pending() []sum {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.sums)
}

// ConnectionInfo says nothing: the location's own would hold its credentials.
func (w *witness) ConnectionInfo() blob.ConnectionInfo {
	return blob.ConnectionInfo{Type: storageType, Config: &storageConfig{}}
}

// GetBlob reads a blob, from the run that the context carries where that has the bytes.
func (w *witness) GetBlob(ctx context.Context, id blob.ID, offset, length int64, output blob.OutputBuffer) error {
	if b := runBytes(ctx, id, offset, length); b != nil {
		output.Reset()
		_, err := output.Write(b)
		return err
	}
	return w.Storage.GetBlob(ctx, id, offset, length, output)
}

// stage holds a format blob back while a password is changed.
func (w *witness) stage(id blob.ID, data blob.Bytes) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.staged == nil || !slices.Contains(formatBlobs, id) {
		return false
	}
	w.staged[id] = readAll(data)
	return true
}

// takeSums hands over the checksums that are not recorded yet.
func (w *witness) takeSums() []sum {
	w.mu.Lock()
	defer w.mu.Unlock()
	sums := w.sums
	w.sums = nil
	return sums
}

// returnSums takes checksums back that could not be recorded.
func (w *witness) returnSums(sums []sum) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sums = append(sums, w.sums...)
}

// raw is bytes in the shape in which kopia's storages take and give them.
type raw struct{ b []byte }

func (r *raw) WriteTo(w io.Writer) (int64, error) { n, err := w.Write(r.b); return int64(n), err }
func (r *raw) Length() int                        { return len(r.b) }
func (r *raw) Reset()                             { r.b = r.b[:0] }
func (r *raw) Write(p []byte) (int, error)        { r.b = append(r.b, p...); return len(p), nil }

// ReadFrom reads all there is, at once where it fits: of a store's client each reading is a rendezvous of goroutines.
func (r *raw) ReadFrom(from io.Reader) (n int64, err error) {
	for {
		if len(r.b) == cap(r.b) {
			r.b = slices.Grow(r.b, 1)
		}
		read, err := from.Read(r.b[len(r.b):cap(r.b)])
		r.b, n = r.b[:len(r.b)+read], n+int64(read)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
func (r *raw) Reader() io.ReadSeekCloser { return nopCloser{strings.NewReader(string(r.b))} }

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

func readAll(data blob.Bytes) []byte {
	var r raw
	_, _ = data.WriteTo(&r) // a raw takes everything
	return r.b
}

// storageType is kopia's name for the storage that a context carries.
const storageType = "backstay"

type storageConfig struct{}

type storageKey struct{}

// register makes the storage type known to kopia, whose registry is global and may be written once only.
var register = sync.OnceFunc(func() {
	blob.AddSupportedStorage(storageType, storageConfig{},
		func(ctx context.Context, _ *storageConfig, _ bool) (blob.Storage, error) {
			st, ok := ctx.Value(storageKey{}).(blob.Storage)
			if !ok {
				return nil, errors.New("no storage in the context")
			}
			return st, nil
		})
})

// withStorage makes kopia open st: what its configuration file names is only the type.
func withStorage(ctx context.Context, st blob.Storage) context.Context {
	register()
	return context.WithValue(ctx, storageKey{}, st)
}

// keepOpen is a storage whose closing is somebody else's business.
type keepOpen struct{ blob.Storage }

// Close does nothing.
func (keepOpen) Close(context.Context) error { return nil }
