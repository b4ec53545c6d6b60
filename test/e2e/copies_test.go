//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// copiesKilled is how often copying is killed at a random moment.
const copiesKilled = 15

// TestCopiesKilledAtAnyMoment: what lies in a place after kill -9 is a whole repository, and the next run makes it like its source.
func TestCopiesKilledAtAnyMoment(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("BACKSTAY_TEST_SEED"); s != "" {
		fmt.Sscan(s, &seed) //nolint:errcheck // a wrong seed is only another one
	}
	t.Logf("BACKSTAY_TEST_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	c := &crashed{backstay: bareBackstay(t), source: newWorkTree(t), dir: t.TempDir()}
	name := filepath.Base(c.source)
	write(t, c.dir, "conf.yml", strings.NewReplacer("SOURCE", c.source, "DIR", c.dir).Replace(`
source: {any: [{url: SOURCE}]}
destination:
  local:
    - {path: DIR/bare, bare: true}
    - {path: DIR/files}
    - {path: DIR/kept, bare: true, keep: 3}
    - {path: DIR/zip, zip: true, bare: true}
`))
	conf := filepath.Join(c.dir, "conf.yml")
	start := time.Now()
	c.ok(t, "gickup", conf)
	took := time.Since(start)
	done := 0
	for i := range copiesKilled {
		c.grow(t)
		if i%3 == 2 { // refs that move back, and vanish
			git(t, c.source, "branch", "--force", "side", "HEAD~1")
			git(t, c.source, "commit", "--quiet", "--amend", "-m", "rewritten")
		}
		after := time.Duration(random.Int64N(int64(took * 11 / 10)))
		if !c.kill(t, after, "gickup", conf) {
			done++
		}
		for _, copied := range c.copies(t, name) {
			git(t, copied, "fsck", "--full", "--strict", "--connectivity-only")
			git(t, copied, "rev-parse", "--verify", "main")
		}
		if r := c.run(t, "gickup", conf); r.exit != 0 {
			t.Fatalf("the run after kill %d (after %v): exit %d\n%s%s", i, after, r.exit, r.stdout, r.stderr)
		}
		copies := c.copies(t, name)
		for _, copied := range []string{copies[0], copies[1], copies[len(copies)-1]} {
			names := []string{"for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags"}
			if got, want := git(t, copied, names...), git(t, c.source, names...); got != want {
				t.Errorf("after kill %d (after %v): %s:\n got %s\nwant %s", i, after, copied, got, want)
			}
			git(t, copied, "fsck", "--full", "--strict")
		}
		if changed := git(t, copies[1], "status", "--short"); changed != "" {
			t.Errorf("kill %d (after %v): files differ:\n%s", i, after, changed)
		}
	}
	if kept := c.copies(t, name)[2:]; len(kept) != 4 { // three, and the one in the zip file
		t.Errorf("%q are kept, want 3", kept[:len(kept)-1])
	}
	t.Logf("%d kills, %d of which came after the end; a whole run takes %v", copiesKilled, done, took)
	if done > copiesKilled/2 {
		t.Errorf("more than half the kills came too late")
	}
}

// copies are the copies that are there: bare, with files, those kept, and what is in the zip file.
func (c *crashed) copies(t *testing.T, name string) []string {
	t.Helper()
	all := []string{filepath.Join(c.dir, "bare", name+".git"), filepath.Join(c.dir, "files", name)}
	kept, err := filepath.Glob(filepath.Join(c.dir, "kept", name+".git", "[0-9]*"))
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, kept...)
	unzipped := t.TempDir()
	unzip(t, filepath.Join(c.dir, "zip", name+".git.zip"), unzipped)
	return append(all, filepath.Join(unzipped, name+".git"))
}
