package git

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// netrcMax bounds what is read of a netrc file, in bytes.
const netrcMax = 1 << 20

// netrcCredentials looks host up in the user's netrc file. A file that is not there, unless named in the options, is an empty one.
func netrcCredentials(o Options, host, user string) (string, fault.Secret, error) {
	path, named := o.NetrcFile, o.NetrcFile != ""
	if path == "" {
		path = o.env("NETRC")
	}
	if home := o.env("HOME"); path == "" && home != "" {
		path = filepath.Join(home, ".netrc")
	}
	if path == "" {
		return "", "", nil
	}
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
		return "", "", nil
	case err != nil:
		return "", "", fault.Wrap("read netrc file", fault.ErrInvalid, err, "")
	}
	defer f.Close() //nolint:errcheck // opened for reading
	login, password := findNetrc(io.LimitReader(f, netrcMax), host, user)
	return login, password, nil
}

// findNetrc finds the first entry for host, and for user where one is named, or the default entry.
func findNetrc(r io.Reader, host, user string) (login string, password fault.Secret) {
	var words []string
	lines := bufio.NewScanner(r)
	macro := false
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if macro = macro && line != ""; macro || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) > 0 && fields[0] == "macdef" { // a macro goes on up to an empty line
			macro = true
			continue
		}
		words = append(words, fields...)
	}
	ours := false
	for i := 0; i < len(words); i++ {
		next := ""
		if i+1 < len(words) {
			next = words[i+1]
		}
		switch words[i] {
		case "machine", "default":
			if ours && password != "" && (user == "" || login == user) {
				return login, password
			}
			ours = words[i] == "default" || strings.EqualFold(next, host)
			login, password = "", ""
			if words[i] == "default" {
				continue
			}
		case "login":
			login = next
		case "password":
			password = fault.Secret(next)
		case "account":
		default:
			continue
		}
		i++
	}
	if ours && password != "" && (user == "" || login == user) {
		return login, password
	}
	return "", ""
}
