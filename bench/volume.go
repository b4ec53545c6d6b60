package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// volume: what a mover does to a volume, against stock kopia with its defaults on the same data, in turns; into a directory, and then
// from an S3 server that answers 30 ms late.
func (b *bench) volume(ctx context.Context) error {
	large := files{name: "large", dirs: 1, each: 2, bytes: b.scaled(1 << 30)}
	small := files{name: "small", dirs: b.scaled(1000), each: 100, bytes: 9000, vary: true}
	sizes := fmt.Sprintf("%d MB in 2 files of random bytes", b.scaled(2048))
	numbers := fmt.Sprintf("%d files of 100 B to 9 kB", small.count())
	volumes := []*volume{
		{name: "large", title: "A volume of " + sizes, files: []files{large}},
		{name: "small", title: "A volume of " + numbers, files: []files{small}},
		{name: "both", title: "A volume of " + sizes + " and " + numbers, files: []files{large, small}},
	}
	s3, err := b.serveS3(ctx)
	if err != nil {
		return err
	}
	defer s3.Close()
	for _, v := range volumes {
		v.dir = b.path("volume-" + v.name)
		if err := v.make(); err != nil {
			return err
		}
		b.table(v.title)
		local := place{vault: "file://" + b.path(v.name+"-vault"), kopia: []string{"filesystem", "--path", b.path(v.name + "-kopia")}, rounds: 3}
		if err := b.compare(ctx, v, local, "", "1"); err != nil {
			return err
		}
		if err := b.second(ctx, v, local); err != nil {
			return err
		}
		if err := b.compare(ctx, v, s3.place(v), ", S3 at 30 ms", "0.25"); err != nil {
			return err
		}
		if err := b.floors(ctx, v, s3); err != nil {
			return err
		}
		for _, dir := range []string{v.dir, b.path(v.name + "-vault"), b.path(v.name + "-kopia"), b.path("volume-out")} {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// volume is a tree of files to be captured.
type volume struct {
	name, title string
	dir         string
	files       []files
}

// files are a part of a volume: of one size, or of sizes up to one.
type files struct {
	name       string // of the directory they are in
	dirs, each int    // each: files in a directory
	bytes      int    // of a file; at most, where they vary
	vary       bool
}

func (f files) count() int { return f.dirs * f.each }

func (f files) path(dir string, i int) string {
	d := i / f.each
	return filepath.Join(dir, f.name, fmt.Sprintf("d%02d", d/50), fmt.Sprintf("e%02d", d%50), fmt.Sprintf("f%03d", i%f.each))
}

func (v *volume) make() error {
	for _, f := range v.files {
		if err := f.make(v.dir); err != nil {
			return err
		}
	}
	return nil
}

func (f files) make(dir string) error {
	random := rand.New(rand.NewPCG(1, 2))
	noise := rand.NewChaCha8([32]byte{7})
	for i := range f.count() {
		size := f.bytes
		if f.vary {
			size = 100 + random.IntN(f.bytes-100)
		}
		if err := os.MkdirAll(filepath.Dir(f.path(dir, i)), 0o755); err != nil {
			return err
		}
		file, err := os.Create(f.path(dir, i))
		if err != nil {
			return err
		}
		if _, err := io.CopyN(file, noise, int64(size)); err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
	}
	return nil
}

// change changes one part in a hundred and returns the bytes of what a backup must store.
func (v *volume) change() (sum int64, err error) {
	for _, f := range v.files {
		n, err := f.change(v.dir)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// change writes over one hundredth of each large file, in the middle, and into one small file in a hundred, which is to be stored whole.
func (f files) change(dir string) (int64, error) {
	noise := rand.NewChaCha8([32]byte{9})
	var sum int64
	for i := range f.count() {
		n, at := int64(f.bytes/100), int64(f.bytes/2)
		if f.vary {
			n, at = 100, 0
			if i%100 != 0 {
				continue
			}
		}
		file, err := os.OpenFile(f.path(dir, i), os.O_WRONLY, 0)
		if err != nil {
			return 0, err
		}
		if _, err := io.Copy(io.NewOffsetWriter(file, at), io.LimitReader(noise, n)); err != nil {
			return 0, err
		}
		info, err := file.Stat()
		if err != nil {
			return 0, err
		}
		if err := file.Close(); err != nil {
			return 0, err
		}
		if f.vary {
			n = info.Size()
		}
		sum += n
	}
	return sum, nil
}

// place is where both programs keep what they save.
type place struct {
	vault    string   // location
	kopia    []string // arguments of repository create
	rounds   int      // of each measurement; the best counts
	restores bool     // only those are promised
}

// compare measures both programs at a place, in turns.
func (b *bench) compare(ctx context.Context, v *volume, p place, where, promised string) error {
	out := b.path("volume-out")
	var ours, theirs, oursBack, theirsBack cost
	for range p.rounds {
		if err := b.emptied(ctx, v, p); err != nil {
			return err
		}
		c, err := b.stock(ctx, v, "snapshot", "create", v.dir)
		if err != nil {
			return err
		}
		theirs = better(theirs, c)
		if c, err = b.move(ctx, v, p, "backup", v.dir, ""); err != nil {
			return err
		}
		ours = better(ours, c)
	}
	point, err := b.pointOf(ctx, v, p)
	if err != nil {
		return err
	}
	root, err := b.snapshotOf(ctx, v)
	if err != nil {
		return err
	}
	for range p.rounds {
		if err := emptyDir(out); err != nil {
			return err
		}
		// A pod that restores has no cache either.
		if _, err := b.stock(ctx, v, "cache", "clear"); err != nil {
			return err
		}
		c, err := b.stock(ctx, v, "snapshot", "restore", root, out)
		if err != nil {
			return err
		}
		theirsBack = better(theirsBack, c)
		if err := emptyDir(out); err != nil {
			return err
		}
		if c, err = b.move(ctx, v, p, "restore", out, point); err != nil {
			return err
		}
		oursBack = better(oursBack, c)
	}
	backupPromise := promised
	if p.restores {
		backupPromise = ""
	}
	b.wall("backup"+where, ours, "stock kopia", theirs, backupPromise)
	b.wall("restore"+where, oursBack, "stock kopia", theirsBack, promised)
	peak := max(ours.peak, oursBack.peak)
	b.row("peak memory of the mover"+where, megabytes(peak), "limit", "400 MiB", float64(peak)/(400<<20), "1")
	if _, err := measure(ctx, nil, "diff", "-r", v.dir, out); err != nil {
		return fmt.Errorf("what came back differs: %w", err)
	}
	return os.RemoveAll(out)
}

// second measures a backup after a hundredth has changed.
func (b *bench) second(ctx context.Context, v *volume, p place) error {
	changed, err := v.change()
	if err != nil {
		return err
	}
	dir := strings.TrimPrefix(p.vault, "file://")
	before, err := size(dir)
	if err != nil {
		return err
	}
	ours, err := b.move(ctx, v, p, "backup", v.dir, "")
	if err != nil {
		return err
	}
	after, err := size(dir)
	if err != nil {
		return err
	}
	theirs, err := b.stock(ctx, v, "snapshot", "create", v.dir)
	if err != nil {
		return err
	}
	b.wall("backup after 1 % has changed", ours, "stock kopia", theirs, "")
	b.bytes("stored by it", after-before, "changed", changed, "")
	return nil
}

func better(least, c cost) cost {
	c.peak = max(c.peak, least.peak)
	if least.wall == 0 || c.wall < least.wall {
		return c
	}
	least.peak = c.peak
	return least
}

func emptyDir(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Mkdir(dir, 0o755)
}

// emptied makes an empty vault and an empty repository of kopia's.
func (b *bench) emptied(ctx context.Context, v *volume, p place) error {
	for _, dir := range []string{
		b.path(v.name + "-vault"), b.path(v.name + "-kopia"), b.path(v.name + "-cache"), b.path("bucket/backstay/" + v.name), b.path("bucket/kopia/" + v.name),
	} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if _, err := measure(ctx, b.environment(), b.backstay, "location", "create", "--location", p.vault, "--password-file", b.path("password")); err != nil {
		return err
	}
	args := append([]string{"repository", "create"}, p.kopia...)
	_, err := b.stock(ctx, v, append(args, "--cache-directory", b.path(v.name+"-cache"))...)
	return err
}

func (b *bench) environment() []string {
	return []string{
		"HOME=" + b.dir, "XDG_CACHE_HOME=" + b.path("cache"), "BACKSTAY_HOSTNAME=bench", "KOPIA_PASSWORD=benchmark",
		"KOPIA_CHECK_FOR_UPDATES=false", "AWS_ACCESS_KEY_ID=" + s3User, "AWS_SECRET_ACCESS_KEY=" + s3User,
	}
}

// stock runs stock kopia.
func (b *bench) stock(ctx context.Context, v *volume, args ...string) (cost, error) {
	args = append(args, "--config-file", b.path(v.name+"-kopia.config"), "--log-dir", b.path("logs"))
	return measure(ctx, b.environment(), b.kopia, args...)
}

// move runs a mover.
func (b *bench) move(ctx context.Context, v *volume, p place, operation, dir, point string) (cost, error) {
	task, err := json.Marshal(map[string]any{
		"operation": operation, "policy": "bench", "point": point,
		"subject":  map[string]string{"kind": "application", "name": "bench/" + v.name},
		"location": map[string]any{"url": p.vault, "password": "benchmark"},
		"volumes": []map[string]string{{
			"part": filepath.Join("directory/bench", v.dir), "kind": "volume", "path": dir, "mark": strconv.FormatInt(time.Now().UnixNano(), 10),
		}},
	})
	if err != nil {
		return cost{}, err
	}
	if err := os.WriteFile(b.path("task.json"), task, 0o600); err != nil {
		return cost{}, err
	}
	return measure(ctx, b.environment(), b.backstay, "mover", "--task", b.path("task.json"), "--result", b.path("result.json"))
}

// pointOf makes a point of what a mover has stored, which costs next to nothing, and returns its id.
func (b *bench) pointOf(ctx context.Context, v *volume, p place) (string, error) {
	c, err := measure(ctx, b.environment(), b.backstay, "backup", "--directory", v.dir, "--json",
		"--location", p.vault, "--password-file", b.path("password"))
	if err != nil {
		return "", err
	}
	var d struct {
		Point struct{ ID string } `json:"point"`
	}
	lines := strings.Split(strings.TrimSpace(string(c.out)), "\n")
	return d.Point.ID, json.Unmarshal([]byte(lines[len(lines)-1]), &d)
}

// snapshotOf returns the root of kopia's last snapshot.
func (b *bench) snapshotOf(ctx context.Context, v *volume) (string, error) {
	c, err := b.stock(ctx, v, "snapshot", "list", v.dir, "--json")
	if err != nil {
		return "", err
	}
	var list []struct {
		RootEntry struct{ Obj string } `json:"rootEntry"`
	}
	if err := json.Unmarshal(c.out, &list); err != nil || len(list) == 0 {
		return "", fmt.Errorf("no snapshot of kopia's: %w", err)
	}
	return list[len(list)-1].RootEntry.Obj, nil
}

const (
	s3User  = "benchmark"
	latency = 30 * time.Millisecond
)

// s3 is an S3 server behind a proxy that delivers late. Like others it keeps connections open.
type s3 struct {
	server *exec.Cmd
	proxy  *late
}

// serveS3 starts versitygw. Close it.
func (b *bench) serveS3(ctx context.Context) (*s3, error) {
	for _, dir := range []string{"bucket", "bucket/backstay", "bucket/kopia"} {
		if err := os.Mkdir(b.path(dir), 0o755); err != nil {
			return nil, err
		}
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, b.versitygw, "--port", address, "--quiet", "--keep-alive", "posix", b.path("bucket"))
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s3User, "ROOT_SECRET_KEY="+s3User)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the S3 server: %w", err)
	}
	proxy, err := newLate(ctx, address, latency)
	if err != nil {
		return nil, err
	}
	return &s3{cmd, proxy}, proxy.await(ctx)
}

func (s *s3) place(v *volume) place {
	name, address, rounds := v.name, s.proxy.address(), 3
	if v.name != "large" {
		rounds = 1 // kopia restores small files one by one, for minutes
	}
	return place{
		vault: fmt.Sprintf("s3://backstay/%s?endpoint=%s&tls=false&region=us-east-1", name, address), rounds: rounds, restores: true,
		kopia: slices.Concat([]string{"s3", "--bucket", "kopia", "--endpoint", address, "--region", "us-east-1", "--disable-tls"},
			[]string{"--access-key", s3User, "--secret-access-key", s3User, "--prefix", name + "/"}),
	}
}

// Close ends the server and the proxy.
func (s *s3) Close() error {
	err := s.proxy.Close()
	if killed := s.server.Process.Kill(); err == nil {
		err = killed
	}
	s.server.Wait() // it was killed
	return err
}
