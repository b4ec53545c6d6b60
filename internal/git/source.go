package git

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// SourceOptions says how a repository is reached and what of it is taken. The zero value takes all but the refs that forges
// make up.
type SourceOptions struct {
	Options
	Hostname     string // names the host of local repositories; "" for the machine's own name
	AllRefs      bool   // take also the refs that forges make up and change by themselves, such as refs/pull/*/merge
	SkipLFS      bool   // leave Git LFS objects out
	Scratch      string // directory for scratch files; "" for the system's
	Limits       Limits
	AlarmPercent int // of refs gone, or of branches rewritten, that raise an alarm; 0 for DefaultAlarmPercent
	AlarmLeast   int // refs or branches below which no share raises an alarm; 0 for DefaultAlarmLeast
	Observe      point.Observer

	// Name is "<host>/<path>" of the repository in points; "" for what its address says. A forge's repository keeps its name
	// whichever way it is reached.
	Name string
	ID   string // becomes the part's
	// Mark is the source's word for the repository's state, and becomes the part's. Where the prior copy has the same, not empty,
	// and was checked less than Recheck ago, it is kept without a request.
	Mark    string
	Recheck time.Duration
	Now     func() time.Time // for Recheck; nil asks the source every time
}

// Defaults of SourceOptions.
const (
	DefaultAlarmPercent = 25
	DefaultAlarmLeast   = 5
)

// Source is one repository, captured as the part "git/<host>/<path>.git" and, where it has Git LFS objects, the part
// "git/<host>/<path>.git/lfs" inside it. A source of many repositories captures each by a Source of its own into one sink.
type Source struct {
	url      *URL
	o        SourceOptions
	name     string // "<host>/<path>"
	part     string // "git/<host>/<path>.git"
	requests atomic.Int64
	received atomic.Int64
}

// NewSource reads where a repository is: a URL, an scp-like address or a local path.
func NewSource(raw string, o SourceOptions) (*Source, error) {
	u, err := ParseURL(raw)
	if err != nil {
		return nil, err
	}
	if o.Hostname == "" {
		if o.Hostname, err = os.Hostname(); err != nil || o.Hostname == "" {
			o.Hostname = "localhost"
		}
	}
	if o.AlarmPercent == 0 {
		o.AlarmPercent = DefaultAlarmPercent
	}
	if o.AlarmLeast == 0 {
		o.AlarmLeast = DefaultAlarmLeast
	}
	if o.Observe == nil {
		o.Observe = func(point.Event) {}
	}
	o.Limits = o.Limits.orDefaults()
	inPoint := o.Name
	if o.Name == "" {
		host, path := u.Subject(o.Hostname)
		o.Name = host + "/" + path
		inPoint = strings.TrimSuffix(o.Name, ".git")
	}
	return &Source{url: u, o: o, name: o.Name, part: "git/" + inPoint + ".git"}, nil
}

// Subject names the repository.
func (s *Source) Subject() point.Subject {
	return point.Subject{Kind: point.SubjectRepository, Name: s.name}
}

// PartName is the name of the repository's part in a point.
func (s *Source) PartName() string { return s.part }

// Requests counts the requests made to the repository's server so far.
func (s *Source) Requests() int64 { return s.requests.Load() }

// Received counts the bytes of the server's answers so far.
func (s *Source) Received() int64 { return s.received.Load() }

// Capture writes the repository into the sink. What the repository's server does wrong ends as a failed part; an error means
// that the run cannot go on.
func (s *Source) Capture(ctx context.Context, to point.Sink) error {
	w, err := to.Part(ctx, s.PartName(), point.KindGit)
	if err != nil {
		return err
	}
	c := &capture{source: s, w: w, sink: to, prior: w.Prior()}
	defer c.close()
	if err := c.repository(ctx); err != nil {
		return c.fail(ctx, err)
	}
	return c.largeFiles(ctx)
}

// vaultError marks an error of the vault, after which a run cannot go on.
type vaultError struct{ error }

func (e vaultError) Unwrap() error { return e.error }

// inVault marks err, which may be nil.
func inVault(err error) error {
	if err == nil {
		return nil
	}
	return vaultError{err}
}

// inPrior marks err, which may be nil, of reading the prior copy. A copy that is damaged concerns the part only: verification
// finds and names it.
func inPrior(err error) error {
	if errors.Is(err, fault.ErrCorrupt) {
		return err
	}
	return inVault(err)
}

// ends returns the error that must end the run: the vault's, or that of ctx. It is nil for an error that concerns a part only.
func ends(ctx context.Context, err error) error {
	var v vaultError
	switch {
	case errors.As(err, &v):
		return v.error
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return nil
}
