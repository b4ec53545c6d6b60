//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The walkthrough of docs/walkthrough-gitops.md, as that page has it: its files, its sessions with what they answer.

const gitopsWalkthrough = "docs/walkthrough-gitops.md"

var updatePage = flag.Bool("update-page", false, "write what the commands of a walkthrough answered into its page")

func TestClusterWalkthroughGitOps(t *testing.T) {
	c := startCluster(t, "backstay")
	install(t, c, t.TempDir())
	a := c.argo(t)
	c.deleteNamespace(t, "mysql")
	c.clean(t, "delete", "namespace", "mysql", "--wait=false", "--ignore-not-found")
	c.clean(t, "-n", argoNamespace, "delete", "application", "mysql", "--ignore-not-found", "--timeout=60s")

	files := t.TempDir()
	for name, text := range filesOfGitOps(t) {
		write(t, files, name, text)
	}
	gitProgram, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	env := append(c.commands(t, gitProgram, filepath.Join(program(t, "BACKSTAY_TEST_ARGOCD"), "argocd")), a.cliEnv(t)...)
	pets := &application{argo: a, repository: a.newRepository(t, "mysql"), name: "mysql", namespace: "mysql"}
	s := startSession(t, files, append(env, "REPOSITORY="+pets.url, "IMAGE="+backstayImage, "BACKSTAY="+root(t)))
	for _, name := range sessionsOf(t, gitopsWalkthrough) {
		s.play(t, gitopsWalkthrough, name)
		if name != "console policy" {
			pets.well(t, pets.main(t))
		}
	}
	pets.calm(t, pets.main(t))
}

// main is the revision of the forge's branch.
func (r *repository) main(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(git(t, r.bare, "rev-parse", "main"))
}

// filesOfGitOps are the page's, with the images that a cluster for tests has.
func filesOfGitOps(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{"pets.sql": block(t, gitopsWalkthrough, "sql pets.sql")}
	for _, name := range filesOf(t, gitopsWalkthrough) {
		files[name] = strings.ReplaceAll(block(t, gitopsWalkthrough, "yaml "+name), "image: mariadb", "image: lab.local/mariadb")
	}
	return files
}

// session is a shell that a page's blocks of console are typed into.
type session struct {
	in  io.Writer
	out *bufio.Reader
}

// startSession starts one in a directory, and ends it with the test.
func startSession(t *testing.T, dir string, env []string) *session {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "sh", "-u")
	cmd.Dir = dir
	cmd.Env = append(cleanEnv(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@example.com")
	cmd.Env = append(cmd.Env, env...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	return &session{in, bufio.NewReader(out)}
}

// endOfAnswer is a byte that no command prints.
const endOfAnswer = '\x01'

// typed types a command and gives all that it answers.
func (s *session) typed(t *testing.T, command string) string {
	t.Helper()
	if _, err := io.WriteString(s.in, "{ "+command+"\n} </dev/null 2>&1; printf '\\001'\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := s.out.ReadString(endOfAnswer)
	if err != nil {
		t.Fatalf("%s: the shell ended: %v\n%s", command, err, answer)
	}
	return strings.TrimSuffix(answer, string(endOfAnswer))
}

// play types a page's session, which must answer what the page shows, but for ids, times and sizes; … is any lines, or none.
func (s *session) play(t *testing.T, page, name string) {
	t.Helper()
	var played strings.Builder
	for _, step := range stepsOf(block(t, page, name)) {
		began := time.Now()
		answer := s.typed(t, step.command)
		t.Logf("%.1f s: %s\n%s", time.Since(began).Seconds(), step.command, answer)
		switch {
		case shows(step.answer, answer):
			answer = step.answer
		case !*updatePage:
			t.Fatalf("%s has\n%s%s\nbut it answered\n%s", page, step.typed, step.answer, answer)
		}
		played.WriteString(step.typed + answer)
	}
	if *updatePage {
		path := filepath.Join(root(t), page)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text = []byte(strings.Replace(string(text), block(t, page, name), played.String(), 1))
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// step is a command of a session, and what the page says that it answers.
type step struct {
	typed   string // as it stands in the page
	command string
	answer  string
}

// stepsOf takes a session apart: commands follow "$ ", and "> " on lines after the first.
func stepsOf(text string) (steps []step) {
	for line := range strings.Lines(text) {
		last := len(steps) - 1
		if command, is := strings.CutPrefix(line, "$ "); is {
			steps = append(steps, step{typed: line, command: strings.TrimSuffix(command, "\n")})
		} else if more, is := strings.CutPrefix(line, "> "); is && steps[last].answer == "" {
			steps[last].typed += line
			steps[last].command += "\n" + strings.TrimSuffix(more, "\n")
		} else {
			steps[last].answer += line
		}
	}
	return steps
}

// sessionsOf are the languages of a page's sessions, in their order: console NAME.
func sessionsOf(t *testing.T, page string) (names []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), page))
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile("(?m)^```(console \\S+)$").FindAllSubmatch(text, -1) {
		names = append(names, string(found[1]))
	}
	return names
}

// What differs each time: times, ids and revisions, what Kubernetes adds to names, spans and sizes, and with them the width of columns.
var unlike = []struct{ what, is string }{
	{`\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?)?(\.\d+)?(Z| [+-]\d{4} UTC| UTC)?`, "TIME"},
	{`\b[0-9a-f]{7,64}\b`, "ID"},
	{`\bmysql-\d{14}-`, "mysql-TIME-"},
	{`\b(backstay-gate|mysql)-[a-z0-9]{5}\b`, "$1-ID"},
	{`\b\d+(\.\d+)? ?(ms|s|m|h)(\d+s)?\b`, "SPAN"},
	{`\b\d+(\.\d+)? ?(B|KiB|MiB|GiB|Ki|Mi)\b`, "SIZE"},
	{`-{3,}`, "---"},
	{`[ \t]+`, " "},
	{` ?\n`, "\n"},
}

// shape is text without what differs each time.
func shape(text string) string {
	for _, u := range unlike {
		text = regexp.MustCompile(u.what).ReplaceAllString(text, u.is)
	}
	return strings.TrimSpace(text)
}

// shows reports whether an answer is what a page shows.
func shows(page, answer string) bool {
	lines := strings.ReplaceAll(regexp.QuoteMeta(shape(page)), "…\n", "(?:.*\n)*")
	return regexp.MustCompile(`\A` + lines + `\z`).MatchString(shape(answer))
}
