package cli

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/point"
)

// addMetadata makes a point of two repositories, of which one may have failed.
func (f *fixture) addMetadata(t *testing.T, failed error) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	draft, err := f.store.Begin(t.Context(), point.Subject{Kind: point.SubjectAccount, Name: "git.example.com/acme"}, "")
	must(err)
	for _, name := range []string{"acme/api", "acme/web"} {
		part, err := draft.Part(t.Context(), "forge/git.example.com/"+name+"/metadata", point.KindMetadata)
		must(err)
		if name == "acme/web" && failed != nil {
			must(part.Fail(t.Context(), failed))
			continue
		}
		w, err := archive.NewWriter(t.Context(), part)
		must(err)
		w.Header.Dialect, w.Header.Host, w.Header.Repository = "gitea", "git.example.com", name
		for _, r := range []struct{ key, parent, raw string }{
			{"settings/repository", "", `{"description":"What it does"}`},
			{"issues/1", "", `{"id":1,"number":1,"title":"A deadlock","state":"open","body":"In ` + name + `","user":{"login":"ada"},"created_at":"2024-03-01T00:00:00Z"}`},
			{"comments/2", "issues/1", `{"id":2,"body":"Yes","user":{"login":"bob"},"created_at":"2024-03-02T00:00:00Z"}`},
			{"issues/2", "", `{"id":3,"number":2,"title":"Fix","state":"closed","pull_request":{"merged":true},"created_at":"2024-03-03T00:00:00Z"}`},
		} {
			_, err := w.Add(t.Context(), archive.Record{Key: keyOf(r.key), Parent: keyOf(r.parent), Raw: json.RawMessage(r.raw)})
			must(err)
		}
		must(w.Flush(t.Context()))
		must(part.Store(t.Context(), point.Part{}))
	}
	_, err = draft.Commit(t.Context())
	must(err)
}

func TestExportWritesEachFormat(t *testing.T) {
	f := newFixture(t)
	f.addMetadata(t, nil)
	for _, format := range []string{"html", "sqlite"} {
		to := filepath.Join(t.TempDir(), "new", "export")
		if exit := f.run(t.Context(), "export", format, "latest", "--to", to, "--json"); exit != 0 {
			t.Fatalf("%s: exit %d: %s", format, exit, &f.stderr)
		}
		var doc exportDocument
		if err := json.Unmarshal(f.stdout.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		if c := doc.Counts; c.Repositories != 2 || c.Issues != 2 || c.Pulls != 2 || c.Comments != 2 || len(doc.Parts) != 2 || doc.To != to {
			t.Errorf("%s: %s", format, &f.stdout)
		}
		if _, err := os.Stat(to); err != nil {
			t.Error(err)
		}
		if exit := f.run(t.Context(), "export", format, "latest", "--to", to); exit != 6 {
			t.Errorf("%s over another: exit %d: %s", format, exit, &f.stderr)
		}
		if exit := f.run(t.Context(), "export", format, "latest", "--part", "web", "--to", to+"2"); exit != 0 || !strings.Contains(f.stdout.String(), "1 repository, 1 issue, 1 pull request, 1 comment") {
			t.Errorf("%s of a part: exit %d: %s%s", format, exit, &f.stdout, &f.stderr)
		}
	}
}

func TestExportOfWhatIsNotThere(t *testing.T) {
	f := newFixture(t)
	f.add(t, "data", nil)
	f.addMetadata(t, errors.New("502"))
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name  string
		ctx   context.Context //nolint:containedctx // of a case
		point string
		parts []string
		exit  int
		says  string
		there bool
	}{
		{"a part that failed", t.Context(), "latest:git.example.com/acme", nil, 3, "forge/git.example.com/acme/web/metadata: it failed: 502", true},
		{"none of a repository", t.Context(), "latest:git.example.com/acme", []string{"acme/none"}, 4, "no metadata of it", false},
		{"only what failed", t.Context(), "latest:git.example.com/acme", []string{"web"}, 3, "it failed", false},
		{"half a name", t.Context(), "latest:git.example.com/acme", []string{"pi"}, 4, "no metadata of it", false},
		{"a point without any", t.Context(), "latest:data", nil, 4, "no such metadata", false},
		{"no point", t.Context(), "latest:nothing", nil, 4, "", false},
		{"interrupted", canceled, "latest:git.example.com/acme", []string{"api"}, 130, "interrupted", false},
	} {
		dir := t.TempDir()
		args := []string{"export", "html", test.point, "--to", filepath.Join(dir, "pages")}
		for _, part := range test.parts {
			args = append(args, "--part", part)
		}
		if exit := f.run(test.ctx, args...); exit != test.exit || !strings.Contains(f.stderr.String(), test.says) {
			t.Errorf("%s: exit %d, want %d: %s", test.name, exit, test.exit, &f.stderr)
		}
		if entries, _ := os.ReadDir(dir); len(entries) > 0 != test.there {
			t.Errorf("%s: %v is there", test.name, entries)
		}
	}
}

// The page on reading offline opens with commands that work, and its queries do.
func TestPageOfOfflineReading(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "offline.md"))
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t)
	f.addMetadata(t, nil)
	t.Chdir(t.TempDir())
	_, script, _ := strings.Cut(string(page), "```sh\n")
	script, _, _ = strings.Cut(script, "```\n")
	_, queries, _ := strings.Cut(string(page), "```sql\n")
	queries, _, _ = strings.Cut(queries, "```\n")
	ran := 0
	for line := range strings.Lines(script) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
		if command, ok := strings.CutPrefix(line, "backstay "); ok {
			if exit := f.run(t.Context(), strings.Fields(command)...); exit != 0 {
				t.Fatalf("%s: exit %d: %s", line, exit, &f.stderr)
			}
			ran++
			continue
		}
		m := regexp.MustCompile(`^sqlite3 (\S+) "(.*)"$`).FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("what is %q?", line)
		}
		ran++
		queries = m[2] + ";\n" + queries
	}
	db, err := sql.Open("sqlite", "file:acme.db?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var number int
	var title string
	first, rest, _ := strings.Cut(queries, ";")
	if err := db.QueryRowContext(t.Context(), first).Scan(&number, &title); err != nil || title != "A deadlock" || ran != 4 {
		t.Errorf("%s: %d %s, %v after %d commands", first, number, title, err, ran)
	}
	for query := range strings.SplitSeq(strings.TrimSpace(rest), ";") {
		if strings.TrimSpace(query) == "" {
			continue
		}
		rows, err := db.QueryContext(t.Context(), query)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		if found := rows.Next(); !found && !strings.Contains(query, "reviews") || rows.Err() != nil {
			t.Errorf("%s: finds nothing, %v", query, rows.Err())
		}
		rows.Close()
	}
	for _, there := range []string{"pages/index.html", "api-pages/search.html", "pages/git.example.com/acme/web/issues/1.html"} {
		if _, err := os.Stat(there); err != nil {
			t.Error(err)
		}
	}
}
