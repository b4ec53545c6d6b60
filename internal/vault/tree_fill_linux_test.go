package vault

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// TestRestoreIntoGoesOnWhereItWasCut plays every state that a kill can leave behind.
func TestRestoreIntoGoesOnWhereItWasCut(t *testing.T) {
	source := filepath.Join(t.TempDir(), "source")
	must(t, os.MkdirAll(filepath.Join(source, "d"), 0o755))
	must(t, os.WriteFile(filepath.Join(source, "d", "f"), []byte("x"), 0o600))
	must(t, os.WriteFile(filepath.Join(source, "g"), []byte("yy"), 0o640))
	must(t, unix.Mkfifo(filepath.Join(source, "pipe"), 0o600))
	must(t, unix.Setxattr(source, "user.top", []byte("root"), 0))
	must(t, os.Chmod(source, 0o750))
	must(t, os.Chtimes(source, time.Unix(1, 0), time.Unix(5, 6)))
	want := describe(t, source)
	_, r := captureOf(t, vaultIn(t, newLockStore(newHandClock()), Options{}), source)
	restore := func(dest string) error { return RestoreTreeInto(t.Context(), r, dest) }
	whole := func(dest string) { // as after extract
		f := &filling{r: r, root: openRoot(t, dest), dir: dest}
		_, err := f.extract(t.Context())
		must(t, err)
	}
	tests := []struct {
		name  string
		build func(dest string)
		want  error
	}{
		{"empty", func(string) {}, nil},
		{"a new file system", func(dest string) { must(t, os.Mkdir(filepath.Join(dest, lostFound), 0o700)) }, nil},
		{"killed while it was read", func(dest string) {
			must(t, os.MkdirAll(filepath.Join(dest, wholeTree, "d"), 0o700))
			must(t, os.WriteFile(filepath.Join(dest, progressFile), []byte(`{"ti`), 0o600))
		}, nil},
		{"killed when it was whole", whole, nil},
		{"killed while it was moved", func(dest string) {
			whole(dest)
			must(t, os.Rename(filepath.Join(dest, wholeTree, "d"), filepath.Join(dest, "d")))
		}, nil},
		{"killed before the end", func(dest string) {
			whole(dest)
			f := &filling{r: r, root: openRoot(t, dest), dir: dest}
			must(t, f.moveUp(t.Context()))
			must(t, os.Remove(filepath.Join(dest, wholeTree)))
		}, nil},
		{"killed after the end", func(dest string) { must(t, restore(dest)) }, nil},
		{"somebody else's file", func(dest string) { must(t, os.WriteFile(filepath.Join(dest, "g"), []byte("zz"), 0o600)) }, fault.ErrExists},
		{"a file too many", func(dest string) {
			must(t, restore(dest))
			must(t, os.WriteFile(filepath.Join(dest, "more"), nil, 0o600))
		}, fault.ErrExists},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dest := t.TempDir()
			test.build(dest)
			if err := restore(dest); !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			got := slices.DeleteFunc(describe(t, dest), func(line string) bool { return strings.Contains(line, lostFound) })
			if test.want == nil && !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func openRoot(t *testing.T, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	must(t, err)
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func blocks(t *testing.T, file string) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(file, &st))
	return st.Blocks
}

func TestHolesStayHolesAndZerosZeros(t *testing.T) {
	source, dest := filepath.Join(t.TempDir(), "source"), filepath.Join(t.TempDir(), "dest")
	must(t, os.Mkdir(source, 0o755))
	must(t, os.WriteFile(filepath.Join(source, "zeros"), make([]byte, 1<<20), 0o600))
	f, err := os.Create(filepath.Join(source, "sparse"))
	must(t, err)
	must(t, f.Truncate(64<<20))
	_, err = f.WriteAt([]byte("middle"), 32<<20)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
	want := describe(t, source)
	_, r := captureOf(t, vaultIn(t, newLockStore(newHandClock()), Options{}), source)
	must(t, RestoreTree(t.Context(), r, dest))
	if got := describe(t, dest); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	unix.Sync() // blocks are counted when they are written
	if n := blocks(t, filepath.Join(dest, "sparse")); n > 1024 {
		t.Errorf("the file with holes takes %d blocks", n)
	}
	if n := blocks(t, filepath.Join(dest, "zeros")); n < 2048 {
		t.Errorf("the file of zeros takes %d blocks", n)
	}
}

// TestPartsOfManyEntriesAreShed puts more entries than are kept in memory, in an order in which directories come up again.
func TestPartsOfManyEntriesAreShed(t *testing.T) {
	v := vaultIn(t, newLockStore(newHandClock()), Options{})
	d, err := v.Begin(t.Context(), repoA, "")
	must(t, err)
	pw, err := d.Part(t.Context(), "directory/x", point.KindDir)
	must(t, err)
	w, ok := pw.(*part)
	if !ok {
		t.Fatalf("a %T", pw)
	}
	const dirs, files = 5, 20
	put := func(e point.Entry) {
		e.Time = time.Unix(9, 0)
		w.loose = maxLoose // at each
		_, err := w.Put(t.Context(), e, strings.NewReader(e.Name), point.Tree)
		must(t, err)
	}
	for i := range dirs {
		_, err := w.Put(t.Context(), point.Entry{Name: fmt.Sprint("d", i), Mode: os.ModeDir | 0o755, Time: time.Unix(8, 0)}, nil, point.Tree)
		must(t, err)
	}
	for i := range dirs * files {
		put(point.Entry{Name: fmt.Sprintf("d%d/f%d", i%dirs, i)})
	}
	stored := 0
	for _, kid := range w.root.kids {
		if kid.kids == nil {
			stored++
		}
	}
	if stored != dirs-1 {
		t.Errorf("%d of %d directories have left memory", stored, dirs)
	}
	must(t, w.Store(t.Context(), point.Part{}))
	receipt, err := d.Commit(t.Context())
	must(t, err)
	_, r, err := v.Open(t.Context(), receipt.Point.ID)
	must(t, err)
	for i := range dirs {
		list, err := r.List(t.Context(), fmt.Sprint("directory/x/d", i))
		if err != nil || len(list) != files {
			t.Errorf("directory %d has %d files, %v", i, len(list), err)
		}
	}
}
