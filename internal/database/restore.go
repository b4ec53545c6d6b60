package database

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// mostManifest bounds ManifestFile, in bytes.
const mostManifest = 16 << 20

// ReadManifest reads what a part holds. The reader is rooted at the part.
func ReadManifest(ctx context.Context, from point.Reader) (*Manifest, error) {
	const op = "read " + ManifestFile
	f, err := from.Open(ctx, ManifestFile)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	document, err := io.ReadAll(io.LimitReader(f, mostManifest+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	return parseManifest(document)
}

func parseManifest(document []byte) (*Manifest, error) {
	const op = "read " + ManifestFile
	if len(document) > mostManifest {
		return nil, fault.New(op, fault.ErrCorrupt, "it is too long", "")
	}
	var m Manifest
	if err := json.Unmarshal(document, &m); err != nil {
		return nil, fault.Wrap(op, fault.ErrCorrupt, err, "")
	}
	if m.Version != ManifestVersion {
		return nil, fault.New(op, fault.ErrUnsupported, fmt.Sprintf("it is of version %d", m.Version), "take a newer backstay")
	}
	for _, f := range m.Files {
		if f.Name == "" || strings.ContainsAny(f.Name, `/\`) || !filepath.IsLocal(f.Name) {
			return nil, fault.New(op, fault.ErrCorrupt, fmt.Sprintf("it names a file %q", f.Name), "")
		}
	}
	return &m, nil
}

// RestoreOptions say how a dump is loaded.
type RestoreOptions struct {
	Replace bool // databases that are not empty are dropped first
	// Changing is told before anything of the server is changed, when it is known that it may be; its error ends the restore. May be nil.
	Changing func() error
}

// Restore loads a dump into a server: into the one that it came from, or another of the same engine. The reader is rooted at the
// part. A database that is not empty is fault.ErrRefused, unless it may be replaced. A restore that fails leaves databases half
// loaded: it is done again with Replace. Notes say what a reader of the dump must know.
func Restore(ctx context.Context, from point.Reader, to Server, r Runner, o RestoreOptions) (notes []string, err error) {
	op := "restore into " + to.name()
	m, err := ReadManifest(ctx, from)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	if m.Engine != to.Engine {
		return nil, fault.New(op, fault.ErrInvalid, fmt.Sprintf("a dump of %s does not go into %s", m.Engine, to.Engine), "")
	}
	e, err := engineOf(to)
	if err != nil {
		return nil, err
	}
	c := &client{Server: to, runner: r}
	l := &loading{from: from, manifest: m, replace: o.Replace, changing: o.Changing, notes: m.Notes}
	err = e.load(ctx, c, l)
	return l.notes, fault.Wrap(op, nil, c.explained(err), "")
}

// loading is one restore.
type loading struct {
	from     point.Reader
	manifest *Manifest
	replace  bool
	changing func() error
	notes    []string
}

// databases are those that the dump holds.
func (l *loading) databases() (all []string) {
	for _, f := range l.manifest.Files {
		all = append(all, f.Databases...)
	}
	return all
}

// mayReplace refuses where a database that is to come is full already.
func (l *loading) mayReplace(names []string, full map[string]bool) error {
	for _, name := range names {
		if full[name] && !l.replace {
			return fault.New("", fault.ErrRefused, fmt.Sprintf("database %q is not empty", name), "--replace drops it first")
		}
	}
	if l.changing != nil {
		return l.changing()
	}
	return nil
}

// feed hands a file to who loads it, and makes sure that all of it was there.
func (l *loading) feed(ctx context.Context, f File, load func(io.Reader) error) error {
	file, err := l.from.Open(ctx, f.Name)
	if err != nil {
		return err
	}
	sum := sha256.New()
	counted := &countedReader{from: io.TeeReader(file, sum)}
	err = load(counted)
	n, failed := counted.end()
	if closed := file.Close(); err == nil {
		err = closed
	}
	switch {
	case failed != nil: // the vault's own error says more than what the tool makes of it
		return failed
	case err != nil:
		return err
	case n != f.Bytes || hex.EncodeToString(sum.Sum(nil)) != f.SHA256:
		return fault.New(f.Name, fault.ErrCorrupt, "it is not what was dumped", "")
	}
	return nil
}

// countedReader is what a runner reads for a program. It may still read when the program has ended: one in a pod, or one that was killed.
type countedReader struct {
	reading sync.Mutex
	from    io.Reader
	n       int64
	err     error
	over    bool
}

func (r *countedReader) Read(p []byte) (int, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	if r.over {
		return 0, io.ErrClosedPipe
	}
	n, err := r.from.Read(p)
	r.n += int64(n)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// end says how much was read, and what went wrong with it. Nothing is read any more when it returns.
func (r *countedReader) end() (int64, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	r.over = true
	return r.n, r.err
}
