package database

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// postgresRolesQuery writes the roles of a server as statements that make those that are missing, and leave those that are there as they
// are. All that is quoted is quoted by the server.
const postgresRolesQuery = `SELECT 'role', encode(convert_to(format('DO %%L;', format(
  'BEGIN IF NOT EXISTS (SELECT FROM backstay_roles WHERE rolname = %%L) THEN CREATE ROLE %%I WITH %%s CONNECTION LIMIT %%s%%s%%s; END IF; END',
  rolname, rolname, concat_ws(' ',
    CASE WHEN rolsuper THEN 'SUPERUSER' ELSE 'NOSUPERUSER' END, CASE WHEN rolinherit THEN 'INHERIT' ELSE 'NOINHERIT' END,
    CASE WHEN rolcreaterole THEN 'CREATEROLE' ELSE 'NOCREATEROLE' END, CASE WHEN rolcreatedb THEN 'CREATEDB' ELSE 'NOCREATEDB' END,
    CASE WHEN rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END, CASE WHEN rolreplication THEN 'REPLICATION' ELSE 'NOREPLICATION' END,
    CASE WHEN rolbypassrls THEN 'BYPASSRLS' ELSE 'NOBYPASSRLS' END),
  rolconnlimit, ' PASSWORD ' || quote_literal(%[2]s), ' VALID UNTIL ' || quote_literal(rolvaliduntil::text))), 'UTF8'), 'hex'), 0
FROM pg_catalog.%[1]s WHERE rolname !~ '^pg_' ORDER BY rolname;
SELECT 'role', encode(convert_to(format('DO %%L;', format(
  'BEGIN IF NOT EXISTS (SELECT FROM backstay_roles WHERE rolname = %%L) THEN GRANT %%I TO %%I%%s; END IF; END',
  u.rolname, r.rolname, u.rolname, CASE WHEN bool_or(m.admin_option) THEN ' WITH ADMIN OPTION' ELSE '' END)), 'UTF8'), 'hex'), 0
FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.roleid JOIN pg_catalog.pg_roles u ON u.oid = m.member
WHERE u.rolname !~ '^pg_' GROUP BY r.rolname, u.rolname ORDER BY u.rolname, r.rolname;
SELECT 'role', encode(convert_to(format('DO %%L;', format(
  'BEGIN IF NOT EXISTS (SELECT FROM backstay_roles WHERE rolname = %%L) THEN ALTER ROLE %%I SET %%I TO %%s; END IF; END',
  rolname, rolname, split_part(s, '=', 1), CASE WHEN split_part(s, '=', 1) IN ('search_path', 'temp_tablespaces', 'local_preload_libraries',
    'session_preload_libraries') THEN substr(s, strpos(s, '=') + 1) ELSE quote_literal(substr(s, strpos(s, '=') + 1)) END)), 'UTF8'), 'hex'), 0
FROM pg_catalog.pg_roles, unnest(rolconfig) AS s WHERE rolname !~ '^pg_' ORDER BY rolname, s;
`

// rolesHead remembers which roles are there before any is made.
const rolesHead = "CREATE TEMP TABLE backstay_roles AS SELECT rolname FROM pg_catalog.pg_roles;\n"

// postgresRoles are the roles of a server as a script. Their passwords are in it only where the user may read them.
func (c *client) postgresRoles(ctx context.Context) (script, note string, err error) {
	rows, err := c.postgresQuery(ctx, postgresHome, fmt.Sprintf(postgresRolesQuery, "pg_authid", "rolpassword"))
	if errors.Is(c.explained(err), fault.ErrDenied) {
		note = "the roles are without their passwords: only a superuser may read them"
		rows, err = c.postgresQuery(ctx, postgresHome, fmt.Sprintf(postgresRolesQuery, "pg_roles", "NULL::text"))
	}
	if err != nil {
		return "", "", err
	}
	var b strings.Builder
	b.WriteString(rolesHead)
	for _, r := range rows {
		b.WriteString(r.text + "\n")
	}
	return b.String(), note, nil
}

func (postgresEngine) load(ctx context.Context, c *client, l *loading) error {
	if _, _, err := c.tool(ctx, "pg_restore"); err != nil {
		return err
	}
	there, full, err := c.postgresThere(ctx, l.databases())
	if err != nil {
		return err
	}
	if err := l.mayReplace(l.databases(), full); err != nil {
		return err
	}
	for _, f := range l.manifest.Files {
		switch {
		case f.Name == rolesFile:
			err = c.postgresLoadRoles(ctx, l, f)
		case len(f.Databases) == 1:
			err = c.postgresLoad(ctx, l, f, there[f.Databases[0]] && !full[f.Databases[0]])
		default:
			err = fault.New(f.Name, fault.ErrCorrupt, "it is not of one database", "")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// postgresThere says which of some databases are there, and in which there is anything.
func (c *client) postgresThere(ctx context.Context, names []string) (there, full map[string]bool, err error) {
	rows, err := c.postgresQuery(ctx, postgresHome, postgresStateQuery)
	if err != nil {
		return nil, nil, err
	}
	there, full = map[string]bool{}, map[string]bool{}
	for _, r := range rows {
		if r.what != "database" || !slices.Contains(names, r.text) {
			continue
		}
		there[r.text] = true
		counted, err := c.postgresQuery(ctx, r.text, postgresFull)
		if err != nil {
			return nil, nil, err
		}
		full[r.text] = len(counted) == 0 || counted[0].number > 0
	}
	return there, full, nil
}

// postgresLoadRoles makes the roles that are missing. A server that lets the user make none has roles of its own: then this is a note.
// The script is handed over as one string, so that psql finds none of its own commands in it.
func (c *client) postgresLoadRoles(ctx context.Context, l *loading, f File) error {
	return l.feed(ctx, f, func(r io.Reader) error {
		script, err := io.ReadAll(io.LimitReader(r, mostManifest+1))
		if err != nil || len(script) > mostManifest {
			return errors.Join(err, fault.New(f.Name, fault.ErrCorrupt, "it cannot be read, or is too long", ""))
		}
		_, err = c.postgresQuery(ctx, postgresHome, "DO "+quoted("BEGIN EXECUTE "+quoted(string(script))+"; END")+";")
		if errors.Is(c.explained(err), fault.ErrDenied) {
			l.notes = append(l.notes, "the roles were not brought back: "+c.explained(err).Error())
			return nil
		}
		return err
	})
}

// quoted is a literal of SQL, where backslashes are nothing special.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

func (c *client) postgresLoad(ctx context.Context, l *loading, f File, empty bool) error {
	name, from := f.Databases[0], postgresHome
	if name == postgresHome {
		from = postgresOther
	}
	argv := []string{"pg_restore", "--exit-on-error", "--no-password", "--no-tablespaces"}
	if empty {
		argv = append(argv, "--dbname="+connection(name))
	} else {
		drop := `DROP DATABASE IF EXISTS "` + strings.ReplaceAll(name, `"`, `""`) + `" WITH (FORCE);`
		if _, err := c.postgresQuery(ctx, from, drop); err != nil {
			return err
		}
		argv = append(argv, "--create", "--dbname="+connection(from))
	}
	return l.feed(ctx, f, func(r io.Reader) error {
		return c.runner.Run(ctx, Command{Argv: argv, Env: c.postgresEnv(from), Stdin: r})
	})
}

// connection names a database, whatever its name, so that nothing else can be read out of it.
func connection(database string) string {
	return "dbname='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(database) + "'"
}
