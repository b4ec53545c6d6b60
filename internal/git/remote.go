// Package git reads and writes git repositories: it speaks the upload-pack protocol to the source, keeps refs as data and
// packs as they came, and makes bare repositories of them again.
package git

import (
	"context"
	"io"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// Options says how a repository is reached. The zero value asks for no credentials but those of the user's netrc file.
type Options struct {
	Username    string       // "" with a Password: the name that servers expect beside a token
	Password    fault.Secret // a token or a password
	NetrcFile   string       // "" for $NETRC or .netrc in the home directory; os.DevNull for none
	CAFile      string       // PEM file of certificate authorities trusted beside the system's
	Insecure    bool         // the server's certificate is not checked
	SSHCommand  string       // shell words run in place of ssh; "" for $GIT_SSH_COMMAND, or ssh
	MaxRefs     int          // 0 for DefaultMaxRefs
	MaxRefBytes int64        // bytes of a ref list; 0 for DefaultMaxRefBytes
	IdleTimeout time.Duration
	UserAgent   string
	Env         []string // environment, "NAME=value"; nil for the process's own
}

// Defaults of Options.
const (
	DefaultMaxRefs     = 1_000_000
	DefaultMaxRefBytes = 256 << 20
	DefaultIdleTimeout = time.Minute
)

// Remote is a connection to one repository. It takes one call at a time.
type Remote struct{}

// Dial prepares a connection; what fails on the way to the server fails in the first call.
func Dial(ctx context.Context, u *URL, o Options) (*Remote, error) {
	return nil, fault.New("dial", fault.ErrUnsupported, "", "")
}

// Ref is one name that a repository advertises.
type Ref struct {
	Name   string
	OID    string // hexadecimal; "" for an unborn HEAD
	Peeled string // what an annotated tag comes down to; "" for anything else
	Target string // of a symbolic ref; "" for any other
}

// RefList is what a repository advertises at one time.
type RefList struct {
	Format string // of object ids: "sha1" or "sha256"
	Refs   []Ref  // HEAD first where it is advertised, then sorted by the bytes of their names
}

// ListRefs asks for all refs, in one request.
func (r *Remote) ListRefs(ctx context.Context) (*RefList, error) { return nil, nil }

// Fetch writes to pack a self-contained pack of all that wants reach and haves do not, in one request.
func (r *Remote) Fetch(ctx context.Context, wants, haves []string, pack io.Writer) (received int64, err error) {
	return 0, nil
}

// Requests counts the requests made so far.
func (r *Remote) Requests() int64 { return 0 }

// BytesReceived counts the bytes of answers so far.
func (r *Remote) BytesReceived() int64 { return 0 }

// Protocol is the version the server speaks: "v0", "v1" or "v2"; "" before the first answer.
func (r *Remote) Protocol() string { return "" }

// Close ends the connection.
func (r *Remote) Close() error { return nil }
