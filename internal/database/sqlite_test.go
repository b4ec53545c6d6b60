package database_test

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/database"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point/memory"
)

// openSQLite opens a file as an application does.
func openSQLite(t *testing.T, file string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func do(t *testing.T, db *sql.DB, statement string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

// rows counts what a table has, and sums it up.
func rows(t *testing.T, db *sql.DB) string {
	t.Helper()
	var n, sum int64
	if err := db.QueryRowContext(t.Context(), "SELECT count(*), coalesce(sum(id * length(note)), 0) FROM notes").Scan(&n, &sum); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(n, " ", sum)
}

func TestSQLiteIsCopiedWhileItIsWritten(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "it's ?mode=rwc#100%.db")
	db := openSQLite(t, "file:"+filepath.Join(dir, "it%27s%20%3Fmode=rwc%23100%25.db"))
	do(t, db, "PRAGMA journal_mode=WAL")
	do(t, db, "CREATE TABLE notes (id INTEGER PRIMARY KEY, note BLOB)")
	for i := range 500 {
		do(t, db, "INSERT INTO notes VALUES (?, randomblob(?))", i, 100+i)
	}
	want := rows(t, db)
	tx, err := db.BeginTx(t.Context(), nil) // somebody writes, and has not made up their mind
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), "DELETE FROM notes WHERE id < 250"); err != nil {
		t.Fatal(err)
	}
	store := memory.New(time.Now)
	server := database.Server{Engine: database.SQLite, File: file, Name: "notes"}
	receipt, err := backup(t, store, database.Local{}, server)
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := restore(t, store, receipt, "databases/notes", server, false); fault.Of(err).Exit != 6 {
		t.Errorf("over what is there: %v, want it refused", err)
	}
	other := server
	other.File = filepath.Join(dir, "other.db")
	if err := restore(t, store, receipt, "databases/notes", other, false); err != nil {
		t.Fatal(err)
	}
	if got := rows(t, openSQLite(t, other.File)); got != want {
		t.Errorf("in another file: %s, want %s", got, want)
	}
	if err := restore(t, store, receipt, "databases/notes", server, true); err != nil {
		t.Fatal(err)
	}
	if got := rows(t, db); got != want { // through the connection that was open all the time
		t.Errorf("replaced: %s, want %s", got, want)
	}
	left, err := filepath.Glob(filepath.Join(dir, ".backstay-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSQLiteThatIsNone(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken.db")
	if err := os.WriteFile(broken, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, exit := range map[string]int{broken: 7, filepath.Join(dir, "none.db"): 4, dir: 2} {
		_, err := backup(t, memory.New(time.Now), database.Local{}, database.Server{Engine: database.SQLite, File: file})
		if got := fault.Of(err).Exit; got != exit {
			t.Errorf("%s: exit %d, want %d: %v", filepath.Base(file), got, exit, err)
		}
	}
}
