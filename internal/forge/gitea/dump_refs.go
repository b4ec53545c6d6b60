package gitea

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// readRefs reads the packed refs of a bare repository as a restore leaves it.
func readRefs(dir string) (map[string]string, error) {
	refs := map[string]string{}
	f, err := os.Open(filepath.Join(dir, "packed-refs"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(dir, "HEAD")); err != nil {
			return nil, fault.New("read refs", fault.ErrNotFound, "there is no git repository in "+dir, "restore the git part there first")
		}
		return refs, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read from
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if oid, ref, ok := strings.Cut(lines.Text(), " "); ok && strings.HasPrefix(ref, "refs/") {
			refs[ref] = oid
		}
	}
	return refs, lines.Err()
}

func sortedRefs(refs map[string]string) []string { return slices.Sorted(maps.Keys(refs)) }

// What git takes for a branch's name, and more narrowly still.
var (
	plainBranch = regexp.MustCompile(`^[0-9A-Za-z_][0-9A-Za-z_.+-]*(/[0-9A-Za-z_][0-9A-Za-z_.+-]*)*$`)
	plainOID    = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)
)

// branchOf makes a branch of the head of a pull request from a fork, by the name that Gitea's own dump gives it: "owner/branch". ""
// where the repository does not have the head.
func (d *dumper) branchOf(item *neutral.Item) (string, error) {
	number := item.Number - d.shift
	oid := cmp.Or(d.refs[fmt.Sprintf("refs/pull/%d/head", number)], d.refs[fmt.Sprintf("refs/merge-requests/%d/head", number)])
	if !plainOID.MatchString(oid) {
		return "", nil
	}
	owner, _, _ := strings.Cut(item.Pull.HeadRepository, "/")
	name := owner + "/" + item.Pull.Head
	if !d.free(name) {
		name = fmt.Sprintf("head-pr-%d", item.Number)
	}
	if !d.free(name) {
		return "", nil
	}
	at := filepath.Join(d.Dir, DumpGit, "refs", "heads", filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return "", err
	}
	d.refs["refs/heads/"+name] = oid
	return name, os.WriteFile(at, []byte(oid+"\n"), 0o644)
}

// free reports whether a branch of the name can be made.
func (d *dumper) free(name string) bool {
	if !plainBranch.MatchString(name) || strings.Contains(name, "..") || strings.HasSuffix(name, ".") || strings.Contains(name+"/", ".lock/") {
		return false
	}
	ref := "refs/heads/" + name
	for other := range d.refs {
		if other == ref || strings.HasPrefix(other, ref+"/") || strings.HasPrefix(ref, other+"/") {
			return false
		}
	}
	return true
}
