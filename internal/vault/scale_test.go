package vault

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"github.com/backstay/backstay/internal/point"
)

// manyPoints makes a vault with n points in one session, sessions apart where asked: a session makes one content of manifests.
func manyPoints(t testing.TB, dir string, n, sessions int) {
	t.Helper()
	ctx := t.Context()
	v := newVault(t, dir, Options{})
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for s := range sessions {
		must(t, v.session(ctx, "test", func(ctx context.Context, w repo.DirectRepositoryWriter) error {
			for i := range n / sessions {
				if err := fastPoint(ctx, dir, v, w, start.Add(time.Duration(s*n/sessions+i)*time.Minute), i); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	must(t, v.Close(ctx))
}

// fastPoint writes a point of one empty part without a flush.
func fastPoint(ctx context.Context, dir string, v *Vault, w repo.DirectRepositoryWriter, at time.Time, i int) error {
	name := fmt.Sprintf("example.com/acme/repository-%d", i%200)
	d := &draft{
		v: v, w: w, checked: map[object.ID]bool{},
		point: point.Point{ID: randomID(), Subject: point.Subject{Kind: point.SubjectRepository, Name: name}, Policy: "daily", Time: at},
	}
	empty := newDir("")
	empty.entry.ModTime = fs.UTCTimestampFromTime(at)
	part := point.Part{Name: "git/" + name + ".git", Kind: point.KindGit, State: point.Stored, Revision: fmt.Sprintf("%040d", i)}
	d.order, d.ended = []string{part.Name}, map[string]ended{part.Name: {part, empty}}
	record, parts := d.record()
	m, _, err := d.snapshot(ctx, record, parts, draftPoint)
	if err != nil {
		return err
	}
	m.Tags = labelsOf(&record.Point, listedPoint)
	if _, err := snapshot.SaveSnapshot(ctx, w, m); err != nil {
		return err
	}
	// Listing looks at the names of leaves only; kopia would sync each file.
	leaf := filepath.Join(dir, "b", "p"+d.point.ID[:2], d.point.ID[2:]+".f")
	if err := os.MkdirAll(filepath.Dir(leaf), 0o700); err != nil {
		return err
	}
	return os.WriteFile(leaf, nil, 0o600)
}

// Limits of what a small pod has.
const (
	maxListing = time.Second
	maxListMiB = 100
	maxPackMiB = 128
)

// TestTenThousandPoints lists many points, in a process of its own.
func TestTenThousandPoints(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	dir := t.TempDir()
	manyPoints(t, dir, 10_000, 50)
	out := apart(t, "TestListingApart", dir)
	var n, peak int
	var took time.Duration
	if _, err := fmt.Sscanf(out, "%d points in %d ns at %d MiB", &n, &took, &peak); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	t.Logf("%d points in %s; resident at most %d MiB", n, took, peak)
	if n != 10_000 || took > maxListing || peak > maxListMiB {
		t.Errorf("limits are %s and %d MiB", maxListing, maxListMiB)
	}
}

// TestListingApart is the other process of TestTenThousandPoints.
func TestListingApart(t *testing.T) {
	dir := os.Getenv(apartVariable)
	if dir == "" {
		t.Skip("runs in another test's process")
	}
	v := openVault(t, dir, Options{ReadOnly: true})
	start := time.Now()
	list, err := v.Points(t.Context(), point.Filter{})
	must(t, err)
	fmt.Printf("%d points in %d ns at %d MiB\n", len(list), time.Since(start), peakMiB(t))
}

// TestLargePack stores, checks and extracts a pack of a gigabyte, in a process of its own.
func TestLargePack(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	dir := t.TempDir()
	must(t, newVault(t, dir, Options{}).Close(t.Context()))
	out := apart(t, "TestLargePackApart", dir)
	t.Log(strings.TrimSpace(out))
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		var what string
		var seconds float64
		var peak int
		if _, err := fmt.Sscanf(line, "%s %f s, resident at most %d MiB", &what, &seconds, &peak); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if what == "stored" && peak > maxPackMiB {
			t.Errorf("limit is %d MiB", maxPackMiB)
		}
	}
}

// TestLargePackApart is the other process of TestLargePack.
func TestLargePackApart(t *testing.T) {
	dir := os.Getenv(apartVariable)
	if dir == "" {
		t.Skip("runs in another test's process")
	}
	ctx := t.Context()
	v := openVault(t, dir, Options{})
	report := func(what string, start time.Time) {
		fmt.Printf("%s %.1f s, resident at most %d MiB\n", what, time.Since(start).Seconds(), peakMiB(t))
	}
	start := time.Now()
	d, err := v.Begin(ctx, repoA, "")
	must(t, err)
	w, err := d.Part(ctx, gitPart, point.KindGit)
	must(t, err)
	_, err = w.Put(ctx, point.Entry{Name: "pack"}, io.LimitReader(rand.NewChaCha8([32]byte{1}), 1<<30), point.Packed)
	must(t, err)
	must(t, w.Store(ctx, point.Part{}))
	receipt, err := d.Commit(ctx)
	must(t, err)
	report("stored", start)
	start = time.Now()
	found, err := v.Verify(ctx, true)
	must(t, err)
	if len(found.Faults) > 0 {
		t.Errorf("faults %+v", found.Faults)
	}
	report("verified", start)
	start = time.Now()
	_, r, err := v.Open(ctx, receipt.Point.ID)
	must(t, err)
	must(t, r.Extract(ctx, gitPart, filepath.Join(t.TempDir(), "out")))
	report("extracted", start)
}

const apartVariable = "BACKSTAY_TEST_APART"

// apart runs a test of this binary in a process of its own, for a peak of memory that is its own, and returns what it prints.
func apart(t *testing.T, test, dir string) string {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), apartVariable+"="+dir)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, _, _ := strings.Cut(string(out), "PASS\n")
	return text
}

// peakMiB returns the most memory that the process ever had in RAM; 0 where the system does not tell.
func peakMiB(t testing.TB) int {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	must(t, err)
	return kb / 1024
}
