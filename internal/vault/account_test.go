package vault

import (
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
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob/filesystem"
	"golang.org/x/sync/errgroup"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

var acme = point.Subject{Kind: point.SubjectAccount, Name: "example.com/acme"}

func repositoryName(i int) string { return fmt.Sprintf("git/example.com/acme/repository-%05d.git", i) }

// captureAccount writes the repositories from..to of an account, four at a time, as capturing git repositories does: those that
// changed get a new pack of 50 KB, the others are kept whole.
func captureAccount(ctx context.Context, d point.Sink, from, to int, changed func(i int) bool) error {
	if _, err := d.Last(ctx); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for i := from; i < to; i++ {
		group.Go(func() error { return captureRepository(ctx, d, i, changed(i)) })
	}
	return group.Wait()
}

func captureRepository(ctx context.Context, d point.Sink, i int, changed bool) error {
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
	receipt, err := backUpAccount(ctx, v, repositories, func(i int) bool { return i*changed/repositories != (i+1)*changed/repositories })
	if err != nil {
		return err
	}
	fmt.Printf("%d parts, %d unchanged, %d bytes in %d ns at %d MiB\n",
		receipt.Ledger.Stored, receipt.Ledger.Unchanged, receipt.StoredBytes, time.Since(start), peakMiB())
	return v.Close(ctx)
}

func backUpAccount(ctx context.Context, v *Vault, repositories int, changed func(i int) bool) (*point.Receipt, error) {
	d, err := v.Begin(ctx, acme, "")
	if err != nil {
		return nil, err
	}
	if err := captureAccount(ctx, d, 0, repositories, changed); err != nil {
		return nil, errors.Join(err, d.Abandon(ctx))
	}
	return d.Commit(ctx)
}

// BenchmarkAccount backs an account up in a process of its own: at first, unchanged, and with one repository in a hundred changed.
func BenchmarkAccount(b *testing.B) {
	for _, repositories := range []int{1000, 10_000} {
		for _, run := range []struct {
			name    string
			changed int
		}{{"first", repositories}, {"unchanged", 0}, {"changed", repositories / 100}} {
			b.Run(fmt.Sprintf("%d/%s", repositories, run.name), func(b *testing.B) {
				var peak int
				var took time.Duration
				var stored int64
				for b.Loop() {
					b.StopTimer()
					dir := b.TempDir()
					v := newVault(b, dir, Options{})
					if run.changed < repositories {
						_, err := backUpAccount(b.Context(), v, repositories, func(int) bool { return true })
						must(b, err)
					}
					must(b, v.Close(b.Context()))
					b.StartTimer()
					cmd := exec.CommandContext(b.Context(), os.Args[0])
					cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d", accountVariable, dir, repositories, run.changed))
					out, err := cmd.Output()
					must(b, err)
					var parts, unchanged, mib int
					var bytes int64
					var one time.Duration
					_, err = fmt.Sscanf(string(out), "%d parts, %d unchanged, %d bytes in %d ns at %d MiB", &parts, &unchanged, &bytes, &one, &mib)
					must(b, err)
					if parts != repositories || unchanged != repositories-run.changed {
						b.Fatalf("%s", out)
					}
					peak, took, stored = max(peak, mib), took+one, stored+bytes
				}
				b.ReportMetric(took.Seconds()/float64(b.N), "s/run")
				b.ReportMetric(float64(stored)/float64(b.N), "B-stored")
				b.ReportMetric(float64(peak), "MiB-peak")
			})
		}
	}
}
