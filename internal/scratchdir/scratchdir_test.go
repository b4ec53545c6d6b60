package scratchdir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

const prefix = "backstay-test-"

func TestWhatTheKilledLeftIsSwept(t *testing.T) {
	parent := t.TempDir()
	used, err := New(parent, prefix)
	if err != nil {
		t.Fatal(err)
	}
	killed, err := New(parent, prefix)
	if err != nil {
		t.Fatal(err)
	}
	killed.lock.Close() // as the system does when a process ends
	elsewhere := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(elsewhere, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(parent, prefix+"link")
	if err := os.Symlink(filepath.Dir(elsewhere), link); err != nil {
		t.Fatal(err)
	}

	next, err := New(parent, prefix)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(killed.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what the killed left is still there: %v", err)
	}
	for _, path := range []string{used.Path, next.Path, link, elsewhere} {
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
	used.Remove()
	next.Remove()
	if left, _ := filepath.Glob(filepath.Join(parent, "*")); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

func TestClear(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	if err := os.MkdirAll(filepath.Join(dir, "b", "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, closed := range []string{"b/c", "b", ""} { // root may delete it all the same
		if err := os.Chmod(filepath.Join(dir, closed), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	if err := Clear(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}
