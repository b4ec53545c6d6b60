package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExampleOfConvert runs the page's example as a user does.
func TestExampleOfConvert(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "convert.md"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string // what is read, what is written, what is told
	for _, fence := range []string{"\n```yaml\n", "\n```yaml\n", "\n```\n"} {
		_, rest, _ := strings.Cut(string(page), fence)
		block, after, found := strings.Cut(rest, "\n```\n")
		if !found {
			t.Fatalf("no block %q", fence)
		}
		blocks, page = append(blocks, block+"\n"), []byte("\n"+after)
	}
	file := filepath.Join(t.TempDir(), "k10.yaml")
	if err := os.WriteFile(file, []byte(blocks[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t)
	if exit := f.run(t.Context(), "convert", "k10", file); exit != 0 {
		t.Fatalf("exit %d: %s", exit, &f.stderr)
	}
	if got := f.stdout.String(); got != blocks[1] {
		t.Errorf("written:\n%s", got)
	}
	if got := f.stderr.String(); got != blocks[2] {
		t.Errorf("told:\n%s", got)
	}
}
