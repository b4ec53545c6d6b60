package git

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// stockGit runs the git that is installed, in a world of its own, and returns its output.
func stockGit(t testing.TB, dir string, args ...string) string {
	t.Helper()
	return stockGitInput(t, dir, "", args...)
}

func stockGitInput(t testing.TB, dir, input string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = append(cleanEnviron(os.Environ()), "HOME="+os.DevNull, "GIT_CONFIG_GLOBAL="+os.DevNull,
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@example.org",
		"GIT_AUTHOR_DATE=1700000000 +0000", "GIT_COMMITTER_DATE=1700000000 +0000")
	cmd.Stdin = strings.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, stderr.Bytes())
	}
	return strings.TrimRight(string(out), "\n")
}

// sampleRepo is a working tree with a few commits, branches and tags.
func sampleRepo(t testing.TB, initArgs ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "sample")
	stockGit(t, "", append([]string{"init", "-q", "-b", "main", dir}, initArgs...)...)
	for i := range 3 {
		commitFile(t, dir, "file.txt", fmt.Sprintf("line %d\n", i))
	}
	stockGit(t, dir, "tag", "light")
	stockGit(t, dir, "tag", "-a", "-m", "annotated", "v1")
	stockGit(t, dir, "tag", "-a", "-m", "tag of a tag", "v1-again", "v1")
	stockGit(t, dir, "branch", "topic/one")
	stockGit(t, dir, "notes", "add", "-m", "a note")
	return dir
}

func commitFile(t testing.TB, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	stockGit(t, dir, "add", name)
	stockGit(t, dir, "commit", "-q", "-m", "change "+name)
}

// serveHTTP serves all repositories below root by the git http-backend.
func serveHTTP(t testing.TB, root string) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(httpBackend(root))
	t.Cleanup(server.Close)
	return server
}

func httpBackend(root string) http.Handler {
	path, err := exec.CommandContext(context.Background(), "git", "--exec-path").Output()
	if err != nil {
		panic(err)
	}
	backend := filepath.Join(strings.TrimSpace(string(path)), "git-http-backend")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := &cgi.Handler{Path: backend, Env: []string{
			"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + os.DevNull,
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
			"GIT_PROTOCOL=" + r.Header.Get("Git-Protocol"),
		}}
		h.ServeHTTP(w, r)
	})
}

func testOptions() Options {
	return Options{NetrcFile: os.DevNull, IdleTimeout: 20 * time.Second, retryWait: time.Millisecond}
}

func dialTest(t testing.TB, raw string, o Options) *Remote {
	t.Helper()
	u, err := ParseURL(raw)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Dial(context.Background(), u, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// refsOf is what the repository itself says its refs are, in the form of formatRefs.
func refsOf(t testing.TB, dir string) string {
	t.Helper()
	return stockGit(t, dir, "for-each-ref", "--format=%(objectname) %(refname)%(if)%(*objectname)%(then) peeled%(end)%(if)%(symref)%(then) -> %(symref)%(end)")
}

// formatRefs writes a list like refsOf, without HEAD.
func formatRefs(l *RefList) string {
	var lines []string
	for _, r := range l.Refs {
		if r.Name == "HEAD" {
			continue
		}
		line := r.OID + " " + r.Name
		if r.Peeled != "" {
			line += " peeled"
		}
		if r.Target != "" {
			line += " -> " + r.Target
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// fetchInto fetches everything the list names and unpacks it into a new repository that holds the refs, too.
func fetchInto(t testing.TB, r *Remote, list *RefList, haves []string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "copy.git")
	stockGit(t, "", "init", "-q", "--bare", "--object-format="+list.Format, dir)
	fetchMore(t, r, list, haves, dir)
	return dir
}

func fetchMore(t testing.TB, r *Remote, list *RefList, haves []string, dir string) []byte {
	t.Helper()
	var pack bytes.Buffer
	n, err := r.Fetch(context.Background(), oidsOf(list), haves, &pack)
	if err != nil {
		t.Fatal(err)
	}
	if n != int64(pack.Len()) {
		t.Errorf("received %d bytes by its word, %d in truth", n, pack.Len())
	}
	stockGitInput(t, dir, pack.String(), "index-pack", "--stdin", "--strict")
	var updates strings.Builder
	for _, ref := range list.Refs {
		if ref.Name != "HEAD" {
			fmt.Fprintf(&updates, "update %s %s\n", ref.Name, ref.OID)
		}
	}
	stockGitInput(t, dir, updates.String(), "update-ref", "--stdin")
	return pack.Bytes()
}

func oidsOf(l *RefList) []string {
	seen := map[string]bool{}
	var oids []string
	for _, r := range l.Refs {
		if r.OID != "" && !seen[r.OID] {
			seen[r.OID] = true
			oids = append(oids, r.OID)
		}
	}
	return oids
}

// endpoints are the ways to reach the repositories below a directory.
func endpoints(t testing.TB, root string) map[string]string {
	t.Helper()
	return map[string]string{
		"http":  serveHTTP(t, root).URL + "/",
		"local": root + "/",
		"file":  "file://" + root + "/",
	}
}

func TestRoundTrip(t *testing.T) {
	for _, format := range []string{"sha1", "sha256"} {
		dir := sampleRepo(t, "--object-format="+format)
		want := refsOf(t, dir)
		objects := stockGit(t, dir, "rev-list", "--objects", "--all")
		for name, base := range endpoints(t, filepath.Dir(dir)) {
			for _, version := range []string{"0", "1", "2"} {
				t.Run(format+"/"+name+"/v"+version, func(t *testing.T) {
					o := testOptions()
					o.protocol = version
					r := dialTest(t, base+"sample", o)
					if name == "http" {
						r = dialTest(t, base+"sample/.git", o)
					}
					list, err := r.ListRefs(context.Background())
					if err != nil {
						t.Fatal(err)
					}
					if got := r.Protocol(); got != "v"+version {
						t.Errorf("protocol %s, want v%s", got, version)
					}
					if got := formatRefs(list); got != want || list.Format != format {
						t.Errorf("%s refs:\n%s\nwant:\n%s", list.Format, got, want)
					}
					if list.Refs[0].Name != "HEAD" || list.Refs[0].Target != "refs/heads/main" {
						t.Errorf("first ref %+v, want HEAD of main", list.Refs[0])
					}
					copied := fetchInto(t, r, list, nil)
					if got := stockGit(t, copied, "rev-list", "--objects", "--all"); got != objects {
						t.Errorf("objects differ:\n%s\nwant:\n%s", got, objects)
					}
					stockGit(t, copied, "fsck", "--strict")
				})
			}
		}
	}
}

func TestIncrementalFetch(t *testing.T) {
	for _, version := range []string{"0", "2"} {
		dir := sampleRepo(t)
		for name, base := range endpoints(t, filepath.Dir(dir)) {
			t.Run(name+"/v"+version, func(t *testing.T) {
				o := testOptions()
				o.protocol = version
				r := dialTest(t, base+"sample/.git", o)
				before, err := r.ListRefs(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				copied := fetchInto(t, r, before, nil)
				commitFile(t, dir, name+version, name+version)
				after, err := r.ListRefs(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				haves := append(oidsOf(before), strings.Repeat("12", 20)) // one that the server does not know
				pack := fetchMore(t, r, after, haves, copied)
				if n := pack[11]; n != 3 {
					t.Errorf("pack of %d objects, want commit, tree and blob", n)
				}
				stockGit(t, copied, "fsck", "--strict")
			})
		}
	}
}
