//go:build e2e

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	giteaforge "github.com/backstay/backstay/internal/forge/gitea"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// What a point has of a real Gitea comes back on another one by `gitea restore-repo`. Whatever differs stands in
// what was printed before.
func TestGiteaRestoreRepo(t *testing.T) {
	from := startGitea(t)
	from.people(t)
	repositories := []string{"alpha/api", "beta/lib"}
	for _, name := range repositories {
		from.populate(t, name)
	}
	b := newBackstay(t, "GITEA_TOKEN="+from.token)
	write(t, b.home, "policies/all.yaml", fmt.Sprintf(`apiVersion: backstay.io/v1alpha1
kind: Location
metadata: {name: main}
spec: {url: %s, password: {env: BACKSTAY_PASSWORD}}
---
apiVersion: backstay.io/v1alpha1
kind: Policy
metadata: {name: all}
spec:
  location: main
  sources:
    - gitea: {url: %s, token: {env: GITEA_TOKEN}, caFile: %s, wikis: true, metadata: true}
`, b.vault, from.url, from.ca))
	b.ok(t, "run", "--once", "-f", filepath.Join(b.home, "policies", "all.yaml"))
	was := map[string]remembered{}
	for _, name := range repositories {
		was[name] = from.remember(t, name)
	}
	to := startGitea(t)
	to.people(t)
	dump := filepath.Join(t.TempDir(), "dump")
	said := b.ok(t, "restore", "latest", "--format", "gitea-restore-repo", "--to", dump, "--site", to.url)
	for _, want := range []string{"item.due: lost (restore-repo takes none) 1", "55 issues, 4 pull requests, 60 comments", "--owner_name beta --repo_name lib"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in what was said:\n%s", want, said)
		}
	}
	for _, name := range repositories {
		t.Run(strings.ReplaceAll(name, "/", "-"), func(t *testing.T) { to.restoreRepo(t, dump, name, was[name], printed(t, said)) })
	}
	t.Run("a server without the authors", func(t *testing.T) { testAuthorsByName(t, b) })
}

// remembered is what a server had of a repository.
type remembered struct {
	neutral.Source
	archive.Header
	url        string // of the server
	refs, wiki string
}

func (g *gitea) remember(t *testing.T, name string) remembered {
	t.Helper()
	source, header := g.metadata(t, name)
	return remembered{source, header, g.url, g.remoteRefs(t, name+".git", "refs/heads/*"), g.remoteRefs(t, name+".wiki.git", "HEAD")}
}

func (g *gitea) remoteRefs(t *testing.T, address, what string) string {
	t.Helper()
	return gitEnv(t, g.gitEnv(), t.TempDir(), "ls-remote", g.url+"/"+address, what)
}

// restoreRepo runs the command of that name, and compares what there is then.
func (g *gitea) restoreRepo(t *testing.T, dump, name string, was remembered, keeps neutral.Fidelity) {
	t.Helper()
	for _, field := range strings.Fields("item.number item.author item.created item.closedAt item.title item.body comment.author comment.created comment.body " +
		"review.author review.created review-comment.author review-comment.created pull.mergedAt milestone.created release.created") {
		if keeps[field].State != neutral.Kept {
			t.Errorf("%s is to be %q", field, keeps[field].State)
		}
	}
	owner, short, _ := strings.Cut(name, "/")
	g.command(t, "restore-repo", "--repo_dir", filepath.Join(dump, was.Host, owner, short), "--owner_name", owner, "--repo_name", short)
	back, _ := g.metadata(t, name)
	compareMetadata(t, was.Source, back, keeps, g.url, was.url)
	checkAttachment(t, g, back)
	if got := g.remoteRefs(t, name+".git", "refs/heads/*"); !strings.Contains(got, "refs/heads/bob/patch") ||
		len(strings.Split(got, "\n")) != len(strings.Split(was.refs, "\n"))+1 {
		t.Errorf("branches are\n%s, want the fork's beside\n%s", got, was.refs)
	}
	if got := g.remoteRefs(t, name+".wiki.git", "HEAD"); got != was.wiki {
		t.Errorf("the wiki is at %s, want %s", got, was.wiki)
	}
}

// planLine is a field as a plan has it for people.
var planLine = regexp.MustCompile(`(?m)^ *([a-z-]+\.[A-Za-z]+): (kept|changed|lost)(?: \((.*)\))? (\d+)$`)

// printed is what a plan for people says.
func printed(t *testing.T, said string) neutral.Fidelity {
	t.Helper()
	keeps := neutral.Fidelity{}
	for _, m := range planLine.FindAllStringSubmatch(said, -1) {
		keeps[m[1]] = neutral.Fate{State: m[2], How: m[3]}
	}
	if len(keeps) == 0 {
		t.Fatalf("nothing is planned in\n%s", said)
	}
	return keeps
}

// testAuthorsByName looks at what people see: the API of Gitea names the administrator where an author has no account.
func testAuthorsByName(t *testing.T, b *backstay) {
	elsewhere := startGitea(t)
	elsewhere.organisation(t, "gamma")
	dir := filepath.Join(t.TempDir(), "dump")
	b.ok(t, "restore", "latest", "--part", "alpha/api", "--format", "gitea-restore-repo", "--to", dir, "--owner", "gamma")
	found, err := filepath.Glob(filepath.Join(dir, "*", "alpha", "api"))
	if others, _ := filepath.Glob(filepath.Join(dir, "*", "*", "*")); err != nil || len(found) != 1 || len(others) != 1 {
		t.Fatalf("restored are %q", others)
	}
	elsewhere.command(t, "restore-repo", "--repo_dir", found[0], "--owner_name", "gamma", "--repo_name", "api")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, elsewhere.url+"/gamma/api/issues/1", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := elsewhere.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK || !bytes.Contains(page, []byte("alice")) || !bytes.Contains(page, []byte("/gamma/api/releases/download/")) {
		t.Errorf("the page of the first issue does not name alice, or has no link to its file: %s, %v", response.Status, err)
	}
}

// fileLink is where a file is in a text: an attachment, or what became of it.
var fileLink = regexp.MustCompile(`\(https://[^)]*/(attachments|releases/download/backstay-attachments)/[^)]*\)`)

// checkAttachment follows the link to a file that was attached to the first issue.
func checkAttachment(t *testing.T, g *gitea, s neutral.Source) {
	t.Helper()
	body := itemsOf(t, s)[0].Body
	link := strings.Trim(fileLink.FindString(body), "()")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, link, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := g.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if content, err := io.ReadAll(response.Body); err != nil || string(content) != "a screen shot" {
		t.Errorf("%q leads to %q, %v", body, content, err)
	}
}

// command runs the program's own command on its configuration.
func (g *gitea) command(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program(t, "BACKSTAY_TEST_GITEA"), append([]string{"--config", filepath.Join(g.dir, "app.ini")}, args...)...)
	cmd.Env = append(cleanEnv(), "HOME="+g.dir, "GITEA_WORK_DIR="+g.dir)
	if r := finish(t, cmd); r.exit != 0 {
		t.Fatalf("gitea %v: exit %d\n%s%s", args, r.exit, r.stdout, r.stderr)
	}
}

// people makes the users and organisations that everything is by, with the same IDs each time.
func (g *gitea) people(t *testing.T) {
	t.Helper()
	for _, name := range []string{"alice", "bob"} {
		g.call(t, http.MethodPost, "/admin/users", map[string]any{
			"username": name, "email": name + "@example.com", "password": "unused-but-long", "must_change_password": false,
		}, nil)
	}
	g.organisation(t, "alpha")
	g.organisation(t, "beta")
}

// as asks the API in the name of a user.
func (g *gitea) as(t *testing.T, user, method, path string, body, into any) {
	t.Helper()
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	g.call(t, method, path+separator+"sudo="+user, body, into)
}

// upload sends a file as a form has it.
func (g *gitea) upload(t *testing.T, path, name, content string) {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("attachment", name)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(part, content)
	form.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+"/api/v1"+path, &body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "token "+g.token)
	request.Header.Set("Content-Type", form.FormDataContentType())
	response, err := g.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if text, err := io.ReadAll(response.Body); err != nil || response.StatusCode >= 300 {
		t.Fatalf("upload to %s: %s: %s (%v)", path, response.Status, text, err)
	}
}

// commitTo writes a file on a branch, which it makes from main where it is not there.
func (g *gitea) commitTo(t *testing.T, user, repository, branch, name, text string) {
	t.Helper()
	g.as(t, user, http.MethodPost, "/repos/"+repository+"/contents/"+name, map[string]any{
		"new_branch": branch, "branch": "main", "message": "add " + name, "content": base64.StdEncoding.EncodeToString([]byte(text)),
	}, nil)
}

// populate fills a repository with everything that a team leaves in one, and more issues and comments than a page has.
func (g *gitea) populate(t *testing.T, name string) {
	t.Helper()
	g.populateWith(t, name, 55, 60)
}

func (g *gitea) populateWith(t *testing.T, name string, issues, comments int) {
	t.Helper()
	owner, short, _ := strings.Cut(name, "/")
	g.createFor(t, owner, short, true, false)
	at := "/repos/" + name
	g.call(t, http.MethodPatch, at, map[string]any{"description": "Does: \"things\"", "website": "https://example.com"}, nil)
	g.call(t, http.MethodPut, at+"/topics", map[string]any{"topics": []string{"backup", "git"}}, nil)
	for _, user := range []string{"alice", "bob"} {
		g.call(t, http.MethodPut, at+"/collaborators/"+user, map[string]any{"permission": "write"}, nil)
	}
	g.page(t, name, "Home")
	labels, milestones := g.labelsAndMilestones(t, at)
	each := max(2, comments/issues)
	for n := 1; n <= issues; n++ {
		user := []string{"alice", "bob", admin}[n%3]
		if n == 1 {
			user = "alice"
		}
		issue := map[string]any{
			"title": fmt.Sprintf("Issue %d: \"it\" breaks", n), "body": fmt.Sprintf("Line one\r\n\r\n- [ ] a task, see #%d\n\t'''# not a comment", max(1, n-1)),
			"labels": []int64{labels[n%len(labels)]}, "milestone": milestones[n%len(milestones)], "assignees": []string{"bob"},
		}
		g.as(t, user, http.MethodPost, at+"/issues", issue, nil)
		for i := range min(each, comments-(n-1)*each) {
			text := fmt.Sprintf("Yes — ☃ \x7f and **so on** 😀 %d", i)
			g.as(t, []string{"bob", "alice"}[i/2%2], http.MethodPost, fmt.Sprintf("%s/issues/%d/comments", at, n), map[string]any{"body": text}, nil)
		}
	}
	g.detail(t, at)
	g.pullRequests(t, name)
	g.releases(t, at)
}

// admin is who the token belongs to.
const admin = owner

func (g *gitea) labelsAndMilestones(t *testing.T, at string) (labels, milestones []int64) {
	t.Helper()
	var made struct {
		ID int64 `json:"id"`
	}
	for i, label := range []string{"bug", "kind/feature", "kind/question"} {
		g.call(t, http.MethodPost, at+"/labels", map[string]any{
			"name": label, "color": fmt.Sprintf("#00aa%02x", i), "description": "Is: " + label, "exclusive": strings.HasPrefix(label, "kind/"),
		}, &made)
		labels = append(labels, made.ID)
	}
	for _, title := range []string{"v1.0", "v2.0"} {
		g.call(t, http.MethodPost, at+"/milestones", map[string]any{"title": title, "description": "All of " + title, "due_on": "2027-03-01T00:00:00Z"}, &made)
		milestones = append(milestones, made.ID)
	}
	g.call(t, http.MethodPatch, fmt.Sprintf("%s/milestones/%d", at, milestones[0]), map[string]any{"state": "closed"}, nil)
	return labels, milestones
}

// detail does to some issues what can be done to issues.
func (g *gitea) detail(t *testing.T, at string) {
	t.Helper()
	g.as(t, "bob", http.MethodPatch, at+"/issues/2", map[string]any{"state": "closed"}, nil)
	g.call(t, http.MethodPatch, at+"/issues/3", map[string]any{"title": "Another title", "due_date": "2027-01-01T00:00:00Z"}, nil)
	g.call(t, http.MethodPut, at+"/issues/4/lock", map[string]any{"lock_reason": "Spam"}, nil)
	g.call(t, http.MethodPost, at+"/issues/5/pin", nil, nil)
	owner, name, _ := strings.Cut(strings.TrimPrefix(at, "/repos/"), "/")
	g.call(t, http.MethodPost, at+"/issues/6/dependencies", map[string]any{"index": 7, "owner": owner, "repo": name}, nil)
	g.as(t, "alice", http.MethodPost, at+"/issues/1/reactions", map[string]any{"content": "heart"}, nil)
	g.as(t, "bob", http.MethodPost, at+"/issues/1/reactions", map[string]any{"content": "+1"}, nil)
	var comments []struct {
		ID int64 `json:"id"`
	}
	g.call(t, http.MethodGet, at+"/issues/1/comments", nil, &comments)
	g.as(t, "alice", http.MethodPost, fmt.Sprintf("%s/issues/comments/%d/reactions", at, comments[0].ID), map[string]any{"content": "rocket"}, nil)
	g.upload(t, at+"/issues/1/assets", "screen.txt", "a screen shot")
	g.upload(t, fmt.Sprintf("%s/issues/comments/%d/assets", at, comments[0].ID), "log.txt", "a log")
}

// pullRequests makes one that is open and reviewed, one that is merged, one that is closed, and one from a fork.
func (g *gitea) pullRequests(t *testing.T, name string) {
	t.Helper()
	at := "/repos/" + name
	var made struct {
		Number int64 `json:"number"`
	}
	open := func(user, head, title string) string {
		g.as(t, user, http.MethodPost, at+"/pulls", map[string]any{"head": head, "base": "main", "title": title, "body": "Does it."}, &made)
		return fmt.Sprintf("%s/pulls/%d", at, made.Number)
	}
	for _, branch := range []string{"reviewed", "merged", "closed"} {
		g.commitTo(t, "alice", name, branch, branch+".txt", "one\ntwo\nthree\n")
	}
	reviewed := open("alice", "reviewed", "WIP: a reviewed one")
	g.as(t, "bob", http.MethodPost, reviewed+"/reviews", map[string]any{
		"event": "REQUEST_CHANGES", "body": "Not yet", "comments": []map[string]any{{"path": "reviewed.txt", "body": "Why two?", "new_position": 2}},
	}, nil)
	g.as(t, "bob", http.MethodPost, reviewed+"/reviews", map[string]any{"event": "APPROVED", "body": "Fine now"}, nil)
	merged := open("alice", "merged", "A merged one")
	for tries := 0; ; tries++ { // Gitea looks first whether it can be merged
		if g.merge(t, merged) {
			break
		}
		if tries == 50 {
			t.Fatal("it is not merged after ten seconds")
		}
		time.Sleep(200 * time.Millisecond)
	}
	g.as(t, "alice", http.MethodPatch, open("alice", "closed", "A closed one"), map[string]any{"state": "closed"}, nil)
	owner, short, _ := strings.Cut(name, "/")
	fork := owner + "-" + short
	g.as(t, "bob", http.MethodPost, at+"/forks", map[string]any{"name": fork}, nil)
	g.commitTo(t, "bob", "bob/"+fork, "patch", "patch.txt", "from a fork\n")
	open("bob", "bob:patch", "One from a fork")
}

func (g *gitea) merge(t *testing.T, pull string) bool {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+"/api/v1"+pull+"/merge", strings.NewReader(`{"Do":"merge"}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "token "+g.token)
	request.Header.Set("Content-Type", "application/json")
	response, err := g.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

func (g *gitea) releases(t *testing.T, at string) {
	t.Helper()
	var made struct {
		ID int64 `json:"id"`
	}
	g.as(t, "alice", http.MethodPost, at+"/releases", map[string]any{"tag_name": "v1.0", "target_commitish": "main", "name": "One", "body": "It is *out*"}, &made)
	g.upload(t, fmt.Sprintf("%s/releases/%d/assets", at, made.ID), "tool #1.tar", strings.Repeat("binary", 1000))
	g.call(t, http.MethodPost, at+"/releases", map[string]any{"tag_name": "v2.0", "name": "Two", "draft": true, "prerelease": true}, nil)
}

// held is a source whose files are in memory.
type held struct {
	neutral.Source
	files map[string][]byte // by SHA-256
}

func (h held) Open(_ context.Context, f *neutral.File) (io.ReadSeekCloser, error) {
	return readSeekNopCloser{bytes.NewReader(h.files[f.SHA256])}, nil
}

type readSeekNopCloser struct{ io.ReadSeeker }

func (readSeekNopCloser) Close() error { return nil }

// metadata reads all of a repository, and decodes it.
func (g *gitea) metadata(t *testing.T, name string) (neutral.Source, archive.Header) {
	t.Helper()
	p := g.provider(t)
	owner, short, _ := strings.Cut(name, "/")
	r, err := p.Find(t.Context(), forge.Repository{Owner: owner, Name: short})
	if err != nil {
		t.Fatal(err)
	}
	h := held{files: map[string][]byte{}}
	all := readMetadata(t, p, r)
	read := map[string]int64{}
	for _, record := range all {
		read[record.Collection]++
		for _, f := range p.FileURLs(record) {
			all = append(all, h.fetch(t, p, r, f))
		}
	}
	totals, err := p.Totals(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for collection, total := range totals {
		if read[collection] != total {
			t.Errorf("%s has %d %s, and %d were read", name, total, collection, read[collection])
		}
	}
	header := archive.Header{Version: archive.Version, Dialect: p.Dialect(), Host: p.Host(), Repository: name, Account: admin}
	reader, err := archive.Of(header, all...)
	if err != nil {
		t.Fatal(err)
	}
	if h.Source, err = giteaforge.Decode(reader); err != nil {
		t.Fatal(err)
	}
	return h, header
}

// readMetadata reads all collections of a repository.
func readMetadata(t *testing.T, p forge.MetadataReader, r forge.Repository) (all []archive.Record) {
	t.Helper()
	for _, c := range p.Collections(r) {
		queries := []forge.Query{{Repository: r}}
		if c.Of != "" {
			queries = nil
			for _, parent := range all {
				if parent.Collection == c.Of {
					queries = append(queries, forge.Query{Repository: r, Parents: []archive.Record{parent}})
				}
			}
		}
		for _, q := range queries {
			for record, err := range c.Read(t.Context(), q) {
				if err != nil {
					t.Fatalf("%s: %v", c.Name, err)
				}
				all = append(all, record)
			}
		}
	}
	return all
}

// fetch downloads a file, and returns its record.
func (h held) fetch(t *testing.T, p *giteaforge.Provider, r forge.Repository, f archive.File) archive.Record {
	t.Helper()
	body, err := p.GetFile(t.Context(), r, f, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	content, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	f.SHA256 = hex.EncodeToString(sum[:])
	h.files[f.SHA256] = content
	raw, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return archive.Record{Key: archive.Key{Collection: archive.FilesCollection, ID: f.URL}, Raw: raw}
}

// compareMetadata finds the fields that differ. Those that are said to be kept may not.
func compareMetadata(t *testing.T, want, got neutral.Source, keeps neutral.Fidelity, address, same string) {
	t.Helper()
	c := comparison{t: t, keeps: keeps, address: address, same: same, differ: map[string]int{}}
	a, b := overviewOf(t, want), overviewOf(t, got)
	c.things("settings", &a.Settings, &b.Settings)
	pairs(&c, "label", a.Labels, b.Labels, func(l *neutral.Label) string { return l.Name })
	pairs(&c, "milestone", a.Milestones, b.Milestones, func(m *neutral.Milestone) string { return m.Title })
	b.Releases = slices.DeleteFunc(b.Releases, func(r *neutral.Release) bool { return r.Tag == giteaforge.DumpFilesTag })
	pairs(&c, "release", a.Releases, b.Releases, func(r *neutral.Release) string { return r.Tag })
	for i := range a.Releases {
		pairs(&c, "asset", a.Releases[i].Assets, b.Releases[i].Assets, func(a *neutral.Asset) string { return a.Name + a.SHA256 })
	}
	pairs(&c, "item", itemsOf(t, want), itemsOf(t, got), func(i *neutral.Item) string { return fmt.Sprintf("%06d", i.Number) })
	for _, field := range slices.Sorted(maps.Keys(c.differ)) {
		t.Logf("differs: %s, %d times: %s", field, c.differ[field], keeps.Of(field).How)
	}
}

type comparison struct {
	t       *testing.T
	keeps   neutral.Fidelity
	address string // of the server that was restored to, which counts as the same
	same    string
	differ  map[string]int
}

func overviewOf(t *testing.T, s neutral.Source) *neutral.Overview {
	t.Helper()
	o, err := s.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func itemsOf(t *testing.T, s neutral.Source) (all []*neutral.Item) {
	t.Helper()
	for item, err := range s.Items(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, item)
	}
	return all
}

// pairs compares two lists by what their things are known by.
func pairs[T any](c *comparison, sort string, want, got []*T, name func(*T) string) {
	c.t.Helper()
	if len(want) != len(got) {
		c.t.Fatalf("there are %d of %s, want %d", len(got), sort, len(want))
	}
	byName := func(a, b *T) int { return cmp.Compare(name(a), name(b)) }
	slices.SortStableFunc(want, byName)
	slices.SortStableFunc(got, byName)
	for i := range want {
		if name(want[i]) != name(got[i]) {
			c.t.Errorf("%s %s, want %s", sort, name(got[i]), name(want[i]))
			return
		}
		c.things(sort, want[i], got[i])
	}
}

// things compares the fields of two things, and what belongs to them.
func (c *comparison) things(sort string, want, got any) {
	c.t.Helper()
	a, b := c.fields(sort, want), c.fields(sort, got)
	for _, field := range slices.Sorted(maps.Keys(a)) {
		if a[field] == b[field] || field == "asset.downloads" { // reading counts
			continue
		}
		if c.differ[field]++; c.keeps.Of(field).State == neutral.Kept && c.differ[field] <= 3 {
			c.t.Errorf("%s is %s, want %s", field, b[field], a[field])
		}
	}
	for field := range b {
		if _, ok := a[field]; !ok {
			c.t.Errorf("%s is %s, and was nothing", field, b[field])
		}
	}
	switch want := want.(type) {
	case *neutral.Item:
		c.item(want, got.(*neutral.Item))
	case *neutral.Review:
		c.review(want, got.(*neutral.Review))
	}
}

func (c *comparison) item(want, got *neutral.Item) {
	c.t.Helper()
	pairs(c, "comment", want.Comments, got.Comments, writtenAt)
	if (want.Pull == nil) != (got.Pull == nil) {
		c.t.Errorf("%d is a pull request: %v", want.Number, got.Pull != nil)
		return
	}
	if want.Pull != nil {
		c.things("pull", want.Pull, got.Pull)
		pairs(c, "review", want.Pull.Reviews, got.Pull.Reviews, func(r *neutral.Review) string { return r.Author.Login + r.Body })
	}
}

// writtenAt is what tells comments apart: those of the same second are in their order already.
func writtenAt(o *neutral.Comment) string { return o.Created.Format(time.RFC3339) + o.Author.Login }

func (c *comparison) review(want, got *neutral.Review) {
	c.t.Helper()
	pairs(c, "review-comment", want.Comments, got.Comments, writtenAt)
	for i := range want.Comments {
		a, b := want.Comments[i].Code, got.Comments[i].Code
		if b == nil || a.Path != b.Path || a.Line != b.Line || a.Side != b.Side {
			c.t.Errorf("a comment on code is at %+v, want %+v", b, a)
		}
	}
}

// fields are what a thing has something in, as JSON, as if both servers had the same address.
func (c *comparison) fields(sort string, thing any) map[string]string {
	found := map[string]string{}
	neutral.Fields(sort, thing, func(field string, value any) {
		text, err := json.Marshal(value)
		if err != nil {
			c.t.Fatal(err)
		}
		found[field] = fileLink.ReplaceAllString(strings.ReplaceAll(string(text), c.address, c.same), "(a file)")
	})
	return found
}
