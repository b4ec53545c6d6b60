package database_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/database"
	"github.com/backstay/backstay/internal/database/databasetest"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/protect"
)

// drill drills the only part of a point, and gives the checks as lines.
func drill(t *testing.T, store *memory.Store, receipt *point.Receipt, questions ...database.Question) []string {
	t.Helper()
	dir, err := os.MkdirTemp("", "backstay-db-") //nolint:usetesting // sockets have short names, and other users must get in
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	server := filepath.Join(dir, "db")
	if err := os.Mkdir(server, 0o700); err != nil {
		t.Fatal(err)
	}
	_, from, err := store.Open(context.Background(), receipt.Point.ID)
	if err != nil {
		t.Fatal(err)
	}
	checks, err := database.Drill(context.Background(), protect.Within(from, receipt.Point.Parts[0].Name), server, questions)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, c := range checks {
		verdict := "failed "
		if c.OK {
			verdict = "passed "
		}
		lines = append(lines, verdict+protect.ProblemLine(c))
	}
	return lines
}

// begins fails the test unless each line begins as it should.
func begins(t *testing.T, lines []string, want ...string) {
	t.Helper()
	if len(lines) != len(want) {
		t.Fatalf("got %q, want %q", lines, want)
	}
	for i := range lines {
		if !strings.HasPrefix(lines[i], want[i]) {
			t.Errorf("got %q, want %q", lines[i], want[i])
		}
	}
}

func text(s string) *string { return &s }

func TestDrillOfMySQL(t *testing.T) {
	from := databasetest.Start(t, database.MySQL, database.ScratchOptions{})
	databasetest.SQL(t, from.Server, odd)
	store := memory.New(time.Now)
	receipt, err := backup(t, store, database.Local{}, from.Server)
	if err != nil {
		t.Fatal(err)
	}
	if err := from.Stop(); err != nil { // the drill knows no other server
		t.Fatal(err)
	}
	begins(t, drill(t, store, receipt,
		database.Question{Database: "shop", Query: "SELECT count(*) FROM orders", Want: text("2")},
		database.Question{Database: "shop", Query: "SELECT count(*) > 2 FROM orders"},
		database.Question{Database: "shop", Query: "SELECT customer FROM orders WHERE id = 7 -- a missing row"},
		database.Question{Database: "shop", Query: "SELECT nothing FROM nowhere"},
		database.Question{Database: "other", Query: "SELECT 1"},
		database.Question{Query: "SELECT 1"},
		database.Question{Database: "shop", Query: "\\! touch /tmp/never"},
	),
		"passed load: 4 databases", "passed tables: dump.sql: wants 4, has 4",
		`passed sql: "SELECT count(*) FROM orders": "2"`, `failed sql: "SELECT count(*) > 2 FROM orders": has "0"`,
		`failed sql: "SELECT customer FROM orders WHERE id = 7 -- a missing row": has ""`, "failed sql: ", "failed sql: ",
		"failed sql: the server has 4 databases", "failed sql: ",
	)
	if err := store.Corrupt(receipt.Point.ID, receipt.Point.Parts[0].Name+"/dump.sql"); err != nil {
		t.Fatal(err)
	}
	begins(t, drill(t, store, receipt), "failed load: ")
}

func TestDrillOfPostgres(t *testing.T) {
	from := databasetest.Start(t, database.Postgres, database.ScratchOptions{})
	databasetest.PSQL(t, from.Server, "postgres", "CREATE DATABASE shop")
	databasetest.PSQL(t, from.Server, "shop", "CREATE TABLE orders (id int); INSERT INTO orders VALUES (1), (2); CREATE VIEW v AS SELECT * FROM orders")
	store := memory.New(time.Now)
	receipt, err := backup(t, store, database.Local{}, from.Server)
	if err != nil {
		t.Fatal(err)
	}
	begins(t, drill(t, store, receipt,
		database.Question{Query: "SELECT count(*) FROM orders", Want: text("2")},
		database.Question{Query: "SELECT true"},
		database.Question{Query: "SELECT NULL, 7"},
		database.Question{Query: " \\! touch /tmp/never"},
	),
		"passed load: 1 databases", "passed tables: ", `passed sql: "SELECT count(*) FROM orders": "2"`, `passed sql: "SELECT true": "t"`,
		`failed sql: "SELECT NULL, 7": has ""`, "failed sql: it is no SQL",
	)
}

func TestDrillOfSQLite(t *testing.T) {
	file := filepath.Join(t.TempDir(), "shop.db")
	db := openSQLite(t, "file:"+file)
	do(t, db, "CREATE TABLE orders (id INTEGER)")
	do(t, db, "INSERT INTO orders VALUES (1)")
	store := memory.New(time.Now)
	receipt, err := backup(t, store, database.Local{}, database.Server{Engine: database.SQLite, File: file})
	if err != nil {
		t.Fatal(err)
	}
	begins(t, drill(t, store, receipt,
		database.Question{Query: "SELECT id, NULL FROM orders"}, database.Question{Query: "SELECT id FROM orders WHERE id = 2"},
		database.Question{Query: "SELECT * FROM nowhere"}, database.Question{Query: "DELETE FROM orders RETURNING id"},
	),
		"passed load: 1 databases", "passed tables: shop.db: wants 1, has 1", `passed sql: "SELECT id, NULL FROM orders": "1"`,
		`failed sql: "SELECT id FROM orders WHERE id = 2": has ""`, "failed sql: ", "failed sql: ",
	)
}

func TestDrillOfRedis(t *testing.T) {
	from := databasetest.Start(t, database.Redis, database.ScratchOptions{})
	databasetest.RedisCLI(t, from.Server, everyType())
	store := memory.New(time.Now)
	receipt, err := backup(t, store, database.Local{}, from.Server)
	if err != nil {
		t.Fatal(err)
	}
	if err := from.Stop(); err != nil { // the drill knows no other server
		t.Fatal(err)
	}
	part := receipt.Point.Parts[0].Name
	begins(t, drill(t, store, receipt), "passed load: 1 databases")
	_, reader, err := store.Open(t.Context(), receipt.Point.ID)
	if err != nil {
		t.Fatal(err)
	}
	_, err = database.Drill(t.Context(), protect.Within(reader, part), databasetest.Open(t), []database.Question{{Query: "SELECT 1"}})
	if !errors.Is(err, fault.ErrUnsupported) {
		t.Errorf("asked in SQL: %v", err)
	}
	if err := store.Corrupt(receipt.Point.ID, part+"/dump.rdb"); err != nil {
		t.Fatal(err)
	}
	begins(t, drill(t, store, receipt), "failed load: ")
}

// scratchOf is the directory of the server that TestServersDieWithTheirProcess starts in a process of its own.
const scratchOf = "BACKSTAY_TEST_SCRATCH"

func TestServersDieWithTheirProcess(t *testing.T) {
	if dir := os.Getenv(scratchOf); dir != "" { // the process that is killed
		if _, err := database.StartScratch(context.Background(), database.Postgres, dir, database.ScratchOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(dir), "started"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	parent, err := os.MkdirTemp("", "backstay-db-") //nolint:usetesting // sockets have short names
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(parent)
	dir := filepath.Join(parent, "db")
	if err := errors.Join(os.Chmod(parent, 0o711), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestServersDieWithTheirProcess$") // dies with the test
	cmd.Env = append(os.Environ(), scratchOf+"="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed
	}()
	awaited(t, func() bool {
		select {
		case <-ended:
			t.Fatal("the process ended before its server had started")
		default:
		}
		_, err := os.Stat(filepath.Join(parent, "started"))
		return err == nil
	})
	pid, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	number, _, _ := strings.Cut(string(pid), "\n")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	awaited(t, func() bool { // gone, or a zombie of whoever takes orphans in
		status, err := os.ReadFile("/proc/" + number + "/status")
		return errors.Is(err, os.ErrNotExist) || strings.Contains(string(status), "State:\tZ")
	})
}

// awaited waits until it is so.
func awaited(t *testing.T, so func() bool) {
	t.Helper()
	for !so() {
		select {
		case <-t.Context().Done():
			t.Fatal("it never was so")
		case <-time.After(10 * time.Millisecond):
		}
	}
}
