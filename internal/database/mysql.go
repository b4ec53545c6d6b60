package database

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// mysqlEngine is MySQL and MariaDB. All databases of a server come out of one transaction, and so in one stream: to cut it at the
// comments between them would trust what is written in routines.
type mysqlEngine struct{}

const mysqlFile = "dump.sql"

// mysqlTools are the two families of tools; those of MariaDB are tried first, for they speak to both.
var mysqlClients, mysqlDumpers = []string{"mariadb", "mysql"}, []string{"mariadb-dump", "mysqldump"} //nolint:gochecknoglobals // constants

// mysqlState is what a server says of itself.
type mysqlState struct {
	version   string
	logs      bool // it keeps a binary log, so that there is a position
	databases []string
	torn      map[string]int64 // tables that no transaction protects, by database
}

const mysqlOwn = "'information_schema','performance_schema','mysql','sys'"

const mysqlStateQuery = "SELECT 'version', HEX(VERSION()), 0; SELECT 'logs', '', @@log_bin + 0; " +
	"SELECT 'database', HEX(SCHEMA_NAME), 0 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN (" + mysqlOwn + ") ORDER BY SCHEMA_NAME; " +
	"SELECT 'torn', HEX(TABLE_SCHEMA), COUNT(*) FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' AND ENGINE <> 'InnoDB' " +
	"AND TABLE_SCHEMA NOT IN (" + mysqlOwn + ") GROUP BY TABLE_SCHEMA"

func (mysqlEngine) ping(ctx context.Context, c *client) error {
	_, err := c.mysqlQuery(ctx, "DO 0")
	return err
}

func (mysqlEngine) begin(ctx context.Context, c *client) (*Dump, error) {
	state, err := c.mysqlState(ctx)
	if err != nil {
		return nil, err
	}
	databases, err := c.chosen(state.databases)
	if err != nil {
		return nil, err
	}
	d, err := c.mysqlDump(ctx, databases, state.logs)
	if why := c.mysqlPositionless(err); state.logs && why != "" {
		if d, err = c.mysqlDump(ctx, databases, false); err == nil {
			d.manifest.Notes = append(d.manifest.Notes, "the position in the binary log is not recorded: "+why)
		}
	}
	if err != nil {
		return nil, err
	}
	d.manifest.Server = state.version
	for _, name := range databases {
		if n := state.torn[name]; n > 0 {
			d.manifest.Notes = append(d.manifest.Notes,
				fmt.Sprintf("%s: %d tables are of engines without transactions, and may be of different moments", name, n))
		}
	}
	return d, nil
}

// mysqlPositionless says why a dump may do without the position where it fails with it; "" where it fails for something else.
func (c *client) mysqlPositionless(err error) string {
	var ended *Ended
	switch {
	case errors.Is(c.explained(err), fault.ErrDenied):
		return c.name() + " does not let the user read it"
	case errors.As(err, &ended) && strings.Contains(ended.Said, "SHOW MASTER STATUS"): // MySQL 8.4 has given it another name
		return ended.Program + " does not know how " + c.name() + " is asked for it; MySQL's own mysqldump does"
	}
	return ""
}

// mysqlDump starts the tool, and reads until its transaction stands: then it begins with the first database.
func (c *client) mysqlDump(ctx context.Context, databases []string, position bool) (*Dump, error) {
	tool, version, err := c.tool(ctx, mysqlDumpers...)
	if err != nil {
		return nil, err
	}
	argv := append([]string{tool}, c.mysqlConnection(version)...)
	argv = append(argv, "--single-transaction", "--quick", "--routines", "--events", "--triggers", "--hex-blob", "--skip-dump-date",
		"--no-tablespaces", "--max-allowed-packet=1G", "--comments")
	if isMySQL(version) {
		argv = append(argv, "--set-gtid-purged=OFF", "--loose-column-statistics=0") // which 5.7 does not know
	}
	if position {
		argv = append(argv, mysqlPositionOption(version))
	}
	argv = append(append(argv, "--databases", "--"), databases...)
	out, err := start(ctx, c.runner, Command{Argv: argv, Env: c.mysqlEnv()})
	if err != nil {
		return nil, err
	}
	head, seen, err := mysqlHead(out)
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	through := newMySQLEnding(databases)
	d := &Dump{release: out.Close, count: point.Count{Of: "databases", Expected: int64(len(databases))}}
	d.manifest.Tool, d.manifest.Position = version, seen.position()
	d.streams = []stream{{
		file: File{Name: mysqlFile, Databases: databases}, check: through,
		open: func(context.Context) (io.ReadCloser, error) {
			return struct {
				io.Reader
				io.Closer
			}{io.MultiReader(bytes.NewReader(head), out), out}, nil
		},
		finish: func(f *File) error {
			f.Tables, d.count.Stored = through.tables, int64(len(through.databases))
			d.manifest.Position = through.position()
			return nil
		},
	}}
	return d, nil
}

// mostHead bounds what a tool may say before its first database, in bytes.
const mostHead = 1 << 20

func mysqlHead(from io.Reader) ([]byte, *mysqlEnding, error) {
	var head []byte
	seen := newMySQLEnding(nil)
	chunk := make([]byte, 32<<10)
	for !seen.stands {
		n, err := from.Read(chunk)
		head = append(head, chunk[:n]...)
		seen.Write(chunk[:n]) //nolint:errcheck // fails never
		switch {
		case seen.stands:
		case err == io.EOF:
			return nil, nil, cutShort("it ends before the first database")
		case err != nil:
			return nil, nil, err
		case len(head) > mostHead:
			return nil, nil, fault.New("", fault.ErrCorrupt, "what the tool writes is no dump", "")
		}
	}
	return head, seen, nil
}

func (mysqlEngine) load(ctx context.Context, c *client, l *loading) error {
	tool, version, err := c.tool(ctx, mysqlClients...)
	if err != nil {
		return err
	}
	if err := c.mysqlVacate(ctx, l); err != nil {
		return err
	}
	for _, f := range l.manifest.Files {
		// In binary mode the client takes no commands of its own from its input, to run programs say; and it reads no file for the server.
		argv := append([]string{tool}, c.mysqlConnection(version)...)
		argv = append(argv, "--batch", "--binary-mode", "--local-infile=0", "--max-allowed-packet=1G")
		err := l.feed(ctx, f, func(r io.Reader) error {
			return c.runner.Run(ctx, Command{Argv: argv, Env: c.mysqlEnv(), Stdin: r})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// mysqlVacate makes sure that the databases of a dump are not there. Empty ones go without being asked for: they would keep their
// character set.
func (c *client) mysqlVacate(ctx context.Context, l *loading) error {
	rows, err := c.mysqlQuery(ctx, "SELECT DISTINCT 'full', HEX(s), 0 FROM (SELECT TABLE_SCHEMA AS s FROM information_schema.TABLES "+
		"UNION SELECT ROUTINE_SCHEMA FROM information_schema.ROUTINES UNION SELECT EVENT_SCHEMA FROM information_schema.EVENTS) AS t")
	if err != nil {
		return err
	}
	full := map[string]bool{}
	for _, r := range rows {
		full[r.text] = true
	}
	names := l.databases()
	if err := l.mayReplace(names, full); err != nil {
		return err
	}
	var drop strings.Builder
	for _, name := range names {
		drop.WriteString("DROP DATABASE IF EXISTS " + backquoted(name) + "; ")
	}
	_, err = c.mysqlQuery(ctx, drop.String())
	return err
}

func backquoted(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

func (c *client) mysqlState(ctx context.Context) (*mysqlState, error) {
	rows, err := c.mysqlQuery(ctx, mysqlStateQuery)
	if err != nil {
		return nil, err
	}
	s := &mysqlState{torn: map[string]int64{}}
	for _, r := range rows {
		switch r.what {
		case "version":
			s.version = r.text
		case "logs":
			s.logs = r.number == 1
		case "database":
			s.databases = append(s.databases, r.text)
		case "torn":
			s.torn[r.text] = r.number
		}
	}
	return s, nil
}

// mysqlQuery asks for rows of a word, a text in hexadecimal, and a number.
func (c *client) mysqlQuery(ctx context.Context, sql string) ([]row, error) {
	tool, version, err := c.tool(ctx, mysqlClients...)
	if err != nil {
		return nil, err
	}
	argv := append([]string{tool}, c.mysqlConnection(version)...)
	var encrypted string
	if c.TLS == TLSRequire { // MariaDB's tools go on without where it is only required
		encrypted = "SHOW SESSION STATUS LIKE 'Ssl_cipher'; "
	}
	answer, err := c.answer(ctx, Command{
		Argv: append(argv, "--batch", "--skip-column-names", "--binary-mode", "--local-infile=0", "--connect-timeout=30"), Env: c.mysqlEnv(),
		Stdin: strings.NewReader(encrypted + sql + ";\n"),
	})
	if err != nil {
		return nil, err
	}
	if encrypted != "" {
		var cipher string
		cipher, answer, _ = strings.Cut(answer, "\n")
		if strings.TrimSpace(strings.TrimPrefix(cipher, "Ssl_cipher")) == "" {
			return nil, fault.New("", fault.ErrRefused, "the server does not encrypt", "tls=disable does without, where nobody else is on the way")
		}
	}
	return rowsOf(answer, "\t")
}

func (c *client) mysqlEnv() map[string]string {
	if c.Password == "" {
		return nil
	}
	return map[string]string{"MYSQL_PWD": c.Password.Reveal()}
}

// mysqlConnection are the options by which the tools reach the server. Files of options are left out: what is dumped is what is asked for.
func (c *client) mysqlConnection(version string) []string {
	argv := []string{"--no-defaults", "--user=" + cmp.Or(c.Username, "root"), "--default-character-set=utf8mb4"}
	switch {
	case strings.HasPrefix(c.Host, "/"):
		argv = append(argv, "--protocol=socket", "--socket="+c.Host)
	case c.Host != "":
		argv = append(argv, "--protocol=tcp", "--host="+c.Host)
	}
	if c.Port != 0 {
		argv = append(argv, "--port="+strconv.Itoa(c.Port))
	}
	authorities := c.CAFile
	if authorities == "" && c.TLS == TLSVerify && isMySQL(version) {
		authorities = trusted
	}
	if authorities != "" && c.TLS != TLSDisable {
		argv = append(argv, "--ssl-ca="+authorities)
	}
	modes := map[string]string{TLSDisable: "--skip-ssl", TLSRequire: "--ssl", TLSVerify: "--ssl-verify-server-cert"}
	if isMySQL(version) {
		modes = map[string]string{TLSDisable: "--ssl-mode=DISABLED", TLSRequire: "--ssl-mode=REQUIRED", TLSVerify: "--ssl-mode=VERIFY_IDENTITY"}
	}
	if mode := modes[c.TLS]; mode != "" {
		argv = append(argv, mode)
	}
	return argv
}

// isMySQL tells tools of MySQL from those of MariaDB by what they say of themselves.
func isMySQL(version string) bool { return !strings.Contains(version, "MariaDB") }

// mysqlPositionOption has the position written as a comment. MySQL has renamed it with 8.0.26.
func mysqlPositionOption(version string) string {
	if isMySQL(version) && slices.Compare(mysqlVersion(version), []int{8, 0, 26}) >= 0 {
		return "--source-data=2"
	}
	return "--master-data=2"
}

// mysqlVersion is the version of MySQL that a tool says it is of: "Ver 10.13 Distrib 5.7.44" up to 5.7, "Ver 8.0.36" since.
func mysqlVersion(said string) (numbers []int) {
	_, of, found := strings.Cut(said, "Distrib ")
	if !found {
		_, of, _ = strings.Cut(said, "Ver ")
	}
	for _, digits := range strings.FieldsFunc(of, func(r rune) bool { return r < '0' || r > '9' }) {
		n, _ := strconv.Atoi(digits) // what is too long is newer than all
		if numbers = append(numbers, n); len(numbers) == 3 {
			break
		}
	}
	return numbers
}
