package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube/volume"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
	"github.com/backstay/backstay/internal/vault"
)

const moverPassword = "correct horse battery staple"

// mover is a mover over a vault in a directory, with the worker's part played by its methods.
type mover struct {
	dir   string
	vault string
	shop  point.Subject
}

func newMover(t *testing.T) *mover {
	t.Helper()
	m := &mover{dir: t.TempDir(), shop: point.Subject{Kind: point.SubjectApplication, Name: "cluster/shop"}}
	m.vault = filepath.Join(m.dir, "vault")
	location, err := vault.ParseLocation(m.vault)
	must(t, err)
	must(t, vault.Create(t.Context(), location, moverPassword, vault.Options{}))
	return m
}

func (m *mover) task(operation string, mounts ...volume.Mount) volume.Task {
	return volume.Task{
		Operation: operation, Subject: m.shop, Policy: "nightly", Volumes: mounts,
		Location: volume.Location{URL: m.vault, Password: moverPassword},
	}
}

// run runs `backstay mover` with a task, and returns its exit status and result.
func (m *mover) run(t *testing.T, task volume.Task) (int, volume.Result, string) {
	t.Helper()
	document, err := json.Marshal(task)
	must(t, err)
	return m.runFile(t, document)
}

func (m *mover) runFile(t *testing.T, document []byte) (int, volume.Result, string) {
	t.Helper()
	file, out := filepath.Join(m.dir, "task.json"), filepath.Join(m.dir, "termination-log")
	must(t, os.WriteFile(file, document, 0o600))
	var stderr bytes.Buffer
	exit := Run(t.Context(), Process{
		Args: []string{"mover", "--task", file, "--result", out}, Stdin: strings.NewReader(""), Stdout: &stderr, Stderr: &stderr,
		Getenv: func(string) string { return "" }, Clock: ticking(), Version: "test",
	})
	b, err := os.ReadFile(out)
	must(t, err)
	var result volume.Result
	must(t, json.Unmarshal(b, &result))
	return exit, result, stderr.String() + string(b)
}

// compose makes the point of what movers have written, as a worker does.
func (m *mover) compose(t *testing.T, shards ...protect.Shard) *point.Receipt {
	t.Helper()
	location, err := vault.ParseLocation(m.vault)
	must(t, err)
	v, err := vault.Open(t.Context(), location, moverPassword, vault.Options{Clock: ticking()})
	must(t, err)
	defer func() { must(t, v.Close(context.WithoutCancel(t.Context()))) }()
	receipt, err := protect.Backup(t.Context(), v, protect.Composed(m.shop, time.Now(), shards), "nightly")
	must(t, err)
	return receipt
}

func TestMoverCapturesAndFillsVolumes(t *testing.T) {
	m := newMover(t)
	from, image := filepath.Join(m.dir, "from"), filepath.Join(m.dir, "image")
	must(t, os.MkdirAll(filepath.Join(from, "lost+found"), 0o700))
	must(t, os.MkdirAll(filepath.Join(from, "data"), 0o750))
	must(t, os.WriteFile(filepath.Join(from, "data", "a"), []byte("aaa"), 0o640))
	must(t, os.WriteFile(image, bytes.Repeat([]byte("block"), 1<<19), 0o600))
	exit, result, said := m.run(t, m.task(volume.Backup,
		volume.Mount{Part: "volumes/shop/files", Kind: point.KindVolume, Path: from, Mark: "1", Notes: []string{"crash-inconsistent: by hand"}},
		volume.Mount{Part: "volumes/shop/blocks", Kind: point.KindBlock, Path: image, Mark: "1"},
	))
	want := []volume.PartResult{
		{Part: "volumes/shop/files", State: point.Stored, Bytes: 3}, {Part: "volumes/shop/blocks", State: point.Stored, Bytes: 5 << 19},
	}
	if exit != 0 || !slices.Equal(result.Parts, want) {
		t.Fatalf("exit %d, %s", exit, said)
	}
	receipt := m.compose(t,
		protect.Shard{Name: "volumes/shop/files", Kind: point.KindVolume, Mark: "1"},
		protect.Shard{Name: "volumes/shop/blocks", Kind: point.KindBlock, Mark: "1"},
	)
	if p := receipt.Point.Parts[0]; !slices.Contains(p.Notes, "crash-inconsistent: by hand") || p.Counts[1].Excluded != 1 {
		t.Errorf("part %+v", p)
	}

	to, blocks := filepath.Join(m.dir, "to"), filepath.Join(m.dir, "restored")
	must(t, os.MkdirAll(filepath.Join(to, "lost+found"), 0o700))
	must(t, os.MkdirAll(filepath.Join(to, ".backstay-tree", "half"), 0o700)) // of a mover that was killed
	task := m.task(volume.Restore,
		volume.Mount{Part: "volumes/shop/files", Kind: point.KindVolume, Path: to},
		volume.Mount{Part: "volumes/shop/blocks", Kind: point.KindBlock, Path: blocks},
	)
	task.Point = receipt.Point.ID
	if exit, _, said := m.run(t, task); exit != 0 {
		t.Fatalf("exit %d, %s", exit, said)
	}
	entries, err := os.ReadDir(to)
	must(t, err)
	if len(entries) != 2 || entries[0].Name() != "data" {
		t.Errorf("restored %v", entries)
	}
	if b, err := os.ReadFile(filepath.Join(to, "data", "a")); err != nil || string(b) != "aaa" {
		t.Errorf("restored %q, %v", b, err)
	}
	before, err := os.ReadFile(image)
	must(t, err)
	if b, err := os.ReadFile(blocks); err != nil || !bytes.Equal(b, before) {
		t.Errorf("restored %d bytes, %v", len(b), err)
	}
	task.Volumes = task.Volumes[:1]
	if exit, _, said := m.run(t, task); exit != 0 { // killed before it could say that it is done
		t.Errorf("again: exit %d, %s", exit, said)
	}
	must(t, os.WriteFile(filepath.Join(to, "stranger"), nil, 0o600))
	if exit, result, said := m.run(t, task); exit != 6 || result.Class != "Exists" || result.Parts[0].State != point.Failed {
		t.Errorf("into what is not empty: exit %d, %s", exit, said)
	}
}

func TestMoverThatStartsAgainReadsNothingTwice(t *testing.T) {
	m := newMover(t)
	from := filepath.Join(m.dir, "from")
	must(t, os.Mkdir(from, 0o700))
	must(t, os.WriteFile(filepath.Join(from, "a"), []byte("first"), 0o600))
	task := m.task(volume.Backup, volume.Mount{Part: "volumes/shop/a", Kind: point.KindVolume, Path: from, Mark: "1"})
	if exit, _, said := m.run(t, task); exit != 0 {
		t.Fatalf("exit %d, %s", exit, said)
	}
	must(t, os.RemoveAll(from)) // whoever reads it now fails
	if exit, result, said := m.run(t, task); exit != 0 || result.Parts[0].Bytes != 5 {
		t.Errorf("exit %d, %s", exit, said)
	}
	task.Volumes[0].Mark = "2"
	exit, result, said := m.run(t, task)
	if exit != 3 || result.Parts[0].State != point.Failed || !strings.Contains(result.Parts[0].Reason, "no such file") {
		t.Errorf("of another capture: exit %d, %s", exit, said)
	}
}

func TestMoverRefusesBadTasks(t *testing.T) {
	m := newMover(t)
	good := m.task(volume.Backup, volume.Mount{Part: "volumes/a", Kind: point.KindVolume, Path: m.dir})
	change := func(do func(*volume.Task)) []byte {
		task := good
		task.Volumes = slices.Clone(good.Volumes)
		do(&task)
		b, err := json.Marshal(task)
		must(t, err)
		return b
	}
	tests := []struct {
		name string
		task []byte
		exit int
	}{
		{"no JSON", []byte("{" + moverPassword), 2},
		{"too long", bytes.Repeat([]byte(" "), maxTask+1), 2},
		{"unknown operation", change(func(t *volume.Task) { t.Operation = "delete" }), 2},
		{"no volumes", change(func(t *volume.Task) { t.Volumes = nil }), 2},
		{"unknown kind", change(func(t *volume.Task) { t.Volumes[0].Kind = point.KindGit }), 2},
		{"no path", change(func(t *volume.Task) { t.Volumes[0].Path = "" }), 2},
		{"no location", change(func(t *volume.Task) { t.Location.URL = "" }), 2},
		{"wrong password", change(func(t *volume.Task) { t.Location.Password = "wrong password" }), 5},
		{"no vault", change(func(t *volume.Task) { t.Location.URL = filepath.Join(m.dir, "none") }), 4},
		{"no such point", change(func(t *volume.Task) { t.Operation, t.Point = volume.Restore, strings.Repeat("0", 32) }), 4},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			exit, result, said := m.runFile(t, test.task)
			if exit != test.exit || result.Error == "" || result.Class == "" {
				t.Errorf("exit %d, want %d: %s", exit, test.exit, said)
			}
			if strings.Contains(said, moverPassword) || strings.Contains(said, "wrong password\"") {
				t.Errorf("it says a secret: %s", said)
			}
		})
	}
}

func TestMoversErrorsNameNoSecret(t *testing.T) {
	l := volume.Location{Password: "hunter22", Credentials: map[string]string{"AWS_SECRET_ACCESS_KEY": "abcdef"}}
	err := withoutSecrets(fault.New("open", fault.ErrDenied, "abcdef is not hunter22", "try"), l)
	if text := fmt.Sprint(err); strings.Contains(text, "hunter22") || strings.Contains(text, "abcdef") {
		t.Errorf("it says %q", text)
	}
	if !errors.Is(err, fault.ErrDenied) {
		t.Errorf("its class is lost: %v", fault.Of(err))
	}
}

func TestResultFitsIntoATerminationMessage(t *testing.T) {
	r := volume.Result{Error: strings.Repeat("ü", 5000), Class: "Incomplete"}
	for i := range 10 {
		r.Parts = append(r.Parts, volume.PartResult{Part: fmt.Sprintf("volumes/shop/%d", i), State: point.Failed, Reason: strings.Repeat("\x00", 900)})
	}
	for _, parts := range []int{0, 1, 10} {
		few := r
		few.Parts = r.Parts[:parts]
		b, err := encodeResult(few, maxResult)
		must(t, err)
		var back volume.Result
		must(t, json.Unmarshal(b, &back))
		if len(b) > maxResult || len(back.Parts) != parts || back.Class != "Incomplete" {
			t.Errorf("of %d parts: %d bytes, %d parts", parts, len(b), len(back.Parts))
		}
	}
	for i := range 100 {
		r.Parts = append(r.Parts, volume.PartResult{Part: strings.Repeat("n", 60) + fmt.Sprint(i), State: point.Stored})
	}
	if b, err := encodeResult(r, maxResult); err != nil || len(b) > maxResult {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestLimitOfMemoryIsThePods(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	cgroup := filepath.Join(t.TempDir(), "memory.max")
	tests := []struct {
		name, env, pod string
		want           int64
	}{
		{"no limit", "", "max\n", moverMemory},
		{"a large pod", "", "8589934592\n", moverMemory},
		{"a small pod", "", "104857600\n", 62914560},
		{"as the user says", "1GiB", "104857600\n", 12345678},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			debug.SetMemoryLimit(12345678)
			must(t, os.WriteFile(cgroup, []byte(test.pod), 0o600))
			limitMemory(func(string) string { return test.env }, cgroup, moverMemory)
			if got := debug.SetMemoryLimit(-1); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
