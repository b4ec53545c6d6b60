package git

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/backstay/backstay/internal/fault"
)

const (
	// maxWalk bounds the commits that are read to find out how branches moved, in one capture.
	maxWalk = 50_000
	// clockSlack is how much older than its child a clock that was wrong may have dated a commit, in seconds.
	clockSlack = 24 * 60 * 60
)

// commit is what the walk needs of a commit.
type commit struct {
	parents []string
	date    int64 // of the committer, in seconds since 1970
}

// parseCommit reads the head of a commit. A date that makes no sense counts as 0.
func parseCommit(format string, raw []byte) (*commit, bool) {
	c := &commit{}
	line, rest, _ := bytes.Cut(raw, []byte("\n"))
	if !bytes.HasPrefix(line, []byte("tree ")) {
		return nil, false
	}
	for {
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		key, value, _ := bytes.Cut(line, []byte(" "))
		switch string(key) {
		case "parent":
			if !validOID(string(value), format) {
				return nil, false
			}
			c.parents = append(c.parents, string(value))
		case "committer":
			after := value[bytes.LastIndexByte(value, '>')+1:]
			if fields := bytes.Fields(after); len(fields) > 0 {
				c.date, _ = strconv.ParseInt(string(fields[0]), 10, 64)
			}
			return c, true
		case "":
			return c, true
		}
	}
}

// history answers whether one commit descends from another, from the packs alone. It reads at most maxWalk commits.
type history struct {
	format string
	sets   []*packSet
	known  map[string]*commit
	left   int
}

func newHistory(format string, sets ...*packSet) *history {
	return &history{format: format, sets: sets, known: map[string]*commit{}, left: maxWalk}
}

// errUnknown says that the walk cannot tell.
var errUnknown = errors.New("the history cannot be followed")

// commit reads a commit. What is no commit, is too large or goes beyond the bounds is errUnknown.
func (h *history) commit(ctx context.Context, oid string) (*commit, error) {
	if c := h.known[oid]; c != nil {
		return c, nil
	}
	if h.left--; h.left < 0 {
		return nil, errUnknown
	}
	for _, set := range h.sets {
		if set == nil {
			continue
		}
		kind, raw, err := set.read(ctx, oid)
		switch {
		case errors.Is(err, fault.ErrNotFound):
			continue
		case errors.Is(err, errTooBig):
			return nil, errUnknown
		case err != nil:
			return nil, err
		}
		c, ok := parseCommit(h.format, raw)
		if kind != typeCommit || !ok {
			return nil, errUnknown
		}
		h.known[oid] = c
		return c, nil
	}
	return nil, errUnknown
}

// descends tells whether commit oid is, or has among its ancestors, the commit old.
func (h *history) descends(ctx context.Context, oid, old string) (bool, error) {
	if oid == old {
		return true, nil
	}
	end, err := h.commit(ctx, old)
	if err != nil {
		return false, err
	}
	first, err := h.commit(ctx, oid)
	if err != nil {
		return false, err
	}
	queue := []*commit{first}
	seen := map[string]bool{oid: true}
	for len(queue) > 0 {
		c := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if c.date < end.date-clockSlack {
			return false, nil
		}
		for _, parent := range c.parents {
			if parent == old {
				return true, nil
			}
			if seen[parent] {
				continue
			}
			seen[parent] = true
			next, err := h.commit(ctx, parent)
			if err != nil {
				return false, err
			}
			queue = insertByDate(queue, next)
		}
	}
	return false, nil
}

// insertByDate adds a commit to a queue in which the newest comes last.
func insertByDate(queue []*commit, c *commit) []*commit {
	at, _ := slices.BinarySearchFunc(queue, c, func(a, b *commit) int { return cmp.Compare(a.date, b.date) })
	return slices.Insert(queue, at, c)
}
