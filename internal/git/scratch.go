package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/scratchdir"
)

// scratchPrefix begins the names of scratch directories.
const scratchPrefix = "backstay-git-"

// Limits bound what a repository may cost. Zero fields mean the defaults.
type Limits struct {
	PackBytes int64         // of one pack received
	Memory    int64         // address space of one git child, in bytes
	CheckTime time.Duration // of one check by git, after the pack has arrived
}

// Defaults of Limits.
const (
	DefaultPackBytes = 256 << 30
	DefaultMemory    = 8 << 30
	DefaultCheckTime = 2 * time.Hour
)

func (l Limits) orDefaults() Limits {
	if l.PackBytes == 0 {
		l.PackBytes = DefaultPackBytes
	}
	if l.Memory == 0 {
		l.Memory = DefaultMemory
	}
	if l.CheckTime == 0 {
		l.CheckTime = DefaultCheckTime
	}
	return l
}

// scratch is a bare repository in a private directory that holds one pack while it is looked at.
type scratch struct {
	own    *scratchdir.Dir
	dir    string // of the repository
	format string
	limits Limits
	pack   string // path of the pack without extension, once there is one
}

// scratchConfig keeps git's memory small: it reads packs in windows and streams large blobs.
const scratchConfig = `[core]
	bigFileThreshold = 16m
	packedGitWindowSize = 32m
	packedGitLimit = 256m
	deltaBaseCacheLimit = 96m
[pack]
	windowMemory = 256m
	packSizeLimit = 0
	writeReverseIndex = false
	writeBitmaps = false
`

// newScratch makes an empty repository below parent, "" for the system's directory. The caller must call remove.
func newScratch(parent, format string, l Limits) (*scratch, error) {
	own, err := scratchdir.New(parent, scratchPrefix)
	if err != nil {
		return nil, scratchError("make scratch directory", err)
	}
	s := &scratch{own: own, dir: filepath.Join(own.Path, "repository.git"), format: format, limits: l.orDefaults()}
	if err = os.Mkdir(s.dir, 0o700); err == nil {
		err = writeBare(s.dir, &RefList{Format: format})
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(s.dir, "config"), []byte(configFile(format, true)+scratchConfig), 0o600)
	}
	if err != nil {
		s.remove()
		return nil, scratchError("make scratch repository", err)
	}
	return s, nil
}

// remove deletes the repository.
func (s *scratch) remove() { s.own.Remove() }

// clear makes room for another attempt.
func (s *scratch) clear() error {
	s.pack = ""
	packs := filepath.Join(s.dir, packDir)
	if err := os.RemoveAll(packs); err != nil {
		return scratchError("clear scratch repository", err)
	}
	return scratchError("clear scratch repository", os.Mkdir(packs, 0o755))
}

// setRefs gives the repository a ref for each oid, under names of our own.
func (s *scratch) setRefs(oids []string) error {
	l := &RefList{Format: s.format}
	for _, oid := range oids {
		l.Refs = append(l.Refs, Ref{Name: "refs/tips/" + oid, OID: oid})
	}
	slices.SortFunc(l.Refs, compareRefNames)
	var b bytes.Buffer
	b.WriteString("# pack-refs with: sorted \n")
	for _, r := range l.Refs {
		b.WriteString(r.OID + " " + r.Name + "\n")
	}
	return scratchError("write scratch refs", os.WriteFile(filepath.Join(s.dir, "packed-refs"), b.Bytes(), 0o600))
}

// openIndex opens the index of the pack.
func (s *scratch) openIndex() (*packIndex, io.Closer, error) {
	f, err := os.Open(s.pack + ".idx")
	if err != nil {
		return nil, nil, scratchError("open index of new pack", err)
	}
	x, err := openPackIndex(f, s.format)
	if err != nil {
		f.Close() //nolint:errcheck // only read from
		return nil, nil, err
	}
	return x, f, nil
}

// scratchError gives failures of the scratch directory their class.
func scratchError(op string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fullDisk(op, err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fault.Wrap(op, fault.ErrRefused, err, "point TMPDIR to a directory that can be written")
	}
	return fault.Wrap(op, nil, err, "")
}

func fullDisk(op string, err error) error {
	return fault.Wrap(op, fault.ErrUnavailable, err, "free space in the scratch directory, or point TMPDIR to a disk that can hold the new part of the repository")
}

// indexer is git index-pack at work on a pack that is written to it as it arrives.
type indexer struct {
	scratch *scratch
	child   *child
	stdin   io.WriteCloser
	out     bytes.Buffer
	found   *findings
	stop    context.CancelFunc
}

// errStrict says that a pack failed the strict check for what an object looks like, not for what is missing.
var errStrict = errors.New("an object that git cannot read")

// index starts the check and indexing of a pack. Where demote names findings, every object is examined and what it names is
// reported and not refused, and objects must link to objects of the same pack.
// The caller must call finish or abort.
func (s *scratch) index(ctx context.Context, demote []string) (*indexer, error) {
	ctx, stop := context.WithCancel(ctx)
	args := []string{"index-pack", "--stdin", "--max-input-size=" + strconv.FormatInt(s.limits.PackBytes, 10)}
	if len(demote) > 0 {
		args = append(args, "--strict="+strings.Join(demote, "=warn,")+"=warn")
	}
	x := &indexer{scratch: s, found: &findings{}, stop: stop}
	cmd := gitCommand(ctx, s.dir, args...)
	cmd.Stdout, cmd.Stderr = &x.out, x.found
	var err error
	if x.stdin, err = cmd.StdinPipe(); err == nil {
		widenPipe(x.stdin)
		x.child, err = start(cmd, s.limits.Memory)
	}
	if err != nil {
		stop()
		return nil, err
	}
	return x, nil
}

// Write hands the indexer more of the pack.
func (x *indexer) Write(p []byte) (int, error) {
	n, err := x.stdin.Write(p)
	if err == nil {
		return n, nil
	}
	if err := x.finish(); err != nil {
		return n, err
	}
	return n, fault.New("check the received pack", fault.ErrCorrupt, "it goes on after its end", "")
}

// finish waits until the pack is checked and its index is written.
func (x *indexer) finish() error {
	defer x.stop()
	x.stdin.Close() // a broken pipe shows in how the program ended
	deadline := time.AfterFunc(x.scratch.limits.CheckTime, x.stop)
	err := x.child.wait()
	if !deadline.Stop() {
		return tooLong("check the received pack", x.scratch.limits)
	}
	if err != nil {
		return x.refusal(err)
	}
	hash, ok := strings.CutPrefix(strings.TrimSpace(x.out.String()), "pack\t")
	if !ok || !validOID(hash, x.scratch.format) {
		return fault.New("check the received pack", fault.ErrCorrupt, "git index-pack printed more than the pack's name", "")
	}
	x.scratch.pack = filepath.Join(x.scratch.dir, packDir, "pack-"+hash)
	return nil
}

// sameSize fails unless the pack that git kept has as many bytes as arrived: git takes no notice of what follows a pack.
func (s *scratch) sameSize(arrived int64) error {
	info, err := os.Stat(s.pack + ".pack")
	if err != nil {
		return scratchError("look at the new pack", err)
	}
	if info.Size() != arrived {
		return fault.New("check the received pack", fault.ErrCorrupt, "it goes on after its end", "")
	}
	return nil
}

// abort ends the indexer early.
func (x *indexer) abort() {
	x.stop()
	x.stdin.Close() // the pack is given up
	x.child.wait()  //nolint:errcheck // killed on purpose
}

// refusal tells why git did not take the pack.
func (x *indexer) refusal(err error) error {
	const op = "check the received pack"
	said := x.found.said()
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(said, w) {
				return true
			}
		}
		return false
	}
	switch {
	case said == "":
		return fault.Wrap(op, nil, err, "")
	case has("No space left", "quota exceeded"):
		return fullDisk(op, errors.New(said))
	case has("Out of memory", "out of memory", "Cannot allocate", "mmap failed", "unable to create thread", "unable to create load_index"):
		return fault.New(op, fault.ErrRefused, fmt.Sprintf("it needs more memory than the %d MiB allowed: %s", x.scratch.limits.Memory>>20, said),
			"if the repository is to be trusted, raise the memory limit of git")
	case has("exceeds maximum allowed size"):
		return fault.New(op, fault.ErrRefused, fmt.Sprintf("it is larger than the %d MiB allowed", x.scratch.limits.PackBytes>>20),
			"if the repository is to be trusted, raise the size limit of a pack")
	case has("fsck error", "Unhandled message id", "Cannot demote", "fatal: invalid "):
		return fault.Wrap(op, fault.ErrCorrupt, fmt.Errorf("%w: %s", errStrict, said), "")
	}
	return fault.New(op, fault.ErrCorrupt, said, "")
}

func tooLong(op string, l Limits) error {
	return fault.New(op, fault.ErrRefused, fmt.Sprintf("it takes longer than the %s allowed", l.CheckTime), "")
}

// fsckIDs returns the names of the findings that this git knows, but those it does not let one demote. Where git does not tell
// them there are none, and packs are checked without --strict.
func fsckIDs(ctx context.Context) []string {
	cmd := gitCommand(ctx, "", "help", "--config")
	var out bytes.Buffer
	cmd.Stdout = &out
	if run(cmd, 0) != nil {
		return nil
	}
	var ids []string
	for line := range strings.Lines(out.String()) {
		id, ok := strings.CutPrefix(strings.TrimSpace(line), "fsck.")
		if ok && id != "skipList" && id != "nulInHeader" && id != "unterminatedHeader" && !strings.Contains(id, "<") {
			ids = append(ids, id)
		}
	}
	return ids
}
