package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/database"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

// envDatabasePassword is the password of the database server on the command line.
const envDatabasePassword = "BACKSTAY_DATABASE_PASSWORD"

// dumpMemory is what the garbage collector tries to stay below while a database streams into a vault, in bytes: packs that are under way
// come on top of it.
const dumpMemory = 68 << 20

// databaseOptions say how a database server on the command line is reached.
type databaseOptions struct{ passwordFile string }

func (o *databaseOptions) bind(flags *pflag.FlagSet) {
	flags.StringVar(&o.passwordFile, "database-password-file", "", "read the password for the database server from `FILE`")
}

var databaseEngines = map[string]string{ //nolint:gochecknoglobals // constants
	"mysql": database.MySQL, "mariadb": database.MySQL, "postgres": database.Postgres, "postgresql": database.Postgres,
	"redis": database.Redis, "rediss": database.Redis, "valkey": database.Redis, "sqlite": database.SQLite,
}

// isDatabase tells a database server from what else has a URL.
func isDatabase(what string) bool {
	scheme, _, found := strings.Cut(what, ":")
	return found && databaseEngines[scheme] != ""
}

// databaseServer reads the address of a database server, ENGINE://USER@HOST:PORT/DATABASE?tls=MODE&socket=PATH, or sqlite:PATH.
func (a *app) databaseServer(address string, o databaseOptions, caFile string) (database.Server, error) {
	const op = "read the address of the database"
	scheme, rest, _ := strings.Cut(address, ":")
	s := database.Server{Engine: databaseEngines[scheme], CAFile: caFile}
	if s.Engine == database.SQLite {
		file, err := filepath.Abs(strings.TrimPrefix(rest, "//"))
		s.File = file
		return s, fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	u, err := url.Parse(address)
	if err != nil {
		return s, fault.New(op, fault.ErrInvalid, "it is no URL", "say it as mysql://USER@HOST:PORT/DATABASE")
	}
	if _, has := u.User.Password(); has {
		return s, fault.New(op, fault.ErrInvalid, "it holds a password", "give it in "+envDatabasePassword+" or with --database-password-file")
	}
	s.Host, s.Username = u.Hostname(), u.User.Username()
	if port := u.Port(); port != "" {
		if s.Port, err = strconv.Atoi(port); err != nil || s.Port < 1 || s.Port > 65535 {
			return s, fault.New(op, fault.ErrInvalid, "no port is "+port, "")
		}
	}
	if name := strings.TrimPrefix(u.Path, "/"); name != "" {
		s.Databases = []string{literally.ReplaceAllString(name, `\$0`)}
	}
	if scheme == "rediss" {
		s.TLS = database.TLSVerify
	}
	if err := databaseQuery(&s, u.Query()); err != nil {
		return s, fault.Wrap(op, nil, err, "")
	}
	if o.passwordFile != "" {
		s.Password, err = readPasswordFile(o.passwordFile)
		return s, err
	}
	s.Password = fault.Secret(a.Getenv(envDatabasePassword))
	return s, nil
}

// literally finds what globs would read.
var literally = regexp.MustCompile(`[\\*?\[\]]`)

func databaseQuery(s *database.Server, query url.Values) error {
	for name, values := range query {
		value := values[len(values)-1]
		switch {
		case name == "socket" && s.Host == "" && strings.HasPrefix(value, "/"):
			s.Host = value
		case name == "socket":
			return fault.New("", fault.ErrInvalid, "socket needs an absolute path, and no host", "")
		case name == "tls" && (value == database.TLSDisable || value == database.TLSRequire || value == database.TLSVerify):
			s.TLS = value
		default:
			return fault.New("", fault.ErrInvalid, name+"="+value+" means nothing", "there are tls=disable, tls=require, tls=verify and socket=PATH")
		}
	}
	return nil
}

func (a *app) databaseSource(address string, o backupOptions) (protect.Source, error) {
	s, err := a.databaseServer(address, o.database, o.caFile)
	if err != nil {
		return nil, err
	}
	limitMemory(a.Getenv, cgroupMemory, dumpMemory)
	dropPages()
	return database.NewSource("", database.Local{}, s)
}

// databaseRestorers load dumps into a server.
func (a *app) databaseRestorers(o restoreOptions) (map[string]protect.Restorer, error) {
	s, err := a.databaseServer(o.to, o.database, o.caFile)
	if err != nil {
		return nil, err
	}
	limitMemory(a.Getenv, cgroupMemory, dumpMemory)
	dropPages()
	load := func(ctx context.Context, from point.Reader, _ point.Part, _ string) ([]string, error) {
		return database.Restore(ctx, from, s, database.Local{}, database.RestoreOptions{Replace: o.replace})
	}
	return map[string]protect.Restorer{point.KindDatabase: load}, nil
}

// database makes the source of a database server that a policy names.
func (b *builder) database(ctx context.Context, name string, d *v1alpha1.Database) (protect.PlannedSource, error) {
	onCluster := b.key != nil
	switch {
	case d.Pod != nil && onCluster:
		return protect.PlannedSource{}, fault.New("database", fault.ErrUnsupported, "a pod is dumped with its application", "say applications, and databases in it")
	case d.Pod != nil:
		return protect.PlannedSource{}, fault.New("database", fault.ErrUnsupported, "pods are on a cluster", "apply the policy to the cluster; docs/kubernetes.md says how")
	case onCluster && (d.Engine == database.SQLite || d.Host == "" || strings.HasPrefix(d.Host, "/")): // Backstay's own pod has none of these
		return protect.PlannedSource{}, fault.New("database", fault.ErrInvalid, "on a cluster a server is at a host", "say host")
	}
	s := database.Server{
		Name: d.Name, Engine: d.Engine, Host: d.Host, Port: d.Port, Username: d.Username, Databases: d.Databases, Exclude: d.ExcludeDatabases,
	}
	if d.File != "" {
		s.File = b.home(d.File)
	}
	var err error
	if s.Password, err = b.secret(ctx, d.Password); err != nil {
		return protect.PlannedSource{}, err
	}
	if d.TLS != nil {
		s.TLS = cmp.Or(d.TLS.Mode, database.TLSVerify)
		if s.CAFile, err = b.caFile(ctx, v1alpha1.Access{CA: d.TLS.CA}); err != nil {
			return protect.PlannedSource{}, err
		}
	}
	src, err := database.NewSource(name, database.Local{}, s)
	return protect.PlannedSource{Source: src, Type: "database"}, err
}

// shownDump is what `show` tells of one database server's dump.
type shownDump struct {
	Part string `json:"part"`
	database.Manifest
}

// dumpsOf reads what the dumps of a point say of themselves. One that cannot be read says why in its notes: the rest of the point is
// shown all the same.
func dumpsOf(ctx context.Context, parts []point.Part, tree point.Reader) ([]shownDump, error) {
	var dumps []shownDump
	for _, p := range parts {
		if p.Kind != point.KindDatabase || p.State != point.Stored && p.State != point.Carried {
			continue
		}
		m, err := database.ReadManifest(ctx, protect.Within(tree, p.Name))
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			m = &database.Manifest{Notes: []string{err.Error()}}
		}
		dumps = append(dumps, shownDump{p.Name, *m})
	}
	return dumps, nil
}

// dumpRemarks tell the moment that a dump is of, and the position of each of its files where there are several.
func dumpRemarks(p point.Point, part point.Part, dumps []shownDump) []string {
	i := slices.IndexFunc(dumps, func(d shownDump) bool { return d.Part == part.Name })
	if i < 0 {
		return nil
	}
	d := dumps[i]
	if d.Engine == "" { // it could not be read
		return d.Notes
	}
	moment := "of " + d.Stands.UTC().Format("2006-01-02 15:04:05.000") + " UTC"
	if part.State == point.Stored {
		moment += fmt.Sprintf(", %s after the point's time", d.Stands.Sub(p.Time).Round(time.Millisecond))
	}
	all := []string{moment}
	for _, f := range d.Files {
		if f.Position != "" {
			all = append(all, fmt.Sprintf("%s: %s, %s, at %s", strings.Join(f.Databases, ", "), plural(f.Tables, "table", "tables"), size(f.Bytes), f.Position))
		}
	}
	return all
}
