package git

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

const (
	scratchPrefix = "backstay-git-"
	scratchLock   = "in-use" // locked for as long as the process lives
)

// scratchDir is a private directory for scratch files. A process that is killed leaves it behind; the next one to make such a
// directory in the same place removes it.
type scratchDir struct {
	path string
	lock *os.File
}

// newScratchDir makes a directory below parent, "" for the system's, whose name begins with prefix. The caller must call remove.
func newScratchDir(parent, prefix string) (*scratchDir, error) {
	if parent == "" {
		parent = os.TempDir()
	}
	sweepScratch(parent, prefix)
	for {
		path, err := os.MkdirTemp(parent, prefix) // with mode 0700
		if err != nil {
			return nil, err
		}
		lock, err := os.OpenFile(filepath.Join(path, scratchLock), os.O_CREATE|os.O_RDWR, 0o600)
		if err == nil && lockFile(lock) {
			if _, err = os.Lstat(lock.Name()); err == nil {
				return &scratchDir{path, lock}, nil
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

// remove deletes the directory. What cannot be deleted is left to the next sweep.
func (d *scratchDir) remove() {
	os.RemoveAll(d.path) //nolint:errcheck // see above
	d.lock.Close()       //nolint:errcheck // nothing was written
}

// sweepScratch removes what killed processes of the same user left below parent under names that begin with prefix. It is done as well as it goes: a failure here is
// no reason not to work.
func sweepScratch(parent, prefix string) {
	entries, _ := os.ReadDir(parent) // where it cannot be read, nothing is swept
	for _, e := range entries {
		path := filepath.Join(parent, e.Name())
		if !strings.HasPrefix(e.Name(), prefix) || !ownDirectory(path) {
			continue
		}
		lock, err := os.OpenFile(filepath.Join(path, scratchLock), os.O_RDWR, 0)
		if err != nil {
			continue // just being made
		}
		if lockFile(lock) {
			os.RemoveAll(path) //nolint:errcheck // the next sweep tries again
		}
		lock.Close() //nolint:errcheck // nothing was written
	}
}
