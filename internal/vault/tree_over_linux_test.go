package vault

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

func TestRestoreOverLeavesWhatOnlyTheDirectoryHas(t *testing.T) {
	source := filepath.Join(t.TempDir(), "source")
	must(t, os.MkdirAll(filepath.Join(source, "both", "deep"), 0o750))
	must(t, os.WriteFile(filepath.Join(source, "both", "f"), []byte("point"), 0o640))
	must(t, os.Chtimes(filepath.Join(source, "both"), time.Unix(1, 0), time.Unix(5, 6)))
	_, r := captureOf(t, vaultIn(t, newLockStore(newHandClock()), Options{}), source)

	dest := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dest, "both", "own"), 0o700))
	must(t, os.WriteFile(filepath.Join(dest, "both", "f"), []byte("since then"), 0o600))
	must(t, os.MkdirAll(filepath.Join(dest, wholeTree, "of a pull that was killed"), 0o700))
	must(t, os.WriteFile(filepath.Join(dest, progressFile), []byte(`{}`), 0o600))
	for range 2 {
		must(t, RestoreTreeOver(t.Context(), r, dest))
		if b, err := os.ReadFile(filepath.Join(dest, "both", "f")); err != nil || string(b) != "point" {
			t.Errorf("the file is %q, %v", b, err)
		}
		if info, err := os.Stat(filepath.Join(dest, "both")); err != nil || info.Mode().Perm() != 0o750 || !info.ModTime().Equal(time.Unix(5, 6)) {
			t.Errorf("the directory is %v, %v", info, err)
		}
		for name, there := range map[string]bool{"both/own": true, "both/deep": true, wholeTree: false, progressFile: false} {
			if _, err := os.Lstat(filepath.Join(dest, name)); (err == nil) != there {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestRestoreOverRefusesBeforeItChanges also stands for a directory that somebody has made a link that leads elsewhere.
func TestRestoreOverRefusesBeforeItChanges(t *testing.T) {
	source := filepath.Join(t.TempDir(), "source")
	must(t, os.MkdirAll(filepath.Join(source, "d"), 0o750))
	must(t, os.WriteFile(filepath.Join(source, "d", "f"), []byte("point"), 0o640))
	must(t, os.WriteFile(filepath.Join(source, "a"), []byte("point"), 0o640))
	_, r := captureOf(t, vaultIn(t, newLockStore(newHandClock()), Options{}), source)
	elsewhere := t.TempDir()
	for name, build := range map[string]func(dest string) error{
		"a file for a directory": func(dest string) error { return os.WriteFile(filepath.Join(dest, "d"), nil, 0o600) },
		"a directory for a file": func(dest string) error { return os.MkdirAll(filepath.Join(dest, "d", "f"), 0o700) },
		"a link for a directory": func(dest string) error { return os.Symlink(elsewhere, filepath.Join(dest, "d")) },
	} {
		t.Run(name, func(t *testing.T) {
			dest := t.TempDir()
			must(t, os.WriteFile(filepath.Join(dest, "a"), []byte("since"), 0o600))
			must(t, build(dest))
			if err := RestoreTreeOver(t.Context(), r, dest); !errors.Is(err, fault.ErrExists) {
				t.Errorf("restored: %v", err)
			}
			if b, err := os.ReadFile(filepath.Join(dest, "a")); err != nil || string(b) != "since" {
				t.Errorf("a is %q, %v", b, err)
			}
			left, err := os.ReadDir(dest)
			must(t, err)
			if there, err := os.ReadDir(elsewhere); err != nil || len(there) > 0 || len(left) != 2 {
				t.Errorf("left %v here and %v elsewhere, %v", left, there, err)
			}
		})
	}
}
