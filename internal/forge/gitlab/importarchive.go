package gitlab

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// What an import archive says of its format, and of the GitLab that it is as if from. GitLab refuses another format version, and looks at
// the other for nothing but messages.
const (
	importVersion = "0.2.4"
	importGitLab  = "17.0.0"
)

// longestImported is how long a line may be that GitLab reads, in bytes. It cuts longer ones and fails.
const longestImported = 50 << 20

// Import is an archive from which GitLab's project import makes a project with all numbers and dates.
type Import struct {
	Source     neutral.Source
	Repository string // "owner/name", at the source
	Forge      string // what the source is: "github", "gitlab", "gitea"
	Host       string // of the source, as in neutral.Origin
	// Bundle and Wiki are files with git bundles, LFS is a directory of Git LFS objects as git keeps them. What is not there is left out.
	Bundle, Wiki, LFS string
	Scratch           string // an empty directory for what is written before it is packed
}

// ImportReport counts what WriteImport wrote.
type ImportReport struct {
	Issues, Pulls, Comments, Reviews, Releases, Files, LFS int64
	// Authors is how many people wrote something, Mapped how many of them GitLab can find: members whose e-mail address is known.
	Authors, Mapped int64
	// Missing names files whose bytes are not in the point, with the reason.
	Missing []string
}

// importer writes an Import.
type importer struct {
	Import
	report ImportReport
	users  map[string]int64  // numbers by name
	mapped map[string]bool   // names of members that GitLab can find
	labels map[string]object // by the name at the source
	stones map[string]any    // milestones by title
	pulls  map[int64]bool    // numbers of pull requests
	moved  map[string]string
	files  []importedFile
}

// importedFile is a file that texts refer to, and where it goes below uploads.
type importedFile struct {
	file *neutral.File
	at   string
}

// WriteImport writes the archive to w, of a repository of any forge.
func WriteImport(ctx context.Context, w io.Writer, in Import) (ImportReport, error) {
	i := &importer{
		Import: in, users: map[string]int64{}, mapped: map[string]bool{}, labels: map[string]object{}, stones: map[string]any{},
		pulls: map[int64]bool{}, moved: map[string]string{},
	}
	err := i.tree(ctx)
	if err == nil {
		err = i.pack(ctx, w)
	}
	i.report.Authors, i.report.Mapped = int64(len(i.users)), int64(len(i.mapped))
	return i.report, fault.Wrap("write an import archive of "+in.Repository, nil, err, "")
}

// tree writes project.json and a file of lines for each sort of things.
func (i *importer) tree(ctx context.Context) error {
	o, err := i.Source.Overview(ctx)
	if err != nil {
		return err
	}
	if err := i.findFiles(ctx); err != nil {
		return err
	}
	if err := i.findPulls(ctx); err != nil {
		return err
	}
	for _, write := range []func(*neutral.Overview) error{
		i.settings, i.members, i.namedThings, i.rules, i.releases, func(o *neutral.Overview) error { return i.items(ctx, o) },
	} {
		if err := write(o); err != nil {
			return err
		}
	}
	return nil
}

// object is what stands on a line.
type object = map[string]any

// importProject is the number of the project in the archive, of which GitLab makes the one that it has then.
const importProject = 1

func (i *importer) settings(o *neutral.Overview) error {
	s, visibility := o.Settings, 20
	if s.Private {
		visibility = 0
	}
	has := func(it bool) int {
		if it {
			return 20
		}
		return 0
	}
	attributes := object{
		"description": s.Description, "visibility_level": visibility, "archived": s.Archived,
		"remove_source_branch_after_merge": s.DeleteBranch, "deploy_keys": []any{}, "hooks": []any{},
	}
	merge, squash := false, "never"
	for _, way := range s.Merges {
		switch way {
		case "merge":
			merge = true
		case "squash":
			squash = "default_off"
		}
	}
	if len(s.Merges) > 0 {
		attributes["merge_requests_ff_only_enabled"], attributes["squash_option"] = !merge, squash
	}
	line, err := encoded(attributes)
	if err != nil {
		return err
	}
	if err := i.put("project.json", line); err != nil {
		return err
	}
	return i.lines("project_feature", []object{{
		"project_id": importProject, "issues_access_level": has(s.HasIssues), "wiki_access_level": has(s.HasWiki), "merge_requests_access_level": 20,
		"repository_access_level": 20, "created_at": moment(time.Time{}), "updated_at": moment(time.Time{}),
	}})
}

// members are those whose e-mail address is known: it is by that that GitLab finds them.
func (i *importer) members(o *neutral.Overview) error {
	levels := map[string]int{"triage": 20, "write": 30, "maintain": 40, "admin": 40}
	var all []object
	for _, c := range o.Collaborators {
		if c.Email == "" || c.Login == "" {
			continue
		}
		id := i.user(i.Host, c.User)
		i.mapped[i.account(i.Host, c.User)] = true
		all = append(all, object{
			"access_level": cmp.Or(levels[c.Permission], 10), "source_type": "Project", "user_id": id, "notification_level": 3,
			"created_at": moment(time.Time{}), "updated_at": moment(time.Time{}),
			"user": object{"id": id, "public_email": c.Email, "username": c.Login},
		})
	}
	return i.lines("project_members", all)
}

// account names somebody. On another forge, which a thing came over, a name is another person's.
func (i *importer) account(forge string, u neutral.User) string {
	name := cmp.Or(u.Login, u.Name, "ghost")
	if forge != i.Host {
		name = forge + "/" + name
	}
	return name
}

// user is somebody's number in the archive.
func (i *importer) user(forge string, u neutral.User) int64 {
	name := i.account(forge, u)
	if i.users[name] == 0 {
		i.users[name] = int64(len(i.users) + 1)
	}
	return i.users[name]
}

// known is the number of somebody whom GitLab can find; nil for others, of whose deeds it would make the importing account's.
func (i *importer) known(forge string, u neutral.User) any {
	if !i.mapped[i.account(forge, u)] {
		return nil
	}
	return i.user(forge, u)
}

func (i *importer) namedThings(o *neutral.Overview) error {
	var labels, stones []object
	for _, l := range o.Labels {
		label := labelLine(l)
		i.labels[l.Name] = label
		labels = append(labels, label)
	}
	for _, m := range o.Milestones {
		stone := object{
			"iid": m.Number, "title": m.Title, "description": i.text(m.Description), "project_id": importProject, "state": "active",
			"due_date": day(m.Due), "created_at": moment(m.Created), "updated_at": moment(cmp.Or(m.Updated, m.Created)), "events": []any{},
		}
		if m.Closed {
			stone["state"] = "closed"
		}
		i.stones[m.Title] = stone
		stones = append(stones, stone)
	}
	return errors.Join(i.lines("labels", labels), i.lines("milestones", stones))
}

func labelLine(l *neutral.Label) object {
	return object{
		"title": labelName(l.Name), "color": "#" + cmp.Or(l.Color, "6699cc"), "description": l.Description, "project_id": importProject,
		"type": "ProjectLabel", "template": false, "priorities": []any{},
	}
}

func (i *importer) rules(o *neutral.Overview) error {
	var branches, tags []object
	level := func(n int) []object {
		return []object{{"access_level": n, "created_at": moment(time.Time{}), "updated_at": moment(time.Time{})}}
	}
	for _, r := range o.Rules {
		rule := object{"project_id": importProject, "name": r.Pattern, "created_at": moment(time.Time{}), "updated_at": moment(time.Time{})}
		if r.Tags {
			rule["create_access_levels"] = level(levelOf(r))
			tags = append(tags, rule)
			continue
		}
		rule["allow_force_push"], rule["push_access_levels"], rule["merge_access_levels"] = r.ForcePush, level(levelOf(r)), level(40)
		branches = append(branches, rule)
	}
	return errors.Join(i.lines("protected_branches", branches), i.lines("protected_tags", tags))
}

// releases are those that were published: GitLab has no drafts. Their files are uploads that the text links to, for what GitLab itself
// links to must have an address that is known before.
func (i *importer) releases(o *neutral.Overview) error {
	var all []object
	for _, r := range o.Releases {
		if r.Draft {
			continue
		}
		files, links := "", []object{}
		for _, a := range r.Assets {
			switch to := i.moved[a.URL]; {
			case to != "":
				files += "\n- [" + neutral.Plain(a.Name) + "](" + to + ")"
			case strings.HasPrefix(a.URL, "https://"):
				links = append(links, object{"name": a.Name, "url": a.URL, "link_type": "other", "created_at": moment(a.Created), "updated_at": moment(a.Created)})
			}
		}
		text := r.Body
		if files != "" {
			text = strings.TrimSpace(text + "\n\nFiles:\n" + files)
		}
		body := i.text(text)
		if i.known(r.Forge, r.Author) == nil {
			body = i.marked(neutral.Mark{Sort: neutral.SortRelease, Origin: r.Origin, More: neutral.More("release", r, ImportKeeps())}, text)
		}
		i.report.Releases++
		created := cmp.Or(r.Created, r.Published)
		all = append(all, object{
			"tag": r.Tag, "name": cmp.Or(r.Name, r.Tag), "description": body, "sha": plainOID(r.Target), "project_id": importProject,
			"author_id": i.user(r.Forge, r.Author), "created_at": moment(created), "updated_at": moment(cmp.Or(r.Updated, created)),
			"released_at": moment(cmp.Or(r.Published, created)), "links": links,
		})
	}
	return i.lines("releases", all)
}

// findFiles decides where files go: below a name of 32 hexadecimal digits, as GitLab has them. One of a GitLab keeps its own.
func (i *importer) findFiles(ctx context.Context) error {
	there := map[string]bool{}
	for f, err := range i.Source.Files(ctx) {
		if err != nil {
			return err
		}
		if len(f.SHA256) < 32 {
			i.report.Missing = append(i.report.Missing, f.URL+": "+cmp.Or(f.Reason, "its bytes are not in the point"))
			continue
		}
		secret, name := f.SHA256[:32], cmp.Or(strings.Trim(plainName(f.Name), "."), "file")
		if m := uploadPath.FindStringSubmatch(f.URL); m != nil && plainName(m[4]) == m[4] {
			secret, name = m[3], m[4]
		}
		at := secret + "/" + name[max(0, len(name)-100):]
		i.moved[f.URL] = "/uploads/" + at
		if !there[at] {
			there[at] = true
			i.files = append(i.files, importedFile{f, at})
		}
	}
	return nil
}

// findPulls notes the numbers of pull requests: a text of another forge says "#5" to what is "!5" on GitLab.
func (i *importer) findPulls(ctx context.Context) error {
	if i.Forge == "gitlab" {
		return nil
	}
	for item, err := range i.Source.Items(ctx) {
		if err != nil {
			return err
		}
		if item.Pull != nil {
			i.pulls[item.Number] = true
		}
	}
	return nil
}

// lines writes the file of one sort of things. There is none for none.
func (i *importer) lines(sort string, all []object) error {
	if len(all) == 0 {
		return nil
	}
	f, err := i.open(sort)
	if err != nil {
		return err
	}
	for _, o := range all {
		if err := f.line(o); err != nil {
			return errors.Join(err, f.close())
		}
	}
	return f.close()
}

// lineFile is a file of JSON, an object on each line.
type lineFile struct {
	f *os.File
	w *bufio.Writer
}

func (i *importer) open(sort string) (*lineFile, error) {
	dir := filepath.Join(i.Scratch, "tree", "project")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, sort+".ndjson"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &lineFile{f, bufio.NewWriter(f)}, nil
}

func (f *lineFile) line(o object) error {
	line, err := encoded(o)
	if err != nil {
		return err
	}
	if len(line) >= longestImported {
		return fault.New("", fault.ErrUnsupported, fmt.Sprintf("%v is longer than the 50 MiB that GitLab reads", o["title"]), "")
	}
	_, err = f.w.Write(line)
	return err
}

func (f *lineFile) close() error { return errors.Join(f.w.Flush(), f.f.Close()) }

func (i *importer) put(name string, content []byte) error {
	dir := filepath.Join(i.Scratch, "tree")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), content, 0o600)
}

// moment is a time as GitLab writes it. One that is not known is that of the epoch: GitLab's columns take no none.
func moment(t time.Time) string {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// momentOrNone is nil for no time.
func momentOrNone(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return moment(t)
}

func day(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.Format(time.DateOnly)
}

// encoded is an object as a line, without the character of number zero, which PostgreSQL does not take.
func encoded(o object) ([]byte, error) {
	line, err := json.Marshal(o)
	if err != nil || !bytes.Contains(line, []byte(`\u0000`)) {
		return append(line, '\n'), err
	}
	var kept []byte
	for n := 0; n < len(line); n++ {
		switch {
		case line[n] != '\\':
			kept = append(kept, line[n])
		case bytes.HasPrefix(line[n:], []byte(`\u0000`)):
			n += len(`\u0000`) - 1
		default: // what is escaped is not looked at
			kept = append(kept, line[n], line[n+1])
			n++
		}
	}
	return append(kept, '\n'), nil
}
