package cli

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/database"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// TestShowTellsTheMomentsOfDumps: each database server's against the application's, and each file's position.
func TestShowTellsTheMomentsOfDumps(t *testing.T) {
	f := newFixture(t)
	draft, err := f.store.Begin(t.Context(), point.Subject{Kind: point.SubjectApplication, Name: "here/shop"}, "nightly")
	if err != nil {
		t.Fatal(err)
	}
	add := func(name, kind string, after time.Duration, revision, file, content string) {
		t.Helper()
		w, err := draft.Part(t.Context(), name, kind)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Put(t.Context(), point.Entry{Name: file, Time: epoch}, strings.NewReader(content), point.Text)
		at := epoch.Add(after)
		if err := errors.Join(err, w.Store(t.Context(), point.Part{Captured: &at, Revision: revision})); err != nil {
			t.Fatal(err)
		}
	}
	dump := func(after time.Duration, engine string, files ...database.File) string {
		document, err := json.Marshal(database.Manifest{
			Version: database.ManifestVersion, Engine: engine, Files: files, Instant: database.Instant{Began: epoch, Stands: epoch.Add(after)},
		})
		if err != nil {
			t.Fatal(err)
		}
		return string(document)
	}
	add("kubernetes/shop", point.KindObjects, 250*time.Millisecond, "12", "objects", "[]")
	add("databases/orders", point.KindDatabase, 1204*time.Millisecond, "log.000003:1234", database.ManifestFile,
		dump(1204*time.Millisecond, database.MySQL, database.File{Name: "dump.sql", Databases: []string{"orders"}, Tables: 3}))
	add("databases/ledger", point.KindDatabase, 700*time.Millisecond, "wal:0/2B", database.ManifestFile, dump(700*time.Millisecond, database.Postgres,
		database.File{Name: "roles.sql"},
		database.File{Name: "a.dump", Databases: []string{"a"}, Tables: 2, Bytes: 2048, Position: "wal:0/1A"},
		database.File{Name: "b.dump", Databases: []string{"b"}, Tables: 1, Bytes: 10, Position: "wal:0/2B"}))
	add("databases/damaged", point.KindDatabase, 0, "", database.ManifestFile, "{")
	receipt, err := draft.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	of := func(after time.Duration) string {
		at := epoch.Add(after)
		return "of " + at.UTC().Format("2006-01-02 15:04:05.000") + " UTC, " + at.Sub(receipt.Point.Time).String() + " after the point's time\n"
	}

	if exit := f.run(t.Context(), "show", "latest"); exit != 0 {
		t.Fatalf("exit %d: %s", exit, &f.stderr)
	}
	for _, want := range []string{
		"skew     1.204s between the first and the last moment that parts are of\n",
		"databases/orders: at log.000003:1234\n",
		"databases/orders: " + of(1204*time.Millisecond),
		"databases/ledger: " + of(700*time.Millisecond),
		"databases/ledger: a: 2 tables, 2.0 KiB, at wal:0/1A\n",
		"databases/ledger: b: 1 table, 10 B, at wal:0/2B\n",
		"databases/damaged: read dump.json: ",
	} {
		if !strings.Contains(f.stdout.String(), want) {
			t.Errorf("show lacks %q:\n%s", want, &f.stdout)
		}
	}
	if exit := f.run(t.Context(), "show", "latest", "--json"); exit != 0 {
		t.Fatalf("exit %d: %s", exit, &f.stderr)
	}
	var document showDocument
	if err := json.Unmarshal(f.stdout.Bytes(), &document); err != nil {
		t.Fatal(err)
	}
	positions := map[string]string{}
	for _, d := range document.Dumps {
		for _, file := range d.Files {
			positions[d.Part+"/"+file.Name] = file.Position
		}
	}
	if len(document.Dumps) != 3 || positions["databases/ledger/a.dump"] != "wal:0/1A" {
		t.Errorf("show --json has %+v", document.Dumps)
	}
}

// TestADatabaseOfAPolicyOnACluster is a server at a host: Backstay's own pod has no files, no sockets, and no business in other pods.
func TestADatabaseOfAPolicyOnACluster(t *testing.T) {
	key := func(context.Context, v1alpha1.SecretKeyRef) ([]byte, error) { return []byte("secret"), nil }
	inPod := &v1alpha1.DatabasePod{}
	for _, test := range []struct {
		of                  v1alpha1.Database
		onCluster, anywhere bool
	}{
		{v1alpha1.Database{Engine: database.MySQL, Host: "db.example.com"}, true, true},
		{v1alpha1.Database{Engine: database.MySQL}, false, true},
		{v1alpha1.Database{Engine: database.Postgres, Host: "/run/postgresql"}, false, true},
		{v1alpha1.Database{Engine: database.SQLite, File: "/etc/app.db"}, false, true},
		{v1alpha1.Database{Engine: database.Redis, Host: "127.0.0.1", Pod: inPod}, false, false},
	} {
		a := &app{Process: Process{Getenv: func(string) string { return "" }}}
		for _, b := range []*builder{{app: a, key: key}, {app: a}} {
			_, err := b.database(t.Context(), "", &test.of)
			want := b.key != nil && test.onCluster || b.key == nil && test.anywhere
			if (err == nil) != want || err != nil && len(fault.Hints(err)) == 0 {
				t.Errorf("%+v, on a cluster %t: %v", test.of, b.key != nil, err)
			}
		}
	}
}
