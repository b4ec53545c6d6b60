// Package export keeps plain copies of repositories: bare repositories, clones with their files, or zip files, in a directory, an S3
// bucket, an Azure container or on a WebDAV server. A copy is brought up to date by writing what is new first, then what makes it
// valid, and only then removing what is not needed any more, so that what lies there is a whole repository at any instant.
package export

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Place is where copies lie. Names are slash-separated and relative; "." is the place itself. Errors have a class of package fault
// and hold no secrets. Safe for concurrent use.
type Place interface {
	// String names the place in messages.
	String() string
	// List returns what lies directly in a directory, by name. A directory that is not there is empty.
	List(ctx context.Context, dir string) ([]point.Entry, error)
	// Open opens a file; one that is not there is fault.ErrNotFound.
	Open(ctx context.Context, name string) (io.ReadSeekCloser, error)
	// Put writes a file whole or not at all, in place of one of that name, and makes directories as needed. An error of body comes
	// back as it is. It returns the bytes written.
	Put(ctx context.Context, name string, body io.Reader) (int64, error)
	// MakeDir makes a directory, where the place has such.
	MakeDir(ctx context.Context, dir string) error
	// Remove removes a file, or a directory with all in it. What is not there is removed already.
	Remove(ctx context.Context, name string) error
}

// copier is a place that can copy a file by itself. The copy may share its bytes with the original: neither is ever written to.
type copier interface {
	Copy(ctx context.Context, from, to string) error
}

// renamer is a place that can rename a directory at once. The new name is not taken.
type renamer interface {
	Rename(ctx context.Context, from, to string) error
}

// locker is a place where one copy can be kept from all other processes and exporters.
type locker interface {
	Lock(ctx context.Context, name string) (unlock func(), err error)
}

// tagger is a place that can note on each file which repository it is of.
type tagger interface {
	Tagged(url string) Place
}

// walker is a place that can list all below a directory at once.
type walker interface {
	Walk(ctx context.Context, dir string, each func(name string, e point.Entry) error) error
}

// inMemory is how large a file may be to be held in memory on its way.
const inMemory = 1 << 20

// spool is a file on its way, which can be read again when a server fails.
type spool struct {
	io.ReaderAt
	size int64
	file *os.File // nil for what is held in memory
}

// newSpool reads body to its end. Errors of body come back as they are.
func newSpool(scratch string, body io.Reader) (*spool, error) {
	small, err := io.ReadAll(io.LimitReader(body, inMemory+1))
	if err != nil {
		return nil, err
	}
	if len(small) <= inMemory {
		return &spool{ReaderAt: bytes.NewReader(small), size: int64(len(small))}, nil
	}
	file, err := os.CreateTemp(scratch, "backstay-export-")
	if err != nil {
		return nil, systemFault("make scratch file", err)
	}
	s := &spool{ReaderAt: file, file: file}
	written := &failedWrite{w: file}
	s.size, err = io.Copy(written, io.MultiReader(bytes.NewReader(small), body))
	if written.err != nil {
		err = systemFault("write scratch file", written.err)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// content is all of it, from the beginning, for one try: a transport may still read that of the try before.
func (s *spool) content() *io.SectionReader { return io.NewSectionReader(s, 0, s.size) }

// close frees what the spool takes. It is only read from, so that nothing can be lost.
func (s *spool) close() {
	if s.file != nil {
		s.file.Close()           //nolint:errcheck // scratch
		os.Remove(s.file.Name()) //nolint:errcheck // scratch; what is left lies in the system's directory for it
	}
}

// failedWrite remembers an error of writing, to tell it from one of reading.
type failedWrite struct {
	w   io.Writer
	err error
}

func (f *failedWrite) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	f.err = err
	return n, err
}

// attempts and pause say how often, and how long after the first failure, a call to a server is made again; each further pause is
// twice as long.
const (
	attempts = 4
	pause    = 500 * time.Millisecond
)

// again makes a call until it succeeds, fails for good, or has failed often enough.
func again(ctx context.Context, call func() error) error {
	wait := pause
	for n := 1; ; n++ {
		err := call()
		if err == nil || n == attempts || !fault.Of(err).Retry {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(wait):
		}
		wait *= 2
	}
}

// blockSize and blocksHeld bound what is read ahead of a file that lies on a server.
const (
	blockSize  = 1 << 20
	blocksHeld = 16
)

// blockFile reads a file on a server by blocks, of which it holds the last ones: indexes of packs are read here and there.
type blockFile struct {
	size   int64
	fetch  func(from, n int64) ([]byte, error)
	at     int64
	blocks map[int64][]byte
	order  []int64
}

func newBlockFile(size int64, fetch func(from, n int64) ([]byte, error)) *blockFile {
	return &blockFile{size: size, fetch: fetch, blocks: map[int64][]byte{}}
}

// Read fills p from the block that the position is in.
func (f *blockFile) Read(p []byte) (int, error) {
	if f.at >= f.size {
		return 0, io.EOF
	}
	number := f.at / blockSize
	block, err := f.block(number)
	if err != nil {
		return 0, err
	}
	n := copy(p, block[f.at-number*blockSize:])
	f.at += int64(n)
	return n, nil
}

func (f *blockFile) block(number int64) ([]byte, error) {
	if b, held := f.blocks[number]; held {
		return b, nil
	}
	from := number * blockSize
	b, err := f.fetch(from, min(blockSize, f.size-from))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) != min(blockSize, f.size-from) {
		return nil, fault.New("", fault.ErrUnavailable, "the file changed while it was read", "")
	}
	if len(f.order) == blocksHeld {
		delete(f.blocks, f.order[0])
		f.order = f.order[1:]
	}
	f.blocks[number] = b
	f.order = append(f.order, number)
	return b, nil
}

// Seek sets the position.
func (f *blockFile) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += f.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the start")
	}
	f.at = offset
	return offset, nil
}

// Close frees the blocks.
func (f *blockFile) Close() error {
	f.blocks, f.order = nil, nil
	return nil
}

// walk calls each for every file and symbolic link below dir, with its path from there.
func walk(ctx context.Context, p files, dir string, each func(name string, e point.Entry) error) error {
	if w, can := p.(walker); can {
		return w.Walk(ctx, dir, each)
	}
	return walkFrom(ctx, p, dir, ".", 0, each)
}

// deepest is how many directories below each other are looked at.
const deepest = 64

func walkFrom(ctx context.Context, p files, dir, below string, depth int, each func(name string, e point.Entry) error) error {
	if depth > deepest {
		return fault.New("list "+path.Join(dir, below), fault.ErrUnsupported, "directories lie too deep", "")
	}
	entries, err := p.List(ctx, path.Join(dir, below))
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(below, e.Name)
		if e.Mode.IsDir() {
			err = walkFrom(ctx, p, dir, name, depth+1, each)
		} else {
			err = each(name, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// fileEntry describes a file of a place that knows no modes.
func fileEntry(name string, size int64, t time.Time) point.Entry {
	return point.Entry{Name: name, Mode: 0o644, Size: size, Time: t}
}

func dirEntry(name string) point.Entry { return point.Entry{Name: name, Mode: fs.ModeDir | 0o755} }
