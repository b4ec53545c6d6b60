package vault

import (
	"strings"
	"unicode/utf8"

	"github.com/backstay/backstay/internal/fault"
)

// Names that kopia would lose, or take for something else, are stored under another name that says the first one exactly:
// namePrefix and the name with its troublesome bytes as %XX. Names that begin with namePrefix are troublesome, too.
const namePrefix = "backstay%"

// placeholder is the ending by which kopia knows a file that stands for any object it names, of whatever owner.
const placeholder = ".kopia-entry"

const hex16 = "0123456789ABCDEF"

// storedName returns the name under which kopia keeps name.
func storedName(name string) string {
	plain := utf8.ValidString(name) && !strings.HasSuffix(name, placeholder) && !strings.HasPrefix(name, namePrefix) &&
		strings.IndexFunc(name, control) < 0
	if plain {
		return name
	}
	var b strings.Builder
	b.WriteString(namePrefix)
	for i := 0; i < len(name); {
		r, n := utf8.DecodeRuneInString(name[i:])
		last := i+n == len(name) && strings.HasSuffix(name, placeholder)
		if last || r == '%' || r == utf8.RuneError && n == 1 || control(r) {
			for _, c := range []byte(name[i : i+n]) {
				b.WriteByte('%')
				b.WriteByte(hex16[c>>4])
				b.WriteByte(hex16[c&15])
			}
		} else {
			b.WriteString(name[i : i+n])
		}
		i += n
	}
	return b.String()
}

// rawName is the reverse of storedName. What storedName cannot have made is given back as it is.
func rawName(stored string) string {
	rest, ok := strings.CutPrefix(stored, namePrefix)
	if !ok {
		return stored
	}
	var b strings.Builder
	for i := 0; i < len(rest); i++ {
		if rest[i] != '%' {
			b.WriteByte(rest[i])
			continue
		}
		if i+2 >= len(rest) {
			return stored
		}
		hi, lo := strings.IndexByte(hex16, rest[i+1]), strings.IndexByte(hex16, rest[i+2])
		if hi < 0 || lo < 0 {
			return stored
		}
		b.WriteByte(byte(hi<<4 | lo))
		i += 2
	}
	return b.String()
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

// elements splits a path into its names. Unlike fs.ValidPath it lets any bytes but NUL be in a name.
func elements(path string) ([]string, error) {
	if path == "." {
		return nil, nil
	}
	names := strings.Split(path, "/")
	for _, name := range names {
		if name == "" || name == "." || name == ".." || strings.ContainsRune(name, 0) {
			return nil, fault.New("path "+quote(path), fault.ErrInvalid, "not a path below the point", "")
		}
	}
	return names, nil
}
