package git

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/backstay/backstay/internal/fault"
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

// pointerMax is the length below which a blob can be a pointer, in bytes.
const pointerMax = 1024

// ParsePointer reads a pointer file; false means that b is none.
func ParsePointer(b []byte) (Pointer, bool) {
	if len(b) >= pointerMax || !bytes.HasPrefix(b, []byte("version ")) {
		return Pointer{}, false
	}
	p := Pointer{Size: -1}
	for i, line := range strings.Split(strings.TrimRight(string(b), " \t\r\n"), "\n") {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\r"), " ")
		switch {
		case !ok:
			return Pointer{}, false
		case i == 0:
			ok = isPointerVersion(value)
		case key == "oid":
			p.OID, ok = strings.CutPrefix(value, "sha256:")
			ok = ok && validOID(p.OID, "sha256")
		case key == "size":
			size, err := strconv.ParseInt(value, 10, 64)
			ok = err == nil && size >= 0 && p.Size < 0
			p.Size = size
		default:
			ok = strings.HasPrefix(key, "ext-")
		}
		if !ok {
			return Pointer{}, false
		}
	}
	return p, p.OID != "" && p.Size >= 0
}

func isPointerVersion(value string) bool {
	switch value {
	case "https://git-lfs.github.com/spec/v1", "https://hawser.github.com/spec/v1", "http://git-media.io/v/2":
		return true
	}
	return false
}

// check refuses what is no pointer: its fields become paths and parts of requests.
func (p Pointer) check() error {
	if !validOID(p.OID, "sha256") || p.Size < 0 {
		return fault.New("", fault.ErrInvalid, fmt.Sprintf("%.70q of %d bytes is not an LFS object", p.OID, p.Size), "")
	}
	return nil
}

// eachObject takes one object as it comes in.
type eachObject = func(ctx context.Context, p Pointer, body io.Reader) error

// lfsStore is where a repository's LFS objects are.
type lfsStore interface {
	download(ctx context.Context, ps []Pointer, each eachObject) ([]LFSMissing, error)
	upload(ctx context.Context, ps []Pointer, open func(p Pointer) (io.ReadCloser, error)) error
}

// lfsParallel is how many objects are on their way at a time.
const lfsParallel = 4

// LFSDownload hands every object to each, up to four at a time. The body's last read returns io.EOF only when size and sha256 are right; else
// it returns fault.ErrCorrupt. Such an object does not stop the others; an error of each that has another cause does. What the source
// does not have comes back as missing. Errors: as of ListRefs; fault.ErrUnsupported where the server has no LFS.
func (r *Remote) LFSDownload(ctx context.Context, ps []Pointer, each eachObject) (missing []LFSMissing, err error) {
	op := "download LFS objects of " + r.url.String()
	for _, p := range ps {
		if err := p.check(); err != nil {
			return nil, fault.Wrap(op, nil, err, "")
		}
	}
	if len(ps) == 0 {
		return nil, nil
	}
	missing, err = r.lfs.download(ctx, ps, each)
	return missing, fault.Wrap(op, nil, err, "")
}

// LFSUpload sends the objects that the target does not have. What open gives must be the object; servers check.
func (r *Remote) LFSUpload(ctx context.Context, ps []Pointer, open func(p Pointer) (io.ReadCloser, error)) error {
	op := "upload LFS objects to " + r.url.String()
	for _, p := range ps {
		if err := p.check(); err != nil {
			return fault.Wrap(op, nil, err, "")
		}
	}
	if len(ps) == 0 {
		return nil
	}
	return fault.Wrap(op, nil, r.lfs.upload(ctx, ps, open), "")
}

// checkedReader gives the bytes of an object and checks them on the way.
type checkedReader struct {
	r      io.Reader
	of     Pointer
	n      int64
	sum    hash.Hash
	err    error // that ended it
	isGood bool  // it was read to its end, and is what it should be
}

func newCheckedReader(r io.Reader, of Pointer) *checkedReader {
	return &checkedReader{r: r, of: of, sum: sha256.New()}
}

func (c *checkedReader) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.sum.Write(p[:n])
	switch {
	case c.n > c.of.Size:
		err = c.corrupt("is longer than its %d bytes", c.of.Size)
	case errors.Is(err, io.EOF) && c.n < c.of.Size:
		err = c.corrupt("ends after %d of %d bytes", c.n, c.of.Size)
	case errors.Is(err, io.EOF):
		if sum := hex.EncodeToString(c.sum.Sum(nil)); sum != c.of.OID {
			err = c.corrupt("has sha256 %s", sum)
		} else {
			c.isGood = true
		}
	}
	c.err = err
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	return n, err
}

func (c *checkedReader) corrupt(format string, args ...any) error {
	return fault.New("LFS object "+c.of.OID, fault.ErrCorrupt, "what the source has under this name "+fmt.Sprintf(format, args...), "")
}

// hand gives an object to each and decides what its error means: found is corrupt, not stopping the others, or stop.
func hand(ctx context.Context, p Pointer, body io.Reader, each eachObject) (corrupt, stop error) {
	checked := newCheckedReader(body, p)
	err := each(ctx, p, checked)
	switch {
	case errors.Is(checked.err, fault.ErrCorrupt):
		return checked.err, nil
	case err != nil:
		return nil, err
	case !checked.isGood:
		return nil, errors.New("LFS object " + p.OID + " was not read to its end")
	}
	return nil, nil
}

// noLFS stands for a source that cannot have LFS objects.
type noLFS struct{}

func (noLFS) download(context.Context, []Pointer, eachObject) ([]LFSMissing, error) {
	return nil, errNoLFS("git:// has no LFS", nil)
}

func (noLFS) upload(context.Context, []Pointer, func(Pointer) (io.ReadCloser, error)) error {
	return errNoLFS("git:// has no LFS", nil)
}

func errNoLFS(why string, err error) error {
	const hint = "use the repository's https:// or ssh:// URL on a server with LFS"
	if err != nil {
		err = fmt.Errorf("%s: %w", why, err)
	} else {
		err = errors.New(why)
	}
	return fault.Wrap("", fault.ErrUnsupported, err, hint)
}

// lfsDir is the common git directory of a local repository, which keeps its objects below lfs/objects.
type lfsDir string

func (d lfsDir) path(oid string) string {
	return filepath.Join(string(d), "lfs", "objects", oid[:2], oid[2:4], oid)
}

func (d lfsDir) download(ctx context.Context, ps []Pointer, each eachObject) (missing []LFSMissing, err error) {
	var bad error
	for _, p := range ps {
		f, reason, err := d.open(p.OID)
		switch {
		case err != nil:
			return missing, err
		case f == nil:
			missing = append(missing, LFSMissing{p, reason})
			continue
		}
		corrupt, stop := hand(ctx, p, contextReader{f, ctx.Err}, each)
		f.Close() //nolint:errcheck // opened for reading
		if stop != nil {
			return missing, stop
		}
		if bad == nil {
			bad = corrupt
		}
	}
	return missing, bad
}

// open opens an object; nil with a reason where there is none. Symbolic links on the way, by which a repository could make us read
// what is not its own, are not followed.
func (d lfsDir) open(oid string) (f *os.File, reason string, err error) {
	full := d.path(oid)
	rel, err := filepath.Rel(string(d), full)
	if err != nil {
		return nil, "", err
	}
	at := string(d)
	var info fs.FileInfo
	for name := range strings.SplitSeq(rel, string(filepath.Separator)) {
		at = filepath.Join(at, name)
		info, err = os.Lstat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, "the repository names it but does not hold it", nil
		case err != nil:
			return nil, "", fault.Wrap("", fault.ErrUnavailable, err, "")
		case info.Mode()&fs.ModeSymlink != 0:
			return nil, "it lies behind a symbolic link", nil
		}
	}
	if !info.Mode().IsRegular() {
		return nil, "it is not a file", nil
	}
	if f, err = os.Open(full); err != nil {
		return nil, "", statFault(err)
	}
	if opened, err := f.Stat(); err != nil || !os.SameFile(info, opened) {
		f.Close() //nolint:errcheck // opened for reading
		return nil, "it changed while it was opened", nil
	}
	return f, "", nil
}

// contextReader ends with its context.
type contextReader struct {
	io.Reader
	ended func() error
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ended(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

func (d lfsDir) upload(ctx context.Context, ps []Pointer, open func(Pointer) (io.ReadCloser, error)) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(lfsParallel)
	for _, p := range ps {
		g.Go(func() error {
			if _, err := os.Lstat(d.path(p.OID)); err == nil {
				return nil
			}
			body, err := open(p)
			if err != nil {
				return err
			}
			defer body.Close()
			return d.write(p, contextReader{body, ctx.Err})
		})
	}
	return g.Wait()
}

// write puts an object in its place, whole or not at all.
func (d lfsDir) write(p Pointer, body io.Reader) error {
	path := d.path(p.OID)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fault.Wrap("", fault.ErrUnavailable, err, "")
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".incoming-")
	if err != nil {
		return fault.Wrap("", fault.ErrUnavailable, err, "")
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone already where it was renamed
	_, err = io.Copy(f, newCheckedReader(body, p))
	err = errors.Join(err, f.Chmod(0o444), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
