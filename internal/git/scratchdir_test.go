package git

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestScratchOfTheKilledIsSwept(t *testing.T) {
	parent := t.TempDir()
	used, err := newScratchDir(parent, scratchPrefix)
	if err != nil {
		t.Fatal(err)
	}
	killed, err := newScratchDir(parent, scratchPrefix)
	if err != nil {
		t.Fatal(err)
	}
	killed.lock.Close() // as the system does when a process ends
	elsewhere := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(elsewhere, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(parent, scratchPrefix+"link")
	if err := os.Symlink(filepath.Dir(elsewhere), link); err != nil {
		t.Fatal(err)
	}

	next, err := newScratchDir(parent, scratchPrefix)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(killed.path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what the killed left is still there: %v", err)
	}
	for _, path := range []string{used.path, next.path, link, elsewhere} {
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
	used.remove()
	next.remove()
	if left, _ := filepath.Glob(filepath.Join(parent, "*")); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}
