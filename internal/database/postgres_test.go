package database_test

import (
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/database"
	"github.com/backstay/backstay/internal/database/databasetest"
	"github.com/backstay/backstay/internal/point/memory"
)

const oddRoles = `
CREATE ROLE staff NOLOGIN;
CREATE ROLE clerk LOGIN PASSWORD 'correct horse' IN ROLE staff CONNECTION LIMIT 3;
CREATE ROLE "o'Neil ""x"" \! touch /tmp/pwned" LOGIN CREATEDB VALID UNTIL '2030-01-01 00:00:00+00';
ALTER ROLE clerk SET search_path TO shop, public;
ALTER ROLE clerk SET statement_timeout TO '5s';
CREATE DATABASE shop OWNER clerk;
CREATE DATABASE empty_one;
CREATE DATABASE "host=evil.example dbname='x' \! -- ""q"";
DROP";
`

const oddSchema = `
CREATE EXTENSION IF NOT EXISTS plpgsql;
CREATE SCHEMA shop AUTHORIZATION clerk;
CREATE TABLE shop.orders (id bigserial PRIMARY KEY, customer text, photo bytea, net numeric(10,2), gross numeric(12,4) GENERATED ALWAYS AS (net * 1.19) STORED,
  at timestamptz DEFAULT '2026-01-02 03:04:05.678901+00', tags text[], doc jsonb);
INSERT INTO shop.orders (customer, photo, net, tags, doc) VALUES ('Zoë 🦊', '\x00ff0a275c1a0d', 12.5, '{a,"b c"}', '{"k": [1, null]}'), (E'O''Brien\n\\.\n', NULL, -1, NULL, NULL);
SELECT setval('shop.orders_id_seq', 41);
ALTER TABLE shop.orders OWNER TO clerk;
CREATE TABLE empty_table ();
CREATE VIEW shop.open_orders WITH (security_barrier) AS SELECT id FROM shop.orders WHERE net > 0;
CREATE MATERIALIZED VIEW shop.sums AS SELECT sum(net) FROM shop.orders;
CREATE FUNCTION shop.noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.customer := NEW.customer || ' \! x'; RETURN NEW; END $$;
CREATE TRIGGER noted BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.noted();
SELECT lo_from_bytea(424242, convert_to(repeat('large ', 100000), 'UTF8'));
SELECT lo_from_bytea(424243, '');
GRANT SELECT ON shop.orders TO staff;
ALTER DATABASE shop SET work_mem TO '5MB';
`

// postgresContents is all that matters of PostgreSQL's databases: every row of every table in order, as a checksum, and the definitions.
func postgresContents(t *testing.T, s database.Server) string {
	t.Helper()
	var all strings.Builder
	all.WriteString(databasetest.PSQL(t, s, "postgres", "SELECT rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolconnlimit, rolpassword, "+
		"rolvaliduntil, (SELECT array_agg(x ORDER BY x) FROM unnest((SELECT rolconfig FROM pg_roles r WHERE r.oid = a.oid)) x) FROM pg_authid a WHERE rolname !~ '^pg_' ORDER BY 1;"+
		"SELECT roleid::regrole, member::regrole FROM pg_auth_members ORDER BY 1, 2; SELECT datname, datdba::regrole, encoding, datcollate, (SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = d.oid AND setrole = 0) FROM pg_database d ORDER BY 1"))
	names := databasetest.PSQL(t, s, "postgres", "SELECT translate(datname, E'\\n', '\v') FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1")
	for name := range strings.Lines(names) {
		db := strings.ReplaceAll(strings.TrimSuffix(name, "\n"), "\v", "\n")
		checks := databasetest.PSQL(t, s, db, `SELECT format('SELECT %L, count(*), md5(string_agg(t::text, E''\n'' ORDER BY t::text)) FROM %s t;', c.oid::regclass, c.oid::regclass)
			FROM pg_class c WHERE relkind IN ('r', 'm') AND relnamespace::regnamespace::text !~ '^pg_|^information_schema' ORDER BY c.oid::regclass::text`)
		all.WriteString(name + databasetest.PSQL(t, s, db, checks+`
			SELECT loid, md5(string_agg(data, '' ORDER BY pageno)) FROM pg_largeobject GROUP BY 1 ORDER BY 1; SELECT oid, lomowner::regrole FROM pg_largeobject_metadata ORDER BY 1;
			SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2; SELECT extname, extversion FROM pg_extension ORDER BY 1;
			SELECT p.oid::regprocedure, prosrc, proowner::regrole FROM pg_proc p WHERE p.oid >= 16384 ORDER BY 1::text; SELECT tgname, tgrelid::regclass FROM pg_trigger ORDER BY 1;
			SELECT viewname, definition FROM pg_views WHERE schemaname = 'shop'; SELECT relname, relacl, relowner::regrole FROM pg_class WHERE relnamespace >= 16384 ORDER BY 1`))
	}
	return all.String()
}

func TestPostgresComesBackAsItWas(t *testing.T) {
	from := databasetest.Start(t, database.Postgres, database.ScratchOptions{})
	databasetest.PSQL(t, from.Server, "postgres", oddRoles)
	databasetest.PSQL(t, from.Server, "shop", oddSchema)
	want := postgresContents(t, from.Server)
	store := memory.New(time.Now)
	receipt, err := backup(t, store, database.Local{}, from.Server)
	if err != nil {
		t.Fatal(err)
	}
	part := receipt.Point.Parts[0]
	if part.Captured == nil || !strings.HasPrefix(part.Revision, "wal:") {
		t.Errorf("the part is of %v, position %q, %q", part.Captured, part.Revision, part.Notes)
	}
	to := databasetest.Start(t, database.Postgres, database.ScratchOptions{})
	if err := restore(t, store, receipt, part.Name, to.Server, false); err != nil {
		t.Fatal(err)
	}
	if got := postgresContents(t, to.Server); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
