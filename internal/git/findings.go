package git

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// notesKept bounds the notes of a part that come from git's own checks.
const notesKept = 20

// aFinding matches what git reports of an object: by index-pack "warning: object OID: id: text", by fsck "error in tree OID: id: text".
var aFinding = regexp.MustCompile(`^(?:warning|error)(?:: object| in [a-z]+) ([0-9a-f]{40,64}): (?:(\w+): )?(.*)$`)

// findings takes the error output of a git check. It counts what was found by the sort of finding, and keeps the other lines'
// end for messages. Its memory does not grow with the output.
type findings struct {
	mu    sync.Mutex
	line  []byte
	sorts map[string]*finding
	grave int // findings that git calls errors
	other tail
}

type finding struct {
	count int
	first string // object id
	text  string
}

const maxFindingLine = 4096

func (f *findings) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for rest := p; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		if room := maxFindingLine - len(f.line); room > 0 {
			f.line = append(f.line, line[:min(len(line), room)]...)
		}
		if !ended {
			break
		}
		f.take(string(f.line))
		f.line, rest = f.line[:0], after
	}
	return len(p), nil
}

func (f *findings) take(line string) {
	m := aFinding.FindStringSubmatch(line)
	if strings.HasPrefix(line, "hint: ") || strings.HasPrefix(line, "notice: ") {
		return
	}
	if m == nil {
		f.other.Write([]byte(line + "\n")) //nolint:errcheck // never fails
		return
	}
	if strings.HasPrefix(line, "error") {
		f.grave++
	}
	sort := m[2]
	if sort == "" {
		sort = "object"
	}
	known := f.sorts[sort]
	switch {
	case known != nil:
		known.count++
	case len(f.sorts) < 4*notesKept:
		if f.sorts == nil {
			f.sorts = map[string]*finding{}
		}
		f.sorts[sort] = &finding{count: 1, first: m[1], text: m[3]}
	}
}

// said is what git said beside its findings, on one line.
func (f *findings) said() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.line) > 0 {
		f.take(string(f.line))
		f.line = f.line[:0]
	}
	return printable(f.other.String())
}

// graves counts the findings that git calls errors.
func (f *findings) graves() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.grave
}

// fsckNote begins the notes that tell findings.
const fsckNote = "git fsck: "

// notes tells the findings, a line for each sort.
func (f *findings) notes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var notes []string
	for _, sort := range slices.Sorted(maps.Keys(f.sorts)) {
		if len(notes) == notesKept {
			return append(notes, fmt.Sprintf("%s%d more sorts of findings", fsckNote, len(f.sorts)-notesKept))
		}
		found := f.sorts[sort]
		notes = append(notes, fmt.Sprintf("%s%s: %s (objects: %d, first %s)", fsckNote, sort, shorten(printable(found.text)), found.count, found.first))
	}
	return notes
}

// shorten cuts a text to what fits a note.
func shorten(text string) string {
	const most = 200
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// mergeNotes joins the findings of an earlier capture, which its packs still have, with those of this one.
func mergeNotes(before, now []string) []string {
	var notes []string
	for _, n := range before {
		if strings.HasPrefix(n, fsckNote) && !slices.Contains(now, n) && len(notes) < notesKept {
			notes = append(notes, n)
		}
	}
	return append(notes, now...)
}
