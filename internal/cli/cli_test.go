package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/protect"
)

var epoch = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// ticking returns a clock that goes on by a minute at each look.
func ticking() protect.Clock {
	var mu sync.Mutex
	now := epoch
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Minute)
		return now
	}
}

// fixture is a command line over a store in memory.
type fixture struct {
	store  protect.Store
	stdout bytes.Buffer
	stderr bytes.Buffer
	env    map[string]string
}

type closable struct{ protect.Store }

func (closable) Close(context.Context) error { return nil }

func (f *fixture) run(ctx context.Context, args ...string) int {
	f.stdout.Reset()
	f.stderr.Reset()
	a := &app{
		Process: Process{
			Args: args, Stdin: strings.NewReader(""), Stdout: &f.stdout, Stderr: &f.stderr,
			Getenv: func(name string) string { return f.env[name] }, Clock: ticking(), Version: "test",
		},
		openStore: func(context.Context, access) (store, error) { return closable{f.store}, nil },
	}
	return a.run(ctx)
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	return &fixture{store: memory.New(ticking()), env: map[string]string{"HOME": t.TempDir(), "BACKSTAY_HOSTNAME": "here"}}
}

// add makes a point of two parts, of which one may have failed.
func (f *fixture) add(t *testing.T, subject string, failed error) string {
	t.Helper()
	draft, err := f.store.Begin(t.Context(), point.Subject{Kind: point.SubjectDirectory, Name: subject}, "nightly")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"dir/a", "dir/b"} {
		w, err := draft.Part(t.Context(), name, point.KindDir)
		if err != nil {
			t.Fatal(err)
		}
		if name == "dir/b" && failed != nil {
			err = w.Fail(t.Context(), failed)
		} else {
			_, err = w.Put(t.Context(), point.Entry{Name: "f", Time: epoch}, strings.NewReader("text"), point.Text)
			err = errors.Join(err, w.Store(t.Context(), point.Part{}))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	receipt, err := draft.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return receipt.Point.ID
}

func TestRestoreOfAPointThatLacksAPart(t *testing.T) {
	f := newFixture(t)
	f.add(t, "data", errors.New("permission denied"))
	to := filepath.Join(t.TempDir(), "to")
	if exit := f.run(t.Context(), "restore", "latest", "--to", to); exit != 3 {
		t.Errorf("exit %d, want 3: %s", exit, &f.stderr)
	}
	if !strings.Contains(f.stderr.String(), "not in the point: dir/b: it failed: permission denied") {
		t.Errorf("stderr = %s", &f.stderr)
	}
	if _, err := os.Stat(filepath.Join(to, "a", "f")); err != nil {
		t.Errorf("the part that is there was not restored: %v", err)
	}
}

func TestShowTellsEveryState(t *testing.T) {
	f := newFixture(t)
	f.add(t, "data", nil)
	f.add(t, "data", errors.New("line one\nline \x1b[31mtwo"))
	if exit := f.run(t.Context(), "show", "latest"); exit != 0 {
		t.Fatalf("exit %d: %s", exit, &f.stderr)
	}
	out := f.stdout.String()
	for _, want := range []string{"carried", "stored", "the copy of 2026-01-31 12:01:00 UTC stands in", "line one", "incomplete: 1 carried, 8 B, "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Errorf("an escape sequence of the source's reached the output: %q", out)
	}
}

// alarmed lists what it has together with an error, as a vault does that has lost points.
type alarmed struct{ protect.Store }

func (s alarmed) Points(ctx context.Context, f point.Filter) ([]point.Point, error) {
	points, err := s.Store.Points(ctx, f)
	return points, errors.Join(err, fault.New("vault", fault.ErrCorrupt, "1 point is lost", "repair it"))
}

func TestLostPointsHideNoOthers(t *testing.T) {
	f := newFixture(t)
	id := f.add(t, "data", nil)
	f.store = alarmed{f.store}
	if exit := f.run(t.Context(), "points"); exit != 7 || !strings.Contains(f.stdout.String(), id[:12]) || !strings.Contains(f.stderr.String(), "1 point is lost") {
		t.Errorf("points: exit %d\n%s%s", exit, &f.stdout, &f.stderr)
	}
	if exit := f.run(t.Context(), "points", "--json"); exit != 7 || !strings.Contains(f.stdout.String(), id) {
		t.Errorf("points --json: exit %d\n%s%s", exit, &f.stdout, &f.stderr)
	}
	if exit := f.run(t.Context(), "restore", id, "--to", filepath.Join(t.TempDir(), "to")); exit != 0 {
		t.Errorf("restore by id: exit %d, %s", exit, &f.stderr)
	}
	if exit := f.run(t.Context(), "restore", "latest", "--to", filepath.Join(t.TempDir(), "to")); exit != 7 {
		t.Errorf("restore latest: exit %d, %s", exit, &f.stderr)
	}
	if exit := f.run(t.Context(), "expire", "--keep-last", "1"); exit != 7 {
		t.Errorf("expire: exit %d, %s", exit, &f.stderr)
	}
}

func TestErrorsAsJSON(t *testing.T) {
	f := newFixture(t)
	for _, flag := range []string{"--json", "--log-format=json"} {
		if exit := f.run(t.Context(), "show", "latest", flag); exit != 4 {
			t.Fatalf("exit %d", exit)
		}
		var got message
		if err := json.Unmarshal(f.stderr.Bytes(), &got); err != nil {
			t.Fatalf("%s: %v in %s", flag, err, &f.stderr)
		}
		if got.Version != 1 || got.Level != "error" || got.Reason != "NotFound" || got.Exit != 4 || len(got.Hints) != 1 {
			t.Errorf("%s: %+v", flag, got)
		}
	}
}

// bug panics when it is listed.
type bug struct{ protect.Store }

func (bug) Points(context.Context, point.Filter) ([]point.Point, error) { panic("out of cheese") }

func TestABugEndsWithStatusOne(t *testing.T) {
	f := newFixture(t)
	f.store = bug{f.store}
	if exit := f.run(t.Context(), "points"); exit != 1 || !strings.Contains(f.stderr.String(), "out of cheese") || !strings.Contains(f.stderr.String(), "please report") {
		t.Errorf("exit %d, %s", exit, &f.stderr)
	}
}

func TestWhatBreaksAfterAnInterruptIsTheInterrupt(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if exit := f.run(ctx, "points"); exit != 130 || f.stderr.String() != "backstay: error: interrupted\n" {
		t.Errorf("exit %d, %q", exit, &f.stderr)
	}
}

func TestProgressAsLines(t *testing.T) {
	var out bytes.Buffer
	now := epoch
	a := &app{Process: Process{Stderr: &out, Clock: func() time.Time { return now }, Getenv: func(string) string { return "" }}}
	a.told.w, a.told.clock = &out, a.Clock
	show, wipe := a.observer()
	show(point.Event{Part: "git/a", What: "receiving", Done: 10, Unit: "B"}) // too early
	now = now.Add(lineEvery)
	show(point.Event{Part: "git/a", What: "receiving", Done: 1 << 20, Total: 4 << 20, Unit: "B"})
	show(point.Event{Part: "git/a", What: "receiving", Done: 2 << 20, Total: 4 << 20, Unit: "B"}) // too early
	show(point.Event{Part: "git/a", Text: "the server \x07speaks"})
	wipe()
	want := "backstay: git/a: receiving 1.0 MiB of 4.0 MiB\nbackstay: git/a: the server \uFFFDspeaks\n"
	if out.String() != want {
		t.Errorf("progress = %q, want %q", &out, want)
	}
}

func TestBarFitsItsTerminal(t *testing.T) {
	p := &progress{width: 40}
	for _, e := range []point.Event{
		{Part: "git/" + strings.Repeat("long", 40), What: "receiving", Done: 1, Total: 3},
		{What: "storing", Done: 7, Total: 3}, // more than was announced
		{What: "refs"},
	} {
		if line := p.draw(e); len([]rune(line)) > 39 || strings.ContainsAny(line, "\n\r") {
			t.Errorf("draw(%+v) = %q", e, line)
		}
	}
}

func TestLedgerLineCountsAnAccount(t *testing.T) {
	part := func(name, kind string, state point.State, counts ...point.Count) point.Part {
		return point.Part{Name: name, Kind: kind, State: state, Counts: counts}
	}
	parts := []point.Part{
		part("forge/h/acme/listing", point.KindListing, point.Stored, point.Count{Of: "repositories", Expected: 4, Stored: 4}),
		part("git/h/acme/api.git", point.KindGit, point.Stored, point.Count{Of: "refs", Expected: 3, Stored: 3}),
		part("git/h/acme/api.wiki.git", point.KindGit, point.Stored, point.Count{Of: "refs", Expected: 1, Stored: 1}),
		part("git/h/acme/gone.git", point.KindGit, point.Vanished),
	}
	got := ledgerLine(parts, point.Ledger{Vanished: 1})
	if want := "1 repository, 1 wiki, 4 refs, 1 vanished, 0 B, 0 B new"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1.0 MiB", 5 << 30: "5.0 GiB", 1<<63 - 1: "8.0 EiB",
	} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestTimeFlag(t *testing.T) {
	for text, want := range map[string]time.Time{
		"2026-01-31":           time.Date(2026, 1, 31, 23, 59, 59, 999999999, time.Local),
		"2026-01-31 12:00":     time.Date(2026, 1, 31, 12, 0, 0, 0, time.Local),
		"2026-01-31T12:00:07":  time.Date(2026, 1, 31, 12, 0, 7, 0, time.Local),
		"2026-01-31T12:00:00Z": epoch,
	} {
		var flag timeFlag
		if err := flag.Set(text); err != nil || !flag.Equal(want) {
			t.Errorf("Set(%q) = %s, %v; want %s", text, flag.Time, err, want)
		}
	}
	for _, text := range []string{"", "yesterday", "2026-13-01", "12:00"} {
		if err := new(timeFlag).Set(text); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("Set(%q) = %v", text, err)
		}
	}
}

func FuzzTimeFlag(f *testing.F) {
	for _, seed := range []string{"2026-01-31", "2026-01-31 12:00", "2026-01-31T12:00:00Z", "", "yesterday", "0000-00-00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var flag timeFlag
		if err := flag.Set(text); err != nil {
			if !flag.IsZero() || !errors.Is(err, fault.ErrInvalid) {
				t.Errorf("Set(%q) = %v and left %s", text, err, flag.Time)
			}
		}
	})
}

func FuzzPrintable(f *testing.F) {
	for _, seed := range []string{"plain", "two\nlines", "\x1b[31mred", "\xff\xfe", "a\u202eb", "\r"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range printable(text) {
			if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
				t.Errorf("printable(%q) lets %U through", text, r)
			}
		}
	})
}

func TestCompletion(t *testing.T) {
	f := newFixture(t)
	id := f.add(t, "data", nil)
	if f.run(t.Context(), "__complete", "show", "") != 0 || !strings.Contains(f.stdout.String(), id[:12]) || !strings.Contains(f.stdout.String(), "latest:data") {
		t.Errorf("show: %s", &f.stdout)
	}
	if f.run(t.Context(), "__complete", "restore", "latest", "--part", "dir/") != 0 || !strings.Contains(f.stdout.String(), "dir/b\n") {
		t.Errorf("--part: %s", &f.stdout)
	}
}

// TestPagesNameEverything holds the pages to the program: a command or flag without a word of documentation is a mistake.
func TestPagesNameEverything(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	scripting, err := os.ReadFile(filepath.Join("..", "..", "docs", "scripting.md"))
	if err != nil {
		t.Fatal(err)
	}
	kando, err := os.ReadFile(filepath.Join("..", "..", "docs", "kando.md"))
	if err != nil {
		t.Fatal(err)
	}
	root := newRootCommand(&app{})
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		name := strings.TrimPrefix(cmd.CommandPath(), "backstay ")
		if cmd.Hidden { // of pods on a cluster; nobody types them
			return
		}
		if of, is := strings.CutPrefix(name, "kando"); is { // a page of its own has a row for each
			named := func(flag *pflag.Flag) {
				if !bytes.Contains(kando, []byte("/--"+flag.Name+"`")) {
					t.Errorf("docs/kando.md: no word of %s --%s", of, flag.Name)
				}
			}
			if cmd.LocalFlags().VisitAll(named); !cmd.HasSubCommands() && !bytes.Contains(kando, []byte("| `"+strings.TrimSpace(of))) {
				t.Errorf("docs/kando.md: no word of %s", of)
			}
			for _, sub := range cmd.Commands() {
				visit(sub)
			}
			return
		}
		if cmd != root && !cmd.HasSubCommands() && !bytes.Contains(page, []byte("## "+name)) && !bytes.Contains(page, []byte(name+" SHELL")) && name != "version" {
			t.Errorf("docs/cli.md: no section on %s", name)
		}
		if cmd != root && !cmd.HasSubCommands() && (cmd.Example == "" || cmd.Short == "") {
			t.Errorf("%s: no example or no short help", name)
		}
		cmd.LocalFlags().VisitAll(func(flag *pflag.Flag) {
			if !bytes.Contains(page, []byte("`--"+flag.Name+"`")) && !bytes.Contains(page, []byte("--"+flag.Name+" ")) {
				t.Errorf("docs/cli.md: no word of %s --%s", name, flag.Name)
			}
		})
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(root)
	for _, class := range []error{
		nil, errors.New("bug"), fault.ErrInvalid, fault.ErrIncomplete, fault.ErrNotFound, fault.ErrUnsupported, fault.ErrDenied, fault.ErrRefused,
		fault.ErrLocked, fault.ErrExists, fault.ErrCorrupt, fault.ErrBusy, fault.ErrThrottled, fault.ErrUnavailable, context.Canceled,
	} {
		if !slices.ContainsFunc(strings.Split(string(scripting), "\n"), statusLine(fault.Of(class))) {
			t.Errorf("docs/scripting.md: no row for %+v", fault.Of(class))
		}
	}
	for _, name := range []string{envLocation, envPassword, envNewPassword, envGitUsername, envGitPassword, envHostname} {
		if !bytes.Contains(scripting, []byte("`"+name+"`")) {
			t.Errorf("docs/scripting.md: no word of %s", name)
		}
	}
}

// statusLine finds the row of a class in the page's table.
func statusLine(c fault.Class) func(string) bool {
	return func(line string) bool {
		cells := strings.Split(line, "|")
		return len(cells) > 3 && strings.TrimSpace(cells[1]) == strconv.Itoa(c.Exit) && slices.Contains(strings.Split(strings.TrimSpace(cells[2]), ", "), c.Reason)
	}
}
