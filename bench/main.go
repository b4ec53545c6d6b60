// Command bench measures what Backstay costs against git, stock kopia and restic, and prints the tables of docs/performance.md.
// `make bench` runs it whole; -only picks scenarios and -scale shrinks them.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	b := bench{out: os.Stdout}
	flag.StringVar(&b.backstay, "backstay", "bin/backstay", "the program to measure")
	flag.StringVar(&b.kopia, "kopia", "kopia", "the stock kopia command")
	flag.StringVar(&b.restic, "restic", "restic", "the restic command")
	flag.Float64Var(&b.scale, "scale", 1, "size of the repositories; 1 is what docs/performance.md reports")
	flag.StringVar(&b.versitygw, "versitygw", "versitygw", "the S3 server of the scenario volume")
	only := flag.String("only", "steps,replay,refs,large,account,volume,dump", "scenarios to run")
	flag.StringVar(&b.gigabytes, "gigabytes", "1", "sizes of the databases of the scenario dump, which docs/performance.md reports for 1,4,8")
	flag.StringVar(&b.repository, "repository", "", "a real repository, whose history the scenario replay goes through")
	flag.Parse()
	if err := b.run(ctx, strings.Split(*only, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run of the benchmark.
type bench struct {
	backstay, kopia, restic string
	versitygw               string
	repository              string
	gigabytes               string
	scale                   float64
	out                     io.Writer
	dir                     string // scratch
	server                  *server
}

func (b *bench) run(ctx context.Context, only []string) (err error) {
	for _, program := range []*string{&b.backstay, &b.kopia, &b.versitygw} {
		if strings.Contains(*program, "/") {
			if *program, err = filepath.Abs(*program); err != nil {
				return err
			}
		}
	}
	b.dir, err = os.MkdirTemp("", "backstay-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if err := os.WriteFile(b.path("password"), []byte("benchmark\n"), 0o600); err != nil {
		return err
	}
	b.server, err = serve(ctx, b.dir)
	if err != nil {
		return err
	}
	defer b.server.Close()
	scenarios := []struct {
		name string
		run  func(context.Context) error
	}{{"steps", b.steps}, {"replay", b.replay}, {"refs", b.refs}, {"large", b.large}, {"account", b.account}, {"volume", b.volume}, {"dump", b.dump}, {"scale", b.atScale}, {"shared", b.shared}}
	for _, s := range scenarios {
		if !slices.Contains(only, s.name) {
			continue
		}
		if err := s.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) scaled(n int) int { return max(1, int(float64(n)*b.scale)) }

// steps: a repository grows ten times and is backed up each time.
func (b *bench) steps(ctx context.Context) error {
	h, err := newHistory(ctx, b.path("steps.git"), b.scaled(400))
	if err != nil {
		return err
	}
	return b.growing(ctx, "steps", "Ten backups of a growing repository", func(step int) error {
		if step == 0 {
			return h.grow(ctx, growth{commits: b.scaled(2000), blobs: b.scaled(100), blobBytes: 64 << 10})
		}
		return h.grow(ctx, growth{commits: b.scaled(50), blobs: b.scaled(3), blobBytes: 64 << 10})
	})
}

// replay: the same with the history of a real repository.
func (b *bench) replay(ctx context.Context) error {
	if b.repository == "" {
		return nil
	}
	r, err := newReplay(ctx, b.repository, b.path("replay.git"))
	if err != nil {
		return err
	}
	title := fmt.Sprintf("Ten backups over the last tenth of a real history (%d commits)", len(r.commits))
	return b.growing(ctx, "replay", title, func(step int) error { return r.goTo(ctx, step) })
}

// growing backs up the repository name.git after each of ten steps by which it grows.
func (b *bench) growing(ctx context.Context, name, title string, grow func(step int) error) error {
	rivals := []rival{b.kopiaRival(name), b.resticRival(name)}
	for _, r := range rivals {
		if err := r.create(ctx); err != nil {
			return err
		}
	}
	vault, url, mirror, plain := name+"-vault", b.server.url(name+".git"), b.path(name+"-mirror"), b.path(name+"-plain")
	if err := b.createVault(ctx, vault); err != nil {
		return err
	}
	var received, fetched, fetchedThin, tars, storedAfterFirst, receivedFirst int64
	for step := range 10 {
		if err := grow(step); err != nil {
			return err
		}
		_, n, err := b.server.count(func() error { _, _, err := b.backup(ctx, vault, url); return err })
		if err != nil {
			return err
		}
		if step == 0 {
			receivedFirst = n
			if storedAfterFirst, err = size(b.path(vault)); err != nil {
				return err
			}
			if err := git(ctx, "clone", "--quiet", "--mirror", url, mirror); err != nil {
				return err
			}
			if err := git(ctx, "clone", "--quiet", "--mirror", url, plain); err != nil {
				return err
			}
		} else {
			received += n
			// git fetch asks for a thin pack, which stands on objects its receiver has; Backstay stores packs that stand alone.
			_, n, err = b.server.count(func() error { return git(ctx, "-C", plain, "fetch-pack", "--quiet", "--keep", "--all", url) })
			if err != nil {
				return err
			}
			fetched += n
			if err := git(ctx, "-C", plain, "fetch", "--quiet", "--prune"); err != nil {
				return err
			}
			_, n, err = b.server.count(func() error { return git(ctx, "-C", mirror, "fetch", "--quiet", "--prune") })
			if err != nil {
				return err
			}
			fetchedThin += n
		}
		for _, r := range rivals {
			if err := r.save(ctx, mirror); err != nil {
				return err
			}
		}
		n, err = b.tar(ctx, mirror)
		if err != nil {
			return err
		}
		tars += n
	}
	stored, err := size(b.path(vault))
	if err != nil {
		return err
	}
	last := b.path(name + "-last")
	if err := git(ctx, "clone", "--quiet", "--mirror", url, last); err != nil {
		return err
	}
	one, err := size(last)
	if err != nil {
		return err
	}
	b.table(title)
	b.bytes("stored by ten backups", stored, "one `git clone --mirror` of the last state", one, "1.15")
	for _, r := range rivals {
		n, err := size(r.dir)
		if err != nil {
			return err
		}
		b.bytes("the same", stored, r.name+", ten snapshots of a mirror", n, "")
	}
	b.bytes("the same", stored, "ten tar archives of a mirror", tars, "")
	b.bytes("received by nine changed runs", received, "`git fetch-pack`, no thin pack", fetched, "1.1")
	b.bytes("the same", received, "`git fetch`, thin packs", fetchedThin, "")
	b.bytes("stored by nine changed runs", stored-storedAfterFirst, "received by them", received, "1.1")
	b.bytes("stored by the first run", storedAfterFirst, "received by it", receivedFirst, "1.1")
	return nil
}

// refs: a repository of 5,000 refs in which nothing changes.
func (b *bench) refs(ctx context.Context) error {
	h, err := newHistory(ctx, b.path("refs.git"), b.scaled(50))
	if err != nil {
		return err
	}
	if err := h.grow(ctx, growth{commits: b.scaled(500)}); err != nil {
		return err
	}
	if err := h.addRefs(ctx, b.scaled(5000)); err != nil {
		return err
	}
	url := b.server.url("refs.git")
	if err := b.createVault(ctx, "refs-vault"); err != nil {
		return err
	}
	b.table("A repository of 5,000 refs")
	return b.unchanged(ctx, "refs-vault", url)
}

// large: a repository of about a gigabyte, mostly blobs that nothing compresses.
func (b *bench) large(ctx context.Context) error {
	h, err := newHistory(ctx, b.path("large.git"), b.scaled(2000))
	if err != nil {
		return err
	}
	if err := h.grow(ctx, growth{commits: b.scaled(10_000), blobs: b.scaled(900), blobBytes: 1 << 20}); err != nil {
		return err
	}
	bytes, err := size(b.path("large.git"))
	if err != nil {
		return err
	}
	url := b.server.url("large.git")
	clone, err := best(3, func() (cost, error) {
		if err := os.RemoveAll(b.path("large-mirror")); err != nil {
			return cost{}, err
		}
		return measure(ctx, nil, "git", "clone", "--quiet", "--mirror", url, b.path("large-mirror"))
	})
	if err != nil {
		return err
	}
	first, err := best(3, func() (cost, error) {
		if err := os.RemoveAll(b.path("large-vault")); err != nil {
			return cost{}, err
		}
		if err := b.createVault(ctx, "large-vault"); err != nil {
			return cost{}, err
		}
		c, _, err := b.backup(ctx, "large-vault", url)
		return c, err
	})
	if err != nil {
		return err
	}
	stored, err := size(b.path("large-vault"))
	if err != nil {
		return err
	}
	restored, err := best(1, func() (cost, error) {
		return b.run1(ctx, "large-vault", "restore", "latest", "--to", b.path("large-restored"), "--quiet")
	})
	if err != nil {
		return err
	}
	verified, err := best(1, func() (cost, error) { return b.run1(ctx, "large-vault", "verify", "--read-data", "--quiet") })
	if err != nil {
		return err
	}
	b.table(fmt.Sprintf("A repository of %s", megabytes(bytes)))
	b.wall("first backup", first, "`git clone --mirror`", clone, "1.5")
	b.wall("restore", restored, "`git clone --mirror`", clone, "")
	b.row("peak memory of the first backup's own process", megabytes(first.peak), "limit", "128 MiB", float64(first.peak)/(128<<20), "1")
	b.row("peak memory of its git children, apart", megabytes(first.children), "git clone's own", megabytes(max(clone.peak, clone.children)), 0, "")
	b.row("peak memory of the restore's own process", megabytes(restored.peak), "limit", "128 MiB", float64(restored.peak)/(128<<20), "1")
	b.row("peak memory of `verify --read-data`", megabytes(verified.peak), "limit", "128 MiB", float64(verified.peak)/(128<<20), "1")
	b.bytes("stored by the first run", stored, "the repository", bytes, "")
	return b.unchanged(ctx, "large-vault", url)
}

// unchanged measures a run that finds nothing new against asking for the refs.
func (b *bench) unchanged(ctx context.Context, vault, url string) error {
	if _, _, err := b.backup(ctx, vault, url); err != nil {
		return err
	}
	list, err := best(5, func() (cost, error) { return measure(ctx, nil, "git", "ls-remote", "--quiet", url) })
	if err != nil {
		return err
	}
	open, err := best(5, func() (cost, error) { return b.run1(ctx, vault, "points", "--json") })
	if err != nil {
		return err
	}
	before, err := size(b.path(vault))
	if err != nil {
		return err
	}
	var last document
	var connections, received int64
	const runs = 5
	again, err := best(runs, func() (c cost, err error) {
		connections, received, err = b.server.count(func() error { c, last, err = b.backup(ctx, vault, url); return err })
		return c, err
	})
	if err != nil {
		return err
	}
	after, err := size(b.path(vault))
	if err != nil {
		return err
	}
	list.wall = list.wall*3/2 + open.wall
	b.wall("unchanged run", again, "1.5 × `git ls-remote` + opening and listing the vault", list, "1")
	b.row("stored by an unchanged run", fmt.Sprintf("%d B", (after-before)/runs), "limit", "10 kB", float64((after-before)/runs)/10_000, "1")
	b.row("connections of an unchanged run", fmt.Sprint(connections), "", "1", float64(connections), "1")
	b.row("requests it counted itself; bytes received", fmt.Sprintf("%d; %d B", last.Requests, received), "", "", 0, "")
	return nil
}

// document is the part of `backup --json` that is used here.
type document struct {
	Requests    int64 `json:"requests"`
	StoredBytes int64 `json:"storedBytes"`
}

func (b *bench) backup(ctx context.Context, vault, url string) (cost, document, error) {
	c, err := b.run1(ctx, vault, "backup", url, "--json")
	if err != nil {
		return c, document{}, err
	}
	var d document
	lines := strings.Split(strings.TrimSpace(string(c.out)), "\n")
	err = json.Unmarshal([]byte(lines[len(lines)-1]), &d)
	return c, d, err
}

func (b *bench) createVault(ctx context.Context, vault string) error {
	_, err := b.run1(ctx, vault, "location", "create")
	return err
}

func (b *bench) run1(ctx context.Context, vault string, args ...string) (cost, error) {
	args = append(args, "--location", "file://"+b.path(vault), "--password-file", b.path("password"))
	return measure(ctx, []string{"HOME=" + b.dir, "XDG_CACHE_HOME=" + b.path("cache")}, b.backstay, args...)
}

func (b *bench) tar(ctx context.Context, dir string) (int64, error) {
	archive := b.path("mirror.tar")
	if _, err := measure(ctx, nil, "tar", "-cf", archive, "-C", dir, "."); err != nil {
		return 0, err
	}
	info, err := os.Stat(archive)
	if err != nil {
		return 0, err
	}
	return info.Size(), os.Remove(archive)
}

// rival is a program that saves a directory.
type rival struct {
	name, dir string
	create    func(context.Context) error
	save      func(ctx context.Context, dir string) error
}

func (b *bench) kopiaRival(name string) rival {
	dir := b.path(name + "-kopia")
	run := func(ctx context.Context, args ...string) error {
		env := []string{"KOPIA_PASSWORD=benchmark", "KOPIA_CHECK_FOR_UPDATES=false", "HOME=" + b.dir}
		args = append(args, "--config-file", dir+".config", "--log-dir", dir+"-logs")
		_, err := measure(ctx, env, b.kopia, args...)
		return err
	}
	return rival{
		name: "stock kopia", dir: dir,
		create: func(ctx context.Context) error { return run(ctx, "repository", "create", "filesystem", "--path", dir) },
		save:   func(ctx context.Context, of string) error { return run(ctx, "snapshot", "create", of) },
	}
}

func (b *bench) resticRival(name string) rival {
	dir := b.path(name + "-restic")
	run := func(ctx context.Context, args ...string) error {
		env := []string{"RESTIC_PASSWORD=benchmark", "RESTIC_REPOSITORY=" + dir, "HOME=" + b.dir}
		_, err := measure(ctx, env, b.restic, args...)
		return err
	}
	return rival{
		name: "restic", dir: dir,
		create: func(ctx context.Context) error { return run(ctx, "init") },
		save:   func(ctx context.Context, of string) error { return run(ctx, "backup", of) },
	}
}

func (b *bench) table(title string) {
	fmt.Fprintf(b.out, "\n### %s\n\n| what | Backstay | against | that | ratio | promised |\n|---|---|---|---|---|---|\n", title)
}

func (b *bench) row(what, ours, against, theirs string, ratio float64, promised string) {
	r, p := "", ""
	if ratio > 0 {
		r = fmt.Sprintf("%.2f", ratio)
	}
	if p = promised; p != "" && !strings.HasPrefix(p, "at least") {
		p = "≤ " + p
	}
	fmt.Fprintf(b.out, "| %s | %s | %s | %s | %s | %s |\n", what, ours, against, theirs, r, p)
}

func (b *bench) bytes(what string, ours int64, against string, theirs int64, promised string) {
	b.row(what, megabytes(ours), against, megabytes(theirs), float64(ours)/float64(theirs), promised)
}

func (b *bench) wall(what string, ours cost, against string, theirs cost, promised string) {
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }
	b.row(what, seconds(ours.wall), against, seconds(theirs.wall), ours.wall.Seconds()/theirs.wall.Seconds(), promised)
}

func megabytes(n int64) string { return fmt.Sprintf("%.2f MB", float64(n)/1e6) }
