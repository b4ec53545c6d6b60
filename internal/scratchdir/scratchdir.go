// Package scratchdir makes directories for what is needed for a while only, and removes those of processes that were killed.
package scratchdir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// lockName is of a file in each of them, locked for as long as the process lives.
const lockName = "in-use"

// Dir is a private directory for scratch files. A process that is killed leaves it behind; the next one to make such a
// directory in the same place removes it.
type Dir struct {
	Path string // absolute where the parent is
	lock *os.File
}

// New makes a directory below parent, "" for the system's, whose name begins with prefix. The caller must call Remove.
func New(parent, prefix string) (*Dir, error) {
	if parent == "" {
		parent = os.TempDir()
	}
	Sweep(parent, prefix)
	for {
		path, err := os.MkdirTemp(parent, prefix) // with mode 0700
		if err != nil {
			return nil, err
		}
		lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_CREATE|os.O_RDWR, 0o600)
		if err == nil && lockFile(lock) {
			if _, err = os.Lstat(lock.Name()); err == nil {
				return &Dir{path, lock}, nil
			}
		}
		if lock != nil {
			lock.Close() //nolint:errcheck // nothing was written
		}
		os.RemoveAll(path) //nolint:errcheck // left to the next sweep
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		// Another process swept between the making and the locking.
	}
}

// Remove deletes the directory. What cannot be deleted is left to the next sweep.
func (d *Dir) Remove() {
	Clear(d.Path)  //nolint:errcheck // see above
	d.lock.Close() //nolint:errcheck // nothing was written
}

// Sweep removes what killed processes of the same user left below parent under names that begin with prefix. It is done as well as it
// goes: a failure here is no reason not to work.
func Sweep(parent, prefix string) {
	entries, _ := os.ReadDir(parent) // where it cannot be read, nothing is swept
	for _, e := range entries {
		path := filepath.Join(parent, e.Name())
		if !strings.HasPrefix(e.Name(), prefix) || !ownDirectory(path) {
			continue
		}
		lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR, 0)
		if err != nil {
			continue // just being made
		}
		if lockFile(lock) {
			Clear(path) //nolint:errcheck // the next sweep tries again
		}
		lock.Close() //nolint:errcheck // nothing was written
	}
}

// Clear deletes what is at path, also below directories that their own modes protect from it.
func Clear(path string) error {
	err := os.RemoveAll(path)
	if !errors.Is(err, os.ErrPermission) {
		return err
	}
	walkErr := filepath.WalkDir(path, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			return os.Chmod(path, 0o700) // before it is read
		}
		return err
	})
	return errors.Join(walkErr, os.RemoveAll(path))
}
