//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The acceptance of accounts: everything a Gitea has is backed up by one policy, the server is lost, and a fresh one gets it all
// back by push.

// peopled is a Gitea with users, organisations, and repositories of every sort.
type peopled struct {
	*gitea
	addresses []string // of its repositories and wikis: "acme/api"
	oids      []string // of LFS objects, all of widgets/large
}

func startPeopledGitea(t *testing.T) *peopled {
	t.Helper()
	g := &peopled{gitea: startGitea(t)}
	g.call(t, http.MethodPost, "/admin/users", map[string]any{
		"username": "ann", "email": "ann@example.com", "password": "unused-but-long", "must_change_password": false,
	}, nil)
	g.call(t, http.MethodPost, "/orgs", map[string]any{"username": "widgets", "visibility": "private"}, nil)
	make := func(owner, path, name string, private bool) {
		g.call(t, http.MethodPost, path, map[string]any{"name": name, "private": private, "default_branch": "main"}, nil)
		g.addresses = append(g.addresses, owner+"/"+name)
	}
	make("acme", "/user/repos", "api", true)
	make("acme", "/user/repos", "empty", true)
	make("acme", "/user/repos", "old", false)
	make("widgets", "/orgs/widgets/repos", "api", true) // the same name under another owner
	make("widgets", "/orgs/widgets/repos", "large", true)
	make("ann", "/admin/users/ann/repos", "tool", false)
	for _, name := range []string{"acme/api", "acme/old", "widgets/api", "ann/tool"} {
		work := newWorkTree(t)
		write(t, work, "which", name)
		git(t, work, "add", ".")
		git(t, work, "commit", "--quiet", "-m", name)
		gitEnv(t, g.gitEnv(), work, "push", "--quiet", g.url+"/"+name+".git", "--all")
		gitEnv(t, g.gitEnv(), work, "push", "--quiet", g.url+"/"+name+".git", "--tags")
	}
	g.fillLarge(t)
	g.call(t, http.MethodPost, "/repos/ann/tool/forks", map[string]any{"organization": "widgets", "name": "fork"}, nil)
	g.addresses = append(g.addresses, "widgets/fork")
	for _, name := range []string{"acme/api", "widgets/api"} {
		page := base64.StdEncoding.EncodeToString([]byte("the wiki of " + name))
		g.call(t, http.MethodPost, "/repos/"+name+"/wiki/new", map[string]any{"title": "Home", "content_base64": page}, nil)
		g.addresses = append(g.addresses, name+".wiki")
	}
	g.call(t, http.MethodPatch, "/repos/acme/old", map[string]any{"archived": true}, nil)
	return g
}

// fillLarge gives widgets/large two LFS objects.
func (g *peopled) fillLarge(t *testing.T) {
	t.Helper()
	work := newWorkTree(t)
	git(t, work, "lfs", "install", "--local")
	git(t, work, "lfs", "track", "*.bin")
	for _, file := range []string{"one.bin", "two.bin"} {
		content := strings.Repeat(file+"\n", 1000)
		write(t, work, file, content)
		g.oids = append(g.oids, sha256Hex(content))
	}
	git(t, work, "add", ".")
	git(t, work, "commit", "--quiet", "-m", "large files")
	git(t, work, "remote", "add", "origin", g.url+"/widgets/large.git")
	gitEnv(t, g.gitEnv(), work, "push", "--quiet", "origin", "--all")
}

// refs lists what every repository and wiki advertises.
func (g *peopled) refs(t *testing.T, server *gitea) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range g.addresses {
		all[name] = gitEnv(t, server.gitEnv(), "", "ls-remote", server.url+"/"+name+".git")
	}
	return all
}

// policy writes a policy that takes all of it.
func (g *peopled) policy(t *testing.T, b *backstay, ssh string) string {
	t.Helper()
	source := func(account string) string {
		return fmt.Sprintf("    - gitea:\n        url: %s\n        token: {env: GITEA_TOKEN}\n        caFile: %s\n%s%s", g.url, g.ca, account, ssh)
	}
	text := fmt.Sprintf(`apiVersion: backstay.io/v1alpha1
kind: Location
metadata: {name: main}
spec:
  url: %s
  password: {env: BACKSTAY_PASSWORD}
---
apiVersion: backstay.io/v1alpha1
kind: Policy
metadata: {name: all}
spec:
  location: main
  sources:
%s%s%s`, b.vault, source("        user: acme\n"), source("        organization: widgets\n"), source("        user: ann\n"))
	file := filepath.Join(b.home, "policies", "all.yaml")
	write(t, b.home, "policies/all.yaml", text)
	return file
}

func TestEverythingOfAServerIsLostAndComesBack(t *testing.T) {
	g := startPeopledGitea(t)
	want := g.refs(t, g.gitea)
	keepers := map[string]*keeper{}
	for _, transport := range []string{"https", "ssh"} {
		keepers[transport] = g.backUp(t, transport)
	}
	g.loseEverything(t)
	for transport, k := range keepers {
		t.Run(transport, func(t *testing.T) {
			fresh := startGitea(t)
			k.restore(t, fresh)
			have := g.refs(t, fresh)
			for name, refs := range want {
				if have[name] != refs {
					t.Errorf("refs of %s:\n got %s\nwant %s", name, have[name], refs)
				}
			}
			if n := g.offeredBy(t, fresh); n != len(g.oids) {
				t.Errorf("the fresh server offers %d of %d LFS objects", n, len(g.oids))
			}
		})
	}
}

// keeper has the points of a server.
type keeper struct {
	*backstay
	subjects []string
}

// backUp runs a policy that takes all of the server, and checks what the report says.
func (g *peopled) backUp(t *testing.T, transport string) *keeper {
	t.Helper()
	k := &keeper{backstay: newBackstay(t, "GITEA_TOKEN="+g.token)}
	ssh := ""
	if transport == "ssh" {
		key, knownHosts := g.trustSSH(t)
		ssh = fmt.Sprintf("        ssh: {keyFile: %s, knownHostsFile: %s}\n", key, knownHosts)
	}
	var got runs
	decode(t, k.ok(t, "run", "--once", "--json", "-f", g.policy(t, k.backstay, ssh)), &got)
	found := map[string]bool{}
	for _, s := range got.Runs[0].Sources {
		if s.State != "complete" || !s.Ledger.Closed {
			t.Errorf("over %s, %s is %s: %+v", transport, s.Subject.Name, s.State, s.Problems)
		}
		k.subjects = append(k.subjects, s.Subject.Name)
		for _, r := range s.Repositories {
			if r.State == "stored" {
				found[r.Owner+"/"+r.Name] = true
			}
		}
	}
	for _, name := range g.addresses {
		if !found[strings.TrimSuffix(name, ".wiki")] {
			t.Errorf("over %s, %s was not backed up; these were: %v", transport, name, slices.Sorted(maps.Keys(found)))
		}
	}
	return k
}

// loseEverything deletes all repositories of the server.
func (g *peopled) loseEverything(t *testing.T) {
	t.Helper()
	for _, name := range g.addresses {
		if !strings.HasSuffix(name, ".wiki") {
			g.call(t, http.MethodDelete, "/repos/"+name, nil, nil)
		}
	}
	var left struct {
		Data []struct {
			FullName string `json:"full_name"`
		} `json:"data"`
	}
	g.call(t, http.MethodGet, "/repos/search", nil, &left)
	if len(left.Data) > 0 {
		t.Fatalf("not lost: %v", left.Data)
	}
}

// restore pushes all that there are points of to a server.
func (k *keeper) restore(t *testing.T, to *gitea) {
	t.Helper()
	token := filepath.Join(k.home, "token")
	if err := os.WriteFile(token, []byte(to.token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, subject := range k.subjects {
		k.ok(t, "restore", "latest:"+subject, "--forge", "gitea", "--to", to.url, "--git-token-file", token, "--ca-file", to.ca)
	}
}

// offeredBy counts the LFS objects of widgets/large that a clone from the server gets.
func (g *peopled) offeredBy(t *testing.T, server *gitea) (n int) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "large")
	env := append(server.gitEnv(), "GIT_LFS_SKIP_SMUDGE=1")
	gitEnv(t, env, "", "clone", "--quiet", server.url+"/widgets/large.git", dir)
	gitEnv(t, server.gitEnv(), dir, "lfs", "fetch", "--all")
	for _, oid := range g.oids {
		if _, err := os.Stat(filepath.Join(dir, ".git/lfs/objects", oid[:2], oid[2:4], oid)); err == nil {
			n++
		}
	}
	return n
}

// trustSSH gives acme a key, and learns the server's.
func (g *peopled) trustSSH(t *testing.T) (key, knownHosts string) {
	t.Helper()
	dir := t.TempDir()
	key, knownHosts = filepath.Join(dir, "key"), filepath.Join(dir, "known_hosts")
	if r := finish(t, exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)); r.exit != 0 {
		t.Fatalf("ssh-keygen: %s", r.stderr)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	g.call(t, http.MethodPost, "/user/keys", map[string]any{"title": "backup", "key": string(bytes.TrimSpace(public))}, nil)
	scan := exec.CommandContext(context.WithoutCancel(t.Context()), "ssh-keyscan", "-p", g.ssh, "127.0.0.1")
	hosts := finish(t, scan)
	if hosts.exit != 0 || hosts.stdout == "" {
		t.Fatalf("ssh-keyscan: %s", hosts.stderr)
	}
	write(t, dir, "known_hosts", hosts.stdout)
	return key, knownHosts
}
