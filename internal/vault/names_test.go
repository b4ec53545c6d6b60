package vault

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/backstay/backstay/internal/point"
)

var oddNames = []string{
	"bad\xff", "bad\xfe", "\xff\xfe", "x.kopia-entry", ".kopia-entry", "new\nline", "tab\t", "\x7f", "backstay%", "backstay%41",
	"backstay%.kopia-entry", "100%", "%41", "ümläut", "e\u0301", "\u2028", "\ufffd", " ", "-rf", "a\\b", "con",
}

func TestStoredNames(t *testing.T) {
	seen := map[string]string{}
	for _, name := range oddNames {
		stored := storedName(name)
		if other, ok := seen[stored]; ok {
			t.Errorf("%q and %q are both stored as %q", name, other, stored)
		}
		seen[stored] = name
		if got := rawName(stored); got != name {
			t.Errorf("%q is stored as %q and comes back as %q", name, stored, got)
		}
	}
	for _, name := range []string{"plain", "100%", "ümläut", "a b"} {
		if stored := storedName(name); stored != name {
			t.Errorf("%q is stored as %q without need", name, stored)
		}
	}
}

func FuzzStoredNames(f *testing.F) {
	for _, name := range oddNames {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if strings.ContainsAny(name, "/\x00") {
			return
		}
		stored := storedName(name)
		if rawName(stored) != name {
			t.Errorf("%q is stored as %q and comes back as %q", name, stored, rawName(stored))
		}
		if !utf8.ValidString(stored) || strings.HasSuffix(stored, placeholder) || strings.IndexFunc(stored, control) >= 0 {
			t.Errorf("%q is stored as %q, which kopia does not keep", name, stored)
		}
		_ = rawName(name) // never a panic
	})
}

// TestOddNames takes names through the vault and out on the disk.
func TestOddNames(t *testing.T) {
	ctx := t.Context()
	v := newVault(t, t.TempDir(), Options{})
	d, err := v.Begin(ctx, repoA, "")
	must(t, err)
	w, err := d.Part(ctx, "dir/odd\xff", point.KindDir)
	must(t, err)
	for _, name := range oddNames {
		for _, at := range []string{name, "in/" + name + "/file"} {
			if at == name {
				at = "files/" + name
			}
			_, err := w.Put(ctx, point.Entry{Name: at}, strings.NewReader(name), point.Tree)
			must(t, err)
		}
	}
	must(t, w.Store(ctx, point.Part{}))
	receipt, err := d.Commit(ctx)
	must(t, err)
	_, r, err := v.Open(ctx, receipt.Point.ID)
	must(t, err)
	entries, err := r.List(ctx, "dir/odd\xff/files")
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
	}
	want := slices.Sorted(slices.Values(oddNames))
	if !slices.Equal(names, want) {
		t.Errorf("listed %q\nwant   %q", names, want)
	}
	dest := filepath.Join(t.TempDir(), "out")
	must(t, r.Extract(ctx, ".", dest))
	for _, name := range oddNames {
		for _, at := range []string{"files/" + name, "in/" + name + "/file"} {
			b, err := os.ReadFile(filepath.Join(dest, "dir/odd\xff", at))
			if err != nil || !bytes.Equal(b, []byte(name)) {
				t.Errorf("%q: %q, %v", at, b, err)
			}
		}
	}
}
