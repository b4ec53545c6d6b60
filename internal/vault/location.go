package vault

import (
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// Schemes of locations.
const (
	schemeFile    = "file"
	schemeS3      = "s3"
	schemeGCS     = "gs"
	schemeAzure   = "azblob"
	schemeSFTP    = "sftp"
	schemeWebDAV  = "webdav"
	schemeWebDAVS = "webdavs"
)

// maxLocation is the longest location accepted, in bytes, also as String gives it.
const maxLocation = 4096

// Location says where a vault lives. It names no secret: credentials come from the environment, files, or the provider's default
// chain when the location is opened. Values are comparable.
type Location struct {
	scheme string
	user   string // sftp only
	host   string // the bucket or container, or the server with its port; "" for file
	path   string // file, sftp, webdav: absolute and clean. Buckets: the prefix without slashes around it, or ""
	query  string // the options, encoded in a fixed order
}

// scheme describes one kind of location to the parser.
type scheme struct {
	example string   // as messages show it
	keys    []string // options it takes
	bucket  bool     // the path is a prefix of names, not a directory
	user    bool     // a user name may stand before the host
	env     string   // where credentials come from, for hints
}

func schemes() map[string]scheme {
	return map[string]scheme{
		schemeFile: {example: "file:///path"},
		schemeS3: {
			example: "s3://bucket/prefix?endpoint=HOST&region=REGION", keys: []string{"endpoint", "region", "tls"}, bucket: true,
			env: "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or AWS_PROFILE",
		},
		schemeGCS: {example: "gs://bucket/prefix", bucket: true, env: "GOOGLE_APPLICATION_CREDENTIALS"},
		schemeAzure: {
			example: "azblob://container/prefix?account=NAME", keys: []string{"account", "domain", "tls"}, bucket: true,
			env: "AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN",
		},
		schemeSFTP: {
			example: "sftp://user@host:port/path", user: true,
			env: "BACKSTAY_SFTP_KEYFILE (else a key in ~/.ssh) or BACKSTAY_SFTP_PASSWORD",
		},
		schemeWebDAV:  {example: "webdav://host/path", env: "BACKSTAY_WEBDAV_USERNAME and BACKSTAY_WEBDAV_PASSWORD"},
		schemeWebDAVS: {example: "webdavs://host/path", env: "BACKSTAY_WEBDAV_USERNAME and BACKSTAY_WEBDAV_PASSWORD"},
	}
}

// ParseLocation reads a location: a path, or a URL whose scheme is file, s3, gs, azblob, sftp, webdav or webdavs. Anything else,
// and a URL that carries a password or key, gives fault.ErrInvalid; the error never repeats what might be secret.
func ParseLocation(raw string) (Location, error) {
	tooLong := invalidLocation(fmt.Sprintf("it is longer than %d bytes", maxLocation), "")
	if len(raw) > maxLocation {
		return Location{}, tooLong
	}
	l, err := parseLocation(raw)
	if err == nil && len(l.String()) > maxLocation { // escaped it is up to three times as long
		return Location{}, tooLong
	}
	return l, err
}

func parseLocation(raw string) (Location, error) {
	switch {
	case raw == "":
		return Location{}, invalidLocation("it is empty", "give a directory or a URL such as "+schemes()[schemeS3].example)
	case strings.ContainsRune(raw, 0):
		return Location{}, invalidLocation("it has a NUL byte", "")
	}
	name, rest, colon := strings.Cut(raw, ":")
	if !colon || !isSchemeName(name) {
		return pathLocation(raw)
	}
	s, known := schemes()[name]
	if !strings.HasPrefix(rest, "//") {
		if known {
			return Location{}, invalidLocation("two slashes are missing after "+name+":", "write "+s.example)
		}
		return pathLocation(raw)
	}
	if !known {
		return Location{}, unknownScheme(name)
	}
	return parseURL(raw, name, s)
}

func pathLocation(raw string) (Location, error) {
	abs, err := filepath.Abs(raw)
	if err != nil {
		return Location{}, fault.Wrap("parse location", fault.ErrInvalid, err, "give an absolute path")
	}
	if abs == "/" {
		return Location{}, invalidLocation("the root directory is no place for a vault", "")
	}
	return Location{scheme: schemeFile, path: abs}, nil
}

func parseURL(raw, name string, s scheme) (Location, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" {
		// The parser's message may quote a part of a password.
		return Location{}, invalidLocation("it is not a valid URL", "write "+s.example)
	}
	if u.Fragment != "" || strings.HasSuffix(raw, "#") {
		return Location{}, invalidLocation("it has a fragment (#)", "write # as %23")
	}
	l := Location{scheme: name, host: u.Host}
	if err := l.setUser(u.User, s); err != nil {
		return Location{}, err
	}
	if err := l.setHost(u, s); err != nil {
		return Location{}, err
	}
	if err := l.setPath(u.Path, s); err != nil {
		return Location{}, err
	}
	if err := l.setQuery(u.RawQuery, s); err != nil {
		return Location{}, err
	}
	return l, nil
}

func (l *Location) setUser(u *url.Userinfo, s scheme) error {
	if u == nil {
		return nil
	}
	if _, has := u.Password(); has || !s.user {
		return secretInURL(s)
	}
	if u.Username() == "" || strings.ContainsAny(u.Username(), "/:@") {
		return invalidLocation("its user name is not a plain name", "write "+s.example)
	}
	l.user = u.Username()
	return nil
}

func (l *Location) setHost(u *url.URL, s scheme) error {
	if l.scheme == schemeFile {
		if u.Host != "" {
			return invalidLocation("a file URL has three slashes before its path", "write "+s.example)
		}
		return nil
	}
	if u.Hostname() == "" {
		return invalidLocation("it names no "+map[bool]string{true: "bucket", false: "host"}[s.bucket], "write "+s.example)
	}
	if s.bucket && (u.Port() != "" || strings.ContainsAny(u.Host, ":[]%")) {
		return invalidLocation("a port does not go with a bucket", "name the server by endpoint=: "+schemes()[schemeS3].example)
	}
	if strings.HasSuffix(u.Host, ":") {
		return invalidLocation("its port is empty", "write "+s.example)
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return invalidLocation("its port is not a number from 1 to 65535", "write "+s.example)
		}
	}
	return nil
}

func (l *Location) setPath(p string, s scheme) error {
	if strings.ContainsRune(p, 0) {
		return invalidLocation("its path has a NUL byte", "")
	}
	clean := path.Clean("/" + p)
	switch {
	case s.bucket:
		l.path = strings.TrimPrefix(clean, "/")
	case clean == "/" && (l.scheme == schemeFile || l.scheme == schemeSFTP):
		return invalidLocation("it names no directory", "write "+s.example)
	default:
		l.path = clean
	}
	return nil
}

func (l *Location) setQuery(raw string, s scheme) error {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return invalidLocation("the part after ? is not valid", "write "+s.example)
	}
	for key, all := range values {
		switch {
		case slices.Contains(s.keys, key):
		case looksSecret(key):
			return secretInURL(s)
		default:
			hint := l.scheme + " takes no options"
			if len(s.keys) > 0 {
				hint = l.scheme + " takes " + strings.Join(s.keys, ", ")
			}
			return invalidLocation(fmt.Sprintf("unknown option %q", key), hint)
		}
		if len(all) != 1 || all[0] == "" {
			return invalidLocation(fmt.Sprintf("option %q needs exactly one value", key), "")
		}
	}
	if t := values.Get("tls"); t != "" && t != "true" && t != "false" {
		return invalidLocation("tls is neither true nor false", "")
	}
	for _, key := range []string{"endpoint", "domain"} {
		if err := checkHostPort(key, values.Get(key)); err != nil {
			return err
		}
	}
	for _, key := range []string{"region", "account"} {
		if strings.ContainsFunc(values.Get(key), func(r rune) bool { return !isNameRune(r) }) {
			return invalidLocation(fmt.Sprintf("option %q is not a plain name", key), "")
		}
	}
	l.query = values.Encode()
	return nil
}

// checkHostPort refuses anything but HOST or HOST:PORT: user info in there would be a secret in a URL.
func checkHostPort(key, value string) error {
	if value == "" {
		return nil
	}
	u, err := url.Parse("//" + value)
	if err != nil || u.Host != value || u.Hostname() == "" || strings.HasSuffix(value, ":") {
		return invalidLocation(fmt.Sprintf("option %q is not HOST or HOST:PORT", key), "for plain HTTP add tls=false")
	}
	return nil
}

// String gives the location as a URL that ParseLocation reads back to an equal value. It holds no secret.
func (l Location) String() string {
	if l.scheme == "" {
		return ""
	}
	u := url.URL{Scheme: l.scheme, Host: l.host, Path: l.path, RawQuery: l.query}
	if l.user != "" {
		u.User = url.User(l.user)
	}
	if s := schemes()[l.scheme]; s.bucket && l.path != "" {
		u.Path = "/" + l.path
	}
	if l.scheme == schemeFile { // url.URL writes file:/path where there is no host
		return "file://" + u.EscapedPath()
	}
	return u.String()
}

// Path gives the directory of a location on the local disk, "" for any other.
func (l Location) Path() string {
	if l.scheme == schemeFile {
		return l.path
	}
	return ""
}

// option gives the value of a query option, "" where it is not set.
func (l Location) option(key string) string {
	v, _ := url.ParseQuery(l.query) // it was encoded by us
	return v.Get(key)
}

// DefaultLocation is the vault below the user's data directory: $XDG_DATA_HOME/backstay/vault, else ~/.local/share/backstay/vault.
func DefaultLocation(env func(string) string) (Location, error) {
	dir, err := userDir(env, "XDG_DATA_HOME", ".local/share")
	if err != nil {
		return Location{}, err
	}
	return Location{scheme: schemeFile, path: filepath.Join(dir, "backstay", "vault")}, nil
}

// DefaultPasswordFile is where the password of the default vault is kept: $XDG_CONFIG_HOME/backstay/password, else
// ~/.config/backstay/password. It must have mode 0600.
func DefaultPasswordFile(env func(string) string) (string, error) {
	dir, err := userDir(env, "XDG_CONFIG_HOME", ".config")
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "backstay", "password"), nil
}

// userDir follows the XDG rule that a relative path in a variable is ignored.
func userDir(env func(string) string, variable, below string) (string, error) {
	if dir := env(variable); filepath.IsAbs(dir) {
		return filepath.Clean(dir), nil
	}
	if home := env("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, below), nil
	}
	return "", fault.New("find default location", fault.ErrInvalid, "neither "+variable+" nor HOME is an absolute path",
		"set HOME, or name a location with --location")
}

func invalidLocation(cause, hint string) error {
	return fault.New("parse location", fault.ErrInvalid, cause, hint)
}

func secretInURL(s scheme) error {
	hint := "take it out of the URL"
	if s.env != "" {
		hint = "credentials come from the environment: " + s.env
	}
	return invalidLocation("it carries a user, password or key, which do not belong in a URL", hint)
}

func unknownScheme(name string) error {
	likely := map[string]string{
		"http": schemeWebDAV, "https": schemeWebDAVS, "dav": schemeWebDAV, "davs": schemeWebDAVS, "ssh": schemeSFTP, "scp": schemeSFTP,
		"ftp": schemeSFTP, "minio": schemeS3, "s3a": schemeS3, "aws": schemeS3, "gcs": schemeGCS, "google": schemeGCS, "az": schemeAzure,
		"azure": schemeAzure, "abfs": schemeAzure, "wasb": schemeAzure, "wasbs": schemeAzure, "files": schemeFile, "dir": schemeFile,
	}
	hint := "known are a path, file, s3, gs, azblob, sftp, webdav, webdavs"
	if s, ok := likely[strings.ToLower(name)]; ok {
		hint = "did you mean " + schemes()[s].example + "? " + hint
	} else if _, ok := schemes()[strings.ToLower(name)]; ok {
		hint = "did you mean " + strings.ToLower(name) + "? " + hint
	}
	return invalidLocation(fmt.Sprintf("unknown scheme %q", name), hint)
}

// looksSecret tells whether an option's name says that its value is secret.
func looksSecret(key string) bool {
	key = strings.ToLower(key)
	for _, word := range []string{"key", "secret", "pass", "pwd", "token", "cred", "sas", "auth", "user", "login"} {
		if strings.Contains(key, word) {
			return true
		}
	}
	return key == "sig" || strings.HasPrefix(key, "x-amz")
}

func isSchemeName(s string) bool {
	for i, r := range s {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || !isNameRune(r) && r != '+') {
			return false
		}
	}
	return s != ""
}

func isNameRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '.' || r == '_'
}
