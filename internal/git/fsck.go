package git

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

const (
	// boundaryRun is how many missing objects are looked up at once.
	boundaryRun = 1 << 16
	// maxDangling bounds the objects of a pack that no ref reaches, from which the check starts anew.
	maxDangling = 10_000
)

// fsck checks the objects of the pack in s, and that everything they and tips name is in it or in had. What git finds about
// the looks of objects goes to found. An object that is nowhere makes the error fault.ErrCorrupt.
func (s *scratch) fsck(ctx context.Context, tips []string, had *packSet, found *findings) error {
	here, err := s.missingTips(tips, had)
	if err != nil {
		return err
	}
	dangling, err := s.fsckFrom(ctx, here, had, found)
	if err != nil || len(dangling) == 0 {
		return err
	}
	// Git does not follow what nothing refers to. A later capture may find such an object to be had already, so all that it
	// names must be here as well.
	if len(dangling) >= maxDangling {
		return fault.New("check the received objects", fault.ErrCorrupt, fmt.Sprintf("more than %d were not asked for", maxDangling), "")
	}
	_, err = s.fsckFrom(ctx, append(here, dangling...), had, &findings{})
	return err
}

// missingTips returns the tips that the pack in s holds; those it does not must be in had.
func (s *scratch) missingTips(tips []string, had *packSet) ([]string, error) {
	x, file, err := s.openIndex()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var here, elsewhere []string
	for _, oid := range tips {
		found, err := x.has(oid)
		switch {
		case err != nil:
			return nil, err
		case found:
			here = append(here, oid)
		default:
			elsewhere = append(elsewhere, oid)
		}
	}
	return here, requireHad(elsewhere, had)
}

// requireHad fails unless had holds all oids.
func requireHad(oids []string, had *packSet) error {
	lacking, err := had.lacking(oids)
	if err != nil {
		return inPrior(err)
	}
	if len(lacking) == 0 {
		return nil
	}
	return fault.New("check the received objects", fault.ErrCorrupt,
		fmt.Sprintf("the server left out %d of them, %s first", len(lacking), lacking[0]),
		"run git fsck on the server's repository")
}

// fsckFrom runs git fsck with refs on tips and returns the objects that nothing refers to, maxDangling at most.
func (s *scratch) fsckFrom(ctx context.Context, tips []string, had *packSet, found *findings) (dangling []string, err error) {
	if err := s.setRefs(tips); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	deadline := time.AfterFunc(s.limits.CheckTime, stop)
	cmd := gitCommand(ctx, s.dir, "fsck", "--full", "--no-progress")
	cmd.Stderr = found
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c, err := start(cmd, s.limits.Memory)
	if err != nil {
		return nil, err
	}
	dangling, readErr := readFsck(out, had)
	if readErr != nil {
		stop()
	}
	waitErr := c.wait()
	switch inTime := deadline.Stop(); {
	case readErr != nil:
		return nil, readErr
	case !inTime:
		return nil, tooLong("check the received objects", s.limits)
	case waitErr != nil:
		return dangling, fsckEnd(c, found)
	}
	return dangling, nil
}

// Bits of git fsck's exit status.
const (
	fsckFoundObjects = 1 // findings, which are recorded
	fsckFoundMissing = 2 // missing objects, which are looked up
	fsckFoundPacks   = 4 // findings in packs; alone it would mean a pack that cannot be read
)

// fsckEnd judges an exit status of git fsck that is not 0.
func fsckEnd(c *child, found *findings) error {
	status := c.cmd.ProcessState.ExitCode()
	harmless := fsckFoundObjects | fsckFoundMissing
	if found.graves() > 0 {
		harmless |= fsckFoundPacks
	}
	if status > 0 && status&^harmless == 0 {
		return nil
	}
	return fault.New("check the received objects", fault.ErrCorrupt, fmt.Sprintf("git fsck ended with status %d: %s", status, found.said()), "")
}

// readFsck reads what git fsck prints on its standard output: missing objects, which must be in had, and dangling ones.
func readFsck(out io.Reader, had *packSet) (dangling []string, err error) {
	var missing []string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		what, rest, _ := strings.Cut(lines.Text(), " ")
		_, oid, _ := strings.Cut(rest, " ")
		switch {
		case what == "missing":
			missing = append(missing, oid)
		case what == "dangling" && len(dangling) < maxDangling:
			dangling = append(dangling, oid)
		}
		if len(missing) == boundaryRun {
			if err := requireHad(missing, had); err != nil {
				return nil, err
			}
			missing = missing[:0]
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read git fsck: %w", err)
	}
	return dangling, requireHad(missing, had)
}
