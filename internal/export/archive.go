package export

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// maxEntry bounds an entry of a zip file that is unpacked to memory: compressed entries are small files.
const maxEntry = 256 << 20

// archive reads a copy out of a zip file. Safe for concurrent use.
type archive struct {
	file    io.ReadSeekCloser
	mu      sync.Mutex // of the file's position
	entries map[string]*zip.File
	dirs    map[string][]point.Entry
}

// openArchive reads the list of a zip file. What is no zip file is fault.ErrCorrupt.
func openArchive(ctx context.Context, p Place, name string) (*archive, error) {
	f, err := p.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	a := &archive{file: f, entries: map[string]*zip.File{}, dirs: map[string][]point.Entry{}}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		a.close()
		return nil, err
	}
	r, err := zip.NewReader(a, size)
	if err != nil {
		a.close()
		if fault.Of(err).Exit != 1 { // of the place
			return nil, err
		}
		return nil, fault.Wrap("read "+name, fault.ErrCorrupt, err, "")
	}
	for _, f := range r.File {
		a.add(f)
	}
	return a, nil
}

func (a *archive) add(f *zip.File) {
	name := strings.TrimSuffix(f.Name, "/")
	if !fs.ValidPath(name) || name == "." || f.UncompressedSize64 > 1<<62 {
		return
	}
	if _, twice := a.entries[name]; twice {
		return
	}
	a.entries[name] = f
	e := point.Entry{Name: path.Base(name), Mode: f.Mode(), Size: int64(f.UncompressedSize64), Time: f.Modified}
	a.dirs[path.Dir(name)] = append(a.dirs[path.Dir(name)], e)
}

// close closes the file, which is only read.
func (a *archive) close() { a.file.Close() }

// ReadAt reads the zip file itself.
func (a *archive) ReadAt(p []byte, at int64) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, err := a.file.Seek(at, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(a.file, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// List returns what lies directly in a directory. Directories have entries of their own in the files that this package writes.
func (a *archive) List(_ context.Context, dir string) ([]point.Entry, error) {
	return a.dirs[path.Clean(dir)], nil
}

// Open opens a file.
func (a *archive) Open(_ context.Context, name string) (io.ReadSeekCloser, error) {
	f := a.entries[path.Clean(name)]
	if f == nil || !f.Mode().IsRegular() {
		return nil, fault.New("read "+name, fault.ErrNotFound, "", "")
	}
	if f.Method == zip.Store {
		at, err := f.DataOffset()
		if err != nil {
			return nil, fault.Wrap("read "+name, fault.ErrCorrupt, err, "")
		}
		return sectionCloser{io.NewSectionReader(a, at, int64(f.UncompressedSize64))}, nil
	}
	r, err := f.Open()
	if err != nil {
		return nil, fault.Wrap("read "+name, fault.ErrCorrupt, err, "")
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxEntry+1))
	switch {
	case err != nil:
		return nil, fault.Wrap("read "+name, fault.ErrCorrupt, err, "")
	case len(data) > maxEntry:
		return nil, fault.New("read "+name, fault.ErrCorrupt, "it is too large", "")
	}
	return sectionCloser{io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data)))}, nil
}

type sectionCloser struct{ *io.SectionReader }

func (sectionCloser) Close() error { return nil }

// putArchive makes the zip file of what the scratch directory holds and of what is kept from the one before, and puts it in its place.
func (c *copying) putArchive(ctx context.Context) (err error) {
	f, err := os.CreateTemp(c.e.o.Scratch, "backstay-export-")
	if err != nil {
		return systemFault("make scratch file", err)
	}
	defer func() {
		f.Close()           //nolint:errcheck // scratch, read to its end
		os.Remove(f.Name()) //nolint:errcheck // scratch
	}()
	z := zip.NewWriter(f)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestCompression) })
	if err := c.fill(ctx, z); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return systemFault("write scratch file", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return systemFault("read scratch file", err)
	}
	_, err = c.place.Put(ctx, c.final.top()+".zip", f)
	return err
}

// fill writes the entries. Those of the zip file before go over as they are, with a directory entry for each directory.
func (c *copying) fill(ctx context.Context, z *zip.Writer) error {
	made := map[string]bool{}
	err := filepath.WalkDir(c.stage, func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == c.stage {
			return systemFault("read scratch directory", err)
		}
		rel, err := filepath.Rel(c.stage, name)
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		made[filepath.ToSlash(rel)] = true
		return addFile(z, name, filepath.ToSlash(rel), e)
	})
	if err != nil || c.prior == nil || c.e.o.Layout.Form == Worktree {
		return err
	}
	old := c.prior.from.(*archive) //nolint:errcheck // the prior of a zip file is one
	return c.eachKept(ctx, func(in slot, name string) error {
		full := c.at.path(in, name)
		if made[full] {
			return nil
		}
		for dir := path.Dir(full); dir != "." && !made[dir]; dir = path.Dir(dir) {
			made[dir] = true
			if _, err := z.CreateHeader(&zip.FileHeader{Name: dir + "/"}); err != nil {
				return systemFault("write scratch file", err)
			}
		}
		made[full] = true
		entry := old.entries[c.prior.at.path(in, name)]
		if entry == nil {
			return fault.New("keep "+full, fault.ErrNotFound, "", "")
		}
		if err := z.Copy(entry); err != nil {
			return fault.Wrap(fmt.Sprintf("copy %s from the last zip file", full), fault.ErrCorrupt, err, "")
		}
		return nil
	})
}

// addFile adds one file, directory or symbolic link of the scratch directory. A link is an entry that says where it points; it is never
// followed.
func addFile(z *zip.Writer, from, name string, e fs.DirEntry) error {
	info, err := e.Info()
	if err != nil {
		return systemFault("read scratch directory", err)
	}
	h := &zip.FileHeader{Name: name, Modified: info.ModTime(), Method: zip.Deflate}
	h.SetMode(info.Mode())
	switch {
	case info.IsDir():
		h.Name, h.Method = name+"/", zip.Store
		_, err := z.CreateHeader(h)
		return systemFault("write scratch file", err)
	case info.Mode().Type() == fs.ModeSymlink:
		target, err := os.Readlink(from)
		if err != nil {
			return systemFault("read scratch directory", err)
		}
		w, err := z.CreateHeader(h)
		if err == nil {
			_, err = io.WriteString(w, target)
		}
		return systemFault("write scratch file", err)
	case !info.Mode().IsRegular():
		return nil
	}
	if strings.HasSuffix(name, ".pack") || strings.HasSuffix(name, ".idx") || strings.Contains(name, "/lfs/objects/") {
		h.Method = zip.Store // is compressed already, and read here and there by the next run
	}
	f, err := os.Open(from)
	if err != nil {
		return systemFault("read scratch directory", err)
	}
	defer f.Close() //nolint:errcheck // only read from
	w, err := z.CreateHeader(h)
	if err == nil {
		_, err = io.Copy(w, f)
	}
	return systemFault("write scratch file", err)
}
