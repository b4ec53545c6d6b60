package export

import (
	"fmt"
	"path"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Forms of copies. A mirror is a bare repository with the refs of pull requests; which refs there are is the source's to choose, and
// the copy has them all.
const (
	Bare     = "bare"
	Mirror   = "mirror"
	Worktree = "worktree"
)

// Layout says how copies lie in their place.
type Layout struct {
	Structured bool   // HOST/OWNER/NAME instead of NAME
	Form       string // "" is Bare
	Zip        bool   // one zip file a repository
	Keep       int    // copies kept, each in a directory named by its Unix time; 0 for one copy that is brought up to date
	Dated      bool   // a copy a day, below YYYY-MM-DD
	LFS        bool   // Git LFS objects, too
}

// onDisk is a place whose files other programs can be given.
type onDisk interface{ Path(name string) string }

func (l Layout) check(o Options) error {
	const op = "set up export"
	if o.Place == nil || o.Clock == nil {
		return fault.New(op, fault.ErrInvalid, "it has no place or no clock", "")
	}
	_, local := o.Place.(onDisk)
	switch {
	case l.Form != Bare && l.Form != Mirror && l.Form != Worktree:
		return fault.New(op, fault.ErrInvalid, fmt.Sprintf("form %q is not known", l.Form), "choose bare, mirror or worktree")
	case l.Form == Worktree && !local:
		return fault.New(op, fault.ErrInvalid, "a copy with files needs a local directory", "choose the form bare or mirror")
	case l.Form == Worktree && o.UpdateWorkTree == nil:
		return fault.New(op, fault.ErrUnsupported, "nothing here can check files out", "")
	case l.Keep < 0:
		return fault.New(op, fault.ErrInvalid, "keep is negative", "")
	case l.Keep > 0 && l.Dated:
		return fault.New(op, fault.ErrInvalid, "keep and dated exclude each other", "choose one of them")
	}
	return nil
}

// slot is what of a repository a part holds. Its value names it in records.
type slot string

const (
	slotGit    slot = point.KindGit
	slotLFS    slot = point.KindLFS
	slotIssues slot = point.KindIssues
)

// repositoryOf reads from a part's name which repository it is of, "<host>/<owner>/<name>", and what of it. It is "" for a part that
// copies do not have.
func repositoryOf(part, kind string) (string, slot) {
	switch kind {
	case point.KindGit, point.KindLFS:
		name, ok := strings.CutPrefix(strings.TrimSuffix(part, "/lfs"), "git/")
		if ok && strings.HasSuffix(part, "/lfs") == (kind == point.KindLFS) {
			return strings.TrimSuffix(name, ".git"), slot(kind)
		}
	case point.KindIssues:
		name, ok := strings.CutPrefix(part, "forge/")
		if name, is := strings.CutSuffix(name, "/issues"); ok && is {
			return name, slotIssues
		}
	}
	return "", ""
}

// addressOf is a repository's URL, as far as its name tells: a port follows the host after a low line.
func addressOf(repository string) string {
	host, rest, _ := strings.Cut(repository, "/")
	if i := strings.LastIndex(host, "_"); i > 0 && strings.Trim(host[i+1:], "0123456789") == "" {
		host = host[:i] + ":" + host[i+1:]
	}
	return "https://" + host + "/" + rest
}

// path is where the copy of a repository lies: "github.com/acme/api.git".
func (l Layout) path(repository string, local bool) (string, error) {
	elements := strings.Split(repository, "/")
	for _, e := range elements {
		if e == "" || e == "." || e == ".." || strings.EqualFold(e, ".git") || strings.ContainsAny(e, "\\\x00") ||
			strings.HasPrefix(e, recordName) {
			return "", fault.New("export "+repository, fault.ErrUnsupported, fmt.Sprintf("%q cannot be the name of a directory of copies", e), "")
		}
	}
	if !l.Structured {
		last := len(elements) - 1
		if last > 1 && elements[last-1] == "gists" {
			last--
		}
		elements = elements[last:]
	}
	name := path.Join(elements...)
	if local && l.Form != Worktree {
		name += ".git"
	}
	return name, nil
}

// site is where one copy lies, or is being made.
type site struct {
	dir  string // of the place
	leaf string // below it: "api.git", or a Unix time
	git  string // where in the leaf the repository is: "", or ".git"
}

// path is where a file of a slot lies.
func (s site) path(in slot, name string) string {
	switch in {
	case slotIssues:
		return path.Join(s.dir, s.leaf+".issues", name)
	case slotLFS:
		return path.Join(s.dir, s.leaf, s.git, "lfs", name)
	}
	return path.Join(s.dir, s.leaf, s.git, name)
}

// top is the directory of the copy itself.
func (s site) top() string { return path.Join(s.dir, s.leaf) }

// record is where the copy's record lies.
func (s site) record() string { return s.path(slotGit, recordName) }
