package vault

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/fs/localfs"
	"github.com/kopia/kopia/fs/virtualfs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/policy"
	"github.com/kopia/kopia/snapshot/upload"

	"github.com/backstay/backstay/internal/fault"
)

// Account is an account on a kopia API server.
type Account struct {
	URL         string // https://HOST:PORT
	Certificate string // of the server, PEM; the only one that is trusted
	Username    string
	Hostname    string
	Password    fault.Secret
}

// Server is a kopia repository of somebody else's, reached as one of its users: mostly through an API server. What is pushed there is a
// snapshot as stock kopia makes them; it is no point, and no vault of ours.
type Server struct {
	name string
	dir  string // private directory of kopia's configuration; "" where that is the user's
	rep  repo.Repository
}

// OpenServer signs in to a kopia API server. Close it.
func OpenServer(ctx context.Context, a Account, readOnly bool) (*Server, error) {
	op := "open kopia server " + a.URL
	fingerprint, err := fingerprintOf(a.Certificate)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	dir, err := os.MkdirTemp("", "backstay-kopia-")
	if err != nil {
		return nil, fault.Wrap(op, fault.ErrRefused, err, "")
	}
	config, err := json.Marshal(repo.LocalConfig{
		APIServer:     &repo.APIServerInfo{BaseURL: a.URL, TrustedServerCertificateFingerprint: fingerprint},
		Caching:       &content.CachingOptions{},
		ClientOptions: repo.ClientOptions{Hostname: a.Hostname, Username: a.Username, ReadOnly: readOnly, Description: "backstay"},
	})
	file := filepath.Join(dir, "repo.config")
	if err == nil {
		err = os.WriteFile(file, config, 0o600) // without the password
	}
	if err != nil {
		return nil, errors.Join(fault.Wrap(op, fault.ErrRefused, err, ""), os.RemoveAll(dir))
	}
	s, err := openConfigured(ctx, op, file, a.Password)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	s.name, s.dir = a.URL, dir
	return s, nil
}

// OpenConfigured opens the kopia repository to which `kopia repository connect` has connected, by its configuration file. Close it.
func OpenConfigured(ctx context.Context, config string, password fault.Secret) (*Server, error) {
	op := "open the repository of " + config
	if _, err := os.Stat(config); err != nil {
		return nil, localFault(op, err)
	}
	s, err := openConfigured(ctx, op, config, password)
	if err == nil {
		s.name = config
	}
	return s, err
}

func openConfigured(ctx context.Context, op, config string, password fault.Secret) (*Server, error) {
	rep, err := repo.Open(ctx, config, password.Reveal(), &repo.Options{OnFatalError: func(error) {}, DoNotWaitForUpgrade: true})
	if errors.Is(err, repo.ErrInvalidPassword) {
		return nil, fault.New(op, fault.ErrDenied, "wrong password", "")
	}
	if err != nil {
		return nil, serverFault(op, err)
	}
	return &Server{rep: rep}, nil
}

// fingerprintOf is what kopia knows a server's certificate by.
func fingerprintOf(certificate string) (string, error) {
	block, _ := pem.Decode([]byte(certificate))
	if block == nil {
		return "", fault.New("", fault.ErrInvalid, "its certificate is not PEM", "")
	}
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		return "", fault.Wrap("", fault.ErrInvalid, err, "")
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:]), nil
}

// serverFault gives what a server answered a class. Its library wraps the codes of gRPC in texts.
func serverFault(op string, err error) error {
	if err == nil {
		return nil
	}
	said := err.Error()
	for sign, kind := range map[string]error{
		"code = Unauthenticated": fault.ErrDenied, "code = PermissionDenied": fault.ErrDenied, "access denied": fault.ErrDenied,
		"can't find certificate matching": fault.ErrDenied,
	} {
		if strings.Contains(said, sign) {
			return fault.Wrap(op, kind, err, "check user, host, password and certificate")
		}
	}
	return storageFault(op, err)
}

// Close ends the use of the server.
func (s *Server) Close(ctx context.Context) error {
	err := serverFault("close "+s.name, s.rep.Close(ctx))
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

// Pushed is a snapshot that was made.
type Pushed struct {
	ID       string
	Bytes    int64 // of its files
	NewBytes int64 // sent to the server
}

// PushStream makes a snapshot of a directory that holds one file: what r yields, by a name that may lie in directories of its own.
func (s *Server) PushStream(ctx context.Context, dir, name string, r io.Reader) (Pushed, error) {
	source := &latch{r: r}
	var entry fs.Entry = virtualfs.StreamingFileFromReader(path.Base(name), io.NopCloser(source))
	for parent := path.Dir(name); parent != "." && parent != "/"; parent = path.Dir(parent) {
		entry = virtualfs.NewStaticDirectory(path.Base(parent), []fs.Entry{entry})
	}
	pushed, err := s.push(ctx, dir, virtualfs.NewStaticDirectory(dir, []fs.Entry{entry}))
	if source.err != nil {
		return Pushed{}, source.err
	}
	return pushed, err
}

// PushPath makes a snapshot of a file or directory of this machine.
func (s *Server) PushPath(ctx context.Context, name string) (Pushed, error) {
	op := "push " + quote(name)
	abs, err := filepath.Abs(name)
	if err != nil {
		return Pushed{}, localFault(op, err)
	}
	resolved, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return Pushed{}, localFault(op, err)
	}
	entry, err := localfs.NewEntry(resolved)
	if err != nil {
		return Pushed{}, localFault(op, err)
	}
	return s.push(ctx, abs, entry)
}

func (s *Server) push(ctx context.Context, dir string, entry fs.Entry) (pushed Pushed, err error) {
	var sent atomic.Int64
	o := repo.WriteSessionOptions{Purpose: "push", OnUpload: func(n int64) { sent.Add(n) }}
	err = repo.WriteSession(ctx, s.rep, o, func(ctx context.Context, w repo.RepositoryWriter) error {
		m, err := uploaded(ctx, w, dir, entry)
		if err != nil {
			return err
		}
		id, err := snapshot.SaveSnapshot(ctx, w, m)
		pushed = Pushed{ID: string(id), Bytes: m.Stats.TotalFileSize}
		return err
	})
	if ctx.Err() != nil {
		return Pushed{}, context.Cause(ctx)
	}
	pushed.NewBytes = sent.Load()
	return pushed, serverFault("push to "+s.name, err)
}

// uploaded stores an entry. A snapshot that lacks anything is an error.
func uploaded(ctx context.Context, w repo.RepositoryWriter, dir string, entry fs.Entry) (*snapshot.Manifest, error) {
	options := w.ClientOptions()
	source := snapshot.SourceInfo{UserName: options.Username, Host: options.Hostname, Path: dir}
	tree, err := policy.TreeForSource(ctx, w, source)
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	before, err := lastOf(ctx, w, source)
	if err != nil {
		return nil, err
	}
	u := upload.NewUploader(w)
	u.FailFast, u.ParallelUploads = true, 1
	stop := context.AfterFunc(ctx, u.Cancel)
	defer stop()
	m, err := u.Upload(ctx, entry, tree, source, before...)
	if err != nil {
		return nil, err
	}
	if m.IncompleteReason != "" || m.Stats.ErrorCount > 0 || m.Stats.IgnoredErrorCount > 0 {
		return nil, fault.New("", fault.ErrIncomplete, shortfallOf(m), "")
	}
	m.Description = "backstay"
	return m, nil
}

func shortfallOf(m *snapshot.Manifest) string {
	if d := m.RootEntry.DirSummary; d != nil && len(d.FailedEntries) > 0 {
		return d.FailedEntries[0].EntryPath + ": " + d.FailedEntries[0].Error
	}
	return fmt.Sprintf("%d errors %s", m.Stats.ErrorCount+m.Stats.IgnoredErrorCount, m.IncompleteReason)
}

// lastOf finds the last whole snapshot of a source, with which the next is compared.
func lastOf(ctx context.Context, rep repo.Repository, source snapshot.SourceInfo) ([]*snapshot.Manifest, error) {
	all, err := snapshot.ListSnapshots(ctx, rep, source)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	all = slices.DeleteFunc(all, func(m *snapshot.Manifest) bool { return m.IncompleteReason != "" })
	if len(all) == 0 {
		return nil, nil
	}
	return []*snapshot.Manifest{slices.MaxFunc(all, func(a, b *snapshot.Manifest) int { return a.StartTime.ToTime().Compare(b.StartTime.ToTime()) })}, nil
}

// load reads the manifest of a snapshot.
func (s *Server) load(ctx context.Context, op, id string) (*snapshot.Manifest, error) {
	m, err := snapshot.LoadSnapshot(ctx, s.rep, manifest.ID(id))
	if errors.Is(err, snapshot.ErrSnapshotNotFound) {
		return nil, fault.New(op, fault.ErrNotFound, "no such snapshot", "")
	}
	return m, serverFault(op, err)
}

// Delete deletes a snapshot; fault.ErrNotFound where there is none.
func (s *Server) Delete(ctx context.Context, id string) error {
	op := "delete snapshot " + id
	m, err := s.load(ctx, op, id)
	if err != nil {
		return err
	}
	err = repo.WriteSession(ctx, s.rep, repo.WriteSessionOptions{Purpose: "delete"}, func(ctx context.Context, w repo.RepositoryWriter) error {
		return w.DeleteManifest(ctx, m.ID)
	})
	return serverFault(op, err)
}
