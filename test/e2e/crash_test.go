//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// kills is how often each operation is killed. All of them make the hundred that docs/design.md promises to survive.
const kills = 25

// crashed is a vault under attack: small, so that every point can be read whole after every kill.
type crashed struct {
	*backstay
	source string
	dir    string
	n      int
}

func newCrashed(t *testing.T) *crashed {
	c := &crashed{backstay: newBackstay(t), source: newWorkTree(t), dir: t.TempDir()}
	for range 3 {
		c.grow(t)
		c.backup(t, c.source)
	}
	return c
}

// grow commits a file that no one compresses.
func (c *crashed) grow(t *testing.T) {
	t.Helper()
	c.n++
	noise := make([]byte, 200_000)
	rand.NewChaCha8([32]byte{byte(c.n), byte(c.n >> 8)}).Read(noise)
	write(t, c.source, fmt.Sprintf("file%d", c.n%10), string(noise))
	git(t, c.source, "add", ".")
	git(t, c.source, "commit", "--quiet", "-m", fmt.Sprint(c.n))
}

func TestKilledAtAnyMoment(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(*testing.T, *crashed)
		args    func(*crashed) []string
		check   func(*testing.T, *crashed) // after the next run
		deletes bool                       // points may go
	}{
		{
			name:    "backup",
			prepare: func(t *testing.T, c *crashed) { c.grow(t) },
			args:    func(c *crashed) []string { return []string{"backup", c.source} },
			check: func(t *testing.T, c *crashed) {
				dir := filepath.Join(t.TempDir(), "restored")
				c.ok(t, "restore", "latest", "--to", dir)
				same(t, dir, c.source)
				if len(c.points(t)) > 10 {
					c.ok(t, "expire", "--keep-last", "3")
				}
			},
		},
		{
			name: "expire",
			prepare: func(t *testing.T, c *crashed) {
				for range 2 {
					c.grow(t)
					c.backup(t, c.source)
				}
			},
			args: func(*crashed) []string { return []string{"expire", "--keep-last", "2"} },
			check: func(t *testing.T, c *crashed) {
				if n := len(c.points(t)); n != 2 {
					t.Errorf("%d points are left, want 2", n)
				}
			},
			deletes: true,
		},
		{
			name: "maintain",
			prepare: func(t *testing.T, c *crashed) {
				c.grow(t)
				c.backup(t, c.source)
				c.ok(t, "expire", "--keep-last", "2")
			},
			args:  func(*crashed) []string { return []string{"maintain", "--full"} },
			check: func(*testing.T, *crashed) {},
		},
		{
			name:    "restore",
			prepare: func(_ *testing.T, c *crashed) { c.n++ },
			args: func(c *crashed) []string {
				return []string{"restore", "latest", "--to", filepath.Join(c.dir, fmt.Sprint(c.n))}
			},
			check: func(t *testing.T, c *crashed) { same(t, filepath.Join(c.dir, fmt.Sprint(c.n)), c.source) },
		},
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("BACKSTAY_TEST_SEED"); s != "" {
		fmt.Sscan(s, &seed) //nolint:errcheck // a wrong seed is only another one
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Logf("BACKSTAY_TEST_SEED=%d", seed)
			random := rand.New(rand.NewPCG(seed, 0))
			c := newCrashed(t)
			took := time.Hour
			for range 3 { // one may meet a machine that is busy for a moment: kills by its time would come too late
				test.prepare(t, c)
				start := time.Now()
				c.ok(t, test.args(c)...)
				took = min(took, time.Since(start))
			}
			done := 0
			for i := range kills {
				test.prepare(t, c)
				before := c.points(t)
				after := time.Duration(random.Int64N(int64(took * 11 / 10)))
				if !c.kill(t, after, test.args(c)...) {
					done++
				}
				listed := c.sound(t)
				if missing := slices.DeleteFunc(before, func(id string) bool { return slices.Contains(listed, id) }); len(missing) > 0 && !test.deletes {
					t.Errorf("kill %d after %v: points are gone: %v", i, after, missing)
				}
				if dir := filepath.Join(c.dir, fmt.Sprint(c.n)); test.name == "restore" && exists(dir) {
					same(t, dir, c.source) // what is there under its own name is whole, also where the kill came just after
					remove(t, dir)         // the next restore would not write over it
				}
				if r := c.run(t, test.args(c)...); r.exit != 0 {
					t.Fatalf("the run after kill %d (after %v): exit %d\n%s%s", i, after, r.exit, r.stdout, r.stderr)
				}
				test.check(t, c)
			}
			c.sound(t)
			t.Logf("%d kills, %d of which came after the end; a whole run takes %v", kills, done, took)
			if done > kills/2 {
				t.Errorf("more than half the kills came too late")
			}
		})
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func remove(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

// kill starts a command and kills it, with its children, after a while. It reports false where the command had ended before.
func (c *crashed) kill(t *testing.T, after time.Duration, args ...string) bool {
	t.Helper()
	cmd := c.command(t.Context(), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(after)
	err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	cmd.Wait() // it was killed
	return err == nil && cmd.ProcessState.ExitCode() == -1
}

// sound fails where a listed point does not read whole. It returns the points listed.
func (c *crashed) sound(t *testing.T) []string {
	t.Helper()
	var report struct {
		Points int   `json:"points"`
		Faults []any `json:"faults"`
	}
	listed := c.points(t)
	r := c.run(t, "verify", "--read-data", "--json")
	if r.exit != 0 {
		t.Fatalf("verify: exit %d\n%s%s", r.exit, r.stdout, r.stderr)
	}
	decode(t, r.stdout, &report)
	if report.Points != len(listed) || len(report.Faults) > 0 {
		t.Errorf("verify checked %d of %d points, and found %v", report.Points, len(listed), report.Faults)
	}
	return listed
}
