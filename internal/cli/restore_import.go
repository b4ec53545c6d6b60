package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/gitea"
	"github.com/backstay/backstay/internal/forge/gitlab"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

// formatGitLab is one file for one repository that GitLab's project import reads.
const formatGitLab = "gitlab-project-import"

// stage is the directory that parts are restored into: where they are wanted, or one beside the file that is made of them, which remove
// takes away. Nothing may be there.
func (o restoreOptions) stage() (dir string, remove func(), err error) {
	if o.dump.format != formatGitLab {
		return o.to, func() {}, protect.Vacant(o.to)
	}
	if _, err := os.Lstat(o.to); !errors.Is(err, fs.ErrNotExist) {
		return "", nil, fault.New("restore to "+o.to, fault.ErrExists, "there is something of that name", "name a file that is not there")
	}
	if dir, err = os.MkdirTemp(filepath.Dir(o.to), ".backstay-import-"); err != nil {
		return "", nil, fault.Wrap("restore to "+o.to, fault.ErrDenied, err, "")
	}
	return dir, func() { os.RemoveAll(dir) }, nil //nolint:errcheck // what stays begins with a dot, and is named after us
}

// onlyOne refuses parts of several repositories.
func onlyOne(all []point.Part, name string) error {
	if n := len(plannedParts(all, name)); n > 1 {
		return fault.New("restore", fault.ErrInvalid, fmt.Sprintf("the point has %d repositories, and the file takes one", n), "choose one with --part: acme/api")
	}
	return nil
}

// importer writes the file of the metadata and of the git parts, which are in the directory already.
func (a *app) importer(o restoreOptions) protect.Restorer {
	return func(ctx context.Context, from point.Reader, part point.Part, dir string) ([]string, error) {
		options, header, err := sourceOf(ctx, from)
		if err != nil {
			return nil, err
		}
		plan, err := forge.PlanMetadata(ctx, options.From, gitlab.ImportKeeps())
		if err != nil {
			return nil, err
		}
		a.tellPlan(part.Name, plan)
		in := gitlab.Import{
			Source: options.From, Repository: header.Repository, Forge: header.Dialect, Host: header.Host, Scratch: filepath.Join(dir, "import"),
			Bundle: filepath.Join(dir, "project.bundle"), Wiki: filepath.Join(dir, "wiki.bundle"), LFS: filepath.Join(dir, gitea.DumpGit, "lfs", "objects"),
		}
		pulls := git.RefMove{From: "refs/pull/", To: "refs/merge-requests/"}
		if err := git.WriteBundle(ctx, filepath.Join(dir, gitea.DumpGit), in.Bundle, pulls); err != nil {
			return nil, err
		}
		if wiki := filepath.Join(dir, gitea.DumpWiki); exists(wiki) {
			if err := git.WriteBundle(ctx, wiki, in.Wiki); err != nil {
				return nil, err
			}
		}
		report, err := writeImport(ctx, in, filepath.Join(dir, "import.tar.gz"), o.to)
		if err != nil {
			return nil, err
		}
		return importNotes(report), nil
	}
}

// writeImport writes the archive and then gives it its name, so that there is a whole one or none.
func writeImport(ctx context.Context, in gitlab.Import, as, to string) (report gitlab.ImportReport, err error) {
	f, err := os.OpenFile(as, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return report, err
	}
	report, err = gitlab.WriteImport(ctx, f, in)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(as, to)
	}
	return report, err
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func importNotes(r gitlab.ImportReport) []string {
	return append([]string{
		strings.Join([]string{
			plural(r.Issues, "issue", "issues"), plural(r.Pulls, "merge request", "merge requests"), plural(r.Comments, "comment", "comments"),
			plural(r.Reviews, "review", "reviews"), plural(r.Releases, "release", "releases"), plural(r.Files, "file", "files"),
			plural(r.LFS, "Git LFS object", "Git LFS objects"),
		}, ", "),
		fmt.Sprintf("%d of %s can be found by GitLab, as members whose e-mail address is known: import as an administrator", r.Mapped,
			plural(r.Authors, "person", "people")),
	}, missingNotes(r.Missing)...)
}
