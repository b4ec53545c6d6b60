package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Directory is a source: one directory of this machine, with everything below it.
type Directory struct {
	host    string
	path    string
	exclude []string
}

// NewDirectory makes a source of a directory on the machine called host, "" for the name that it gives itself. What lies at one of the
// excluded paths is counted as left out; the vault itself, where it lies below the directory, should be one of them.
func NewDirectory(dir, host string, exclude ...string) (*Directory, error) {
	op := "back up directory"
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	if host == "" {
		if host, err = os.Hostname(); err != nil {
			return nil, fault.Wrap(op, fault.ErrUnavailable, err, "")
		}
	}
	if host == "." || host == ".." || strings.ContainsAny(host, "/\x00") {
		return nil, fault.New(op, fault.ErrInvalid, quote(host)+" is no name for a machine", "")
	}
	return &Directory{host: host, path: abs, exclude: exclude}, nil
}

// Subject names the directory and its machine.
func (d *Directory) Subject() point.Subject {
	return point.Subject{Kind: point.SubjectDirectory, Name: path.Join(d.host, d.path)}
}

// Capture writes the directory as one part.
func (d *Directory) Capture(ctx context.Context, to point.Sink) error {
	w, err := to.Part(ctx, path.Join("directory", d.host, d.path), point.KindDir)
	if err != nil {
		return err
	}
	root, err := openTree(d.path)
	if err != nil {
		return w.Fail(ctx, err)
	}
	defer root.Close() //nolint:errcheck // opened for reading
	p, err := captureTree(ctx, w, root, d.exclude)
	if err != nil {
		return err
	}
	return w.Store(ctx, p)
}

// CaptureTree writes a directory and everything below it into w, which the caller ends. The counts of the part it returns close only
// when every file, directory, link and attribute was written as it was; its notes name what was not. What is as in w.Prior is kept by
// reference. Nothing in the tree changes what is captured: no marker of caches, no file of patterns.
//
// An error means that dir cannot be opened (fault.ErrNotFound, ErrDenied, ErrInvalid), that the vault failed, or that ctx ended.
func CaptureTree(ctx context.Context, w point.PartWriter, dir string) (point.Part, error) {
	root, err := openTree(dir)
	if err != nil {
		return point.Part{}, err
	}
	defer root.Close() //nolint:errcheck // opened for reading
	return captureTree(ctx, w, root, nil)
}

// RestoreTree writes a tree that CaptureTree captured to dest, which must not exist. Where the process, or the file system, cannot
// give everything back, the rest is restored and the error (fault.ErrIncomplete) says what is missing.
func RestoreTree(ctx context.Context, r point.Reader, dest string) error {
	if err := r.Extract(ctx, ".", dest); err != nil {
		return err
	}
	return restoreAttributes(ctx, r, dest)
}

// RestoreTreeInto writes a tree that CaptureTree captured into a directory that exists and is empty, as the root of a new file system
// is: lost+found and what an earlier restore into it left unfinished do not count. The directory itself is given the mode, owner and
// attributes of the tree's. It may be killed and called again at any time. Errors are those of RestoreTree, and fault.ErrExists.
func RestoreTreeInto(ctx context.Context, r point.Reader, dir string) error {
	return restoreInto(ctx, r, dir)
}

// RestoreTreeOver writes a tree that CaptureTree captured over what a directory holds, or makes the directory. What only the directory has
// stays; a directory in the place of a file, or a file in that of a directory, is refused (fault.ErrExists) before anything is changed.
// Each file changes at once, when all has been read. Killed, it may be called again at any time. Errors are those of RestoreTree besides.
func RestoreTreeOver(ctx context.Context, r point.Reader, dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return RestoreTree(ctx, r, dir)
	}
	return restoreOver(ctx, r, dir)
}

// lostFound is where fsck of ext file systems puts what it finds; each has it at its root.
const lostFound = "lost+found"

func openTree(dir string) (*os.File, error) {
	op := "open directory " + quote(dir)
	f, err := os.Open(dir)
	if err != nil {
		return nil, localFault(op, err)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		return f, nil
	}
	_ = f.Close() // opened for reading
	if err != nil {
		return nil, localFault(op, err)
	}
	return nil, fault.New(op, fault.ErrInvalid, "it is not a directory", "")
}

// contentOf guesses by its name how a file is best cut.
func contentOf(name string) point.Content {
	switch strings.ToLower(path.Ext(name)) {
	case ".7z", ".br", ".bz2", ".deb", ".docx", ".flac", ".gif", ".gz", ".heic", ".jar", ".jpeg", ".jpg", ".lz4", ".m4a", ".mkv",
		".mov", ".mp3", ".mp4", ".odt", ".ogg", ".pack", ".png", ".rar", ".rpm", ".tgz", ".webm", ".webp", ".whl", ".xlsx", ".xz",
		".zip", ".zst":
		return point.Packed
	}
	return point.Tree
}

// remarks collects what is worth a note: the first few in full, the rest as a number.
type remarks struct {
	first []string
	more  int
}

const maxRemarks = 20

func (r *remarks) add(format string, a ...any) {
	if len(r.first) == maxRemarks {
		r.more++
		return
	}
	r.first = append(r.first, fmt.Sprintf(format, a...))
}

func (r *remarks) all() []string {
	if r.more == 0 {
		return r.first
	}
	return append(r.first[:len(r.first):len(r.first)], fmt.Sprintf("and %d more", r.more))
}
