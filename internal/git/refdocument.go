package git

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Files of our own in a stored repository. Git ignores them; a restored repository does not have them.
const (
	refsFile = "backstay-refs" // the refs exactly as advertised
	tipsFile = "backstay-tips" // tips of earlier captures, newest first
	lfsFile  = "backstay-lfs"  // LFS pointers seen so far
)

const (
	head       = "HEAD"
	refsHeader = "backstay-refs 1 " // and the object format
	maxRefLine = 256 << 10          // bytes; the protocol's own lines have at most 64 KiB
)

// encodeRefs writes a list as the stored document: a line "oid name", with " ^oid" for what a tag comes down to and
// " >name" for where a symbolic ref points; the oid of an unborn HEAD is "-". Names are raw bytes: they hold no blank.
func encodeRefs(l *RefList) []byte {
	var b bytes.Buffer
	b.WriteString(refsHeader + l.Format + "\n")
	for _, r := range l.Refs {
		oid := r.OID
		if oid == "" {
			oid = "-"
		}
		b.WriteString(oid + " " + r.Name)
		if r.Peeled != "" {
			b.WriteString(" ^" + r.Peeled)
		}
		if r.Target != "" {
			b.WriteString(" >" + r.Target)
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// decodeRefs reads the document that encodeRefs writes. What it accepts is safe to make files of.
func decodeRefs(r io.Reader) (*RefList, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxRefLine)
	if !lines.Scan() {
		return nil, corruptList(refsFile, lines.Err(), "it is empty")
	}
	format, ok := strings.CutPrefix(lines.Text(), refsHeader)
	if !ok || oidLength(format) == 0 {
		return nil, fault.New("read "+refsFile, fault.ErrUnsupported, "written by another version",
			"use the version that wrote the point, or a newer one")
	}
	l := &RefList{Format: format}
	for lines.Scan() {
		ref, err := decodeRef(format, lines.Text())
		if err != nil {
			return nil, corruptList(refsFile, err, "")
		}
		l.Refs = append(l.Refs, ref)
	}
	if err := lines.Err(); err != nil {
		return nil, corruptList(refsFile, err, "")
	}
	if !slices.IsSortedFunc(l.Refs, compareRefNames) {
		return nil, corruptList(refsFile, nil, "it is out of order")
	}
	if _, clashing := usableRefs(l.Refs); len(clashing) > 0 {
		return nil, corruptList(refsFile, nil, "it has refs that cannot be together: "+printable(clashing[0]))
	}
	return l, nil
}

func decodeRef(format, line string) (Ref, error) {
	fields := strings.Split(line, " ")
	if len(fields) < 2 || !validRefName(fields[1]) {
		return Ref{}, fmt.Errorf("line %.100q has no name of a ref", line)
	}
	ref := Ref{OID: fields[0], Name: fields[1]}
	for _, f := range fields[2:] {
		switch {
		case strings.HasPrefix(f, "^") && validOID(f[1:], format):
			ref.Peeled = f[1:]
		case strings.HasPrefix(f, ">") && validRefName(f[1:]):
			ref.Target = f[1:]
		default:
			return Ref{}, fmt.Errorf("line %.100q has a field that means nothing", line)
		}
	}
	if ref.OID == "-" && ref.Target != "" {
		ref.OID = ""
		return ref, nil
	}
	if !validOID(ref.OID, format) {
		return Ref{}, fmt.Errorf("line %.100q has no object id", line)
	}
	return ref, nil
}

func corruptList(name string, err error, what string) error {
	if err == nil {
		err = errors.New(what)
	}
	return fault.Wrap("read "+name, fault.ErrCorrupt, err, "")
}

// ReadRefs reads the refs of a stored repository; r is opened on its part.
func ReadRefs(ctx context.Context, r point.Reader) (*RefList, error) {
	f, err := r.Open(ctx, refsFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return decodeRefs(f)
}

// usableRefs divides refs into those that one repository can hold together and the names of the others: refs given twice or
// below another ref, and symbolic refs that cannot be files. The order is kept.
func usableRefs(refs []Ref) (usable []Ref, clashing []string) {
	names := make(map[string]bool, len(refs))
	for _, r := range refs {
		names[r.Name] = true
	}
	seen := make(map[string]bool, len(refs))
	for _, r := range refs {
		if seen[r.Name] || belowAnother(r.Name, names) || (r.Target != "" && !canBeFile(r)) {
			clashing = append(clashing, r.Name)
			continue
		}
		seen[r.Name] = true
		usable = append(usable, r)
	}
	return usable, clashing
}

func belowAnother(name string, names map[string]bool) bool {
	for i := len("refs/"); i < len(name); i++ {
		if name[i] == '/' && names[name[:i]] {
			return true
		}
	}
	return false
}

// canBeFile tells whether a symbolic ref can be kept as git keeps them, in a file of its name.
func canBeFile(r Ref) bool {
	const longest = 250 // bytes that file systems take in a name, less ".lock"
	for component := range strings.SplitSeq(r.Name, "/") {
		if len(component) > longest {
			return false
		}
	}
	return len(r.Name) < 4000 && r.Target != head
}

// madeByForge tells whether a ref is one that a forge makes up and changes by itself: the trial merge of a pull request.
func madeByForge(name string) bool {
	for _, prefix := range []string{"refs/pull/", "refs/merge-requests/", "refs/pull-requests/"} {
		if strings.HasPrefix(name, prefix) && strings.HasSuffix(name, "/merge") {
			return true
		}
	}
	return false
}

// compareRefNames orders HEAD first and the others by the bytes of their names, as git's packed-refs needs them.
func compareRefNames(a, b Ref) int {
	switch {
	case a.Name == b.Name:
		return 0
	case a.Name == head:
		return -1
	case b.Name == head:
		return 1
	}
	return strings.Compare(a.Name, b.Name)
}

// find returns the ref of that name, nil when there is none.
func (l *RefList) find(name string) *Ref {
	for i := range l.Refs {
		if l.Refs[i].Name == name {
			return &l.Refs[i]
		}
	}
	return nil
}

// tips returns every object that a ref names, each once, in the list's order.
func (l *RefList) tips() []string {
	oids := make([]string, 0, len(l.Refs))
	for _, r := range l.Refs {
		if r.OID != "" {
			oids = append(oids, r.OID)
		}
	}
	return distinct(len(oids), oids)
}

// count is the number of refs, HEAD apart.
func (l *RefList) count() int64 {
	n := int64(len(l.Refs))
	if l.find(head) != nil {
		n--
	}
	return n
}

// distinct joins lists without repeats, up to limit.
func distinct(limit int, lists ...[]string) []string {
	seen := map[string]bool{}
	var all []string
	for _, list := range lists {
		for _, s := range list {
			if len(all) < limit && !seen[s] {
				seen[s] = true
				all = append(all, s)
			}
		}
	}
	return all
}

// RefChange is one ref that differs between two lists.
type RefChange struct {
	Name string
	Old  *Ref // nil where the ref is new
	New  *Ref // nil where the ref is gone
}

// DiffRefs returns what differs from a to b, HEAD first, then by name. Either may be nil. Both are in the order that a RefList has.
func DiffRefs(a, b *RefList) []RefChange {
	var changes []RefChange
	var olds, news []Ref
	if a != nil {
		olds = a.Refs
	}
	if b != nil {
		news = b.Refs
	}
	for len(olds) > 0 || len(news) > 0 {
		switch order := compareFirst(olds, news); {
		case order < 0:
			changes = append(changes, RefChange{Name: olds[0].Name, Old: &olds[0]})
			olds = olds[1:]
		case order > 0:
			changes = append(changes, RefChange{Name: news[0].Name, New: &news[0]})
			news = news[1:]
		default:
			if olds[0].OID != news[0].OID || olds[0].Target != news[0].Target {
				changes = append(changes, RefChange{Name: olds[0].Name, Old: &olds[0], New: &news[0]})
			}
			olds, news = olds[1:], news[1:]
		}
	}
	return changes
}

// compareFirst orders two lists by their first refs; the end comes last.
func compareFirst(a, b []Ref) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return compareRefNames(a[0], b[0])
}
