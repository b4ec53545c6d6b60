package git

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Drill looks at a bare repository that RestoreBare made at dir of the part that from is opened on: that git finds nothing missing in it,
// that its refs are those that the point has in all of its places, that HEAD resolves, and that it can be cloned. The clone is made
// beside dir, and removed. An error says nothing of the repository.
func Drill(ctx context.Context, from point.Reader, part point.Part, dir string, l Limits) ([]point.Check, error) {
	list, err := ReadRefs(ctx, from)
	if err != nil {
		return nil, err
	}
	checks, err := drillRefs(ctx, from, part, list)
	if err != nil {
		return nil, err
	}
	for _, look := range []func(context.Context, string, *RefList, Limits) (point.Check, error){drillFsck, drillHead, drillClone} {
		c, err := look(ctx, dir, list, l)
		if err != nil {
			return nil, err
		}
		checks = append(checks, c)
	}
	return checks, nil
}

// drillRefs compares the list of refs, of which the repository was made and git told the same, with what else the point says of them: the
// files that stock kopia restores, and the ledger.
func drillRefs(ctx context.Context, from point.Reader, part point.Part, list *RefList) ([]point.Check, error) {
	refs := point.Check{What: "refs", OK: true, Detail: fmt.Sprintf("%d refs", list.count())}
	fail := func(format string, args ...any) ([]point.Check, error) {
		return []point.Check{{What: "refs", Detail: printable(fmt.Sprintf(format, args...))}}, nil
	}
	for _, c := range part.Counts {
		if c.Of == "refs" && c.Stored != list.count() {
			return fail("the ledger counts %d, and there are %d", c.Stored, list.count())
		}
	}
	if h := list.find(head); part.Revision != "" && (h == nil || h.OID != part.Revision) {
		return fail("HEAD was recorded at %s, and the list of refs has it at %s", part.Revision, oidOf(h))
	}
	for _, f := range bareFiles(list) {
		if !storable(f.path) {
			continue
		}
		stored, err := readAll(ctx, from, f.path, maxRefsFile)
		switch {
		case errors.Is(err, fault.ErrNotFound):
			return fail("%s is not in the point", f.path)
		case err != nil:
			return nil, err
		case string(stored) != f.data:
			return fail("%s says otherwise than the list of refs: %s", f.path, firstDifference(string(stored), f.data))
		}
	}
	return []point.Check{refs}, nil
}

// maxRefsFile bounds the bytes of a file of refs.
const maxRefsFile = 1 << 30

func oidOf(r *Ref) string {
	if r == nil || r.OID == "" {
		return "nothing"
	}
	return r.OID
}

// firstDifference shows the first line in which two texts differ.
func firstDifference(got, want string) string {
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(gotLines), len(wantLines)) {
		if gotLines[i] != wantLines[i] {
			return shorten(fmt.Sprintf("%q for %q", gotLines[i], wantLines[i]))
		}
	}
	return fmt.Sprintf("%d lines for %d", len(gotLines), len(wantLines))
}

// drillFsck has git look at every object. What was wrong with objects at the source, and was recorded, is so still; what is missing is a
// failure, and so are bytes that are not what they are named for.
func drillFsck(ctx context.Context, dir string, _ *RefList, l Limits) (point.Check, error) {
	check := point.Check{What: "fsck"}
	limits := l.orDefaults()
	bounded, stop := context.WithTimeout(ctx, limits.CheckTime)
	defer stop()
	found := &findings{}
	cmd := gitCommand(bounded, dir, "fsck", "--full", "--no-dangling", "--no-progress")
	smallWindows(cmd)
	cmd.Stderr = found
	out, err := cmd.StdoutPipe()
	if err != nil {
		return check, err
	}
	c, err := start(cmd, limits.Memory)
	if err != nil {
		return check, err
	}
	missing, readErr := missingObjects(out)
	if readErr != nil {
		stop()
	}
	err = c.wait()
	switch said := found.said(); {
	case ctx.Err() != nil:
		return check, ctx.Err()
	case bounded.Err() != nil:
		return check, tooLong("check the restored repository", limits)
	case readErr != nil:
		return check, fault.Wrap("read git fsck", nil, readErr, "")
	case killed(err):
		return check, fault.Wrap("check the restored repository", fault.ErrUnavailable, err, "")
	case len(missing) > 0:
		check.Detail = "missing: " + strings.Join(missing, ", ")
	case err != nil && fsckEnd(c, found) != nil:
		check.Detail = shorten(said)
	default:
		check.OK, check.Detail = true, plainFindings(found)
	}
	return check, nil
}

// plainFindings sums up what git finds fault with and takes nevertheless.
func plainFindings(found *findings) string {
	if n := len(found.notes()); n > 0 {
		return fmt.Sprintf("nothing is missing; sorts of objects that git warns of, as at the source: %d", n)
	}
	return "nothing is missing"
}

// missingObjects reads what git fsck says is missing, to its end; the first three are kept.
func missingObjects(out io.Reader) (missing []string, _ error) {
	const kept = 3
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		rest, is := strings.CutPrefix(lines.Text(), "missing ")
		if is && len(missing) < kept {
			missing = append(missing, printable(rest))
		}
	}
	return missing, lines.Err()
}

// killed reports whether a program was killed from outside: for want of memory, as a rule, which says nothing of what it worked on.
func killed(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, is := exit.Sys().(syscall.WaitStatus)
	return is && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// drillHead resolves HEAD as a user's git does.
func drillHead(ctx context.Context, dir string, list *RefList, l Limits) (point.Check, error) {
	check := point.Check{What: "HEAD"}
	h := list.find(head)
	if h == nil || h.OID == "" {
		check.OK, check.Detail = true, "unborn, as at the source"
		return check, nil
	}
	var out strings.Builder
	cmd := gitCommand(ctx, dir, "rev-parse", "--verify", "--quiet", head)
	cmd.Stdout = &out
	err := run(cmd, l.orDefaults().Memory)
	switch got := strings.TrimSpace(out.String()); {
	case ctx.Err() != nil:
		return check, ctx.Err()
	case killed(err):
		return check, fault.Wrap("resolve HEAD", fault.ErrUnavailable, err, "")
	case err != nil:
		check.Detail = "it names no commit"
	case got != h.OID:
		check.Detail = "it is at " + printable(got) + ", and was at " + h.OID
	default:
		check.OK, check.Detail = true, got
	}
	return check, nil
}

// drillClone clones the repository through git's own protocol, as a user would, and compares the branches that came.
func drillClone(ctx context.Context, dir string, list *RefList, l Limits) (point.Check, error) {
	check := point.Check{What: "clone"}
	limits := l.orDefaults()
	clone := dir + ".clone"
	defer os.RemoveAll(clone) //nolint:errcheck // the caller removes what it lies in
	bounded, stop := context.WithTimeout(ctx, limits.CheckTime)
	defer stop()
	cmd := gitCommand(bounded, "", "clone", "--quiet", "--no-local", "--mirror", "--template=", "--", dir, clone)
	addConfig(cmd, "protocol.file.allow", "always")
	smallWindows(cmd)
	found := &findings{}
	cmd.Stderr = found
	err := run(cmd, limits.Memory)
	said := found.said()
	switch {
	case ctx.Err() != nil:
		return check, ctx.Err()
	case bounded.Err() != nil:
		return check, tooLong("clone the restored repository", limits)
	case killed(err):
		return check, fault.Wrap("clone the restored repository", fault.ErrUnavailable, err, "")
	case strings.Contains(said, "No space left"), strings.Contains(said, "quota exceeded"):
		return check, fault.New("clone the restored repository", fault.ErrRefused, said, "point TMPDIR to a disk that can hold the repository twice")
	case err != nil:
		check.Detail = shorten(said)
		return check, nil
	}
	if err := compareRefs(ctx, clone, list); err != nil {
		if ctx.Err() != nil {
			return check, ctx.Err()
		}
		check.Detail = "git reads other refs in the clone than the point records"
		return check, nil
	}
	check.OK, check.Detail = true, fmt.Sprintf("%d refs came", list.count())
	return check, nil
}

// DrillLFS looks at the Git LFS objects that were restored into dir, which is lfs in a bare repository: each has the size and the content
// that it is named for, and all are there that the part says it has.
func DrillLFS(ctx context.Context, from point.Reader, _ point.Part, dir string) ([]point.Check, error) {
	check := point.Check{What: "lfs objects"}
	pointers, missing, err := readPointers(ctx, from)
	if err != nil {
		return nil, err
	}
	there := 0
	for _, p := range pointers {
		if missing[p.OID] {
			continue
		}
		wrong, err := wrongWith(ctx, filepath.Join(dir, "objects", p.OID[:2], p.OID[2:4], p.OID), p)
		if err != nil {
			return nil, err
		}
		if wrong != "" {
			check.Detail = p.OID + ": " + wrong
			return []point.Check{check}, nil
		}
		there++
	}
	check.OK, check.Detail = true, fmt.Sprintf("%d read, each with the SHA-256 that it is named for", there)
	return []point.Check{check}, nil
}

// wrongWith says what is wrong with a restored LFS object; "" for nothing.
func wrongWith(ctx context.Context, name string, p Pointer) (string, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "it was not restored", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // only read from
	hash := sha256.New()
	n, err := io.Copy(hash, contextReader{f, ctx.Err})
	switch {
	case err != nil:
		return "", err
	case n != p.Size:
		return fmt.Sprintf("%d bytes, and %d belong there", n, p.Size), nil
	case hex.EncodeToString(hash.Sum(nil)) != p.OID:
		return "the content is another", nil
	}
	return "", nil
}
