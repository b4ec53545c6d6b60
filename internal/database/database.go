// Package database dumps database servers into restore points with the servers' own tools, and loads what was dumped into servers again.
//
// A dump begins with Begin, which returns once the dump stands: whatever the server is told afterwards is not in it. Capture then
// takes it into a part as it comes; at no time is it on disk or in memory as a whole.
package database

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// Engines.
const (
	MySQL    = "mysql" // and MariaDB
	Postgres = "postgres"
	Redis    = "redis" // and Valkey
	SQLite   = "sqlite"
)

// How a connection is protected.
const (
	TLSOffered = ""        // as the server offers
	TLSDisable = "disable" // not at all
	TLSRequire = "require" // encrypted, with whomever
	TLSVerify  = "verify"  // the server's certificate and name are checked
)

// Server is a database server, or a file of SQLite, and what is wanted of it.
type Server struct {
	Name     string // of the part, databases/NAME; "" for the host, or the file's name
	Engine   string
	Host     string // name, address, or the directory or path of a socket; "" for where the tools look by themselves
	Port     int    // 0 for the engine's own
	TLS      string
	CAFile   string // of the authorities that sign the server's certificate, where the tools run; "" for those that are trusted there
	Username string // "" for root or postgres, of Redis for nobody
	Password fault.Secret
	// Globs over its databases; none for all that are not the server's own. Of Redis and SQLite there is only one.
	Databases []string
	Exclude   []string // globs over databases that are left out; they beat the others
	File      string   // of SQLite
}

// PartName is the name of the server's part in a point.
func (s Server) PartName() string { return "databases/" + s.name() }

func (s Server) name() string {
	if s.Name != "" {
		return s.Name
	}
	if s.Engine == SQLite {
		return fileName(strings.TrimSuffix(filepath.Base(s.File), filepath.Ext(s.File)))
	}
	if s.Host == "" || strings.HasPrefix(s.Host, "/") { // a socket
		return "localhost"
	}
	return fileName(s.Host)
}

// wants reports whether the globs choose a database.
func (s Server) wants(database string) bool {
	matches := func(globs []string) bool {
		for _, glob := range globs {
			if ok, err := path.Match(glob, database); ok && err == nil || glob == database {
				return true
			}
		}
		return false
	}
	return (len(s.Databases) == 0 || matches(s.Databases)) && !matches(s.Exclude)
}

// Instant is the moment that a dump is of.
type Instant struct {
	Began    time.Time `json:"began"`              // when the dump was asked for: it is of no earlier moment
	Stands   time.Time `json:"stands"`             // when it was seen to stand: it is of no later moment
	Position string    `json:"position,omitempty"` // the server's own name of the moment: of its binary log, of its WAL, of its replication
}

// engine is what can be done with servers of one kind.
type engine interface {
	// ping asks whether the server lets the user in.
	ping(ctx context.Context, c *client) error
	// begin starts a dump, and returns once it stands. The Dump is complete but for Instant.Began and Stands.
	begin(ctx context.Context, c *client) (*Dump, error)
	// load brings what a dump holds into a server.
	load(ctx context.Context, c *client, l *loading) error
}

func engineOf(s Server) (engine, error) {
	switch s.Engine {
	case MySQL:
		return mysqlEngine{}, nil
	case Postgres:
		return postgresEngine{}, nil
	case Redis:
		return redisEngine{}, nil
	case SQLite:
		return sqliteEngine{}, nil
	}
	return nil, fault.New("database "+s.name(), fault.ErrInvalid, fmt.Sprintf("no engine is called %q", s.Engine), "")
}

// client is one who speaks to a server by its tools.
type client struct {
	Server
	runner Runner
}

// now is the clock by which servers are on this machine.
func now() time.Time { return time.Now() } //nolint:forbidigo // when a dump stands is what happens, not what a test decides

// Begin starts a dump of a server, and returns once it stands. The dump waits then until Capture takes it; servers do not wait for
// ever. Whatever the server or its tools do wrong is an error of the class that it has: fault.ErrDenied for who may not, ErrUnavailable
// for a server that does not answer, ErrNotFound for tools or databases that are not there, ErrRefused for all that the tools complain of.
// A Dump must be closed.
func Begin(ctx context.Context, s Server, r Runner) (*Dump, error) {
	op := "dump " + s.name()
	e, err := engineOf(s)
	if err != nil {
		return nil, err
	}
	c := &client{Server: s, runner: r}
	began := now().UTC()
	d, err := e.begin(ctx, c)
	if err != nil {
		return nil, fault.Wrap(op, nil, c.explained(err), "")
	}
	d.client = c
	d.manifest.Version, d.manifest.Engine = ManifestVersion, s.Engine
	d.manifest.Began, d.manifest.Stands = began, now().UTC()
	return d, nil
}

// fileName is the name of a database as a file's: letters, digits and a few signs stay, all else becomes %XX.
func fileName(database string) string {
	var b strings.Builder
	for i := range len(database) {
		switch c := database[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-' && i > 0, c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
