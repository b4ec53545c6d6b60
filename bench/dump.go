package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/backstay/backstay/internal/database"
)

// dump: databases of MariaDB straight into a vault, against the same tool's output piped into stock kopia, and back out of it, against the
// same tool's output in a file; in turns.
func (b *bench) dump(ctx context.Context) error {
	for field := range strings.SplitSeq(b.gigabytes, ",") {
		gigabytes, err := strconv.Atoi(field)
		if err != nil {
			return fmt.Errorf("-gigabytes: %w", err)
		}
		if err := b.dumpOf(ctx, int64(gigabytes)<<30); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) dumpOf(ctx context.Context, bytes int64) (err error) {
	dir := b.path("mariadb")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	db, err := database.StartScratch(ctx, database.MySQL, dir, database.ScratchOptions{Arguments: []string{"--innodb-buffer-pool-size=256M"}})
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, db.Stop()) }()
	bytes = int64(float64(bytes) * b.scale)
	if err := fillDatabase(ctx, db.Server.Host, bytes); err != nil {
		return err
	}
	if err := b.dumpAgainstKopia(ctx, db.Server.Host, bytes); err != nil {
		return err
	}
	return b.loadAgainstClient(ctx, db.Server.Host, bytes)
}

// roundsOf is how often a dump is made, or loaded.
func roundsOf(bytes int64) int {
	if bytes > 2<<30 {
		return 1 // long enough to be told from noise
	}
	return 3
}

func (b *bench) dumpAgainstKopia(ctx context.Context, socket string, bytes int64) error {
	var ours, theirs cost
	var stored, kopiaStored int64
	for round := range roundsOf(bytes) {
		vault, kopia := b.path("dump-vault"), b.kopiaRival("dump")
		if err := b.createVault(ctx, "dump-vault"); err != nil {
			return err
		}
		c, err := b.run1(ctx, "dump-vault", "backup", "mysql://root@?socket="+socket, "--quiet")
		if err != nil {
			return err
		}
		ours = fastest(ours, c, round == 0)
		mover := c
		if stored, err = size(vault); err != nil {
			return err
		}
		if err := kopia.create(ctx); err != nil {
			return err
		}
		if c, err = b.pipeIntoKopia(ctx, socket, kopia.dir); err != nil {
			return err
		}
		theirs = fastest(theirs, c, round == 0)
		fmt.Fprintf(os.Stderr, "%d MiB, round %d: %s, kopia %s\n", bytes>>20, round+1, perSecond(bytes, mover), perSecond(bytes, c))
		if kopiaStored, err = size(kopia.dir); err != nil {
			return err
		}
		for _, dir := range []string{vault, kopia.dir} {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	b.table(fmt.Sprintf("A dump of %d MiB", bytes>>20))
	b.row("throughput", perSecond(bytes, ours), "`mariadb-dump \\| kopia snapshot create --stdin-file`", perSecond(bytes, theirs),
		theirs.wall.Seconds()/ours.wall.Seconds(), "at least 0.9")
	b.row("peak memory of the mover", megabytes(ours.peak), "limit", "100 MiB", float64(ours.peak)/(100<<20), "1")
	b.row("peak memory of mariadb-dump, apart", megabytes(ours.children), "kopia", megabytes(theirs.children), 0, "")
	b.bytes("stored", stored, "kopia", kopiaStored, "")
	return nil
}

// loadAgainstClient loads a dump over the database that it came from, out of the vault and out of a file.
func (b *bench) loadAgainstClient(ctx context.Context, socket string, bytes int64) error {
	vault, file := b.path("load-vault"), b.path("dump.sql")
	if err := b.createVault(ctx, "load-vault"); err != nil {
		return err
	}
	if _, err := b.run1(ctx, "load-vault", "backup", "mysql://root@?socket="+socket, "--quiet"); err != nil {
		return err
	}
	const dump = `mariadb-dump --no-defaults --user=root --socket="$0" --single-transaction --quick --databases bench >"$1"`
	if _, err := measure(ctx, nil, "sh", "-c", dump, socket, file); err != nil {
		return err
	}
	const load = `mariadb --no-defaults --user=root --socket="$0" -e 'DROP DATABASE bench' && mariadb --no-defaults --user=root --socket="$0" <"$1"`
	var ours, theirs cost
	for round := range roundsOf(bytes) {
		c, err := b.run1(ctx, "load-vault", "restore", "latest", "--to", "mysql://root@?socket="+socket, "--replace", "--quiet")
		if err != nil {
			return err
		}
		ours = fastest(ours, c, round == 0)
		mover := c
		if c, err = measure(ctx, nil, "sh", "-c", load, socket, file); err != nil {
			return err
		}
		theirs = fastest(theirs, c, round == 0)
		fmt.Fprintf(os.Stderr, "%d MiB loaded, round %d: %s, mariadb %s\n", bytes>>20, round+1, perSecond(bytes, mover), perSecond(bytes, c))
	}
	b.table(fmt.Sprintf("A dump of %d MiB, loaded", bytes>>20))
	b.row("throughput", perSecond(bytes, ours), "`mariadb < dump.sql`", perSecond(bytes, theirs), theirs.wall.Seconds()/ours.wall.Seconds(), "at least 0.8")
	b.row("peak memory of the mover", megabytes(ours.peak), "limit", "100 MiB", float64(ours.peak)/(100<<20), "1")
	return errors.Join(os.RemoveAll(vault), os.Remove(file))
}

// fastest is the faster of two runs, with the higher peaks of both.
func fastest(least, c cost, first bool) cost {
	peak, children := max(least.peak, c.peak), max(least.children, c.children)
	if first || c.wall < least.wall {
		least = c
	}
	least.peak, least.children = peak, children
	return least
}

func perSecond(bytes int64, c cost) string {
	return fmt.Sprintf("%.0f MiB/s", float64(bytes>>20)/c.wall.Seconds())
}

func (b *bench) pipeIntoKopia(ctx context.Context, socket, dir string) (cost, error) {
	const pipe = `mariadb-dump --no-defaults --user=root --socket="$0" --single-transaction --quick --routines --events --hex-blob --databases bench |
		"$1" snapshot create /dump --stdin-file dump.sql --config-file "$2.config" --log-dir "$2-logs" --no-progress`
	env := []string{"KOPIA_PASSWORD=benchmark", "KOPIA_CHECK_FOR_UPDATES=false", "HOME=" + b.dir}
	return measure(ctx, env, "bash", "-o", "pipefail", "-c", pipe, socket, b.kopia, dir)
}

// fillDatabase makes tables of a quarter of a gigabyte, whose rows are half of what compresses and half of what does not.
func fillDatabase(ctx context.Context, socket string, bytes int64) error {
	const row, table = 1 << 10, 256 << 20
	var sql strings.Builder
	sql.WriteString("CREATE DATABASE bench; USE bench;\n")
	for i := int64(0); i*table < bytes; i++ {
		rows := min(table, bytes-i*table) / row
		fmt.Fprintf(&sql, "CREATE TABLE t%d (id INT PRIMARY KEY, name VARCHAR(80), noise TEXT, words TEXT);\n", i)
		noise := make([]string, 15)
		for n := range noise {
			noise[n] = fmt.Sprintf("MD5(seq*%d+%d)", 16*(i+1), n)
		}
		fmt.Fprintf(&sql, "INSERT INTO t%d SELECT seq, CONCAT('customer ', seq), CONCAT(%s), REPEAT('a word or two, ', 33) FROM seq_1_to_%d;\n",
			i, strings.Join(noise, ","), rows)
	}
	cmd := exec.CommandContext(ctx, "mariadb", "--no-defaults", "--user=root", "--socket="+socket)
	cmd.Stdin = strings.NewReader(sql.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fill the database: %w: %s", err, out)
	}
	return nil
}
