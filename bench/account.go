package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// account: many repositories of one account, listed as GitHub lists them, against what people do by script: a mirror of each.
func (b *bench) account(ctx context.Context) error {
	a, err := newAccount(ctx, b.path("account"), b.scaled(300))
	if err != nil {
		return err
	}
	defer a.http.Close()
	if err := b.createVault(ctx, "account-vault"); err != nil {
		return err
	}
	run := func() (cost, error) {
		return b.run1(ctx, "account-vault", "backup", "--forge", "github", "--user", "acme", "--json", a.http.URL)
	}
	mirrors := b.path("account-mirrors")
	first, err := run()
	if err != nil {
		return err
	}
	cloned, err := b.script(ctx, "clone --quiet --mirror "+a.http.URL+"/acme/$r.git "+mirrors+"/$r", a.names)
	if err != nil {
		return err
	}
	unchanged, err := best(3, run)
	if err != nil {
		return err
	}
	update := "-C " + mirrors + "/$r remote update --prune"
	looked, err := best(3, func() (cost, error) { return b.script(ctx, update, a.names) })
	if err != nil {
		return err
	}
	for i := range max(1, len(a.names)/100) {
		if err := a.push(ctx, i*97%len(a.names), "second"); err != nil {
			return err
		}
	}
	changed, err := run()
	if err != nil {
		return err
	}
	updated, err := b.script(ctx, update, a.names)
	if err != nil {
		return err
	}
	b.table(fmt.Sprintf("An account of %d repositories", len(a.names)))
	b.wall("first run, all in one point", first, "`git clone --mirror` of each, four at a time", cloned, "")
	b.wall("unchanged run", unchanged, "`git remote update` of each, four at a time", looked, "0.2")
	b.wall("1 % changed", changed, "the same", updated, "0.2")
	b.row("peak memory", megabytes(max(first.peak, unchanged.peak, changed.peak)), "limit", "200 MB",
		float64(max(first.peak, unchanged.peak, changed.peak))/200e6, "1")
	return nil
}

// script runs git for each name $r, four at a time.
func (b *bench) script(ctx context.Context, command string, names []string) (cost, error) {
	list := b.path("account-names")
	if err := os.WriteFile(list, []byte(strings.Join(names, "\n")+"\n"), 0o600); err != nil {
		return cost{}, err
	}
	return measure(ctx, nil, "sh", "-c", fmt.Sprintf("xargs -P 4 -I '{}' sh -c 'r={}; git %s >/dev/null 2>&1' <%s", command, list))
}

// account is a stand-in for a forge: the part of GitHub's API that lists repositories, and git over http.
type account struct {
	http  *httptest.Server
	dir   string
	names []string

	mu    sync.Mutex
	moved map[string]time.Time

	api, git atomic.Int64 // requests to the API, and to repositories
}

func newAccount(ctx context.Context, dir string, repositories int) (*account, error) {
	a := &account{dir: dir, moved: map[string]time.Time{}}
	template := filepath.Join(dir, "template.git")
	if err := git(ctx, "init", "--quiet", "--bare", "--template=", "--initial-branch=main", template); err != nil {
		return nil, err
	}
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for i := range repositories {
		name := fmt.Sprintf("r%04d", i)
		a.names = append(a.names, name)
		group.Go(func() error {
			if err := os.CopyFS(a.path(name), os.DirFS(template)); err != nil {
				return err
			}
			return a.push(inner, i, "first")
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	backend, err := exec.CommandContext(ctx, "git", "--exec-path").Output()
	if err != nil {
		return nil, err
	}
	served := http.NewServeMux()
	served.HandleFunc("/api/v3/", a.list)
	repositoryServer := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(backend)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_PROTOCOL=version=2"},
	}
	served.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a.git.Add(1)
		repositoryServer.ServeHTTP(w, r)
	})
	a.http = httptest.NewServer(served)
	return a, nil
}

func (a *account) path(name string) string { return filepath.Join(a.dir, "acme", name+".git") }

// push commits a file of some kilobytes to a repository.
func (a *account) push(ctx context.Context, i int, text string) error {
	name := fmt.Sprintf("r%04d", i)
	body := strings.Repeat(name+" "+text+"\n", 2000)
	from := ""
	if text != "first" {
		from = "from refs/heads/main^0\n"
	}
	cmd := exec.CommandContext(ctx, "git", "--git-dir", a.path(name), "fast-import", "--quiet", "--force")
	cmd.Stdin = strings.NewReader(fmt.Sprintf("commit refs/heads/main\ncommitter A <a@example.com> %d +0000\ndata %d\n%s\n%sM 100644 inline %s.txt\ndata %d\n%s\n",
		1700000000+i, len(text), text, from, text, len(body), body))
	a.mu.Lock()
	a.moved[name] = time.Now().Add(-time.Hour).Add(time.Duration(len(text)) * time.Second)
	a.mu.Unlock()
	return cmd.Run()
}

// list answers a page of the account's repositories.
func (a *account) list(w http.ResponseWriter, r *http.Request) {
	a.api.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	if !strings.HasSuffix(r.URL.Path, "/repos") {
		json.NewEncoder(w).Encode(map[string]any{"login": "acme", "type": "User"})
		return
	}
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))
	from := min(max(page-1, 0)*100, len(a.names))
	to := min(from+100, len(a.names))
	if to < len(a.names) {
		query := r.URL.Query()
		query.Set("page", strconv.Itoa(max(page, 1)+1))
		w.Header().Set("Link", fmt.Sprintf("<http://%s%s?%s>; rel=\"next\"", r.Host, r.URL.Path, query.Encode()))
	}
	all := []any{}
	for i, name := range a.names[from:to] {
		moved := a.moved[name].UTC().Format(time.RFC3339)
		all = append(all, map[string]any{
			"id": from + i + 1, "name": name, "full_name": "acme/" + name, "owner": map[string]any{"login": "acme"}, "default_branch": "main",
			"clone_url": "http://" + r.Host + "/acme/" + name + ".git", "pushed_at": moved, "updated_at": moved, "has_wiki": false,
		})
	}
	json.NewEncoder(w).Encode(all)
}
