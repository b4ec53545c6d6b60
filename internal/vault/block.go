package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// ImageFile is the one file of a part of point.KindBlock: every byte of a volume, from its first on.
const ImageFile = "image"

// CaptureBlock writes a block device, or the image of one in a file, into w, which the caller ends. What is as in an earlier copy is
// read again, and not stored again.
//
// An error means that the device cannot be opened or read (fault.ErrNotFound, ErrDenied, ErrInvalid), that the vault failed, or that
// ctx ended.
func CaptureBlock(ctx context.Context, w point.PartWriter, path string) (point.Part, error) {
	d, err := openDevice(path)
	if err != nil {
		return point.Part{}, err
	}
	defer d.Close() //nolint:errcheck // opened for reading
	return d.capture(ctx, w)
}

// RestoreBlock writes an image that CaptureBlock captured to a block device at least as large, or to a file that does not exist.
// Whatever is on the device beyond the image is left alone.
func RestoreBlock(ctx context.Context, r point.Reader, path string) error {
	return r.Extract(ctx, ImageFile, path)
}

// extractOnto writes a file of a point to a device.
func (r *reader) extractOnto(ctx context.Context, n *node, name string) error {
	op := "write device " + quote(name)
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return localFault(op, err)
	}
	err = r.fill(ctx, n, f)
	if err == nil {
		err = localFault("sync", f.Sync())
	}
	return fault.Wrap(op, nil, errors.Join(err, localFault("close", f.Close())), "")
}

// fill writes a file of a point over the beginning of a device. A chunk that lies in several places, as zeros do, is read once.
func (r *reader) fill(ctx context.Context, n *node, f *os.File) error {
	size, err := deviceSize(f)
	if err != nil {
		return err
	}
	if n.entry.Type != snapshot.EntryTypeFile || n.entry.FileSize > size {
		cause := fmt.Sprintf("the image has %d bytes, the device %d", n.entry.FileSize, size)
		return fault.New("", fault.ErrInvalid, cause, "choose a larger volume")
	}
	chunks, err := r.v.chunks(ctx, &n.entry)
	if err != nil {
		return storageFault("read list of chunks", err)
	}
	places := map[object.ID][]int64{}
	var batch []fetch
	blank := zeroed(f, n.entry.FileSize)
	for _, c := range chunks {
		if places[c.Object] = append(places[c.Object], c.Start); len(places[c.Object]) > 1 {
			continue
		}
		batch = append(batch, fetch{object: c.Object, use: func(ctx context.Context) error {
			return r.v.copyChunk(ctx, f, c, places[c.Object], blank)
		}})
	}
	for part := range slices.Chunk(batch, maxBatch) {
		if err := r.v.fetchAll(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// device is a block device or an image, open for reading. Safe for concurrent reading by ReadAt.
type device struct {
	*os.File
	size int64

	mu  sync.Mutex
	err error // of reading
}

// Size is the bytes of the device.
func (d *device) Size() int64 { return d.size }

// Read reads on.
func (d *device) Read(p []byte) (int, error) { return d.note(d.File.Read(p)) }

// ReadAt reads at a place.
func (d *device) ReadAt(p []byte, at int64) (int, error) { return d.note(d.File.ReadAt(p, at)) }

// Hole reports whether there is no data in a range of an image.
func (d *device) Hole(at, length int64) bool { return hole(d.File, at, length) }

// Steady is for files that others write to: a device says nothing of that.
func (d *device) Steady() error { return nil }

func (d *device) note(n int, err error) (int, error) {
	if err != nil && !errors.Is(err, io.EOF) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.err = err
	}
	return n, err
}

// failure is an error of reading, by which it differs from the vault's.
func (d *device) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return localFault("read", d.err)
}

func openDevice(path string) (*device, error) {
	op := "open device " + quote(path)
	f, err := os.Open(path)
	if err != nil {
		return nil, localFault(op, err)
	}
	size, err := deviceSize(f)
	if err != nil {
		return nil, errors.Join(fault.Wrap(op, nil, err, ""), f.Close())
	}
	return &device{File: f, size: size}, nil
}

// deviceSize returns the bytes of a block device or of a regular file.
func deviceSize(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, localFault("stat", err)
	}
	if !info.Mode().IsRegular() && info.Mode().Type() != os.ModeDevice {
		return 0, fault.New("", fault.ErrInvalid, fmt.Sprintf("neither a block device nor a file: %s", info.Mode()), "")
	}
	size, err := f.Seek(0, io.SeekEnd) // of a device, too, of which the system says 0 otherwise
	if err != nil {
		return 0, localFault("find the end", err)
	}
	_, err = f.Seek(0, io.SeekStart)
	return size, localFault("find the beginning", err)
}

func (d *device) capture(ctx context.Context, w point.PartWriter) (point.Part, error) {
	n, err := w.Put(ctx, point.Entry{Name: ImageFile, Mode: 0o600}, d, point.Block)
	if err != nil {
		return point.Part{}, err
	}
	bytes := point.Count{Of: "bytes", Expected: d.size, Stored: n}
	return point.Part{Bytes: n, Counts: []point.Count{bytes}}, nil
}
