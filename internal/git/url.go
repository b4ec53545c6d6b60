package git

import "github.com/backstay/backstay/internal/fault"

// URL names a repository: on a server, or on the local disk (Scheme "file", Path absolute).
type URL struct {
	Scheme string // "https", "http", "ssh", "git" or "file"
	User   string
	Host   string
	Port   string // "" for the scheme's own
	Path   string
}

// ParseURL reads a URL, an scp-like user@host:path, or a local path.
func ParseURL(raw string) (*URL, error) {
	return nil, fault.New("parse "+raw, fault.ErrUnsupported, "", "")
}

// String gives the URL back. It holds no secret.
func (u *URL) String() string { return u.Scheme + "://" + u.Host + u.Path }

// Subject names the repository in restore points.
func (u *URL) Subject(hostname string) (host, path string) { return hostname, u.Path }
