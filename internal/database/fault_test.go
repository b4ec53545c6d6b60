package database_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/database"
	"github.com/backstay/backstay/internal/database/databasetest"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
)

// runner runs commands on this machine, and has a say in what the tool that dumps writes.
type runner struct {
	dumped func(ctx context.Context, c database.Command, run func(io.Writer) error) error
	each   func(c database.Command) // of every command; may be nil
}

func (r runner) Run(ctx context.Context, c database.Command) error {
	if r.each != nil {
		r.each(c)
	}
	run := func(to io.Writer) error {
		c.Stdout = to
		return database.Local{}.Run(ctx, c)
	}
	isDump := c.Argv[0] == "mariadb-dump" || c.Argv[0] == "pg_dump" || strings.Contains(strings.Join(c.Argv, " "), "--rdb")
	if r.dumped == nil || !isDump || c.Argv[len(c.Argv)-1] == "--version" {
		return run(c.Stdout)
	}
	return r.dumped(ctx, c, run)
}

// fill puts more into a server than fits between it and who reads it.
func fill(t *testing.T, s database.Server) {
	t.Helper()
	databasetest.SQL(t, s, "CREATE DATABASE big; USE big; CREATE TABLE t (a INT PRIMARY KEY, b TEXT); "+
		"INSERT INTO t SELECT seq, REPEAT(MD5(seq), 1000) FROM seq_1_to_1000")
}

func TestAServerThatIsKilledHalfWay(t *testing.T) {
	t.Parallel()
	killed := databasetest.Start(t, database.MySQL, database.ScratchOptions{})
	fill(t, killed.Server)
	file := filepath.Join(t.TempDir(), "notes.db")
	do(t, openSQLite(t, file), "CREATE TABLE notes (id INTEGER PRIMARY KEY, note BLOB)")
	servers := []database.Server{killed.Server, {Engine: database.SQLite, File: file}}
	store := memory.New(time.Now)
	if _, err := backup(t, store, database.Local{}, servers...); err != nil {
		t.Fatal(err)
	}
	killing := runner{dumped: func(_ context.Context, c database.Command, run func(io.Writer) error) error {
		var once sync.Once
		return run(writer(func(p []byte) (int, error) {
			n, err := c.Stdout.Write(p)
			once.Do(func() { err = errors.Join(err, killed.Stop()) })
			return n, err
		}))
	}}
	receipt, err := backup(t, store, killing, servers...)
	if fault.Of(err).Exit != 3 || receipt == nil {
		t.Fatalf("got %v, want a point that lacks something", err)
	}
	states := map[string]point.State{}
	for _, p := range receipt.Point.Parts {
		states[p.Name] = p.State
		if p.State == point.Carried && (p.CarriedFrom == nil || !strings.Contains(p.Reason, "mariadb-dump ended with status")) {
			t.Errorf("%s is carried from %v: %s", p.Name, p.CarriedFrom, p.Reason)
		}
	}
	if states["databases/scratch"] != point.Carried || states["databases/notes"] != point.Stored {
		t.Errorf("got %v, want the copy of before, and what can be had", states)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// TestADumpThatIsCutShort has each tool say that all is well after a part of what it should have written.
func TestADumpThatIsCutShort(t *testing.T) {
	t.Parallel()
	prepare := map[string]func(database.Server){
		database.MySQL: func(s database.Server) { databasetest.SQL(t, s, odd) },
		database.Postgres: func(s database.Server) {
			databasetest.PSQL(t, s, "postgres", "CREATE TABLE a AS SELECT generate_series(1, 1000); CREATE TABLE b (); SELECT lo_from_bytea(7, '\\x00')")
		},
		database.Redis: func(s database.Server) { databasetest.RedisCLI(t, s, everyType()) },
	}
	for engine, fill := range prepare {
		t.Run(engine, func(t *testing.T) {
			s := databasetest.Start(t, engine, database.ScratchOptions{})
			fill(s.Server)
			var whole bytes.Buffer
			keep := runner{dumped: func(_ context.Context, c database.Command, run func(io.Writer) error) error {
				return run(io.MultiWriter(&whole, c.Stdout))
			}}
			if _, err := backup(t, memory.New(time.Now), keep, s.Server); err != nil {
				t.Fatal(err)
			}
			size := whole.Len()
			for _, cut := range []int{0, 1, 12, size / 4, size / 2, size * 9 / 10, size - 60, size - 42, size - 2} {
				short := runner{dumped: func(_ context.Context, c database.Command, _ func(io.Writer) error) error {
					_, err := c.Stdout.Write(whole.Bytes()[:cut])
					return err
				}}
				if receipt, err := backup(t, memory.New(time.Now), short, s.Server); err == nil || receipt != nil {
					t.Errorf("cut at %d of %d: got %v, want it found", cut, size, err)
				}
			}
		})
	}
}

// TestWhatGoesWrong asks for what cannot be had.
func TestWhatGoesWrong(t *testing.T) {
	t.Parallel()
	const password, wrong = "correct horse", "battery staple"
	maria := databasetest.Start(t, database.MySQL, database.ScratchOptions{Port: databasetest.Port(t)})
	databasetest.SQL(t, maria.Server, "CREATE DATABASE a; CREATE USER reader@'%' IDENTIFIED BY '"+password+"'; GRANT ALL ON *.* TO reader@'%'")
	hba := filepath.Join(databasetest.Open(t), "hba")
	if err := os.WriteFile(hba, []byte("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	postgres := databasetest.Start(t, database.Postgres, database.ScratchOptions{Port: databasetest.Port(t), Arguments: []string{"-c", "hba_file=" + hba}})
	databasetest.PSQL(t, postgres.Server, "postgres", "CREATE ROLE reader SUPERUSER LOGIN PASSWORD '"+password+"'")
	redis := databasetest.Start(t, database.Redis, database.ScratchOptions{Port: databasetest.Port(t)})
	databasetest.RedisCLI(t, redis.Server, "CONFIG SET requirepass '"+password+"'")

	good := map[string]database.Server{
		database.MySQL:    {Engine: database.MySQL, Host: "127.0.0.1", Username: "reader", Password: password},
		database.Postgres: {Engine: database.Postgres, Host: "127.0.0.1", Username: "reader", Password: password},
		database.Redis:    {Engine: database.Redis, Host: "127.0.0.1", Password: password},
	}
	ports := map[string]int{database.MySQL: portOf(t, maria), database.Postgres: postgres.Server.Port, database.Redis: portOf(t, redis)}
	nobody := databasetest.Port(t)
	tests := []struct {
		name   string
		change func(*database.Server)
		exit   int
	}{
		{"right", func(*database.Server) {}, 0},
		{"wrong password", func(s *database.Server) { s.Password = wrong }, 5},
		{"no password", func(s *database.Server) { s.Password = "" }, 5},
		{"nobody listens", func(s *database.Server) { s.Port = nobody }, 75},
		{"no TLS there", func(s *database.Server) { s.TLS = database.TLSRequire }, 6},
		{"no certificate there", func(s *database.Server) { s.TLS = database.TLSVerify }, 6},
		{"none of the databases", func(s *database.Server) { s.Databases = []string{"nope*"} }, 4},
	}
	for engine, server := range good {
		server.Port = ports[engine]
		for _, test := range tests {
			if engine == database.Redis && (strings.HasPrefix(test.name, "none of") || strings.HasPrefix(test.name, "no TLS") || strings.HasPrefix(test.name, "no certificate")) {
				continue // it has one only; and both sides wait for each other, until the time for an answer is over
			}
			t.Run(engine+"/"+test.name, func(t *testing.T) {
				s := server
				test.change(&s)
				_, err := backup(t, memory.New(time.Now), database.Local{}, s)
				if got := fault.Of(err).Exit; got != test.exit {
					t.Errorf("exit %d, want %d: %v", got, test.exit, err)
				}
				if err == nil {
					return
				}
				if len(fault.Hints(err)) == 0 {
					t.Errorf("no hint in %v", err)
				}
				for _, secret := range []string{password, wrong} {
					if strings.Contains(err.Error(), secret) {
						t.Errorf("the password is in %v", err)
					}
				}
			})
		}
	}
}

// TestWhatToolsComplainOf is of what cannot be had from a server of the tests.
func TestWhatToolsComplainOf(t *testing.T) {
	t.Parallel()
	for said, exit := range map[string]int{
		"mariadb-dump: Error 2026: TLS/SSL error: unexpected eof while reading when dumping table `data` at row: 29899":                                 75,
		"mysqldump: Error 2013: Lost connection to MySQL server during query when dumping table `data` at row: 2":                                       75,
		"pg_dump: error: Dumping the contents of table \"t\" failed: PQgetCopyData() failed. SSL connection has been closed unexpectedly":               75,
		"ERROR 2026 (HY000): TLS/SSL error: self-signed certificate in certificate chain":                                                               6,
		"ERROR 2026 (HY000): SSL connection error: CA certificate is required if ssl-mode is VERIFY_CA or VERIFY_IDENTITY":                              6,
		"ERROR 1045 (28000): Access denied for user 'backup'@'10.0.0.7' (using password: YES)":                                                          5,
		"mysqldump: Couldn't execute 'FLUSH TABLES': Access denied; you need (at least one of) the RELOAD or FLUSH_TABLES privilege(s) for this (1227)": 5,
		"mysqldump: [ERROR] unknown option '--what'.":                                                                                                   6,
	} {
		complains := runs(func(_ context.Context, c database.Command) error {
			if c.Argv[1] == "--version" {
				return nil
			}
			return &database.Ended{Program: c.Argv[0], Status: 2, Said: said}
		})
		if err := database.Ping(t.Context(), database.Server{Engine: database.MySQL}, complains); fault.Of(err).Exit != exit {
			t.Errorf("%s: exit %d, want %d", said, fault.Of(err).Exit, exit)
		}
	}
}

type runs func(context.Context, database.Command) error

func (r runs) Run(ctx context.Context, c database.Command) error { return r(ctx, c) }

func portOf(t *testing.T, s *database.Scratch) int {
	t.Helper()
	if s.Port == 0 {
		t.Fatal("the server listens on no port")
	}
	return s.Port
}

// TestNoToolIsThere is of a machine without the client of any database.
func TestNoToolIsThere(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, engine := range []string{database.MySQL, database.Postgres, database.Redis} {
		_, err := backup(t, memory.New(time.Now), database.Local{}, database.Server{Engine: engine})
		if fault.Of(err).Exit != 4 || len(fault.Hints(err)) == 0 {
			t.Errorf("%s: %v, hints %q", engine, err, fault.Hints(err))
		}
	}
}

// TestSecretsAreNoArguments looks at every process of the machine while tools run.
func TestSecretsAreNoArguments(t *testing.T) {
	t.Parallel()
	const password = "correct-horse-battery"
	maria := databasetest.Start(t, database.MySQL, database.ScratchOptions{})
	databasetest.SQL(t, maria.Server, "CREATE DATABASE a; CREATE TABLE a.t (a INT); CREATE USER reader@localhost IDENTIFIED BY '"+password+"'; GRANT ALL ON *.* TO reader@localhost")
	redis := databasetest.Start(t, database.Redis, database.ScratchOptions{})
	databasetest.RedisCLI(t, redis.Server, "CONFIG SET requirepass "+password)
	postgres := databasetest.Start(t, database.Postgres, database.ScratchOptions{})
	looked := 0
	look := runner{dumped: func(_ context.Context, c database.Command, run func(io.Writer) error) error {
		return run(writer(func(p []byte) (int, error) {
			looked++
			lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, name := range lines {
				line, _ := os.ReadFile(name) // it may have ended
				if bytes.Contains(line, []byte(password)) {
					t.Errorf("%s: %q", name, line)
				}
			}
			return c.Stdout.Write(p)
		}))
	}, each: func(c database.Command) {
		if strings.Contains(strings.Join(c.Argv, " "), password) {
			t.Errorf("the password is in %q", c.Argv)
		}
	}}
	for _, s := range []database.Server{maria.Server, redis.Server, postgres.Server} {
		s.Password = password
		if s.Engine == database.MySQL {
			s.Username = "reader"
		}
		if _, err := backup(t, memory.New(time.Now), look, s); err != nil {
			t.Error(err)
		}
	}
	if looked < 3 {
		t.Errorf("looked %d times, want once for each engine at least", looked)
	}
}

// TestWhatIsThereIsNotOverwritten loads into servers that hold something, and then is told to.
func TestWhatIsThereIsNotOverwritten(t *testing.T) {
	t.Parallel()
	servers := map[string]func(s database.Server, sql string) string{
		database.MySQL:    func(s database.Server, sql string) string { return databasetest.SQL(t, s, "USE a; "+sql) },
		database.Postgres: func(s database.Server, sql string) string { return databasetest.PSQL(t, s, "a", sql) },
	}
	for engine, sql := range servers {
		t.Run(engine, func(t *testing.T) {
			s := databasetest.Start(t, engine, database.ScratchOptions{}).Server
			if engine == database.MySQL {
				databasetest.SQL(t, s, "CREATE DATABASE a")
			} else {
				databasetest.PSQL(t, s, "postgres", "CREATE DATABASE a")
			}
			sql(s, "CREATE TABLE t (n INT); INSERT INTO t VALUES (1), (2);")
			store := memory.New(time.Now)
			receipt, err := backup(t, store, database.Local{}, s)
			if err != nil {
				t.Fatal(err)
			}
			sql(s, "DELETE FROM t; CREATE TABLE later (n INT);")
			if err := restore(t, store, receipt, "databases/scratch", s, false); fault.Of(err).Exit != 6 || len(fault.Hints(err)) == 0 {
				t.Errorf("got %v, want it refused with a hint", err)
			}
			if got := sql(s, "SELECT count(*) FROM t;"); strings.TrimSpace(got) != "0" {
				t.Errorf("it was refused, and there are %s rows", got)
			}
			if err := restore(t, store, receipt, "databases/scratch", s, true); err != nil {
				t.Fatal(err)
			}
			if got := sql(s, "SELECT sum(n) FROM t;"); strings.TrimSpace(got) != "3" {
				t.Errorf("replaced: the rows sum up to %s", got)
			}
			if got := sql(s, "SELECT count(*) FROM information_schema.tables WHERE table_name = 'later';"); strings.TrimSpace(got) != "0" {
				t.Error("what came later is still there")
			}
		})
	}
}
