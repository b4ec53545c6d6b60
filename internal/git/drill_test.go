package git

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/point"
)

// drilled restores the point's repository and drills it.
func (b *bench) drilled(receipt *point.Receipt, damage func(dir string), change func(*point.Part)) []string {
	b.t.Helper()
	dir := filepath.Join(b.t.TempDir(), "restored")
	from := b.part(receipt.Point.ID)
	if err := RestoreBare(b.t.Context(), from, dir, RestoreOptions{}); err != nil {
		b.t.Fatal(err)
	}
	if damage != nil {
		damage(dir)
	}
	part := receipt.Point.Parts[0]
	if change != nil {
		change(&part)
	}
	checks, err := Drill(b.t.Context(), from, part, dir, Limits{})
	if err != nil {
		b.t.Fatal(err)
	}
	if left, _ := filepath.Glob(dir + ".*"); len(left) > 0 {
		b.t.Errorf("left beside the repository: %q", left)
	}
	var lines []string
	for _, c := range checks {
		verdict := "failed: "
		if c.OK {
			verdict = "passed: "
		}
		lines = append(lines, verdict+c.What+": "+c.Detail)
	}
	return lines
}

func TestDrill(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	s.commit("refs/heads/topic", "b", "2")
	b := newBench(t, s.dir)
	receipt := b.backup()
	main, topic := s.git("rev-parse", "main"), s.git("rev-parse", "topic")
	blob := s.git("rev-parse", "topic:b")
	tests := []struct {
		name   string
		damage func(dir string)
		change func(*point.Part)
		want   []string // beginnings of the failed ones
	}{
		{name: "good"},
		{
			name: "missing object", want: []string{"failed: fsck: missing: blob " + blob, "failed: clone: "},
			damage: func(dir string) { withoutObject(t, dir, blob) },
		},
		{
			name: "HEAD at another branch", want: []string{"failed: HEAD: it is at " + topic + ", and was at " + main},
			damage: func(dir string) { write(t, filepath.Join(dir, "HEAD"), "ref: refs/heads/topic\n") },
		},
		{
			name: "ref at another commit", want: []string{"failed: clone: git reads other refs"},
			damage: func(dir string) { write(t, filepath.Join(dir, "refs", "heads", "topic"), main+"\n") },
		},
		{
			name: "ledger with another count", want: []string{"failed: refs: the ledger counts 3, and there are 2"},
			change: func(p *point.Part) { p.Counts = []point.Count{{Of: "refs", Expected: 3, Stored: 3}} },
		},
		{
			name: "record with another revision", want: []string{"failed: refs: HEAD was recorded at " + topic},
			change: func(p *point.Part) { p.Revision = topic },
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b.t = t
			lines := b.drilled(receipt, test.damage, test.change)
			failed := 0
			for _, line := range lines {
				if !strings.HasPrefix(line, "failed") {
					continue
				}
				if failed >= len(test.want) || !strings.HasPrefix(line, test.want[failed]) {
					t.Errorf("unexpected: %s", line)
				}
				failed++
			}
			if failed != len(test.want) || len(lines) != 4 {
				t.Errorf("got %q, want failures %q", lines, test.want)
			}
		})
	}
}

// TestDrillOfEmptyRepository has nothing to clone, and nothing wrong.
func TestDrillOfEmptyRepository(t *testing.T) {
	s := newRepo(t)
	b := newBench(t, s.dir)
	for _, line := range b.drilled(b.backup(), nil, nil) {
		if strings.HasPrefix(line, "failed") {
			t.Error(line)
		}
	}
}

// withoutObject takes an object out of a repository.
func withoutObject(t *testing.T, dir, oid string) {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(dir, "objects", "pack", "*.pack"))
	if err != nil || len(packs) == 0 {
		t.Fatalf("packs %q, %v", packs, err)
	}
	for _, pack := range packs {
		loose := filepath.Join(t.TempDir(), filepath.Base(pack))
		if err := os.Rename(pack, loose); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(strings.TrimSuffix(pack, "pack") + "idx"); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(loose)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := runGit(t.Context(), dir, string(content), "unpack-objects", "-q"); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "objects", oid[:2], oid[2:])); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}
