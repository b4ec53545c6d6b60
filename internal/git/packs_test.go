package git

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
)

// packed is a repository whose history lies in one pack, with deltas, made with the arguments given to git pack-objects.
func packed(t *testing.T, initArgs []string, packArgs ...string) (*sourceRepo, *packSet) {
	t.Helper()
	s := newRepo(t, initArgs...)
	s.commit("refs/heads/main", "a", "0")
	long := noise(rand.New(rand.NewPCG(5, 6)), 2000)
	parent := s.git("rev-parse", "refs/heads/main")
	tree := s.git("rev-parse", "refs/heads/main^{tree}")
	for i := range 30 { // messages that are alike are stored as deltas of each other
		parent = s.gitIn(fmt.Sprintf("commit %d\n%q", i, long), "commit-tree", tree, "-p", parent)
	}
	s.git("update-ref", "refs/heads/main", parent)
	s.git("tag", "-m", "a tag", "v1", "refs/heads/main")
	dir := filepath.Join(t.TempDir(), "packed")
	if err := os.MkdirAll(filepath.Join(dir, packDir), 0o755); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"pack-objects", "-q", "--revs", "--all", "--window=50"}, packArgs...)
	s.gitIn("", append(args, filepath.Join(dir, packDir, "pack"))...)
	set, err := openPacks(t.Context(), diskFiles(dir), s.git("rev-parse", "--show-object-format"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(set.close)
	return s, set
}

func TestPackReaderReadsWhatGitReads(t *testing.T) {
	cases := []struct {
		name string
		init []string
		pack []string
	}{
		{"deltas by offset", nil, []string{"--delta-base-offset"}},
		{"deltas by name", nil, nil},
		{"SHA-256", []string{"--object-format=sha256"}, []string{"--delta-base-offset"}},
		{"an index with 8-byte offsets", nil, []string{"--index-version=2,0x10"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s, set := packed(t, c.init, c.pack...)
			deltas := 0
			for _, oid := range objectsOf(s, "--all", "--no-object-names") {
				kind, content, err := set.read(t.Context(), oid)
				if err != nil {
					t.Fatalf("%s: %v", oid, err)
				}
				p, offset, err := set.locate(oid)
				if err != nil {
					t.Fatal(err)
				}
				if e, err := p.entry(t.Context(), set, offset); err == nil && (e.kind == typeOfsDelta || e.kind == typeRefDelta) {
					deltas++
				}
				want := s.git("cat-file", "-t", oid)
				if (kind == typeCommit) != (want == "commit") || (kind == typeTag) != (want == "tag") {
					t.Errorf("%s is read as type %d, git says %s", oid, kind, want)
				}
				if kind != typeCommit && kind != typeTag {
					continue
				}
				if raw, err := outputOf(t.Context(), s.dir, "", "cat-file", want, oid); err != nil || !bytes.Equal(raw, content) {
					t.Errorf("%s is read as %q, git reads %q, %v", oid, content, raw, err)
				}
			}
			if deltas < 20 {
				t.Errorf("only %d deltas: the test does not test them", deltas)
			}
		})
	}
}

func TestAncestry(t *testing.T) {
	s, set := packed(t, nil, "--delta-base-offset")
	tip := s.git("rev-parse", "refs/heads/main")
	for _, c := range []struct {
		oid, old string
		want     bool
	}{
		{tip, tip, true},
		{tip, s.git("rev-parse", tip+"~1"), true},
		{tip, s.git("rev-parse", tip+"~30"), true},
		{s.git("rev-parse", tip+"~1"), tip, false},
	} {
		got, err := newHistory("sha1", nil, set).descends(t.Context(), c.oid, c.old)
		if err != nil || got != c.want {
			t.Errorf("%s descends from %s: %v, %v; want %v", c.oid, c.old, got, err, c.want)
		}
	}
	h := newHistory("sha1", set)
	if _, err := h.descends(t.Context(), s.git("rev-parse", "refs/tags/v1"), tip); !errors.Is(err, errUnknown) {
		t.Errorf("a tag is taken for a commit: %v", err)
	}
	h.left = 3
	if _, err := h.descends(t.Context(), tip, s.git("rev-parse", tip+"~20")); !errors.Is(err, errUnknown) {
		t.Errorf("the walk is not bounded: %v", err)
	}
	if _, err := h.descends(t.Context(), tip, strings.Repeat("1", 40)); !errors.Is(err, errUnknown) {
		t.Errorf("a commit that is nowhere: %v", err)
	}
}

func TestIndexFindsEveryObjectAndNoOther(t *testing.T) {
	s, set := packed(t, nil)
	var want []string
	x := set.packs[0].index
	err := x.each(func(oid string) error {
		want = append(want, oid)
		return nil
	})
	if err != nil || len(want) != x.count() || len(want) != len(objectsOf(s, "--all", "--no-object-names")) {
		t.Fatalf("%d objects listed of %d, %v", len(want), x.count(), err)
	}
	for _, oid := range want {
		if has, err := set.has(oid); err != nil || !has {
			t.Errorf("%s is not found: %v", oid, err)
		}
		other := oid[:39] + string("0123456789abcdef"[15-strings.IndexByte("0123456789abcdef", oid[39])])
		if has, err := set.has(other); err != nil || has {
			t.Errorf("%s is found: %v", other, err)
		}
	}
	for _, odd := range []string{"", "xyz", want[0][:38], want[0] + "00"} {
		if has, err := set.has(odd); err != nil || has {
			t.Errorf("%q is found: %v", odd, err)
		}
	}
}

// bigIndex is an index of n objects whose ids all begin with the same byte, the worst case for the fan-out.
func bigIndex(n int) []byte {
	b := []byte(indexMagic)
	for i := range 256 {
		count := 0
		if i >= 0x77 {
			count = n
		}
		b = binary.BigEndian.AppendUint32(b, uint32(count))
	}
	for i := range n {
		b = binary.BigEndian.AppendUint32(append(b, 0x77), uint32(i))
		b = append(b, make([]byte, 15)...)
	}
	b = append(b, make([]byte, 4*n)...)
	for i := range n {
		b = binary.BigEndian.AppendUint32(b, uint32(12+i))
	}
	return append(b, make([]byte, 40)...)
}

type countingSeeker struct {
	io.ReadSeeker
	read int64
}

func (c *countingSeeker) Read(p []byte) (int, error) {
	n, err := c.ReadSeeker.Read(p)
	c.read += int64(n)
	return n, err
}

func TestLookUpReadsLittle(t *testing.T) {
	const n = 300_000
	r := &countingSeeker{ReadSeeker: bytes.NewReader(bigIndex(n))}
	x, err := openPackIndex(r, "sha1")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 1, n / 2, n - 1} {
		r.read = 0
		offset, found, err := x.find(fmt.Sprintf("77%08x%030x", i, 0))
		if err != nil || !found || offset != int64(12+i) {
			t.Errorf("object %d is at %d: %v, %v", i, offset, found, err)
		}
		if r.read > 100_000 {
			t.Errorf("%d bytes were read of an index of %d MB", r.read, 28*n>>20)
		}
	}
}

func FuzzPackIndex(f *testing.F) {
	f.Add(bigIndex(3), "7700000001"+strings.Repeat("0", 30))
	f.Add(bigIndex(0), strings.Repeat("0", 40))
	f.Add([]byte(indexMagic), "")
	large := bigIndex(1)
	copy(large[len(large)-44:], []byte{0x80, 0, 0, 5})
	f.Add(large, "7700000000"+strings.Repeat("0", 30))
	f.Fuzz(func(t *testing.T, raw []byte, oid string) {
		x, err := openPackIndex(bytes.NewReader(raw), "sha1")
		if err != nil {
			if !errors.Is(err, fault.ErrCorrupt) {
				t.Errorf("error %v has no class", err)
			}
			return
		}
		if _, _, err := x.find(oid); err != nil && !errors.Is(err, fault.ErrCorrupt) {
			t.Errorf("error %v has no class", err)
		}
		n := 0
		if err := x.each(func(string) error { n++; return nil }); err == nil && n != x.count() {
			t.Errorf("%d objects of %d", n, x.count())
		}
	})
}

func FuzzPackEntry(f *testing.F) {
	pack := rawPack(rawObject{kind: typeCommit, data: []byte("tree x")}, rawObject{kind: typeOfsDelta, base: 0, data: append(append(deltaSize(6), deltaSize(6)...), 0x90, 6)})
	f.Add(pack[12:], int64(12))
	f.Add(pack[12+8:], int64(30))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, int64(99))
	f.Add([]byte{0x7f, 1, 2, 3}, int64(12))
	f.Fuzz(func(t *testing.T, raw []byte, offset int64) {
		e, err := readPackEntry(bufio.NewReader(bytes.NewReader(raw)), offset&(1<<40-1), 20)
		switch {
		case err != nil && !errors.Is(err, fault.ErrCorrupt) && !errors.Is(err, errTooBig):
			t.Errorf("error %v has no class", err)
		case err == nil && len(e.content) > maxHistoryObject:
			t.Errorf("%d bytes were read", len(e.content))
		case err == nil && e.kind == typeOfsDelta && (e.base < packHeader || e.base >= offset&(1<<40-1)):
			t.Errorf("the base at %d of the delta at %d lies outside", e.base, offset)
		}
	})
}

func FuzzDelta(f *testing.F) {
	f.Add([]byte("a base"), append(append(deltaSize(6), deltaSize(8)...), 0x90, 6, 2, 'x', 'y'))
	f.Add([]byte(""), []byte{0, 0})
	f.Add([]byte("x"), []byte{1, 0x80, 0x80, 4, 0x80})
	f.Fuzz(func(t *testing.T, base, delta []byte) {
		out, err := applyDelta(base, delta)
		if err != nil && !errors.Is(err, fault.ErrCorrupt) && !errors.Is(err, errTooBig) {
			t.Errorf("error %v has no class", err)
		}
		if len(out) > maxHistoryObject {
			t.Errorf("%d bytes were made", len(out))
		}
	})
}

func FuzzCommit(f *testing.F) {
	f.Add([]byte("tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nparent " + strings.Repeat("a", 40) + "\nauthor A <a@b> 1 +0000\ncommitter C <c@d> 2 +0000\n\nx"))
	f.Add([]byte("tree \ncommitter > 99999999999999999999999"))
	f.Add([]byte("tree x\nparent zz\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, ok := parseCommit("sha1", raw)
		if !ok {
			return
		}
		for _, p := range c.parents {
			if len(p) != 40 {
				t.Errorf("parent %q", p)
			}
		}
	})
}
