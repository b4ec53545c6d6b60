package forge

import (
	"fmt"
	"net/url"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/backstay/backstay/internal/fault"
)

// segmentOf makes a name fit to be that of a directory anywhere: what cannot be, or means another place, is percent-encoded.
func segmentOf(name string) string {
	dots := strings.Trim(name, ".") == "" // "", ".", ".."
	var b strings.Builder
	for len(name) > 0 {
		r, n := utf8.DecodeRuneInString(name)
		if dots || (r == utf8.RuneError && n == 1) || strings.ContainsRune(`/\:*?"<>|%`, r) || !unicode.IsPrint(r) {
			for _, c := range []byte(name[:n]) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		} else {
			b.WriteString(name[:n])
		}
		name = name[n:]
	}
	return b.String()
}

// unescaped undoes segmentOf, in one segment or several.
func unescaped(path string) string {
	if name, err := url.PathUnescape(path); err == nil {
		return name
	}
	return path
}

// collisions finds repositories whose parts would have one name where case does not count, or would lie in one another. It returns
// an error for each, by its key, that names both.
func (a *Account) collisions(all []Repository) map[string]error {
	type holder struct {
		r    Repository
		what string
	}
	held := map[string]holder{} // by folded name of the part
	found := map[string]error{}
	clash := func(x, y holder) {
		if x.r.key() == y.r.key() {
			return
		}
		cause := fmt.Sprintf("%s and %s would have one name in the restore point", x.what, y.what)
		err := fault.New("", fault.ErrExists, cause, "rename one of them, or exclude it")
		found[x.r.key()], found[y.r.key()] = err, err
	}
	for _, r := range all {
		for name, what := range a.namesOf(r) {
			h, folded := holder{r, what}, strings.ToLower(name)
			if other, taken := held[folded]; taken {
				clash(other, h)
			}
			held[folded] = h
		}
	}
	for name, h := range held {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if outer, ok := held[dir]; ok {
				clash(outer, h)
			}
		}
	}
	return found
}

// namesOf are the names of a repository's git parts, with what they are.
func (a *Account) namesOf(r Repository) map[string]string {
	names := map[string]string{a.partName(r): printable(r.FullName())}
	if r.WikiHTTPURL != "" || r.WikiSSHURL != "" {
		names[a.wikiName(r)] = "the wiki of " + printable(r.FullName())
	}
	return names
}
