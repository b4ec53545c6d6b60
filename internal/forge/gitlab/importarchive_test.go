package gitlab_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/gitlab"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// modelled is a source of what a test says.
type modelled struct {
	overview neutral.Overview
	items    []neutral.Item
	talks    []*neutral.Discussion
	files    map[*neutral.File]string // with their bytes; "" for one that is not there after all
}

func (m *modelled) Overview(context.Context) (*neutral.Overview, error) { return &m.overview, nil }

// Items wipes each item when the next one is wanted: whoever keeps more than one has nothing.
func (m *modelled) Items(context.Context) iter.Seq2[*neutral.Item, error] {
	return func(yield func(*neutral.Item, error) bool) {
		for n := range m.items {
			item := m.items[n]
			if !yield(&item, nil) {
				return
			}
			item = neutral.Item{Title: "wiped"}
		}
	}
}

func (m *modelled) Discussions(context.Context) iter.Seq2[*neutral.Discussion, error] {
	return func(yield func(*neutral.Discussion, error) bool) {
		for _, d := range m.talks {
			if !yield(d, nil) {
				return
			}
		}
	}
}

func (m *modelled) Files(context.Context) iter.Seq2[*neutral.File, error] {
	return func(yield func(*neutral.File, error) bool) {
		for f := range m.files {
			if !yield(f, nil) {
				return
			}
		}
	}
}

func (m *modelled) Open(_ context.Context, f *neutral.File) (io.ReadSeekCloser, error) {
	if m.files[f] == "" {
		return nil, fault.New("open", fault.ErrNotFound, "gone", "")
	}
	return nopCloser{strings.NewReader(m.files[f])}, nil
}

// imported writes an archive and reads it back: files by their names.
func imported(t *testing.T, in gitlab.Import) (map[string]string, gitlab.ImportReport) {
	t.Helper()
	var packed bytes.Buffer
	in.Repository, in.Host, in.Scratch = "acme/api", "github.com", t.TempDir()
	report, err := gitlab.WriteImport(t.Context(), &packed, in)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(&packed)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, report
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := files[h.Name]; twice || !filepath.IsLocal(h.Name) || h.Typeflag != tar.TypeReg {
			t.Errorf("there is an entry %q of type %c", h.Name, h.Typeflag)
		}
		files[h.Name] = string(content)
	}
}

// line is what is read of a line.
type line struct {
	IID         int64     `json:"iid"`
	Title       string    `json:"title"`
	Description string    `json:"description"`
	State       string    `json:"state"`
	Author      int64     `json:"author_id"`
	Created     time.Time `json:"created_at"`
	Updated     time.Time `json:"updated_at"`
	ClosedAt    time.Time `json:"closed_at"`
	ClosedBy    *int64    `json:"closed_by_id"`
	Source      int64     `json:"source_project_id"`
	Target      int64     `json:"target_project_id"`
	Branch      string    `json:"source_branch"`
	Head        *string   `json:"diff_head_sha"`
	Metrics     struct {
		MergedAt time.Time `json:"merged_at"`
		MergedBy *int64    `json:"merged_by_id"`
	} `json:"metrics"`
	Approvals []struct {
		User int64 `json:"user_id"`
	} `json:"approvals"`
	Assignees []struct {
		User int64 `json:"user_id"`
	} `json:"issue_assignees"`
	Links []struct {
		Label struct {
			Title string `json:"title"`
		} `json:"label"`
	} `json:"label_links"`
	Milestone *struct {
		Title string `json:"title"`
	} `json:"milestone"`
	Notes []noteLine `json:"notes"`
	User  *struct {
		ID    int64  `json:"id"`
		Email string `json:"public_email"`
	} `json:"user"`
	Level int64 `json:"access_level"`
}

type noteLine struct {
	Note   string `json:"note"`
	Type   string `json:"type"`
	System bool   `json:"system"`
	Thread string `json:"discussion_id"`
	Author struct {
		Name string `json:"name"`
	} `json:"author"`
	Created  time.Time `json:"created_at"`
	Position *struct {
		NewLine int64  `json:"new_line"`
		NewPath string `json:"new_path"`
	} `json:"position"`
}

// linesOf decodes a file of lines, every one of which must be an object.
func linesOf(t *testing.T, files map[string]string, sort string) (all []line) {
	t.Helper()
	for text := range strings.Lines(files["tree/project/"+sort+".ndjson"]) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil || text[0] != '{' {
			t.Errorf("%s: %v: %s", sort, err, text)
		}
		all = append(all, l)
	}
	return all
}

func on(day int) time.Time { return time.Date(2026, 1, day, 3, 4, 5, 0, time.UTC) }

func wrote(id, login string, day int) neutral.Origin {
	return neutral.Origin{Forge: "github.com", ID: id, Author: neutral.User{Login: login, Name: strings.ToUpper(login)}, Created: on(day), Updated: on(day + 1)}
}

var (
	oidA = strings.Repeat("a", 40)
	oidB = strings.Repeat("b", 40)
)

// githubModel is a repository of GitHub: ann is a member whose address is known, bob is one whose is not, eve is nobody.
func githubModel() *modelled {
	asset := &neutral.File{URL: "https://github.com/acme/api/releases/download/v1/a.tgz", Name: "../../a b.tgz", SHA256: strings.Repeat("cd", 32)}
	shot := &neutral.File{URL: "https://github.com/user-attachments/assets/1", Name: "shot.png", SHA256: strings.Repeat("ab", 32)}
	lost := &neutral.File{URL: "https://github.com/user-attachments/assets/2", Reason: "too large"}
	ann := neutral.User{Login: "ann", Email: "ann@example.org"}
	return &modelled{
		files: map[*neutral.File]string{asset: "asset", shot: "picture", lost: ""},
		overview: neutral.Overview{
			Settings:   neutral.Settings{Description: "an API", Private: true, HasIssues: true, Merges: []string{"squash"}},
			Labels:     []*neutral.Label{{Name: "bug, bad", Color: "d73a4a"}},
			Milestones: []*neutral.Milestone{{Number: 4, Title: "1.0", Closed: true, Due: on(9), Created: on(1)}},
			Releases: []*neutral.Release{
				{Origin: wrote("1", "eve", 2), Tag: "v1", Body: "First", Published: on(3), Assets: []*neutral.Asset{{File: *asset}}},
				{Origin: wrote("2", "eve", 2), Tag: "v2", Draft: true},
			},
			Rules:         []*neutral.Rule{{Pattern: "main", PushBy: []string{"No one"}}, {Pattern: "v*", Tags: true}},
			Collaborators: []*neutral.Collaborator{{User: ann, Permission: "admin"}, {User: neutral.User{Login: "bob"}, Permission: "write"}},
		},
		items: []neutral.Item{
			{
				Origin: wrote("11", "ann", 4), Number: 1, Title: "It breaks\x00", Body: "See #2 and `#2` ![x](https://github.com/user-attachments/assets/1) @stranger",
				Closed: true, ClosedAt: on(6), ClosedBy: ann, Labels: []string{"bug, bad"}, Milestone: "1.0", Assignees: []neutral.User{ann},
				Comments: []*neutral.Comment{{Origin: wrote("21", "eve", 5), Body: "me too, #1"}},
				Events:   []*neutral.Event{{Kind: "labeled", Actor: ann, Created: on(4), Text: "labeled bug, bad"}},
			},
			{
				Origin: wrote("12", "eve", 5), Number: 2, Title: "Mend it", Body: "/close\nit is mended", Closed: true,
				Assignees: []neutral.User{{Login: "bob"}},
				Pull: &neutral.Pull{
					Base: "main", Head: "fix", HeadRepository: "eve/api", BaseOID: oidA, HeadOID: oidB, Merged: true, MergedAt: on(7), MergedBy: neutral.User{Login: "bob"},
					Reviews: []*neutral.Review{
						{Origin: wrote("31", "ann", 6), State: "approved", Body: "Good", Comments: []*neutral.Comment{{
							Origin: wrote("41", "ann", 6), Body: "why?", Code: &neutral.Code{Path: "a.go", OID: oidB, Side: "right", Line: 3, Hunk: "@@ -1 +1 @@"},
							Replies: []*neutral.Comment{{Origin: wrote("42", "eve", 7), Body: "so"}},
						}, {Origin: wrote("43", "ann", 6), Body: "and here?", Code: &neutral.Code{Path: "b.go", OID: "odd", Line: 9}}}},
						{Origin: wrote("32", "bob", 7), State: "approved"},
						{Origin: wrote("33", "bob", 7), State: "pending", Body: "unsent"},
					},
				},
			},
			{Origin: wrote("13", "bob", 6), Number: 7, Title: "", Pull: &neutral.Pull{HeadRepository: "acme/api", HeadOID: "$(x)"}},
		},
		talks: []*neutral.Discussion{{Item: neutral.Item{Origin: wrote("51", "eve", 8), Number: 8, Title: "How?", Comments: []*neutral.Comment{
			{Origin: wrote("61", "ann", 8), Body: "Thus", Replies: []*neutral.Comment{{Origin: wrote("62", "eve", 9), Body: "Thanks"}}},
		}}}},
	}
}

func TestAnImportArchiveHasWhatGitLabReads(t *testing.T) {
	bundle, lfs := filepath.Join(t.TempDir(), "bundle"), t.TempDir()
	put := func(name, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	put(bundle, "# v2 git bundle\n")
	put(filepath.Join(lfs, "ab", "cd", "abcd99"), "large")
	m := githubModel()
	files, report := imported(t, gitlab.Import{Source: m, Forge: "github", Bundle: bundle, Wiki: bundle + ".none", LFS: lfs})
	for name, want := range map[string]string{
		"VERSION": "0.2.4", "project.bundle": "# v2 git bundle\n", "lfs-objects/abcd99": "large", "uploads/" + strings.Repeat("ab", 16) + "/shot.png": "picture",
	} {
		if files[name] != want {
			t.Errorf("%s is %q", name, files[name])
		}
	}
	if _, there := files["project.wiki.bundle"]; there || len(files["GITLAB_VERSION"]) == 0 || !json.Valid([]byte(files["tree/project.json"])) {
		t.Errorf("the archive has a wiki, or no version, or no project: %q", files["tree/project.json"])
	}
	if report.Issues != 2 || report.Pulls != 2 || report.Comments != 2 || report.Reviews != 2 || report.Releases != 1 || report.Files != 2 || report.LFS != 1 ||
		report.Authors != 3 || report.Mapped != 1 || len(report.Missing) != 1 || !strings.HasSuffix(report.Missing[0], "too large") {
		t.Errorf("%+v", report)
	}
	for sort, n := range map[string]int{
		"labels": 1, "milestones": 1, "releases": 1, "protected_branches": 1, "protected_tags": 1, "project_members": 1, "project_feature": 1, "issues": 2,
		"merge_requests": 2,
	} {
		if got := len(linesOf(t, files, sort)); got != n {
			t.Errorf("%d %s, want %d", got, sort, n)
		}
	}
	checkNumbersAndDates(t, m, append(linesOf(t, files, "issues"), linesOf(t, files, "merge_requests")...))
}

// checkNumbersAndDates compares what must be equal to the source.
func checkNumbersAndDates(t *testing.T, m *modelled, lines []line) {
	t.Helper()
	all := slices.Clone(m.items)
	for _, d := range m.talks {
		all = append(all, d.Item)
	}
	for _, item := range all {
		at := slices.IndexFunc(lines, func(l line) bool { return l.IID == item.Number && (l.Target != 0) == (item.Pull != nil) })
		if at < 0 {
			t.Errorf("there is no %d", item.Number)
			continue
		}
		l := lines[at]
		if !l.Created.Equal(item.Created) || !l.Updated.Equal(item.Updated) || l.Author == 0 || l.ClosedAt != item.ClosedAt {
			t.Errorf("%d: %+v", item.Number, l)
		}
		if text, mark, ok := neutral.Unmark(l.Description); ok && (!strings.HasSuffix(text, item.Body) || mark.ID != item.ID || mark.Author != item.Author) {
			t.Errorf("%d: it says %q of %+v", item.Number, text, mark)
		}
		for _, c := range item.Comments {
			said := func(n noteLine) bool {
				return n.Created.Equal(c.Created) && n.Author.Name == c.Author.Name && strings.HasPrefix(n.Note, c.Body)
			}
			if !slices.ContainsFunc(l.Notes, said) {
				t.Errorf("%d lacks the comment %q", item.Number, c.Body)
			}
		}
	}
}

// What GitLab cannot find the author of says who it was. What it can is as it was written, but for references and files.
func TestTextsOfAnImportArchive(t *testing.T) {
	files, _ := imported(t, gitlab.Import{Source: githubModel(), Forge: "github"})
	issue, talk := linesOf(t, files, "issues")[0], linesOf(t, files, "issues")[1]
	if want := "See !2 and `#2` ![x](/uploads/" + strings.Repeat("ab", 16) + "/shot.png) @\u200dstranger"; issue.Description != want || issue.Title != "It breaks" {
		t.Errorf("the issue says %q: %q, want %q", issue.Title, issue.Description, want)
	}
	if issue.State != "closed" || issue.ClosedBy == nil || *issue.ClosedBy != issue.Author || len(issue.Assignees) != 1 || issue.Links[0].Label.Title != "bug; bad" ||
		issue.Milestone.Title != "1.0" {
		t.Errorf("the issue is %+v", issue)
	}
	if len(issue.Notes) != 2 || !issue.Notes[0].System || issue.Notes[0].Note != "labeled bug, bad" || issue.Notes[1].Note != "me too, #1" {
		t.Errorf("it has the notes %+v", issue.Notes)
	}
	if len(talk.Notes) != 2 || talk.Notes[0].Thread == "" || talk.Notes[0].Thread != talk.Notes[1].Thread {
		t.Errorf("the discussion has the notes %+v", talk.Notes)
	}
	pulls := linesOf(t, files, "merge_requests")
	pull := pulls[0]
	if text, mark, ok := neutral.Unmark(pull.Description); !ok || mark.Author.Login != "eve" || !strings.HasPrefix(text, "\u200d/close") ||
		!strings.HasPrefix(pull.Description, "> by **EVE (eve)**") || !strings.Contains(string(mark.More), `"bob"`) {
		t.Errorf("the merge request says %q", pull.Description)
	}
	if pull.State != "merged" || !pull.Metrics.MergedAt.Equal(on(7)) || pull.Metrics.MergedBy != nil || pull.Source == pull.Target || *pull.Head != oidB ||
		len(pull.Approvals) != 1 || pull.Approvals[0].User != issue.Author {
		t.Errorf("the merge request is %+v", pull)
	}
	var said []string
	for _, n := range pull.Notes {
		where := ""
		if n.Position != nil {
			where = fmt.Sprintf(" at %s:%d", n.Position.NewPath, n.Position.NewLine)
		}
		said = append(said, fmt.Sprintf("%s: %s %t %q%s", n.Author.Name, n.Type, n.System, n.Note, where))
	}
	want := []string{
		`ANN:  true "approved this merge request"`, `ANN:  false "Good"`, `ANN: DiffNote false "why?" at a.go:3`,
		`ANN: DiscussionNote false "on b.go line 9:\n\nand here?"`, `EVE: DiffNote false "so" at a.go:3`, `BOB:  true "approved this merge request"`,
	}
	if !slices.Equal(said, want) {
		t.Errorf("its notes are\n%s\nwant\n%s", strings.Join(said, "\n"), strings.Join(want, "\n"))
	}
	if odd := pulls[1]; odd.Title != "(no title)" || odd.Head != nil || odd.Branch == "" || odd.Source != odd.Target {
		t.Errorf("a pull request with little is %+v", odd)
	}
	members := linesOf(t, files, "project_members")
	if members[0].User.Email != "ann@example.org" || members[0].User.ID != issue.Author || members[0].Level != 40 {
		t.Errorf("the members are %+v", members)
	}
	release := linesOf(t, files, "releases")[0]
	if text, _, ok := neutral.Unmark(release.Description); !ok || !strings.HasPrefix(text, "First\n\nFiles:") || !strings.Contains(text, "](/uploads/cdcd") {
		t.Errorf("the release says %q", release.Description)
	}
}

// A GitLab's project keeps its texts, and the addresses of its uploads.
func TestAnImportArchiveOfAGitLab(t *testing.T) {
	upload := &neutral.File{URL: shot, Name: "other.png", SHA256: strings.Repeat("ab", 32)}
	ann := &neutral.Collaborator{User: neutral.User{Login: "ann", Email: "a@example.org"}, Permission: "read"}
	body := "/close\n@bob see #1, !1 and ![](" + shot + ")"
	m := &modelled{
		files: map[*neutral.File]string{upload: "x"}, overview: neutral.Overview{Collaborators: []*neutral.Collaborator{ann}},
		items: []neutral.Item{{Origin: wrote("1", "ann", 1), Number: 1, Body: body, Labels: []string{"of the group"}, Milestone: "of the group"}, {Origin: wrote("2", "ann", 1), Number: 1, Pull: &neutral.Pull{Head: "x", HeadRepository: "acme/api"}}},
	}
	files, _ := imported(t, gitlab.Import{Source: m, Forge: "gitlab"})
	if got := linesOf(t, files, "issues")[0].Description; got != body || files[shot[1:]] != "x" {
		t.Errorf("the text is %q", got)
	}
	if got := linesOf(t, files, "issues")[0]; len(got.Links) != 1 || got.Links[0].Label.Title != "of the group" || got.Milestone == nil {
		t.Errorf("what is of the group is lost: %+v", got)
	}
	if got := linesOf(t, files, "merge_requests")[0]; got.IID != 1 || got.Source != got.Target {
		t.Errorf("the merge request is %+v", got)
	}
}

// nul is the character of number zero in JSON.
var nul = regexp.MustCompile(`(^|[^\\])(\\\\)*\\u0000`)

// Somebody of the same name on the forge that an issue came from is somebody else.
func TestNobodyIsTakenForAnother(t *testing.T) {
	elsewhere := wrote("1", "ann", 1)
	elsewhere.Forge = "codeberg.org"
	m := githubModel()
	m.items = []neutral.Item{m.items[0], {Origin: elsewhere, Number: 2, Body: "hers", Assignees: []neutral.User{{Login: "ann"}}}}
	files, report := imported(t, gitlab.Import{Source: m, Forge: "github"})
	both := linesOf(t, files, "issues")
	if both[0].Author == both[1].Author || len(both[1].Assignees) != 0 || report.Mapped != 1 {
		t.Errorf("%+v", both[1])
	}
	if _, mark, ok := neutral.Unmark(both[1].Description); !ok || mark.Forge != "codeberg.org" {
		t.Errorf("it says %q", both[1].Description)
	}
}

// FuzzImport has names, texts and addresses by somebody else in every place.
func FuzzImport(f *testing.F) {
	for _, seed := range []string{"", "../../etc/passwd", "a\x00b", "/uploads/" + strings.Repeat("a", 32) + "/..", "\xff\xfe", "..", "a/b\\c\n{}", "<!-- backstay:1 {} -->", "#1 !1 @x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m := &modelled{files: map[*neutral.File]string{
			{URL: s, Name: s, SHA256: strings.Repeat("ab", 32)}: "1", {URL: s + "2", Name: s, SHA256: strings.Repeat("cd", 32)}: "2",
		}}
		who := neutral.User{Login: s, Name: s, Email: s}
		o := neutral.Origin{Forge: s, ID: s, URL: s, Author: who}
		code := &neutral.Code{Path: s, OID: s, Side: s, Line: 1, Hunk: s}
		m.overview = neutral.Overview{
			Labels: []*neutral.Label{{Name: s, Color: s}}, Milestones: []*neutral.Milestone{{Title: s}}, Rules: []*neutral.Rule{{Pattern: s, PushBy: []string{s}}},
			Releases: []*neutral.Release{{Origin: o, Tag: s, Body: s, Assets: []*neutral.Asset{{File: neutral.File{URL: s, Name: s}}}}}, Collaborators: []*neutral.Collaborator{{User: who, Permission: s}},
		}
		m.items = []neutral.Item{{
			Origin: o, Number: 1, Title: s, Body: s, Labels: []string{s}, Milestone: s, Comments: []*neutral.Comment{{Origin: o, Body: s, Code: code}},
			Events: []*neutral.Event{{Kind: s, Actor: who, Text: s}},
			Pull:   &neutral.Pull{Base: s, Head: s, HeadRepository: s, HeadOID: s, BaseOID: oidA, Reviews: []*neutral.Review{{Origin: o, State: s, Body: s}}},
		}}
		files, _ := imported(t, gitlab.Import{Source: m, Forge: "github"})
		for name, text := range files {
			for l := range strings.Lines(text) {
				if strings.HasSuffix(name, "json") && (!json.Valid([]byte(l)) || nul.MatchString(l)) {
					t.Errorf("%s has a line that GitLab does not take: %s", name, l)
				}
			}
		}
		if len(linesOf(t, files, "merge_requests")) != 1 {
			t.Error("the merge request is lost")
		}
	})
}

func TestPlansNameEveryField(t *testing.T) {
	for name, keeps := range map[string]neutral.Fidelity{"the import": gitlab.ImportKeeps(), "the API": newBench(t).Target().Keeps()} {
		if unnamed := forgetest.Unplanned(keeps); len(unnamed) > 0 {
			t.Errorf("%s says nothing of %q", name, unnamed)
		}
	}
}
