package git

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// objectsOf are all objects that a repository's refs reach.
func objectsOf(s *sourceRepo, args ...string) []string {
	var oids []string
	for line := range strings.SplitSeq(s.git(append([]string{"rev-list", "--objects"}, args...)...), "\n") {
		oid, _, _ := strings.Cut(line, " ")
		oids = append(oids, oid)
	}
	return oids
}

func without(oids []string, oid string) []string {
	return slices.DeleteFunc(slices.Clone(oids), func(o string) bool { return o == oid })
}

func TestPacksThatLie(t *testing.T) {
	s := newRepo(t)
	first := s.commit("refs/heads/main", "a", "1")
	all := objectsOf(s, "--all")
	good := packOf(s, all...)
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 0xff
	unrelated := s.commitOn("", "z", "26")
	cases := []struct {
		name string
		pack []byte
		want error
		says string
	}{
		{"the commit left out", packOf(s, without(all, first)...), fault.ErrCorrupt, "left out 1 of them, " + first},
		{"a tree left out", packOf(s, without(all, s.git("rev-parse", first+"^{tree}"))...), fault.ErrCorrupt, ""},
		{"a blob left out", packOf(s, without(all, s.git("rev-parse", first+":a"))...), fault.ErrCorrupt, ""},
		{"something else instead", packOf(s, objectsOf(s, unrelated)...), fault.ErrCorrupt, "left out 1 of them, " + first},
		{"no objects", rawPack(), fault.ErrCorrupt, "left out all"},
		{"a byte flipped", flipped, fault.ErrCorrupt, ""},
		{"cut short", good[:len(good)-25], nil, ""},
		{"more after the end", append(bytes.Clone(good), "\n"...), fault.ErrCorrupt, "goes on after its end"},
		{"much more after the end", append(bytes.Clone(good), make([]byte, 100_000)...), fault.ErrCorrupt, ""},
		{"more objects promised", append(append([]byte("PACK\x00\x00\x00\x02\x7f\xff\xff\xff"), good[12:len(good)-20]...), good[len(good)-20:]...), nil, ""},
		{"no pack at all", []byte("<html>please sign in</html>"), nil, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := &liar{refs: []Ref{{Name: head, OID: first, Target: "refs/heads/main"}, {Name: "refs/heads/main", OID: first}}, pack: c.pack}
			b := newBench(t, l.serve(t))
			_, err := b.try()
			if err == nil || (c.want != nil && !errors.Is(err, c.want)) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("error %v, want one that is %v and says %q", err, c.want, c.says)
			}
			l.pack = good // and when the server is honest again, so is the point
			requireSame(t, s.dir, b.restore(b.backup().Point.ID))
		})
	}
}

func TestIncrementsThatLie(t *testing.T) {
	s := newRepo(t)
	first := s.commit("refs/heads/main", "a", "1")
	firstPack := packOf(s, objectsOf(s, "--all")...)
	between := s.commit("refs/heads/main", "b", "2")
	second := s.commit("refs/heads/main", "c", "3")
	all := objectsOf(s, "--all", "^"+first)
	stray := s.commitOn(second, "d", "4")
	cases := []struct {
		name string
		pack []byte
	}{
		{"a commit left out", packOf(s, without(all, between)...)},
		{"a tree left out", packOf(s, without(all, s.git("rev-parse", second+"^{tree}"))...)},
		{"a blob left out", packOf(s, without(all, s.git("rev-parse", second+":b"))...)},
		{"an object that was not asked for, without what it names", packOf(s, append(slices.Clone(all), stray)...)},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := &liar{refs: []Ref{{Name: "refs/heads/main", OID: first}}, pack: firstPack}
			b := newBench(t, l.serve(t))
			before := b.backup()
			l.refs[0].OID, l.pack = second, c.pack
			if _, err := b.try(); !errors.Is(err, fault.ErrCorrupt) {
				t.Fatalf("error %v, want one that says the pack is corrupt", err)
			}
			if left, err := b.store.Points(t.Context(), point.Filter{}); err != nil || len(left) != 1 || left[0].ID != before.Point.ID {
				t.Errorf("points after the failure: %v, %v", left, err)
			}
			l.pack = packOf(s, all...)
			if got := s.git("rev-list", "--objects", "--all"); !strings.Contains(look(t, b.restore(b.backup().Point.ID)), got) {
				t.Error("the honest increment does not restore to the same objects")
			}
		})
	}
}

func TestPackBombs(t *testing.T) {
	const piece = 8 << 20
	base := make([]byte, piece)
	bomb := slices.Concat(deltaSize(piece), deltaSize(128*piece))
	for range 128 { // copies of all of the base: a gigabyte out of a kilobyte
		bomb = append(bomb, 0x80|0x40, 0x80) // size 0x800000
	}
	cases := []struct {
		name   string
		pack   []byte
		limits Limits
		says   string
	}{
		{"memory", rawPack(rawObject{kind: 3, data: base}, rawObject{kind: typeOfsDelta, base: 0, data: bomb}), Limits{Memory: 512 << 20}, "memory"},
		{"size", rawPack(rawObject{kind: 3, data: []byte(strings.Repeat("0123456789abcdef", 10_000))}), Limits{PackBytes: 200}, "larger than"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := &liar{refs: []Ref{{Name: "refs/heads/main", OID: strings.Repeat("1", 40)}}, pack: c.pack}
			b := newBench(t, l.serve(t))
			b.o.Limits = c.limits
			if _, err := b.try(); !errors.Is(err, fault.ErrRefused) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want a refusal that says %q", err, c.says)
			}
		})
	}
}

// tree writes a tree object as it stands, whatever git thinks of it.
func (s *sourceRepo) tree(entries ...string) string {
	s.t.Helper()
	var raw strings.Builder
	for _, e := range entries { // "mode name oid"
		fields := strings.Fields(e)
		oid, err := hex.DecodeString(fields[2])
		if err != nil {
			s.t.Fatal(err)
		}
		raw.WriteString(fields[0] + " " + fields[1] + "\x00" + string(oid))
	}
	return s.gitIn(raw.String(), "hash-object", "-t", "tree", "-w", "--stdin", "--literally")
}

// Old repositories have flaws that git would not write today, and hostile ones have worse. All are backed up, and said.
func TestFindingsAreRecordedAndNeverRefuse(t *testing.T) {
	cases := []struct {
		name string
		make func(s *sourceRepo, blob string) string // returns a commit
		note string
	}{
		{"zero-padded mode", func(s *sourceRepo, blob string) string {
			return s.git("commit-tree", "-m", "x", s.tree("0100644 a "+blob))
		}, "zeroPaddedFilemode"},
		{"entries of the parent directory", func(s *sourceRepo, blob string) string {
			return s.git("commit-tree", "-m", "x", s.tree("40000 .. "+s.tree("100644 evil "+blob)))
		}, "hasDotdot"},
		{"entries of the git directory", func(s *sourceRepo, blob string) string {
			return s.git("commit-tree", "-m", "x", s.tree("40000 .GIT "+s.tree("100644 config "+blob)))
		}, "hasDotgit"},
		{"a file below a symbolic link", func(s *sourceRepo, blob string) string {
			return s.git("commit-tree", "-m", "x", s.tree("120000 a "+blob, "40000 a "+s.tree("100644 evil "+blob)))
		}, "duplicateEntries"},
		{"a commit without a date", func(s *sourceRepo, blob string) string {
			return s.gitIn("tree "+s.tree("100644 a "+blob)+"\nauthor A <a@b>\ncommitter A <a@b> 1 +0000\n\nx\n",
				"hash-object", "-t", "commit", "-w", "--stdin", "--literally")
		}, "missingSpaceBeforeDate"},
		{"a commit with a NUL in its header", func(s *sourceRepo, blob string) string {
			return s.gitIn("tree "+s.tree("100644 a "+blob)+"\nauthor A\x00 <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n",
				"hash-object", "-t", "commit", "-w", "--stdin", "--literally")
		}, "nulInHeader"},
	}
	for _, c := range cases {
		for _, grown := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, incremental %v", c.name, grown), func(t *testing.T) {
				s := newRepo(t)
				b := newBench(t, s.dir)
				s.commit("refs/heads/main", "a", "1")
				if grown {
					b.backup()
				}
				s.git("update-ref", "refs/heads/odd", c.make(s, s.gitIn("/etc/passwd", "hash-object", "-w", "--stdin")))
				r := b.backup()
				notes := strings.Join(r.Point.Parts[0].Notes, "\n")
				if !strings.Contains(notes, fsckNote+c.note+": ") {
					t.Errorf("the notes do not tell of %s: %s", c.note, notes)
				}
				if want, got := look(t, s.dir), look(t, b.restore(r.Point.ID)); got != want {
					t.Errorf("restored\n%s\nwant\n%s", got, want)
				}
				s.commit("refs/heads/main", "a", "2")
				if later := strings.Join(b.backup().Point.Parts[0].Notes, "\n"); !strings.Contains(later, c.note) {
					t.Errorf("the next point has forgotten the finding: %s", later)
				}
			})
		}
	}
}

// What a repository brings beside objects and refs must not come along.
func TestHooksAndConfigurationStayBehind(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	proof := filepath.Join(t.TempDir(), "ran")
	script := "#!/bin/sh\ntouch " + proof + "\n"
	if err := os.MkdirAll(filepath.Join(s.dir, "hooks"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"post-checkout", "pre-receive", "post-update", "reference-transaction"} {
		if err := os.WriteFile(filepath.Join(s.dir, "hooks", name), []byte(script), 0o755); err != nil { // a hook
			t.Fatal(err)
		}
	}
	config := "[core]\n\tbare = true\n\tfsmonitor = touch " + proof + "\n[uploadpack]\n\tpackObjectsHook = touch " + proof + "\n"
	if err := os.WriteFile(filepath.Join(s.dir, "config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, s.dir)
	dir := b.restore(b.backup().Point.ID)
	if _, err := os.Stat(proof); err == nil {
		t.Error("something of the repository was run")
	}
	if _, err := os.Stat(filepath.Join(dir, "hooks")); err == nil {
		t.Error("the hooks were restored")
	}
	if raw, err := os.ReadFile(filepath.Join(dir, "config")); err != nil || strings.Contains(string(raw), "touch") {
		t.Errorf("the configuration was restored: %s, %v", raw, err)
	}
}

// Between the list of refs and the fetch somebody may push.
func TestSourceThatMovesMeanwhile(t *testing.T) {
	s := newRepo(t)
	first := s.commit("refs/heads/main", "a", "1")
	l := &liar{refs: []Ref{{Name: head, OID: first, Target: "refs/heads/main"}, {Name: "refs/heads/main", OID: first}}}
	l.lost = func() {
		second := s.commitOn("", "a", "2")
		s.git("update-ref", "refs/heads/main", second)
		l.refs[0].OID, l.refs[1].OID = second, second
		l.pack = packOf(s, objectsOf(s, "--all")...)
	}
	b := newBench(t, l.serve(t))
	r := b.backup()
	if len(r.Point.Parts[0].Counts) != 1 {
		t.Errorf("refs are counted twice: %+v", r.Point.Parts[0].Counts)
	}
	requireSame(t, s.dir, b.restore(r.Point.ID))

	l.lost = func() {} // gone, and nothing has moved
	l.refs[0].OID, l.refs[1].OID = strings.Repeat("1", 40), strings.Repeat("1", 40)
	if _, err := b.try(); !errors.Is(err, fault.ErrUnavailable) {
		t.Errorf("error %v, want one that says to try again", err)
	}
}

func TestCheckIsBoundedInTime(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	b := newBench(t, s.dir)
	b.o.Limits.CheckTime = time.Nanosecond
	if _, err := b.try(); !errors.Is(err, fault.ErrRefused) || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("error %v, want a refusal for the time it takes", err)
	}
}
