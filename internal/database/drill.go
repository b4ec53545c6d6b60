package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Question is asked of a restored database.
type Question struct {
	Database string  // on the server; "" for its only one
	Query    string  // one statement
	Want     *string // the first value of the first row; nil for anything but nothing, NULL, 0, false, f and the empty text
}

// Drill loads a dump into a scratch server in dir, which is empty, looks whether all databases and tables are there, and asks questions.
// The server is gone when it returns. An error says nothing of the dump: fault.ErrUnsupported where the server is not installed here.
func Drill(ctx context.Context, from point.Reader, dir string, questions []Question) (checks []point.Check, err error) {
	m, err := ReadManifest(ctx, from)
	if err != nil {
		return nil, err
	}
	to, stop, err := scratchFor(ctx, m.Engine, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	began := now()
	_, err = Restore(ctx, from, to, Local{}, RestoreOptions{})
	if failed, err := ofTheDump("load", err); failed != nil || err != nil {
		return failed, err
	}
	checks = append(checks, point.Check{What: "load", OK: true, Detail: fmt.Sprintf("%d databases in %.1f s", countDatabases(m), now().Sub(began).Seconds())})
	c := &client{Server: to, runner: Local{}}
	for _, f := range m.Files {
		tables, err := c.countTables(ctx, f.Databases)
		failed, err := ofTheDump("tables", c.explained(err))
		switch {
		case err != nil:
			return nil, err
		case failed != nil:
			checks = append(checks, failed...)
		case len(f.Databases) > 0 && tables >= 0:
			checks = append(checks, point.Check{What: "tables", OK: tables == f.Tables, Detail: fmt.Sprintf("%s: wants %d, has %d", f.Name, f.Tables, tables)})
		}
	}
	for _, q := range questions {
		check, err := c.pose(ctx, q, m)
		if err != nil {
			return nil, err
		}
		checks = append(checks, check)
	}
	return checks, nil
}

func countDatabases(m *Manifest) (n int) {
	for _, f := range m.Files {
		n += len(f.Databases)
	}
	return max(n, 1)
}

// scratchFor is a place of an engine to try a dump in, and what ends it.
func scratchFor(ctx context.Context, engine, dir string) (Server, func() error, error) {
	if engine == SQLite {
		return Server{Engine: SQLite, File: filepath.Join(dir, "scratch.db")}, func() error { return nil }, nil
	}
	s, err := StartScratch(ctx, engine, dir, ScratchOptions{})
	if errors.Is(err, fault.ErrNotFound) {
		err = fault.Wrap("", fault.ErrUnsupported, errors.New(err.Error()), "install the database server beside Backstay, or drill where it is")
	}
	if err != nil {
		return Server{}, nil, err
	}
	return s.Server, s.Stop, nil
}

// ofTheDump divides errors of loading and asking: what a server has refused, or what is damaged, is a check that failed.
func ofTheDump(what string, err error) ([]point.Check, error) {
	full := err != nil && (strings.Contains(err.Error(), "No space left") || strings.Contains(err.Error(), "no space left"))
	switch {
	case err == nil:
		return nil, nil
	case full:
		return nil, fault.Wrap("", fault.ErrRefused, err, "point TMPDIR to a disk that can hold the databases")
	case errors.Is(err, fault.ErrRefused), errors.Is(err, fault.ErrCorrupt), errors.Is(err, fault.ErrInvalid):
		return []point.Check{{What: what, Detail: err.Error()}}, nil
	}
	return nil, err
}

const (
	mysqlTables    = "SELECT 'tables', '', COUNT(*) FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' AND TABLE_SCHEMA NOT IN (" + mysqlOwn + ")"
	postgresTables = "SELECT 'tables', '', count(*) FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p') AND oid >= 16384 " +
		"AND relnamespace NOT IN (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname ~ '^pg_toast');"
)

// countTables counts the tables of databases; -1 where the engine has none.
func (c *client) countTables(ctx context.Context, databases []string) (n int64, _ error) {
	switch c.Engine {
	case MySQL:
		rows, err := c.mysqlQuery(ctx, mysqlTables)
		return sumOf(rows), err
	case Postgres:
		for _, name := range databases {
			rows, err := c.postgresQuery(ctx, name, postgresTables)
			if err != nil {
				return 0, err
			}
			n += sumOf(rows)
		}
		return n, nil
	case SQLite:
		_, n, err := sqliteCheck(ctx, c.File)
		return n, sqliteFault("check", err)
	}
	return -1, nil
}

func sumOf(rows []row) (n int64) {
	for _, r := range rows {
		n += r.number
	}
	return n
}

// pose asks a question, and judges the answer.
func (c *client) pose(ctx context.Context, q Question, m *Manifest) (point.Check, error) {
	check := point.Check{What: "sql"}
	const shown = 100
	name := q.Database
	if name == "" && m.Engine != SQLite && m.Engine != Redis {
		var all []string
		for _, f := range m.Files {
			all = append(all, f.Databases...)
		}
		if len(all) != 1 {
			check.Detail = fmt.Sprintf("the server has %d databases: say of which", len(all))
			return check, nil
		}
		name = all[0]
	}
	got, err := c.value(ctx, name, q.Query)
	failed, err := ofTheDump("sql", c.explained(err))
	if err != nil && errors.Is(err, fault.ErrNotFound) { // the database, the table, the column
		failed, err = []point.Check{{What: "sql", Detail: err.Error()}}, nil
	}
	switch {
	case err != nil:
		return check, err
	case failed != nil:
		return failed[0], nil
	case q.Want != nil && got != *q.Want:
		check.Detail = fmt.Sprintf("%.*q: wants %.*q, has %.*q", shown, q.Query, shown, *q.Want, shown, got)
	case q.Want == nil && isFalse(got):
		check.Detail = fmt.Sprintf("%.*q: has %q", shown, q.Query, got)
	default:
		check.OK, check.Detail = true, fmt.Sprintf("%.*q: %.*q", shown, q.Query, shown, got)
	}
	return check, nil
}

// isFalse reports whether a value, as the tools print it, says no.
func isFalse(value string) bool {
	switch strings.ToLower(value) {
	case "", "null", "0", "f", "false":
		return true
	}
	return false
}

// value is the first value of the first row of an answer, as the tools print it; "" where there is none.
func (c *client) value(ctx context.Context, name, query string) (string, error) {
	const tab = "\t"
	var answer string
	switch c.Engine {
	case MySQL:
		tool, version, err := c.tool(ctx, mysqlClients...)
		if err != nil {
			return "", err
		}
		argv := append(append([]string{tool}, c.mysqlConnection(version)...), "--batch", "--skip-column-names", "--binary-mode", "--database="+name)
		if answer, err = c.ask(ctx, Command{Argv: argv, Env: c.mysqlEnv(), Stdin: strings.NewReader(query + "\n;\n")}); err != nil {
			return "", err
		}
	case Postgres:
		if strings.HasPrefix(strings.TrimSpace(query), `\`) { // psql would take it for a command of its own
			return "", fault.New("", fault.ErrInvalid, "it is no SQL", "")
		}
		var err error
		argv := append(psql(), "--field-separator="+tab, "--command="+query)
		if answer, err = c.ask(ctx, Command{Argv: argv, Env: c.postgresEnv(name)}); err != nil {
			return "", err
		}
	case SQLite:
		return c.sqliteValue(ctx, query)
	default:
		return "", fault.New("", fault.ErrUnsupported, c.Engine+" speaks no SQL", "")
	}
	line, _, _ := strings.Cut(answer, "\n")
	first, _, _ := strings.Cut(line, tab)
	return first, nil
}

func (c *client) sqliteValue(ctx context.Context, query string) (value string, err error) {
	db, err := sql.Open("sqlite", sqliteURL(c.File, "ro"))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return "", sqliteFault("", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	columns, err := rows.Columns()
	if err != nil || len(columns) == 0 || !rows.Next() {
		return "", errors.Join(err, sqliteFault("", rows.Err()))
	}
	values := make([]sql.NullString, len(columns))
	into := make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	err = rows.Scan(into...)
	return values[0].String, err
}
