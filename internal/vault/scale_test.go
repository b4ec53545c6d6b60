package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob/filesystem"
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
	d.order, d.ended = []string{part.Name}, map[string]ended{part.Name: {part: part, node: empty}}
	record, parts := d.record(d.order, d.ended)
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

// BenchmarkListTenThousandPoints opens a vault and lists it, in a process of its own each time, for a peak of memory that is its
// own. A test would fail by what else the machine does.
func BenchmarkListTenThousandPoints(b *testing.B) {
	const points = 10_000
	dir := b.TempDir()
	manyPoints(b, dir, points, 50)
	var peak int
	var took time.Duration
	for b.Loop() {
		cmd := exec.CommandContext(b.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), listedVariable+"="+dir)
		out, err := cmd.Output()
		must(b, err)
		var n, mib int
		var listing time.Duration
		_, err = fmt.Sscanf(string(out), "%d points in %d ns at %d MiB", &n, &listing, &mib)
		must(b, err)
		if n != points {
			b.Fatalf("%d points are listed", n)
		}
		peak, took = max(peak, mib), took+listing
	}
	b.ReportMetric(took.Seconds()/float64(b.N), "s/listing")
	b.ReportMetric(float64(peak), "MiB-peak")
}

// listedVariable names the vault that the other process of the benchmark lists.
const listedVariable = "BACKSTAY_TEST_LISTED"

func TestMain(m *testing.M) {
	for variable, run := range map[string]func(context.Context, string) error{
		listedVariable: listOnce, accountVariable: accountOnce, killedVariable: slowAccount,
	} {
		if what := os.Getenv(variable); what != "" {
			if err := run(context.Background(), what); err != nil {
				panic(err)
			}
			return
		}
	}
	os.Exit(m.Run())
}

func listOnce(ctx context.Context, dir string) error {
	st, err := filesystem.New(ctx, &filesystem.Options{Path: dir}, false)
	if err != nil {
		return err
	}
	v, err := openIn(ctx, st, dir, testPassword, Options{ReadOnly: true})
	if err != nil {
		return err
	}
	start := time.Now()
	list, err := v.Points(ctx, point.Filter{})
	fmt.Printf("%d points in %d ns at %d MiB\n", len(list), time.Since(start), peakMiB())
	return errors.Join(err, v.Close(ctx))
}

// peakMiB returns the most memory that the process ever had in RAM; 0 where the system does not tell.
func peakMiB() int {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		return 0
	}
	return kb / 1024
}
