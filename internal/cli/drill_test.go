package cli

import (
	"database/sql"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/config"
	"github.com/backstay/backstay/internal/database"
	"github.com/backstay/backstay/internal/database/databasetest"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/protect"
	"github.com/backstay/backstay/internal/schedule"
	"github.com/backstay/backstay/internal/vault"
)

// drillPolicy is a policy of a directory with drills, and the daemon that runs it. What is told goes to messages.
func drillPolicy(t *testing.T) (d *daemon, location string, messages chan string) {
	t.Helper()
	file, location := directoryPolicy(t)
	messages = make(chan string, 9)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		messages <- r.Header.Get("Title") + "\n" + string(body)
	}))
	t.Cleanup(server.Close)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, "  notify: {messages: [{ntfy: {url: "+server.URL+"/topic}}]}\n"+
		"  drill: {schedule: {cron: '@daily'}, provenWithin: 7d}\n"...)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(location), "kept", "file"), []byte(strings.Repeat("all the same ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	at, err := vault.ParseLocation(location)
	if err != nil {
		t.Fatal(err)
	}
	if err := vault.Create(t.Context(), at, password, vault.Options{}); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"PASSWORD": password, "HOME": t.TempDir(), "BACKSTAY_HOSTNAME": "here"}
	a := &app{Process: Process{Stderr: t.Output(), Getenv: func(name string) string { return env[name] }, Clock: time.Now, Version: "test"}}
	a.told.w, a.told.clock = t.Output(), a.Clock
	if d, err = a.newDaemon(processOptions{}); err != nil {
		t.Fatal(err)
	}
	d.load = func() (declared, error) {
		set, err := config.Load(file)
		if err != nil {
			return declared{}, err
		}
		return declared{set.Policies, set.Locations}, nil
	}
	return d, location, messages
}

// job is the one of that name.
func (d *daemon) job(t *testing.T, name string) schedule.Job {
	t.Helper()
	jobs, err := d.jobs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(jobs, func(j schedule.Job) bool { return j.Name == name })
	if i < 0 {
		t.Fatalf("no job %q of %d", name, len(jobs))
	}
	return jobs[i]
}

func (d *daemon) scrape(t *testing.T) string {
	t.Helper()
	handler, err := d.metrics.Handler()
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// told takes the messages that were sent.
func told(messages chan string) (all []string) {
	for len(messages) > 0 {
		all = append(all, <-messages)
	}
	return all
}

func TestPoliciesDrillTheirPoints(t *testing.T) {
	d, location, messages := drillPolicy(t)
	scratch := t.TempDir()
	t.Setenv("TMPDIR", scratch)

	// A backup that is complete, of a subject that nothing has proven.
	if err := d.job(t, "data").Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all := told(messages); len(all) != 1 || !strings.HasPrefix(all[0], "Backup data: complete, 1 not proven\n") {
		t.Errorf("told %q", all)
	}
	// Its drill proves it: nothing is told, as of any run that is good.
	drill := d.job(t, "data drill")
	if drill.Next == nil {
		t.Error("the drill has no times")
	}
	if err := drill.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all := told(messages); len(all) != 0 {
		t.Errorf("told %q", all)
	}
	if series := d.scrape(t); !strings.Contains(series, `backstay_point_drill_good{policy="data",subject="all"} 1`) ||
		!strings.Contains(series, `backstay_policy_unproven_subjects{policy="data"} 0`) {
		t.Errorf("metrics: %s", series)
	}

	// Bytes of the file are not what they were.
	packs, err := filepath.Glob(filepath.Join(location, "p", "*", "*"))
	if err != nil || len(packs) == 0 {
		t.Fatalf("packs %q, %v", packs, err)
	}
	for _, pack := range packs {
		content, err := os.ReadFile(pack)
		if err != nil {
			t.Fatal(err)
		}
		for i := range content {
			content[i] ^= 0x55
		}
		if err := os.WriteFile(pack, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := drill.Run(t.Context()); err == nil {
		t.Error("a drill of damaged bytes passed")
	}
	all := told(messages)
	if len(all) != 1 || !strings.HasPrefix(all[0], "Drill data: incomplete, 1 not proven, 1 problem\n") || !strings.Contains(all[0], "kept/file") {
		t.Errorf("told %q", all)
	}
	if series := d.scrape(t); !strings.Contains(series, `backstay_point_drill_good{policy="data",subject="all"} 0`) ||
		!strings.Contains(series, `backstay_policy_unproven_subjects{policy="data"} 1`) {
		t.Errorf("metrics: %s", series)
	}
	if left, err := os.ReadDir(scratch); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestOnceMakesNoDrills(t *testing.T) {
	d, _, _ := drillPolicy(t)
	d.once = true
	if jobs, err := d.jobs(t.Context()); err != nil || len(jobs) != 1 {
		t.Errorf("%d jobs, %v", len(jobs), err)
	}
}

// TestQuestionsGoToDatabasesThatSpeakSQL: a question that only a Redis could be asked is told, and takes no proof away.
func TestQuestionsGoToDatabasesThatSpeakSQL(t *testing.T) {
	file := filepath.Join(t.TempDir(), "shop.db")
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE orders (id INTEGER)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	redis := databasetest.Start(t, database.Redis, database.ScratchOptions{})
	store := memory.New(time.Now)
	asked := &questions{checks: []v1alpha1.SQLCheck{{Query: "SELECT count(*) = 0 FROM orders"}}}
	drilled := func(s database.Server) []point.Check {
		src, err := database.NewSource("", database.Local{}, s)
		if err != nil {
			t.Fatal(err)
		}
		receipt, err := protect.Backup(t.Context(), store, src, "")
		if err != nil {
			t.Fatal(err)
		}
		_, tree, err := store.Open(t.Context(), receipt.Point.ID)
		if err != nil {
			t.Fatal(err)
		}
		restored := filepath.Join(databasetest.Open(t), "restored")
		if err := os.Mkdir(restored, 0o700); err != nil {
			t.Fatal(err)
		}
		part := receipt.Point.Parts[0]
		checks, err := asked.drill(t.Context(), protect.Within(tree, part.Name), part, restored)
		if err != nil {
			t.Fatal(err)
		}
		return checks
	}
	for _, c := range drilled(redis.Server) {
		if !c.OK || c.What == "sql" {
			t.Errorf("of Redis: %+v", c)
		}
	}
	if asked.unasked() == nil {
		t.Error("a question that nobody was asked is not told")
	}
	checks := drilled(database.Server{Engine: database.SQLite, File: file})
	if last := checks[len(checks)-1]; last.What != "sql" || !last.OK || asked.unasked() != nil {
		t.Errorf("of SQLite: %+v, %v", checks, asked.unasked())
	}
}
