package database

import (
	"bufio"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// postgresEngine is PostgreSQL. Each database is a file of its own, in the format of pg_restore; a snapshot of each is taken, one at once
// after the other, before the first is dumped.
type postgresEngine struct{}

const (
	// postgresHome is the database that every server has, from which the others are asked for.
	postgresHome = "postgres"
	// postgresOther is where a session is while postgresHome itself is dropped.
	postgresOther = "template1"
	rolesFile     = "roles.sql"
	// mostSnapshots bounds the databases of one dump: each keeps a session open until its turn.
	mostSnapshots = 64
	// trusted is where Debian, and Backstay's image, have the authorities that a machine trusts: libpq and the tools of MySQL know no such
	// place by themselves.
	trusted = "/etc/ssl/certs/ca-certificates.crt"
)

const postgresStateQuery = `SELECT 'version', encode(convert_to(version(), 'UTF8'), 'hex'), 0;
SELECT 'database', encode(convert_to(datname, 'UTF8'), 'hex'), 0 FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname;`

// postgresFull counts what somebody has put into a database.
const postgresFull = `SELECT 'full', '', (SELECT count(*) FROM pg_catalog.pg_class WHERE relnamespace >= 16384 OR relnamespace = 'public'::regnamespace)
+ (SELECT count(*) FROM pg_catalog.pg_proc p WHERE pronamespace = 'public'::regnamespace AND NOT EXISTS
  (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'))
+ (SELECT count(*) FROM pg_catalog.pg_namespace WHERE oid >= 16384 AND nspname <> 'public' AND nspname !~ '^pg_')
+ (SELECT count(*) FROM pg_catalog.pg_largeobject_metadata);`

func (postgresEngine) ping(ctx context.Context, c *client) error {
	_, err := c.postgresQuery(ctx, postgresHome, "SELECT 'here', '', 1;")
	return err
}

func (postgresEngine) begin(ctx context.Context, c *client) (_ *Dump, err error) {
	_, version, err := c.tool(ctx, "pg_dump")
	if err != nil {
		return nil, err
	}
	server, databases, err := c.postgresDatabases(ctx)
	if err != nil {
		return nil, err
	}
	roles, note, err := c.postgresRoles(ctx)
	if err != nil {
		return nil, err
	}
	d := &Dump{count: point.Count{Of: "databases", Expected: int64(len(databases))}}
	d.manifest.Server, d.manifest.Tool = server, version
	if note != "" {
		d.manifest.Notes = append(d.manifest.Notes, note)
	}
	d.streams = append(d.streams, stream{
		file: File{Name: rolesFile},
		open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(roles)), nil },
	})
	var held []*snapshot
	d.release = func() error {
		var all []error
		for _, s := range held {
			all = append(all, s.close())
		}
		return errors.Join(all...)
	}
	for _, name := range databases {
		s, err := c.postgresSnapshot(ctx, name)
		if err != nil {
			return nil, errors.Join(err, d.release())
		}
		held = append(held, s)
		d.manifest.Position = s.position
		d.streams = append(d.streams, c.postgresStream(d, s))
	}
	return d, nil
}

// postgresDatabases are those that are wanted. The one that every server has is not, where nobody has put anything into it.
func (c *client) postgresDatabases(ctx context.Context) (version string, wanted []string, err error) {
	rows, err := c.postgresQuery(ctx, postgresHome, postgresStateQuery+postgresFull)
	if err != nil {
		return "", nil, err
	}
	var all []string
	var home bool
	for _, r := range rows {
		switch r.what {
		case "version":
			version = r.text
		case "database":
			all = append(all, r.text)
		case "full":
			home = r.number > 0
		}
	}
	if !home && len(c.Databases) == 0 && len(all) > 1 {
		all = slices.DeleteFunc(all, func(name string) bool { return name == postgresHome })
	}
	wanted, err = c.chosen(all)
	if err == nil && len(wanted) > mostSnapshots {
		return "", nil, fault.New("", fault.ErrUnsupported, fmt.Sprintf("%d databases are more than %d at once", len(wanted), mostSnapshots),
			"name some of them, and the others as a server of another name")
	}
	return version, wanted, err
}

// postgresStream dumps one database as of its snapshot, when its turn comes.
func (c *client) postgresStream(d *Dump, s *snapshot) stream {
	check := newPostgresEnding()
	return stream{
		file:  File{Name: fileName(s.database) + ".dump", Databases: []string{s.database}, Position: s.position},
		check: check,
		open: func(ctx context.Context) (io.ReadCloser, error) {
			return start(ctx, c.runner, Command{
				Argv: []string{"pg_dump", "--format=custom", "--compress=0", "--no-password", "--snapshot=" + s.id},
				Env:  c.postgresEnv(s.database),
			})
		},
		finish: func(f *File) error {
			f.Tables = check.tables
			d.count.Stored++
			return s.close()
		},
	}
}

// snapshot is a session that holds a moment of one database.
type snapshot struct {
	database, id, position string

	out *output
	in  *io.PipeWriter
}

func (c *client) postgresSnapshot(ctx context.Context, database string) (*snapshot, error) {
	reads, writes := io.Pipe()
	out, err := start(ctx, c.runner, Command{Argv: psql(), Env: c.postgresEnv(database), Stdin: reads})
	if err != nil {
		return nil, err
	}
	s := &snapshot{database: database, in: writes, out: out}
	go func() { // psql may end without reading: then nobody is to wait for it
		<-s.out.done
		reads.Close() //nolint:errcheck // never fails
	}()
	_, wrote := io.WriteString(writes, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\nSET LOCAL idle_in_transaction_session_timeout = 0;\n"+
		"SELECT pg_catalog.pg_export_snapshot(), CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() "+
		"ELSE pg_catalog.pg_current_wal_lsn() END;\n")
	answer, err := bufio.NewReader(io.LimitReader(s.out, mostSaid)).ReadString('\n')
	if err == io.EOF { //nolint:errorlint // as io.Reader has it
		err = cmp.Or(wrote, fault.New("", fault.ErrUnavailable, "the session ended before it held a snapshot", ""))
	}
	id, position, found := strings.Cut(strings.TrimSpace(answer), "|")
	if err == nil && (!found || strings.Trim(id, "0123456789ABCDEF-") != "") {
		err = fault.New("", fault.ErrCorrupt, fmt.Sprintf("the answer makes no sense: %.80q", answer), "")
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.id, s.position = id, "wal:"+position
	return s, nil
}

// close lets the moment go. Idempotent.
func (s *snapshot) close() error { return errors.Join(s.in.Close(), s.out.Close()) }

func psql() []string {
	return []string{"psql", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--no-password", "--set=ON_ERROR_STOP=1"}
}

// postgresQuery asks for rows of a word, a text in hexadecimal, and a number.
func (c *client) postgresQuery(ctx context.Context, database, sql string) ([]row, error) {
	answer, err := c.answer(ctx, Command{Argv: psql(), Env: c.postgresEnv(database), Stdin: strings.NewReader(sql + "\n")})
	if err != nil {
		return nil, err
	}
	return rowsOf(answer, "|")
}

// row is one row of an answer: texts come in hexadecimal, for whatever they hold.
type row struct {
	what, text string
	number     int64
}

func rowsOf(answer, separator string) (rows []row, _ error) {
	for line := range strings.Lines(answer) {
		fields := strings.Split(strings.TrimSpace(line), separator)
		if len(fields) != 3 {
			return nil, fault.New("ask the server", fault.ErrCorrupt, fmt.Sprintf("the answer makes no sense: %.80q", line), "")
		}
		text, err := hex.DecodeString(fields[1])
		number, numberErr := strconv.ParseInt(fields[2], 10, 64)
		if err := cmp.Or(err, numberErr); err != nil {
			return nil, fault.Wrap("ask the server", fault.ErrCorrupt, err, "")
		}
		rows = append(rows, row{fields[0], string(text), number})
	}
	return rows, nil
}

// postgresEnv is how the tools reach the server. The name of a database goes this way, too: as an argument it could be a whole connection.
func (c *client) postgresEnv(database string) map[string]string {
	env := map[string]string{
		"PGDATABASE": database, "PGUSER": cmp.Or(c.Username, "postgres"), "PGAPPNAME": "backstay", "PGCLIENTENCODING": "UTF8", "PGCONNECT_TIMEOUT": "30",
		"PGPASSFILE": "/dev/null", "PGSERVICEFILE": "/dev/null", "PGOPTIONS": "-c standard_conforming_strings=on",
	}
	set := func(name, value string) {
		if value != "" {
			env[name] = value
		}
	}
	set("PGHOST", c.Host)
	set("PGPASSWORD", c.Password.Reveal())
	set("PGSSLROOTCERT", c.CAFile)
	if c.Port != 0 {
		env["PGPORT"] = strconv.Itoa(c.Port)
	}
	set("PGSSLMODE", map[string]string{TLSDisable: "disable", TLSRequire: "require", TLSVerify: "verify-full"}[c.TLS])
	if c.TLS == TLSVerify && c.CAFile == "" {
		env["PGSSLROOTCERT"] = trusted
	}
	return env
}
