package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

// captureOf makes a point of a directory and returns its part and a reader of it.
func captureOf(t *testing.T, v *Vault, dir string, exclude ...string) (point.Part, point.Reader) {
	t.Helper()
	source, err := NewDirectory(dir, "", exclude...)
	must(t, err)
	d, err := v.Begin(t.Context(), source.Subject(), "")
	must(t, err)
	must(t, source.Capture(t.Context(), d))
	receipt, err := d.Commit(t.Context())
	must(t, err)
	_, r, err := v.Open(t.Context(), receipt.Point.ID)
	must(t, err)
	return receipt.Point.Parts[0], protect.Within(r, receipt.Point.Parts[0].Name)
}

// describe tells everything about a tree that a restore must bring back, one line a name.
func describe(t *testing.T, dir string) []string {
	t.Helper()
	inodes := map[uint64]string{}
	var lines []string
	must(t, filepath.WalkDir(dir, func(file string, _ fs.DirEntry, err error) error {
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Lstat(file, &st))
		rel, err := filepath.Rel(dir, file)
		must(t, err)
		line := fmt.Sprintf("%q mode %o owner %d:%d time %d.%09d rdev %d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, st.Rdev)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(file)
			must(t, err)
			line += fmt.Sprintf(" holds %d %x", len(b), b[:min(len(b), 32)])
		case unix.S_IFLNK:
			to, err := os.Readlink(file)
			must(t, err)
			line += fmt.Sprintf(" to %q", to)
		}
		if first, known := inodes[st.Ino]; known {
			line += " same as " + first
		} else {
			inodes[st.Ino] = rel
		}
		f, err := os.OpenFile(file, unix.O_PATH|unix.O_NOFOLLOW, 0)
		must(t, err)
		xattrs, err := listXattrs(f)
		must(t, err)
		must(t, f.Close())
		lines = append(lines, fmt.Sprintf("%s xattrs %q", line, xattrs))
		return nil
	}))
	return lines
}

// acl is a POSIX access list as the kernel takes it: owner rw, user 1234 r, group r, mask r, others none.
func acl() []byte {
	b := []byte{2, 0, 0, 0}
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, ^uint32(0)}, {2, 4, 1234}, {4, 4, ^uint32(0)}, {0x10, 4, ^uint32(0)}, {0x20, 0, ^uint32(0)}} {
		b = append(b, byte(e.tag), byte(e.tag>>8), byte(e.perm), 0, byte(e.id), byte(e.id>>8), byte(e.id>>16), byte(e.id>>24))
	}
	return b
}

// Each case is a row of what the engine loses by itself, or a thing that trees hold.
func TestTreeComesBackExactly(t *testing.T) {
	if os.Geteuid() != 0 {
		const why = "needs root: owners, devices and capabilities"
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	old := time.Date(2001, 2, 3, 4, 5, 6, 789012345, time.UTC)
	write := func(t *testing.T, file, text string) {
		must(t, os.MkdirAll(filepath.Dir(file), 0o755))
		must(t, os.WriteFile(file, []byte(text), 0o644))
	}
	tests := []struct {
		name  string
		build func(t *testing.T, dir string)
	}{
		{"names that are not UTF-8", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "bad\xff"), "one")
			write(t, filepath.Join(dir, "bad\xfe"), "two")
			write(t, filepath.Join(dir, "dir\xfe", "x\xff"), "three")
			must(t, unix.Setxattr(filepath.Join(dir, "bad\xff"), "user.x", []byte("y"), 0))
			must(t, os.Link(filepath.Join(dir, "bad\xfe"), filepath.Join(dir, "link\xfd")))
			must(t, os.Symlink("to\xff", filepath.Join(dir, "symlink")))
		}},
		{"strange names", func(t *testing.T, dir string) {
			for _, name := range []string{"new\nline", "tab\t", "back\\slash", "%41", "backstay%41", " ", "-rf", "*", "ü", "u\u0308", strings.Repeat("n", 255)} {
				write(t, filepath.Join(dir, name), name)
			}
		}},
		{"kopia's placeholders", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "x.kopia-entry"), `{"name":"x","type":"f","obj":"k0123"}`)
			write(t, filepath.Join(dir, "d.kopia-entry", "y"), "in a directory")
		}},
		{"marks and patterns of what to leave out", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "cache", "CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55")
			write(t, filepath.Join(dir, "cache", "data"), "kept")
			write(t, filepath.Join(dir, ".kopiaignore"), "*")
			write(t, filepath.Join(dir, "ignored"), "kept")
		}},
		{"pipes and devices", func(t *testing.T, dir string) {
			must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o640))
			must(t, unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
			must(t, unix.Mknod(filepath.Join(dir, "loop"), unix.S_IFBLK|0o660, int(unix.Mkdev(7, 200))))
			must(t, os.Chown(filepath.Join(dir, "fifo"), 12, 34))
			must(t, os.Link(filepath.Join(dir, "fifo"), filepath.Join(dir, "pipe")))
		}},
		{"hard links", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "a"), "same")
			must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
			must(t, os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "d", "b")))
			must(t, os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "c")))
			must(t, unix.Setxattr(filepath.Join(dir, "c"), "user.k", []byte("v"), 0))
			must(t, os.Symlink("nowhere", filepath.Join(dir, "s1")))
			must(t, os.Link(filepath.Join(dir, "s1"), filepath.Join(dir, "s2")))
			write(t, filepath.Join(dir, "e"), "same") // of the same bytes, but a file of its own
		}},
		{"extended attributes, lists of access, capabilities", func(t *testing.T, dir string) {
			file := filepath.Join(dir, "f")
			write(t, file, "x")
			must(t, unix.Setxattr(file, "user.text", []byte("value"), 0))
			must(t, unix.Setxattr(file, "user.bytes", []byte{0, 0xff, 1}, 0))
			must(t, unix.Setxattr(file, "user.empty", nil, 0))
			must(t, unix.Setxattr(file, "user.long", bytes.Repeat([]byte("x"), 3000), 0))
			must(t, unix.Setxattr(dir, "user.top", []byte("root"), 0))
			acled := filepath.Join(dir, "acl")
			write(t, acled, "y")
			must(t, unix.Setxattr(acled, "system.posix_acl_access", acl(), 0))
			able := filepath.Join(dir, "ping")
			write(t, able, "z")
			must(t, unix.Setxattr(able, "security.capability", []byte{1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0))
			link := filepath.Join(dir, "link")
			must(t, os.Symlink("f", link))
			must(t, unix.Lsetxattr(link, "trusted.note", []byte("of a link"), 0))
		}},
		{"modes, owners, times", func(t *testing.T, dir string) {
			for i, mode := range []uint32{0, 0o400, 0o200, 0o4755, 0o2755, 0o1644, 0o777} {
				file := filepath.Join(dir, fmt.Sprintf("f%o", mode))
				write(t, file, "x")
				must(t, os.Chown(file, 1000+i, 2000+i))
				must(t, unix.Chmod(file, mode))
				must(t, os.Chtimes(file, old, old.Add(time.Duration(i)*time.Hour)))
			}
			for _, mode := range []uint32{0, 0o2775, 0o1777} {
				sub := filepath.Join(dir, fmt.Sprintf("d%o", mode))
				must(t, os.MkdirAll(filepath.Join(sub, "empty"), 0o700))
				must(t, unix.Chmod(sub, mode))
				must(t, os.Chtimes(sub, old, old))
			}
			must(t, os.Symlink("f777", filepath.Join(dir, "link")))
			must(t, os.Lchown(filepath.Join(dir, "link"), 5, 6))
			stamp := unix.NsecToTimespec(old.UnixNano())
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, "link"), []unix.Timespec{stamp, stamp}, unix.AT_SYMLINK_NOFOLLOW))
			must(t, unix.Chmod(dir, 0o750))
			must(t, os.Chtimes(dir, old, time.Unix(0, 1))) // at the beginning of time
		}},
		{"nothing", func(*testing.T, string) {}},
		{"links that lead away", func(t *testing.T, dir string) {
			must(t, os.Symlink("/etc/passwd", filepath.Join(dir, "abs")))
			must(t, os.Symlink("../..", filepath.Join(dir, "up")))
			must(t, os.Symlink("loop", filepath.Join(dir, "loop")))
		}},
		{"holes and sizes", func(t *testing.T, dir string) {
			f, err := os.Create(filepath.Join(dir, "sparse"))
			must(t, err)
			must(t, f.Truncate(5<<20))
			_, err = f.WriteAt([]byte("end"), 5<<20-3)
			must(t, err)
			must(t, f.Close())
			write(t, filepath.Join(dir, "empty"), "")
			write(t, filepath.Join(dir, "big.zip"), string(noise(3, 6<<20)))
		}},
	}
	v := vaultIn(t, newLockStore(newHandClock()), Options{})
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "source")
			must(t, os.Mkdir(dir, 0o755))
			test.build(t, dir)
			want := describe(t, dir)
			part, r := captureOf(t, v, dir)
			for _, c := range part.Counts {
				if !c.Closes() || c.Excluded > 0 || len(c.MissingAtSource) > 0 {
					t.Errorf("count does not close: %+v, notes %q", c, part.Notes)
				}
			}
			dest := filepath.Join(t.TempDir(), "dest")
			must(t, RestoreTree(t.Context(), r, dest))
			if got := describe(t, dest); !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func countOf(t *testing.T, p point.Part, of string) point.Count {
	t.Helper()
	i := slices.IndexFunc(p.Counts, func(c point.Count) bool { return c.Of == of })
	if i < 0 {
		t.Fatalf("no count of %s in %+v", of, p.Counts)
	}
	return p.Counts[i]
}

func TestWhatIsLeftOutOfATreeIsSaid(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "vault", "p"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "vault", "p", "x"), []byte("x"), 0o600))
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(dir, "socket"))
	must(t, err)
	defer l.Close()
	v := vaultIn(t, newLockStore(newHandClock()), Options{})
	part, r := captureOf(t, v, dir, filepath.Join(dir, "vault"), "/no/such/directory")
	if c := countOf(t, part, "special files"); c.Excluded != 1 || !c.Closes() {
		t.Errorf("sockets: %+v", c)
	}
	if c := countOf(t, part, "directories"); c.Excluded != 1 || !c.Closes() {
		t.Errorf("excluded directory: %+v", c)
	}
	if notes := strings.Join(part.Notes, "\n"); !strings.Contains(notes, `"socket" was left out`) || !strings.Contains(notes, `"vault" was left out`) {
		t.Errorf("notes: %s", notes)
	}
	if list, err := r.List(t.Context(), "."); err != nil || len(list) != 0 {
		t.Errorf("got %v, %v", list, err)
	}
}

func TestReservedNameIsAStatedFailure(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, attributesDir), 0o755))
	must(t, os.MkdirAll(filepath.Join(dir, "below", attributesDir), 0o755)) // harmless
	part, r := captureOf(t, vaultIn(t, newLockStore(newHandClock()), Options{}), dir)
	if c := countOf(t, part, "files"); c.Closes() || len(part.Notes) != 1 || !strings.Contains(part.Notes[0], "uses this name itself") {
		t.Errorf("got %+v, notes %q", c, part.Notes)
	}
	if _, err := r.List(t.Context(), "below/"+attributesDir); err != nil {
		t.Error(err)
	}
}

// A writer of parts that does something to the source while a file is read.
type meddling struct {
	point.PartWriter
	name string
	do   func()
}

func (m meddling) Put(ctx context.Context, e point.Entry, r io.Reader, c point.Content) (int64, error) {
	switch {
	case e.Name != m.name:
	case r == nil: // by the one who walks
		m.do()
	default:
		r = io.MultiReader(&once{m.do}, r)
	}
	return m.PartWriter.Put(ctx, e, r, c)
}

type once struct{ do func() }

func (o *once) Read([]byte) (int, error) { o.do(); return 0, io.EOF }

func TestSourceThatMovesIsAStatedFailure(t *testing.T) {
	tests := []struct {
		name   string
		meddle func(dir string) error
		check  func(p point.Part) bool
	}{
		{"grows", func(dir string) error {
			f, err := os.OpenFile(filepath.Join(dir, "file"), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("more")
			return errors.Join(err, f.Close())
		}, nil},
		{"shrinks", func(dir string) error {
			info, err := os.Stat(filepath.Join(dir, "file"))
			if err != nil {
				return err
			}
			return os.Truncate(filepath.Join(dir, "file"), info.Size()-1)
		}, nil},
		{"is rewritten", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "file"), []byte(time.Now().String()[:26]), 0o600)
		}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, "file"), []byte(time.Now().String()[:26]), 0o600))
			must(t, os.WriteFile(filepath.Join(dir, "other"), []byte("still"), 0o600))
			v := vaultIn(t, newLockStore(newHandClock()), Options{})
			d, err := v.Begin(t.Context(), repoA, "")
			must(t, err)
			w, err := d.Part(t.Context(), "directory/x", point.KindDir)
			must(t, err)
			p, err := CaptureTree(t.Context(), meddling{w, "file", func() { must(t, test.meddle(dir)) }}, dir)
			must(t, err)
			if c := countOf(t, p, "files"); c.Closes() || c.Stored != 1 || !strings.Contains(strings.Join(p.Notes, ""), "changed while it was read") {
				t.Errorf("got %+v, notes %q", c, p.Notes)
			}
			must(t, w.Store(t.Context(), p))
			r, err := d.Commit(t.Context())
			must(t, err)
			if r.Point.State != point.Incomplete {
				t.Errorf("the point is %s", r.Point.State)
			}
		})
	}
}

func TestFileThatVanishesIsMissingAtTheSource(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Symlink("nowhere", filepath.Join(dir, "a")))
	for _, name := range []string{"b", "c"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600))
	}
	v := vaultIn(t, newLockStore(newHandClock()), Options{})
	d, err := v.Begin(t.Context(), repoA, "")
	must(t, err)
	w, err := d.Part(t.Context(), "directory/x", point.KindDir)
	must(t, err)
	p, err := CaptureTree(t.Context(), meddling{w, "a", func() { must(t, os.Remove(filepath.Join(dir, "b"))) }}, dir)
	must(t, err)
	if c := countOf(t, p, "files"); !c.Closes() || c.Stored != 1 || !slices.Equal(c.MissingAtSource, []string{"b"}) {
		t.Errorf("got %+v", c)
	}
}

func TestUnchangedFilesAreNotRead(t *testing.T) {
	clock := newHandClock()
	dir := t.TempDir()
	stale := time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
	for _, name := range []string{"kept", "edited", "sneaky", "moded"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("before"), 0o644))
		must(t, os.Chtimes(filepath.Join(dir, name), stale, stale))
	}
	must(t, os.Symlink("kept", filepath.Join(dir, "link")))
	v := vaultIn(t, newLockStore(clock), Options{Clock: clock.now})
	clock.forward(time.Minute) // the files are older than the first point
	captureOf(t, v, dir)
	clock.forward(time.Minute)
	must(t, os.WriteFile(filepath.Join(dir, "edited"), []byte("after!"), 0o644))
	must(t, os.Chmod(filepath.Join(dir, "moded"), 0o600))
	part, r := captureOf(t, v, dir)
	if part.NewBytes != int64(len("after!")+len("before")) {
		t.Errorf("%d new bytes, want those of two files", part.NewBytes)
	}
	dest := filepath.Join(t.TempDir(), "dest")
	must(t, RestoreTree(t.Context(), r, dest))
	if got, want := describe(t, dest), describe(t, dir); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestTimeThatIsSetBackHidesNoChange(t *testing.T) {
	clock := newHandClock()
	dir := t.TempDir()
	file, stale := filepath.Join(dir, "sneaky"), time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
	must(t, os.WriteFile(file, []byte("before"), 0o644))
	must(t, os.Chtimes(file, stale, stale))
	v := vaultIn(t, newLockStore(clock), Options{Clock: clock.now})
	captureOf(t, v, dir)
	must(t, os.WriteFile(file, []byte("after!"), 0o644))
	must(t, os.Chtimes(file, stale, stale))
	_, r := captureOf(t, v, dir)
	f, err := r.Open(t.Context(), "sneaky")
	must(t, err)
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "after!" {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestCaptureOfWhatIsNoDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	v := vaultIn(t, newLockStore(newHandClock()), Options{})
	for dir, want := range map[string]error{file: fault.ErrInvalid, file + "x": fault.ErrNotFound} {
		source, err := NewDirectory(dir, "")
		must(t, err)
		d, err := v.Begin(t.Context(), source.Subject(), "")
		must(t, err)
		must(t, source.Capture(t.Context(), d))
		if _, err := d.Commit(t.Context()); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", dir, err, want)
		}
	}
}

// The file of attributes comes out of the vault, but a path in it must still lead nowhere else.
func TestHostileAttributesStayBelowTheTree(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	must(t, os.WriteFile(outside, []byte("x"), 0o600))
	dest := t.TempDir()
	must(t, os.Symlink(filepath.Dir(outside), filepath.Join(dest, "link")))
	must(t, os.WriteFile(filepath.Join(dest, "inside"), []byte("x"), 0o600))
	before := describe(t, filepath.Dir(outside))
	root, err := os.OpenRoot(dest)
	must(t, err)
	defer root.Close()
	to := text("link/outside")
	for _, a := range []attributes{
		{Path: "../outside", NoPermissions: true},
		{Path: text(outside), NoPermissions: true},
		{Path: "link/outside", Xattrs: []xattr{{"user.x", []byte("y")}}},
		{Path: "link/made", Special: &special{Type: "fifo"}},
		{Path: "inside", HardLinkTo: &to},
		{Path: "made", Special: &special{Type: "socket"}},
		{Path: "", NoPermissions: true},
	} {
		x := &restoration{root: root, touched: map[string]time.Time{}}
		if err := x.apply(a); err == nil {
			t.Errorf("%+v was applied", a)
		}
	}
	if after := describe(t, filepath.Dir(outside)); !slices.Equal(after, before) {
		t.Errorf("got %q, want %q", after, before)
	}
}

func FuzzReadAttributes(f *testing.F) {
	to := text("a\xff")
	for _, a := range []attributes{
		{Path: "a", Xattrs: []xattr{{"user.x", []byte{0}}}}, {Path: "\xff", HardLinkTo: &to}, {Path: "p", Special: &special{Type: "fifo"}},
	} {
		b, err := json.Marshal(a)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("{}\n{\"path\":{\"bytes\":\"!\"}}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = readAttributes(bytes.NewReader(b), func(a attributes) error {
			again, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			var back attributes
			if err := json.Unmarshal(again, &back); err != nil || back.Path != a.Path {
				t.Fatalf("%q reads back as %q, %v", a.Path, back.Path, err)
			}
			return nil
		})
	})
}
