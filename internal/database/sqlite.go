package database

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"modernc.org/sqlite"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// sqliteEngine is a file of SQLite, which is copied on this machine while others go on writing to it. Pages stay where they are, so that
// the vault finds those that have not changed.
type sqliteEngine struct{}

// sqliteWait is how long SQLite waits for who is writing, in milliseconds.
const sqliteWait = 30_000

func sqliteURL(file, mode string) string {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: file}).EscapedPath()}
	u.RawQuery = fmt.Sprintf("mode=%s&_pragma=busy_timeout(%d)", mode, sqliteWait)
	return u.String()
}

func (sqliteEngine) ping(_ context.Context, c *client) error { return c.sqliteThere() }

func (c *client) sqliteThere() error {
	info, err := os.Stat(c.File)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.Wrap("", fault.ErrNotFound, err, "")
	case errors.Is(err, fs.ErrPermission):
		return fault.Wrap("", fault.ErrDenied, err, "")
	case err == nil && !info.Mode().IsRegular():
		return fault.New("", fault.ErrInvalid, c.File+" is no file", "")
	}
	return err
}

func (sqliteEngine) begin(ctx context.Context, c *client) (_ *Dump, err error) {
	if err := c.sqliteThere(); err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp("", "backstay-sqlite-")
	if err != nil {
		return nil, fault.Wrap("copy the file", fault.ErrRefused, err, "")
	}
	d := &Dump{release: func() error { return os.RemoveAll(scratch) }, count: point.Count{Of: "databases", Expected: 1}}
	copied := filepath.Join(scratch, "copy.db")
	if err := sqliteCopy(ctx, c.File, copied); err != nil {
		return nil, errors.Join(sqliteFault("copy "+c.File, err), d.release())
	}
	version, tables, err := sqliteCheck(ctx, copied)
	if err != nil {
		return nil, errors.Join(sqliteFault("check the copy of "+c.File, err), d.release())
	}
	check := &sqliteEnding{}
	name := c.name() + ".db"
	d.manifest.Tool = "SQLite " + version
	d.streams = []stream{{
		file: File{Name: name, Databases: []string{filepath.Base(c.File)}, Tables: tables}, check: check,
		open: func(context.Context) (io.ReadCloser, error) { return os.Open(copied) },
		finish: func(*File) error {
			d.count.Stored = 1
			d.manifest.Position = fmt.Sprintf("change:%d", check.changes())
			return nil
		},
	}}
	return d, nil
}

// sqliteCopy copies all pages as of one moment. Who writes in write-ahead mode goes on; others wait.
func sqliteCopy(ctx context.Context, from, to string) error {
	return withSQLite(ctx, sqliteURL(from, "ro"), func(c copier) (*sqlite.Backup, error) { return c.NewBackup(sqliteURL(to, "rwc")) })
}

// copier is what a connection of the driver can do.
type copier interface {
	NewBackup(to string) (*sqlite.Backup, error)
	NewRestore(from string) (*sqlite.Backup, error)
}

// withSQLite copies between the database at a URL and another.
func withSQLite(ctx context.Context, at string, open func(copier) (*sqlite.Backup, error)) (err error) {
	db, err := sql.Open("sqlite", at)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return conn.Raw(func(driver any) error {
		c, ok := driver.(copier)
		if !ok {
			return errors.New("the driver copies nothing")
		}
		copying, err := open(c)
		if err != nil {
			return err
		}
		more := true
		for more && err == nil && ctx.Err() == nil {
			more, err = copying.Step(-1)
		}
		return errors.Join(err, ctx.Err(), copying.Finish())
	})
}

// sqliteCheck has SQLite look at a copy.
func sqliteCheck(ctx context.Context, file string) (version string, tables int64, err error) {
	db, err := sql.Open("sqlite", sqliteURL(file, "ro"))
	if err != nil {
		return "", 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var verdict string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return "", 0, err
	}
	if verdict != "ok" {
		return "", 0, fault.New("", fault.ErrCorrupt, verdict, "")
	}
	err = db.QueryRowContext(ctx, "SELECT sqlite_version(), count(*) FROM sqlite_master WHERE type = 'table'").Scan(&version, &tables)
	return version, tables, err
}

func (sqliteEngine) load(ctx context.Context, c *client, l *loading) error {
	info, err := os.Stat(c.File)
	there := err == nil
	if there && info.Size() > 0 && !l.replace {
		return fault.New("", fault.ErrRefused, c.File+" is not empty", "--replace replaces what it holds")
	}
	if len(l.manifest.Files) != 1 {
		return fault.New("", fault.ErrCorrupt, fmt.Sprintf("the dump has %d files", len(l.manifest.Files)), "")
	}
	if l.changing != nil {
		if err := l.changing(); err != nil {
			return err
		}
	}
	f, err := os.CreateTemp(filepath.Dir(c.File), point.UnfinishedPrefix+"*")
	if err != nil {
		return fault.Wrap("", fault.ErrRefused, err, "")
	}
	unfinished := f.Name()
	defer os.Remove(unfinished) //nolint:errcheck // gone where all went well
	err = l.feed(ctx, l.manifest.Files[0], func(r io.Reader) error {
		_, err := io.Copy(f, r)
		return err
	})
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if there && info.Size() > 0 { // whoever has it open sees all of it change at once
		err = withSQLite(ctx, sqliteURL(c.File, "rw"), func(to copier) (*sqlite.Backup, error) { return to.NewRestore(sqliteURL(unfinished, "ro&immutable=1")) })
		return sqliteFault("replace "+c.File, err)
	}
	return fault.Wrap("", fault.ErrRefused, os.Rename(unfinished, c.File), "")
}

// sqliteFault gives an error of SQLite a class.
func sqliteFault(op string, err error) error {
	var of *sqlite.Error
	if !errors.As(err, &of) {
		return fault.Wrap(op, nil, err, "")
	}
	const busy, locked, corrupt, notADatabase, full = 5, 6, 11, 26, 13
	switch of.Code() & 0xff {
	case busy, locked:
		return fault.Wrap(op, fault.ErrBusy, err, "somebody keeps writing to it")
	case corrupt, notADatabase:
		return fault.Wrap(op, fault.ErrCorrupt, err, "")
	case full:
		return fault.Wrap(op, fault.ErrRefused, err, "the copy needs as much room in the directory for scratch files as the file has")
	}
	return fault.Wrap(op, fault.ErrRefused, err, "")
}

// sqliteEnding reads the head of a file as it passes, which says how long it is.
type sqliteEnding struct {
	head []byte
	seen int64
}

const (
	sqliteMagic = "SQLite format 3\x00"
	sqliteHead  = 100
)

func (e *sqliteEnding) Write(p []byte) (int, error) {
	e.seen += int64(len(p))
	if room := sqliteHead - len(e.head); room > 0 {
		e.head = append(e.head, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

func (e *sqliteEnding) changes() uint32 { return binary.BigEndian.Uint32(e.head[24:]) }

func (e *sqliteEnding) end() error {
	if len(e.head) < sqliteHead || !bytes.HasPrefix(e.head, []byte(sqliteMagic)) {
		return cutShort("it has no head")
	}
	page := int64(binary.BigEndian.Uint16(e.head[16:]))
	if page == 1 {
		page = 64 << 10
	}
	if long := page * int64(binary.BigEndian.Uint32(e.head[28:])); e.seen != long {
		return cutShort(fmt.Sprintf("it has %d bytes of %d", e.seen, long))
	}
	return nil
}
