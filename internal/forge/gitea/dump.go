package gitea

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// Where the git parts are in a directory for restore-repo. Gitea's own dump-repo leaves the wiki in "wiki", where its restore-repo
// does not look for it.
const (
	DumpGit  = "git"
	DumpWiki = "git.wiki.git"
)

// Dump is a directory from which `gitea restore-repo` makes a repository with all numbers, dates and authors' names.
type Dump struct {
	Dir        string // has the bare repositories in DumpGit and, of a wiki, in DumpWiki already
	Source     neutral.Source
	Repository string // "owner/name", at the source
	Owner      string // of the repository that is made; "" for the source's
	Forge      string // what the source is: "github", "gitlab", "gitea"; "" for others
	Host       string // of the source, as in neutral.Origin
	// Site is the address of the server that the dump is for: what its users wrote, by name and ID, is theirs again. "" for any
	// server: it shows all authors by name only.
	Site string
}

// DumpKeeps is what restore-repo keeps of the model, by Gitea 1.26. A field that is not named is lost.
func DumpKeeps() neutral.Fidelity {
	f := neutral.Fidelity{}
	for sort, fields := range map[string]string{
		"settings":       "description defaultBranch topics",
		"label":          "",
		"milestone":      "",
		"item":           "author created updated title body closed closedAt locked labels milestone",
		"pull":           "base head baseOID headOID merged mergedAt mergeOID draft",
		"comment":        "author created updated body",
		"review":         "author created body",
		"review-comment": "author created updated body",
		"file":           "",
		"release":        "created tag target name body draft prerelease",
		"asset":          "name downloads created",
	} {
		if fields == "" {
			f[sort] = neutral.Fate{State: neutral.Kept}
		}
		for _, field := range strings.Fields(fields) {
			f[sort+"."+field] = neutral.Fate{State: neutral.Kept}
		}
	}
	for field, how := range map[string]string{
		"discussion":               "becomes an issue",
		"settings.private":         "restore-repo makes it public, unless FORCE_PRIVATE in [repository] of app.ini is set",
		"milestone.updated":        "is the time of the restore",
		"item.reactions":           "with the time of the restore",
		"comment.reactions":        "with the time of the restore",
		"item.closedBy":            "as an event",
		"item.events":              "closed, reopened, merged, locked, unlocked, pinned and unpinned stay; others are lost",
		"pull.mergedBy":            "as an event; the merge itself is the administrator's",
		"pull.head":                "that of an open one from a fork is a branch of the repository: owner/branch",
		"pull.headRepository":      "is the repository itself",
		"review.state":             "dismissed reviews are comments, pending ones are lost",
		"release.author":           "shown by name only",
		"release.published":        "is the time of creation",
		"review-comment.code":      "at its place; the piece of the diff is made anew from the commits, and nothing is resolved",
		"review-comment.reactions": "with the time of the restore",
	} {
		f[field] = neutral.Fate{State: neutral.Changed, How: how}
	}
	for _, sort := range []string{"settings", "item", "pull", "comment", "review", "review-comment", "release", "asset", "rule", "hook", "key", "collaborator", "project", "project-item"} {
		f[sort] = neutral.Fate{State: neutral.Lost, How: "restore-repo takes none"}
	}
	f["item.number"] = neutral.Fate{State: neutral.Kept, How: "those of GitLab's merge requests come behind the issues'"}
	return f
}

// DumpReport counts what WriteDump wrote.
type DumpReport struct {
	Issues, Pulls, Comments, Reviews, Releases, Files int64
	Private                                           bool // and restore-repo makes it public
	// Missing names files whose bytes are not in the point, with the reason.
	Missing []string
}

// dumper writes the files of a Dump.
type dumper struct {
	Dump
	report DumpReport
	refs   map[string]string // of the git part
	moved  map[string]string // addresses of files, by those that they had
	shift  int64             // what pull requests' numbers grow by
}

// WriteDump writes everything but the git parts. It takes a repository of any forge.
func WriteDump(ctx context.Context, d Dump) (DumpReport, error) {
	w := &dumper{Dump: d, moved: map[string]string{}}
	err := w.write(ctx)
	return w.report, fault.Wrap("write "+d.Dir, nil, err, "")
}

func (d *dumper) write(ctx context.Context) error {
	o, err := d.Source.Overview(ctx)
	if err != nil {
		return err
	}
	if d.refs, err = readRefs(filepath.Join(d.Dir, DumpGit)); err != nil {
		return err
	}
	if err := d.overview(o); err != nil {
		return err
	}
	if err := d.releases(ctx, o); err != nil {
		return err
	}
	return d.items(ctx, labelsByName(o.Labels))
}

// services are Gitea's numbers for what a repository was migrated from, by which it finds accounts that are linked later.
var services = map[string]int{"github": 2, "gitea": 3, "gitlab": 4}

func (d *dumper) overview(o *neutral.Overview) error {
	owner, name, _ := strings.Cut(d.Repository, "/")
	// It is by the address of the origin that a server knows its own.
	origin := "https://" + d.Host + "/" + d.Repository
	if d.Site != "" {
		origin = strings.TrimSuffix(d.Site, "/") + "/" + d.Repository
	}
	d.report.Private = o.Settings.Private
	_, err := os.Stat(filepath.Join(d.Dir, DumpWiki))
	documents := map[string]any{
		"repo.yml": map[string]string{
			"owner": owner, "name": name, "description": o.Settings.Description, "default_branch": o.Settings.DefaultBranch,
			"is_private": strconv.FormatBool(o.Settings.Private), "original_url": origin, "clone_addr": origin,
			"service_type": strconv.Itoa(services[d.Forge]), "wiki": strconv.FormatBool(err == nil),
		},
		"topic.yml": map[string][]string{"topics": o.Settings.Topics},
	}
	for _, name := range slices.Sorted(maps.Keys(documents)) {
		f, err := d.create(name)
		if err != nil {
			return err
		}
		if err := errors.Join(f.document(documents[name]), f.close()); err != nil {
			return err
		}
	}
	var milestones, labels []any
	for _, m := range o.Milestones {
		milestones = append(milestones, dumpMilestone{
			Title: m.Title, Description: m.Description, Deadline: moment(m.Due), Created: m.Created, Updated: moment(m.Updated),
			Closed: moment(m.ClosedAt), State: stateWord(m.Closed),
		})
	}
	for _, l := range o.Labels {
		labels = append(labels, dumpLabel{l.Name, l.Color, l.Description, l.Exclusive})
	}
	return errors.Join(d.list("milestone.yml", milestones), d.list("label.yml", labels))
}

// moment is nil for no time.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func stateWord(closed bool) string {
	if closed {
		return "closed"
	}
	return "open"
}

func labelsByName(all []*neutral.Label) map[string]dumpLabel {
	found := map[string]dumpLabel{}
	for _, l := range all {
		found[l.Name] = dumpLabel{l.Name, l.Color, l.Description, l.Exclusive}
	}
	return found
}

// userID is the number by which the server looks for an author among its own or linked accounts. Those of other forges that a thing
// came over have numbers of other people there.
func (d *dumper) userID(o neutral.Origin, u neutral.User) int64 {
	id, err := strconv.ParseInt(u.ID, 10, 64)
	if err != nil || o.Forge != d.Host {
		return 0
	}
	return id
}

// userName is what is shown for an author.
func userName(u neutral.User) string { return cmp.Or(u.Login, u.Name, "Ghost") }

func (d *dumper) releases(ctx context.Context, o *neutral.Overview) error {
	var releases []any
	files, err := d.attachments(ctx, o)
	if err != nil {
		return err
	}
	if files != nil {
		releases = append(releases, files)
	}
	for i, r := range o.Releases {
		w := dumpRelease{
			Tag: r.Tag, Target: r.Target, Name: r.Name, Body: d.moveFiles(r.Body), Draft: r.Draft, Prerelease: r.Prerelease,
			PublisherID: d.userID(r.Origin, r.Author), PublisherName: userName(r.Author), PublisherEmail: r.Author.Email,
			Created: cmp.Or(r.Published, r.Created), Published: cmp.Or(r.Published, r.Created), Assets: []dumpAsset{},
		}
		for j, a := range r.Assets {
			at := fmt.Sprintf("release_assets/%05d/%05d", i+1, j+1)
			size, err := d.copyFile(ctx, &a.File, at)
			if err != nil {
				return err
			}
			if size >= 0 {
				w.Assets = append(w.Assets, dumpAsset{
					Name: a.Name, Size: size, Downloads: a.Downloads, Created: cmp.Or(a.Created, w.Created), Updated: cmp.Or(a.Created, w.Created), URL: at,
				})
			}
		}
		d.report.Releases++
		releases = append(releases, w)
	}
	return d.list("release.yml", releases)
}

// copyFile writes the bytes of a file, and says how many; -1 for one that the point has not.
func (d *dumper) copyFile(ctx context.Context, f *neutral.File, at string) (int64, error) {
	if f.SHA256 == "" {
		d.report.Missing = append(d.report.Missing, f.URL+": "+cmp.Or(f.Reason, "its bytes are not in the point"))
		return -1, nil
	}
	from, err := d.Source.Open(ctx, f)
	if isNotFound(err) {
		d.report.Missing = append(d.report.Missing, f.URL+": its bytes are not in the point")
		return -1, nil
	}
	if err != nil {
		return 0, err
	}
	defer from.Close()
	to, err := d.create(at)
	if err != nil {
		return 0, err
	}
	d.report.Files++
	n, err := io.Copy(to.w, from)
	return n, errors.Join(err, to.close())
}

// list writes a file of items. There is none for none, as restore-repo wants it.
func (d *dumper) list(name string, items []any) error {
	if len(items) == 0 {
		return nil
	}
	f, err := d.create(name)
	if err != nil {
		return err
	}
	for _, item := range items {
		if err := f.item(item); err != nil {
			return errors.Join(err, f.close())
		}
	}
	return f.close()
}

// dumpFile is a file of YAML, of which JSON is part: one document, or a list with an item on each line.
type dumpFile struct {
	f *os.File
	w *bufio.Writer
}

func (d *dumper) create(name string) (*dumpFile, error) {
	at := filepath.Join(d.Dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &dumpFile{f, bufio.NewWriter(f)}, nil
}

func (f *dumpFile) item(v any) error {
	if _, err := f.w.WriteString("- "); err != nil {
		return err
	}
	return f.document(v)
}

func (f *dumpFile) document(v any) error {
	text, err := yamlOf(v)
	if err != nil {
		return err
	}
	_, err = f.w.Write(text)
	return err
}

func (f *dumpFile) close() error { return errors.Join(f.w.Flush(), f.f.Close()) }
