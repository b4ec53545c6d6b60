package git

import (
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/backstay/backstay/internal/fault"
)

// URL names a repository: on a server, or on the local disk (Scheme "file", Path absolute).
type URL struct {
	Scheme string // "https", "http", "ssh", "git" or "file"
	User   string
	Host   string // lowercase; without brackets
	Port   string // "" for the scheme's own
	Path   string // for http and https still percent-encoded; for ssh without leading slash it is relative to the user's home
}

// defaultPort tells the port of a scheme; a scheme that is not there is not ours.
var defaultPort = map[string]string{"https": "443", "http": "80", "ssh": "22", "git": "9418", "file": ""}

var (
	schemeForm  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://`)
	helperForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9+.-]*::`)
	hostForm    = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?$`)
	addressForm = regexp.MustCompile(`^[0-9A-Fa-f:.]+(%[A-Za-z0-9]+)?$`)
	userForm    = regexp.MustCompile(`^[A-Za-z0-9_.][A-Za-z0-9_.@+~-]*$`)
	tokenLooks  = regexp.MustCompile(`^(gh[a-z]_|github_pat_|glpat-|gldt-|ATATT|ATCTT|[0-9A-Fa-f]{40}$)`)
)

const (
	secretAdvice  = "leave the password or token out of the URL: give it by environment, file or netrc, where other programs do not see it"
	schemesAdvice = "use https://, http://, ssh://, git://, file://, user@host:path or a local path"
)

// ParseURL reads a URL, an scp-like user@host:path, or a local path, which it makes absolute. Every error is fault.ErrInvalid.
func ParseURL(raw string) (*URL, error) {
	u, cause, hint := parseURL(raw)
	if cause != "" {
		return nil, fault.New("repository "+maskUser(raw), fault.ErrInvalid, cause, hint)
	}
	return u, nil
}

func parseURL(raw string) (u *URL, cause, hint string) {
	switch {
	case raw == "":
		return nil, "no URL or path is given", schemesAdvice
	case strings.ContainsFunc(raw, unicode.IsControl):
		return nil, "it contains control characters", ""
	case strings.HasPrefix(raw, "-"):
		return nil, "it begins with a dash", "write ./" + printable(raw) + " if it is a directory"
	case helperForm.MatchString(raw):
		return nil, "remote helpers (name::address) are not run", schemesAdvice
	case schemeForm.MatchString(raw):
		return parseSchemeURL(raw)
	}
	if host, path, ok := cutSCP(raw); ok {
		return parseSCP(host, path)
	}
	abs, err := filepath.Abs(raw)
	if err != nil {
		return nil, "the current directory is gone", ""
	}
	return &URL{Scheme: "file", Path: abs}, "", ""
}

// cutSCP cuts host:path where the colon comes before any slash, as git does.
func cutSCP(raw string) (host, path string, ok bool) {
	if strings.HasPrefix(raw, "[") {
		if host, path, ok = strings.Cut(raw[1:], "]:"); ok {
			return host, path, true
		}
	}
	if at := strings.Index(raw, "@["); at >= 0 && !strings.ContainsAny(raw[:at], ":/") {
		if host, path, ok = strings.Cut(raw[at+2:], "]:"); ok {
			return raw[:at+1] + host, path, true
		}
	}
	host, path, ok = strings.Cut(raw, ":")
	return host, path, ok && !strings.ContainsAny(host, `/\`) && !isDrive(host)
}

// isDrive reports whether host is a drive letter of a local path.
func isDrive(host string) bool { return filepath.Separator == '\\' && len(host) == 1 }

func parseSCP(host, path string) (u *URL, cause, hint string) {
	if before, _, _ := strings.Cut(path, "/"); strings.Contains(before, "@") {
		return nil, "it contains a password", secretAdvice
	}
	u = &URL{Scheme: "ssh", Path: path}
	if at := strings.LastIndexByte(host, '@'); at >= 0 {
		u.User, host = host[:at], host[at+1:]
		if u.User == "" {
			return nil, "the user is empty", ""
		}
	}
	u.Host = strings.ToLower(host)
	cause, hint = u.check()
	return u, cause, hint
}

func parseSchemeURL(raw string) (u *URL, cause, hint string) {
	parsed, err := url.Parse(raw)
	if err != nil { // its text repeats the URL, password and all
		return nil, "it is not a well-formed URL", ""
	}
	u = &URL{Scheme: parsed.Scheme, User: parsed.User.Username(), Host: strings.ToLower(parsed.Hostname()), Port: parsed.Port(), Path: parsed.Path}
	port, known := defaultPort[u.Scheme]
	_, hasPassword := parsed.User.Password()
	switch {
	case !known:
		return nil, "scheme " + strconv.Quote(u.Scheme) + " is not supported", schemesAdvice
	case hasPassword || tokenLooks.MatchString(u.User):
		return nil, "it contains a password or token", secretAdvice
	case parsed.RawQuery != "" || parsed.Fragment != "" || parsed.ForceQuery:
		return nil, "a repository's URL has no query and no fragment", secretAdvice
	case strings.ContainsFunc(parsed.Path, unicode.IsControl):
		return nil, "it contains control characters", ""
	case u.Scheme == "file":
		return parseFile(u)
	}
	if u.Port == port {
		u.Port = ""
	}
	switch u.Scheme {
	case "http", "https":
		u.Path = strings.TrimRight(parsed.EscapedPath(), "/")
	case "ssh":
		if home, ok := strings.CutPrefix(u.Path, "/~"); ok {
			u.Path = "~" + home
		}
	}
	cause, hint = u.check()
	return u, cause, hint
}

func parseFile(u *URL) (*URL, string, string) {
	switch {
	case u.Host != "" && u.Host != "localhost", u.User != "", u.Port != "":
		return nil, "a file URL names no host", "write file:///absolute/path"
	case !filepath.IsAbs(filepath.FromSlash(u.Path)):
		return nil, "a file URL needs an absolute path", "write file:///absolute/path"
	}
	return &URL{Scheme: "file", Path: filepath.Clean(filepath.FromSlash(u.Path))}, "", ""
}

// check looks at the fields of a URL on a server. They become arguments of ssh and lines of protocols: nothing that could be taken for
// an option or end a line gets through.
func (u *URL) check() (cause, hint string) {
	switch {
	case !isHost(u.Host):
		return "host " + strconv.Quote(u.Host) + " is not a host name or address", ""
	case u.User != "" && !userForm.MatchString(u.User):
		return "the user has characters that no user name has", ""
	case u.Port != "" && !isPort(u.Port):
		return "port " + strconv.Quote(u.Port) + " is not a number from 1 to 65535", ""
	case strings.Trim(u.Path, "/") == "":
		return "it names a server but no repository", ""
	case strings.HasPrefix(u.Path, "-"):
		return "the path begins with a dash", ""
	}
	return "", ""
}

// isHost reports whether s is a host name or an address; one of IPv6 has colons.
func isHost(s string) bool {
	return hostForm.MatchString(s) || strings.Contains(s, ":") && addressForm.MatchString(s)
}

func isPort(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n > 0 && n < 1<<16
}

// maskUser hides what stands before the host, which may be a password, and what cannot be printed.
func maskUser(raw string) string {
	text := raw
	if form := schemeForm.FindString(raw); form != "" {
		rest := raw[len(form):]
		if end := strings.IndexAny(rest, "?#"); end >= 0 {
			rest = rest[:end]
		}
		if at := strings.LastIndexByte(rest, '@'); at >= 0 { // a password may hold a slash
			rest = "…" + rest[at:]
		}
		text = form + rest
	} else if before, _, ok := strings.Cut(raw, "@"); ok && strings.Contains(before, ":") {
		text = "…" + raw[strings.LastIndexByte(raw, '@'):]
	}
	return printable(text)
}

// String gives the URL back, as git takes it, without the user name where that could be a token.
func (u *URL) String() string {
	if u.Scheme == "file" {
		return u.Path
	}
	host := u.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if u.Scheme == "ssh" && u.User != "" {
		host = u.User + "@" + host
	}
	if u.Scheme == "ssh" && u.Port == "" && !strings.HasPrefix(u.Path, "/") {
		return host + ":" + u.Path
	}
	if u.Port != "" {
		host += ":" + u.Port
	}
	return u.Scheme + "://" + host + "/" + strings.TrimPrefix(u.Path, "/")
}

// Subject names the repository in restore points: the host, for a local path the given host name, and the path without ".git". Both
// hold only valid UTF-8; the path has no empty segment, no "." and no "..", so it can be joined to a directory.
func (u *URL) Subject(hostname string) (host, path string) {
	host, path = u.Host, u.Path
	switch u.Scheme {
	case "file":
		host, path = hostname, strings.TrimPrefix(filepath.ToSlash(path), filepath.ToSlash(filepath.VolumeName(path)))
	case "http", "https":
		if decoded, err := url.PathUnescape(path); err == nil {
			path = decoded
		}
	}
	if u.Port != "" {
		host += "_" + u.Port
	}
	var segments []string
	for _, s := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' || r == '\\' }) {
		if s != "." {
			segments = append(segments, s)
		}
	}
	if n := len(segments); n > 1 && segments[n-1] == ".git" {
		segments = segments[:n-1]
	} else if n > 0 && segments[n-1] != ".git" && u.Scheme != "file" { // of directories, api and api.git are two
		segments[n-1] = strings.TrimSuffix(segments[n-1], ".git")
	}
	for i, s := range segments {
		segments[i] = safeSegment(s)
	}
	if len(segments) == 0 {
		segments = []string{"root"}
	}
	return safeSegment(strings.ReplaceAll(host, ":", "_")), strings.Join(segments, "/")
}

// safeSegment percent-encodes what is not valid UTF-8 or not printable, and names that mean a place elsewhere.
func safeSegment(s string) string {
	if s == "." || s == ".." {
		return strings.ReplaceAll(s, ".", "%2E")
	}
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if (r == utf8.RuneError && n == 1) || !unicode.IsPrint(r) {
			b.WriteString(url.PathEscape(s[:n]))
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}
