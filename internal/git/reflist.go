package git

import (
	"fmt"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// refCollector gathers the refs that a server lists, within limits.
type refCollector struct {
	format   string // of object ids
	maxRefs  int
	maxBytes int64
	bytes    int64
	refs     []Ref
}

// add takes one ref whose line was size bytes long.
func (c *refCollector) add(ref Ref, size int) error {
	c.bytes += int64(size)
	switch {
	case len(c.refs) >= c.maxRefs:
		return fault.New("", fault.ErrRefused, fmt.Sprintf("the server lists more than %d refs", c.maxRefs),
			"raise the limit if the repository really has so many")
	case c.bytes > c.maxBytes:
		return fault.New("", fault.ErrRefused, fmt.Sprintf("the server's list of refs is longer than %d bytes", c.maxBytes),
			"raise the limit if the repository really has so many refs")
	case !validRefName(ref.Name):
		return malformed("ref name %.100q", ref.Name)
	case ref.Target != "" && !validRefName(ref.Target):
		return malformed("target %.100q of a symbolic ref", ref.Target)
	case ref.OID == "" && ref.Target == "", ref.OID != "" && !validOID(ref.OID, c.format), ref.Peeled != "" && !validOID(ref.Peeled, c.format):
		return malformed("object id %.100q of %s", ref.OID+ref.Peeled, printable(ref.Name))
	}
	c.refs = append(c.refs, ref)
	return nil
}

// peel says what the ref added last, name, comes down to.
func (c *refCollector) peel(name, oid string) error {
	if len(c.refs) == 0 || c.refs[len(c.refs)-1].Name != name || !validOID(oid, c.format) {
		return malformed("%.100q where a ref should be", oid+" "+name+"^{}")
	}
	c.refs[len(c.refs)-1].Peeled = oid
	return nil
}

// list gives the refs in order.
func (c *refCollector) list() (*RefList, error) {
	slices.SortFunc(c.refs, func(a, b Ref) int {
		if (a.Name == "HEAD") != (b.Name == "HEAD") {
			if a.Name == "HEAD" {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	for i := 1; i < len(c.refs); i++ {
		if c.refs[i].Name == c.refs[i-1].Name {
			return nil, malformed("%s is listed twice", printable(c.refs[i].Name))
		}
	}
	return &RefList{Format: c.format, Refs: c.refs}, nil
}

// oidLength is the number of hexadecimal digits of an object id; 0 for a format that is not known.
func oidLength(format string) int {
	switch format {
	case "sha1":
		return 40
	case "sha256":
		return 64
	}
	return 0
}

// validOID reports whether oid is an object id as git writes them, and not the one that stands for none.
func validOID(oid, format string) bool {
	if len(oid) != oidLength(format) || len(oid) == 0 {
		return false
	}
	zero := true
	for i := range len(oid) {
		c := oid[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
		zero = zero && c == '0'
	}
	return !zero
}

// validRefName reports whether git would take name for a ref: HEAD or refs/…, with the rules of git check-ref-format. It can then be a
// path and a line of packed-refs without surprise.
func validRefName(name string) bool {
	if name == "HEAD" {
		return true
	}
	if !strings.HasPrefix(name, "refs/") || strings.HasSuffix(name, "/") || strings.HasSuffix(name, ".") {
		return false
	}
	if strings.Contains(name, "..") || strings.Contains(name, "@{") {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c == 0x7f || strings.IndexByte(`~^:?*[\`, c) >= 0 {
			return false
		}
	}
	for s := range strings.SplitSeq(name, "/") {
		if s == "" || s[0] == '.' || strings.HasSuffix(s, ".lock") {
			return false
		}
	}
	return true
}
