package offline_test

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/neutral"
	"github.com/backstay/backstay/internal/forge/offline"
)

// database writes a database of one repository, and opens it.
func database(t *testing.T, source neutral.Source) (*sql.DB, offline.Counts) {
	t.Helper()
	at := filepath.Join(t.TempDir(), "a b?#%.db")
	d, err := offline.NewDatabase(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	err = d.Add(t.Context(), offline.Repository{Name: "github.com/acme/api", Source: source})
	if err != nil {
		t.Fatal(err)
	}
	counts, err := d.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+strings.NewReplacer("?", "%3f", "#", "%23", "%", "%25", " ", "%20").Replace(at)+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db, counts
}

// ask returns the rows of a query: columns by bars, NULL as a dash.
func ask(t *testing.T, db *sql.DB, query string, values ...any) []string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query, values...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for rows.Next() {
		values, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		words := make([]string, len(values))
		for i, v := range values {
			if words[i] = fmt.Sprint(v); v == nil {
				words[i] = "-"
			}
		}
		all = append(all, strings.Join(words, "|"))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestADatabaseHasEverything(t *testing.T) {
	db, counts := database(t, small())
	want := offline.Counts{Repositories: 1, Issues: 1, Pulls: 1, Discussions: 1, Comments: 4, Reviews: 1, Releases: 1, Projects: 1, Files: 3, Missing: 1}
	if counts != want {
		t.Errorf("counts %+v, want %+v", counts, want)
	}
	for _, c := range [][2]string{
		{"SELECT name, description, topics, private FROM repositories", `github.com/acme/api|An API|["go","http"]|0`},
		{"SELECT sort, number, title, state, reason, author, created, closed_by, milestone, head FROM items", "issue|1|It breaks|closed|completed|ada|2024-03-01T12:30:00Z|bob|v1|- pull|2|Fix it|merged|-|bob|2024-03-02T12:30:00Z|-|-|fix"},
		{"SELECT number, label FROM item_labels JOIN items ON id = item", "1|bug"},
		{"SELECT login FROM assignees", "bob"},
		{"SELECT kind, actor, text FROM events", "closed|bob|closed this"},
		{"SELECT state, body FROM reviews", "changes_requested|Nearly"},
		{"SELECT c.body, path, line, r.state, reply_to IS NOT NULL FROM comments c JOIN reviews r ON r.id = c.review", "Why?|a.go|7|changes_requested|0 So.|-|-|changes_requested|1"},
		{"SELECT content, login, sort, number FROM reactions JOIN texts ON id = thing", "+1|eve|issue|1 heart|ada|comment|1"},
		{"SELECT d.title, category, votes, c.body, answer FROM discussions d JOIN comments c ON c.discussion = d.id", "How?|Q&A|2|Like this|1"},
		{"SELECT tag, a.name, a.sha256 IS NULL, a.reason FROM releases r JOIN assets a ON a.release = r.id", "v1|../../api_1.0.tar.gz|0|- v1|gone.zip|1|404"},
		{"SELECT count(*), count(sha256) FROM files", "4|3"},
		{"SELECT title, state, due FROM milestones", "v1|open|2024-03-09T12:30:00Z"},
		{"SELECT login, forge FROM users ORDER BY login", "ada|github.com bob|github.com carl|github.com eve|github.com"},
		{"SELECT sort, number, snippet(search, 1, '[', ']', '~', 4) FROM search JOIN texts ON id = search.rowid WHERE search MATCH 'deadlock'", "comment|1|A **[deadlock]**, I think"},
		{"SELECT sort FROM search JOIN texts ON id = search.rowid WHERE search MATCH 'notes'", "release"},
		{"SELECT title, readme, owner, views FROM projects", `Plan <1>|see #1|acme|["Board"]`},
		{"SELECT options FROM project_fields WHERE type = 'single_select'", `["Todo","Done"]`},
		{"SELECT target, draft, field, value FROM project_items i LEFT JOIN project_values ON item = i.id WHERE field = 'Status' OR field IS NULL", "acme/api#1|0|Status|Done -|1|Status|Todo -|0|-|-"},
		{"SELECT sort, title FROM search JOIN texts USING (title) WHERE search MATCH 'zebras' AND search.rowid = id", "draft|Think"},
		{"SELECT count(*) FROM texts", "11"},
		{"PRAGMA integrity_check", "ok"},
		{"PRAGMA foreign_key_check", ""},
	} {
		query, want := c[0], c[1]
		if got := strings.Join(ask(t, db, query), " "); got != want {
			t.Errorf("%s:\n got %s\nwant %s", query, got, want)
		}
	}
}

func TestADatabaseTakesHostileTexts(t *testing.T) {
	h := &held{}
	for i, text := range append(hostile, "'; DROP TABLE items; --", "\x00", "\xff", "") {
		h.items = append(h.items, &neutral.Item{Number: int64(i / 2), Title: text, Body: text, Labels: []string{text}, Assignees: []neutral.User{{Name: text}}, Reason: text})
	}
	db, _ := database(t, h)
	if got := ask(t, db, "SELECT count(*) FROM items"); got[0] != fmt.Sprint(len(h.items)) {
		t.Errorf("%v of %d", got, len(h.items))
	}
	if got := ask(t, db, "SELECT title FROM items WHERE title LIKE '%DROP%'"); len(got) != 1 || got[0] != "'; DROP TABLE items; --" {
		t.Errorf("%q", got)
	}
	// The index is of the texts as they are.
	if got := ask(t, db, "SELECT count(*) FROM search WHERE search MATCH 'drop'"); got[0] != "1" {
		t.Errorf("%q", got)
	}
}

func TestADatabaseIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d, err := offline.NewDatabase(ctx, filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	source := &endless{after: 50, do: cancel}
	if err := d.Add(ctx, offline.Repository{Name: "github.com/acme/api", Source: source}); fault.Of(err).Exit != 130 {
		t.Errorf("%v", err)
	}
}

// endless makes issues for as long as somebody takes them, or as there are to be.
type endless struct {
	held
	after, most int
	do          func()
}

func (e *endless) Items(context.Context) iter.Seq2[*neutral.Item, error] {
	return func(yield func(*neutral.Item, error) bool) {
		for n := 1; e.most == 0 || n <= e.most; n++ {
			if n == e.after {
				e.do()
			}
			body := strings.Repeat(fmt.Sprintf("word%d ", n%1000), 2000)
			if !yield(&neutral.Item{Number: int64(n), Title: "It breaks", Body: body}, nil) {
				return
			}
		}
	}
}

// Items are written one at a time: what is held does not grow with them.
func TestMemoryDoesNotGrowWithItems(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for name, begin := range map[string]func(at string) (exporter, error){
		"site":     func(at string) (exporter, error) { return offline.NewSite(at, "acme") },
		"database": func(at string) (exporter, error) { return offline.NewDatabase(t.Context(), at) },
	} {
		to, err := begin(filepath.Join(t.TempDir(), "export"))
		if err != nil {
			t.Fatal(err)
		}
		before, most := heap(), uint64(0)
		source := &endless{after: 1000, most: 1000, do: func() { most = max(most, heap()) }}
		if err := to.Add(t.Context(), offline.Repository{Name: "github.com/acme/api", Source: source}); err != nil {
			t.Fatal(err)
		}
		if _, err := to.Finish(t.Context()); err != nil {
			t.Error(err)
		}
		if err := to.Close(); err != nil {
			t.Error(err)
		}
		// The texts are 14 MB.
		if grown := int64(most) - int64(before); grown > 7<<20 {
			t.Errorf("%s: %d bytes more are held after 1000 items", name, grown)
		}
	}
}

type exporter interface {
	Add(ctx context.Context, r offline.Repository) error
	Finish(ctx context.Context) (offline.Counts, error)
	Close() error
}
