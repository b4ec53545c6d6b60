package vault

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob/filesystem"
	"github.com/kopia/kopia/repo/manifest"
	"golang.org/x/sync/errgroup"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

var acme = point.Subject{Kind: point.SubjectAccount, Name: "example.com/acme"}

func repositoryName(i int) string { return fmt.Sprintf("git/example.com/acme/repository-%05d.git", i) }

// captureAccount writes the repositories from..to of an account, four at a time, as capturing git repositories does: those that
// changed, or are new, get a pack of 50 KB, of which fetched is told; the others are kept whole.
func captureAccount(ctx context.Context, d point.Sink, repositories int, changed func(i int) bool, fetched func(i int)) error {
	if _, err := d.Last(ctx); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for i := range repositories {
		group.Go(func() error { return captureRepository(ctx, d, i, changed(i), fetched) })
	}
	return group.Wait()
}

func captureRepository(ctx context.Context, d point.Sink, i int, changed bool, fetched func(i int)) error {
	w, err := d.Part(ctx, repositoryName(i), point.KindGit)
	if err != nil {
		return err
	}
	part := point.Part{
		ID: fmt.Sprint("example.com:", i), Mark: "2026-01-02T03:04:05Z", Revision: strings.Repeat("0123456789", 4),
		Counts: []point.Count{{Of: "refs", Expected: 12, Stored: 12}},
	}
	prior := w.Prior()
	if prior != nil && !changed {
		if _, err := prior.Open(ctx, "backstay-lfs"); !errors.Is(err, fault.ErrNotFound) {
			return fmt.Errorf("a list that is not there: %w", err)
		}
		if err := w.Keep(ctx, "."); err != nil {
			return err
		}
		part.Unchanged = true
		return w.Store(ctx, part)
	}
	fetched(i)
	packs := 0
	if prior != nil {
		entries, err := prior.List(ctx, "objects/pack")
		if err != nil {
			return err
		}
		packs = len(entries)
		if err := w.Keep(ctx, "objects/pack"); err != nil {
			return err
		}
	}
	for _, dir := range []string{"objects", "objects/pack", "refs"} {
		if _, err := w.Put(ctx, point.Entry{Name: dir, Mode: fs.ModeDir}, nil, point.Text); err != nil {
			return err
		}
	}
	pack := make([]byte, 50<<10)
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], uint64(i)<<20+uint64(packs)) //nolint:gosec // small and positive
	_, _ = rand.NewChaCha8(seed).Read(pack)                             // never fails
	for name, data := range map[string][]byte{
		fmt.Sprintf("objects/pack/pack-%d.pack", packs): pack,
		fmt.Sprintf("objects/pack/pack-%d.idx", packs):  pack[:2000],
		"HEAD":          []byte("ref: refs/heads/main\n"),
		"config":        []byte("[core]\n\tbare = true\n"),
		"packed-refs":   pack[:700],
		"backstay-refs": pack[:800],
	} {
		content := point.Text
		if len(data) > 1000 {
			content = point.Packed
		}
		if _, err := w.Put(ctx, point.Entry{Name: name}, bytes.NewReader(data), content); err != nil {
			return err
		}
	}
	return w.Store(ctx, part)
}

// accountVariable says which account the other process of the benchmarks backs up: "directory repositories changed".
const accountVariable = "BACKSTAY_TEST_ACCOUNT"

// accountOnce makes one point of an account.
func accountOnce(ctx context.Context, what string) error {
	var dir string
	var repositories, changed int
	if _, err := fmt.Sscanf(what, "%s %d %d", &dir, &repositories, &changed); err != nil {
		return err
	}
	st, err := filesystem.New(ctx, &filesystem.Options{Path: dir}, false)
	if err != nil {
		return err
	}
	v, err := openIn(ctx, st, dir, testPassword, Options{})
	if err != nil {
		return err
	}
	start := time.Now()
	receipt, err := backUpAccount(ctx, v, repositories, share(changed, repositories), func(int) {})
	if err != nil {
		return err
	}
	fmt.Printf("%d parts, %d unchanged, %d bytes in %d ns at %d MiB\n",
		receipt.Ledger.Stored, receipt.Ledger.Unchanged, receipt.StoredBytes, time.Since(start), peakMiB())
	return v.Close(ctx)
}

// share chooses so many of all.
func share(some, all int) func(i int) bool {
	return func(i int) bool { return i*some/all != (i+1)*some/all }
}

func backUpAccount(
	ctx context.Context, v *Vault, repositories int, changed func(i int) bool, fetched func(i int),
) (*point.Receipt, error) {
	d, err := v.Begin(ctx, acme, "")
	if err != nil {
		return nil, err
	}
	if err := captureAccount(ctx, d, repositories, changed, fetched); err != nil {
		return nil, errors.Join(err, d.Abandon(ctx))
	}
	return d.Commit(ctx)
}

// BenchmarkAccount backs an account up in a process of its own: at first, unchanged, and with one repository in a hundred changed.
func BenchmarkAccount(b *testing.B) {
	b.Run("1000/first", func(b *testing.B) {
		benchmarkAccount(b, 1000, 1000, func() string {
			dir := b.TempDir()
			must(b, newVault(b, dir, Options{}).Close(b.Context()))
			return dir
		})
	})
	for _, repositories := range []int{1000, 10_000} {
		dir := b.TempDir()
		v := newVault(b, dir, Options{})
		_, err := backUpAccount(b.Context(), v, repositories, func(int) bool { return true }, func(int) {})
		must(b, err)
		must(b, v.Close(b.Context()))
		same := func() string { return dir }
		b.Run(fmt.Sprint(repositories, "/unchanged"), func(b *testing.B) { benchmarkAccount(b, repositories, 0, same) })
		b.Run(fmt.Sprint(repositories, "/changed"), func(b *testing.B) { benchmarkAccount(b, repositories, repositories/100, same) })
	}
}

// benchmarkAccount backs up into the vault in the directory that next gives.
func benchmarkAccount(b *testing.B, repositories, changed int, next func() string) {
	var peak int
	var took time.Duration
	var stored int64
	for b.Loop() {
		cmd := exec.CommandContext(b.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d", accountVariable, next(), repositories, changed))
		out, err := cmd.Output()
		must(b, err)
		var parts, unchanged, mib int
		var bytes int64
		var one time.Duration
		_, err = fmt.Sscanf(string(out), "%d parts, %d unchanged, %d bytes in %d ns at %d MiB", &parts, &unchanged, &bytes, &one, &mib)
		must(b, err)
		if parts != repositories || unchanged != repositories-changed {
			b.Fatalf("%s", out)
		}
		peak, took, stored = max(peak, mib), took+one, stored+bytes
	}
	b.ReportMetric(took.Seconds()/float64(b.N), "s/run")
	b.ReportMetric(float64(stored)/float64(b.N), "B-stored")
	b.ReportMetric(float64(peak), "MiB-peak")
}

// killedVariable tells the other process of TestKilledAccount after how many repositories it is going to be killed, and into which vault
// it backs up: "count directory".
const killedVariable = "BACKSTAY_TEST_KILLED"

const killedRepositories = 340

// slowAccount makes a point of an account, and prints the number of each repository that it fetches. When it has fetched as many as it
// may it fetches nothing more.
func slowAccount(ctx context.Context, what string) error {
	var most int64
	var dir string
	if _, err := fmt.Sscan(what, &most, &dir); err != nil {
		return err
	}
	st, err := filesystem.New(ctx, &filesystem.Options{Path: dir}, false)
	if err != nil {
		return err
	}
	v, err := openIn(ctx, st, dir, testPassword, Options{})
	if err != nil {
		return err
	}
	var fetched atomic.Int64
	_, err = backUpAccount(ctx, v, killedRepositories, func(int) bool { return false }, func(i int) {
		fmt.Println(i)
		if fetched.Add(1) >= most {
			<-ctx.Done() // it is being killed
		}
	})
	return errors.Join(err, v.Close(ctx))
}

// TestKilledAccount kills a backup again and again: what had ended is not fetched again, but for the few parts under way.
func TestKilledAccount(t *testing.T) {
	dir := t.TempDir()
	must(t, newVault(t, dir, Options{}).Close(t.Context()))
	fetched := map[int]int{}
	const kills = 3
	for kill := range kills + 1 {
		most := 90 + kill
		if kill == kills {
			most = killedRepositories + 1
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", killedVariable, most, dir))
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := bufio.NewScanner(out)
		for n := 1; lines.Scan(); n++ {
			var i int
			_, err := fmt.Sscan(lines.Text(), &i)
			must(t, err)
			if fetched[i]++; n == most {
				must(t, cmd.Process.Kill())
			}
		}
		if err := cmd.Wait(); (err == nil) != (kill == kills) {
			t.Fatalf("run %d: %v", kill, err)
		}
	}
	if len(fetched) != killedRepositories {
		t.Errorf("%d repositories were fetched", len(fetched))
	}
	again := 0
	for _, n := range fetched {
		again += n - 1
	}
	t.Logf("%d fetched again", again)
	// Four at a time are fetched, as many wait, and twice as many as may be at risk: in a checkpoint that is being written, and after it.
	if again > kills*(4+4+2*maxAtRisk) {
		t.Errorf("%d kills made %d fetches twice", kills, again)
	}
	points, err := openVault(t, dir, Options{}).Points(t.Context(), point.Filter{})
	must(t, err)
	if len(points) != 1 || points[0].State != point.Complete {
		t.Errorf("the points are %+v", points)
	}
}

// TestCheckpointsOfManyParts holds the parts in checkpoints to the order of n·√n, and finds every one of them in the next run.
func TestCheckpointsOfManyParts(t *testing.T) {
	var c checkpoints
	written := 0
	const parts = 10_000
	for i := range parts {
		c.ended(&ended{part: point.Part{Name: fmt.Sprint(i)}, brought: 1})
		names, rebase := c.plan()
		written += len(names)
		id := manifest.ID(fmt.Sprint("m", i))
		for _, old := range c.made(id, len(c.names), rebase) {
			if old == id || old == "" {
				t.Fatalf("manifest %q replaces %q", id, old)
			}
		}
		if n := len(c.manifests()); n == 0 || n > 2 {
			t.Fatalf("%d checkpoints are there", n)
		}
	}
	if written > 4*parts*100 {
		t.Errorf("%d parts were written into checkpoints of %d", written, parts)
	}

	v := newVault(t, t.TempDir(), Options{})
	d, err := v.Begin(t.Context(), acme, "")
	must(t, err)
	for i := range 40 {
		must(t, captureRepository(t.Context(), d, i, true, func(int) {}))
		must(t, d.Checkpoint(t.Context()))
	}
	d, err = v.Begin(t.Context(), acme, "") // nobody ended the first
	must(t, err)
	for i := range 40 {
		w, err := d.Part(t.Context(), repositoryName(i), point.KindGit)
		must(t, err)
		if w.Prior() == nil {
			t.Errorf("%s was lost", repositoryName(i))
		}
		must(t, w.Fail(t.Context(), errors.New("not asked")))
	}
	must(t, d.Abandon(t.Context()))
}

// TestCheckpointOfWhatIsLast: who waited for another's checkpoint, which has what they wanted to make last, too, makes none.
func TestCheckpointOfWhatIsLast(t *testing.T) {
	v := newVault(t, t.TempDir(), Options{})
	begun, err := v.Begin(t.Context(), acme, "")
	must(t, err)
	d := begun.(*draft)
	for i := range 4 {
		must(t, captureRepository(t.Context(), d, i, true, func(int) {}))
	}
	d.flushing.Lock() // while one is being made
	waiting := make(chan error, 3)
	for range cap(waiting) {
		go func() { waiting <- d.Checkpoint(t.Context()) }()
	}
	before := d.checkpoints.count
	must(t, d.flush(t.Context()))
	d.flushing.Unlock()
	for range cap(waiting) {
		must(t, <-waiting)
	}
	if made := d.checkpoints.count - before; made != 1 {
		t.Errorf("%d checkpoints were made of four parts that one has", made)
	}
	w, err := d.Part(t.Context(), repositoryName(9), point.KindGit)
	must(t, err)
	must(t, w.(point.Saver).Save(t.Context(), point.Part{Mark: "halfway"}))
	if d.checkpoints.open == "" {
		t.Error("a part that is open is in no checkpoint")
	}
	must(t, w.Fail(t.Context(), errors.New("not asked")))
	must(t, d.Abandon(t.Context()))
}

// TestNothingIsAtRiskInAShard: what a point takes over lasts already, whoever stored it.
func TestNothingIsAtRiskInAShard(t *testing.T) {
	v := newVault(t, t.TempDir(), Options{})
	shard, err := v.Begin(t.Context(), acme, "")
	must(t, err)
	const repositories = 5
	for i := range repositories {
		must(t, captureRepository(t.Context(), shard, i, true, func(int) {}))
	}
	must(t, shard.Abandon(t.Context()))
	begun, err := v.Begin(t.Context(), acme, "")
	must(t, err)
	d := begun.(*draft)
	for i := range repositories {
		w, err := d.Part(t.Context(), repositoryName(i), point.KindGit)
		must(t, err)
		prior := w.Prior()
		if prior == nil || prior.Part.NewBytes == 0 {
			t.Fatalf("%s: %+v", repositoryName(i), prior)
		}
		must(t, w.Keep(t.Context(), "."))
		must(t, w.Store(t.Context(), prior.Part))
	}
	if n := d.checkpoints.atRisk; n > 0 {
		t.Errorf("%d parts are at risk", n)
	}
	must(t, d.Abandon(t.Context()))
}
