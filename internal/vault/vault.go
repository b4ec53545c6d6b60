// Package vault keeps restore points in a kopia repository at a location. It is the only door to kopia.
//
// A point is one kopia snapshot whose root directory holds every part; parts that did not change are entries referring to the
// objects of an earlier point. Beside kopia's blobs lies a catalogue of our own (names beginning with "b"), by which lost
// points and damaged blobs are noticed, and from which the vault is repaired.
package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/format"

	"github.com/backstay/backstay/internal/evidence"
	"github.com/backstay/backstay/internal/fault"
)

// Identity of every writer. It is fixed, because kopia lets only the recorded owner maintain a repository, and names of pods change.
const (
	hostname = "backstay"
	username = "backstay"
)

// Options of Create and Open. The zero value is good for both.
type Options struct {
	ReadOnly bool   // nothing is written to the location; writing operations are refused
	Lock     Lock   // object lock of a new vault; Create only
	ReadData bool   // look also for damage that only reading all data shows; Repair only
	Tool     string // "backstay 0.1.0", kept in each record
	Memory   int64  // bytes that reading may take; the least that makes sense where it is less
	Writers  int    // files that a draft stores at once, each of which may hold a pack of 20 MB until it is written; 0: no bound
	// Env looks up environment variables: those in which credentials come, which docs/locations.md lists, and HOME and USER; os.Getenv
	// where nil.
	Env func(name string) string
	// Evidence gives the key that statements of what is done to points are signed with. It is asked when there is something to sign.
	// Nil, they are not signed.
	Evidence func(ctx context.Context) (*evidence.Key, error)
	Clock    func() time.Time // time.Now where nil
}

func (o Options) env() func(string) string {
	if o.Env == nil {
		return os.Getenv
	}
	return o.Env
}

// Lock keeps the store from deleting or overwriting blobs for a while. The zero value is no lock.
type Lock struct {
	Mode   string        // "GOVERNANCE" or "COMPLIANCE"
	Period time.Duration // at least 24 hours
}

// Vault is an open vault. Safe for concurrent use, also by several drafts at once.
type Vault struct {
	name string // of the location, without secrets
	tool string
	dir  string // private directory of kopia's configuration, which names no credentials
	now  func() time.Time

	store *witness // every blob goes through it
	rep   repo.DirectRepository
	lock  format.BlobStorageConfiguration

	bounds  bounds
	runs    runBuffers
	writers int // files that a draft stores at once; 0: no bound
	buffers copyBuffers
	recent  recentDirs
	chain   chain
	opened  *opened

	evidenceKey func(ctx context.Context) (*evidence.Key, error) // nil for none

	newest atomic.Int64 // when the newest manifest that was seen was written, in Unix nanoseconds

	manifestsMu sync.Mutex
	understood  map[content.ID][]version // contents of manifests, as last read; it is replaced, never changed

	mu      sync.Mutex
	running map[*context.CancelCauseFunc]bool // operations under way, to be cancelled when kopia gives up
	fatal   error
}

// Create makes a vault in a location. A vault that is there already is left alone (fault.ErrExists).
func Create(ctx context.Context, loc Location, password fault.Secret, o Options) error {
	if err := loc.checkLock(ctx, o.env(), o.Lock); err != nil {
		return err
	}
	st, err := loc.storage(ctx, o.env(), true)
	if err != nil {
		return err
	}
	err = createIn(ctx, st, loc.String(), password, o)
	return errors.Join(err, st.Close(ctx))
}

// Open opens the vault of a location. Close it.
func Open(ctx context.Context, loc Location, password fault.Secret, o Options) (*Vault, error) {
	st, err := loc.storage(ctx, o.env(), false)
	if err != nil {
		return nil, err
	}
	v, err := openIn(ctx, st, loc.String(), password, o)
	if err != nil {
		return nil, errors.Join(err, st.Close(ctx))
	}
	return v, nil
}

// createIn makes a vault in st, which stays the caller's to close.
func createIn(ctx context.Context, st blob.Storage, name string, password fault.Secret, o Options) error {
	op := "create vault " + name
	if password == "" {
		return fault.New(op, fault.ErrInvalid, "empty password", "set BACKSTAY_PASSWORD, --password-file or --password-command")
	}
	// kopia looks for a vault and then writes one: two that do so at once would each undo what the other wrote.
	return newLease(st, steadyClock(o.Clock)).hold(ctx, func(ctx context.Context) error {
		return initialize(ctx, st, name, password, o)
	})
}

// initialize writes a new vault.
func initialize(ctx context.Context, st blob.Storage, name string, password fault.Secret, o Options) error {
	op := "create vault " + name
	err := repo.Initialize(ctx, st, &repo.NewRepositoryOptions{
		BlockFormat: format.ContentFormat{
			Hash:              "BLAKE3-256-128",
			Encryption:        "AES256-GCM-HMAC-SHA256",
			MutableParameters: format.MutableParameters{MaxPackSize: maxPack},
		},
		ObjectFormat:                      format.ObjectFormat{Splitter: splitTree},
		RetentionMode:                     blob.RetentionMode(o.Lock.Mode),
		RetentionPeriod:                   o.Lock.Period,
		FormatBlockKeyDerivationAlgorithm: "pbkdf2-sha256-600000", // scrypt takes 85 MB at each opening
	}, password.Reveal())
	switch {
	case errors.Is(err, repo.ErrAlreadyInitialized):
		return fault.New(op, fault.ErrExists, "there is a vault already", "")
	case err != nil:
		return storageFault(op, err)
	}
	v, err := openIn(ctx, keepOpen{st}, name, password, o)
	if err != nil {
		return err
	}
	err = v.setUp(ctx)
	return errors.Join(fault.Wrap(op, nil, err, ""), v.Close(ctx))
}

// setUp sets what Initialize overwrites with its defaults, and writes the first copies of the format blobs.
func (v *Vault) setUp(ctx context.Context) error {
	m := v.rep.FormatManager()
	p, err := m.GetMutableParameters(ctx)
	if err != nil {
		return fmt.Errorf("read parameters: %w", err)
	}
	// Indexes are compacted only when an epoch has ended. kopia's day would pile up thousands of them in a busy vault.
	p.EpochParameters.MinEpochDuration = 3 * time.Hour
	p.EpochParameters.EpochRefreshFrequency = 20 * time.Minute
	p.EpochParameters.CleanupSafetyMargin = time.Hour
	if err := m.SetParameters(ctx, p, v.lock, nil); err != nil {
		return fmt.Errorf("set parameters: %w", err)
	}
	return v.copyFormat(ctx)
}

// openIn opens the vault in st. On success the vault closes st.
func openIn(ctx context.Context, st blob.Storage, name string, password fault.Secret, o Options) (_ *Vault, err error) {
	v := &Vault{name: name, tool: o.Tool, writers: o.Writers, now: steadyClock(o.Clock), running: map[*context.CancelCauseFunc]bool{}}
	v.store = newWitness(st, o.ReadOnly)
	v.evidenceKey = o.Evidence
	v.opened = &opened{password: password, blobs: map[blob.ID][]byte{}}
	v.bounds = boundsOf(o.Memory)
	v.dir, err = os.MkdirTemp("", "backstay-vault-")
	if err != nil {
		return nil, fault.Wrap("open vault "+name, fault.ErrRefused, err, "")
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(v.dir))
		}
	}()
	file := filepath.Join(v.dir, "repo.config")
	if err := writeConfig(file, o.ReadOnly); err != nil {
		return nil, fault.Wrap("open vault "+name, fault.ErrRefused, err, "")
	}
	rep, err := repo.Open(withStorage(ctx, lasting{v.store, v.opened}), file, password.Reveal(), &repo.Options{
		OnFatalError:         v.abort, // kopia's default ends the process
		DisableRepositoryLog: true,
		TimeNowFunc:          v.now,
		DoNotWaitForUpgrade:  true,
	})
	if err != nil {
		return nil, openFault(ctx, v.store, name, password, err)
	}
	direct, ok := rep.(repo.DirectRepository)
	if !ok {
		return nil, errors.Join(fmt.Errorf("open vault %s: kopia opened a %T", name, rep), rep.Close(ctx))
	}
	v.rep = direct
	if v.lock, err = readLock(ctx, direct); err != nil {
		return nil, errors.Join(fault.Wrap("open vault "+name, nil, err, ""), rep.Close(ctx))
	}
	return v, nil
}

// readLock reads the object lock. kopia takes a missing blobcfg for no lock, so that one lost blob would end the protection.
func readLock(ctx context.Context, rep repo.DirectRepository) (format.BlobStorageConfiguration, error) {
	none := format.BlobStorageConfiguration{}
	if _, err := rep.BlobReader().GetMetadata(ctx, format.KopiaBlobCfgBlobID); err != nil {
		return none, storageFault("read object lock from "+string(format.KopiaBlobCfgBlobID), err)
	}
	lock, err := rep.FormatManager().BlobCfgBlob(ctx)
	if err != nil {
		return none, storageFault("read object lock from "+string(format.KopiaBlobCfgBlobID), err)
	}
	return lock, nil
}

// writeConfig writes kopia's configuration: no credentials, no caches, and a storage type that takes the storage out of the context.
func writeConfig(file string, readOnly bool) error {
	b, err := json.Marshal(repo.LocalConfig{
		Storage:       &blob.ConnectionInfo{Type: storageType, Config: &storageConfig{}},
		Caching:       &content.CachingOptions{},
		ClientOptions: repo.ClientOptions{Hostname: hostname, Username: username, ReadOnly: readOnly, Description: "backstay"},
	})
	if err != nil {
		return fmt.Errorf("encode kopia's configuration: %w", err)
	}
	return os.WriteFile(file, b, 0o600)
}

// Close ends the use of the vault. Drafts must have ended before.
func (v *Vault) Close(ctx context.Context) error {
	err := v.flushChecksums(ctx)
	err = errors.Join(err, storageFault("close vault "+v.name, v.rep.Close(ctx)))
	return errors.Join(err, os.RemoveAll(v.dir))
}

// session runs do in a write session of kopia's, flushes it, and records the checksums of the blobs written.
func (v *Vault) session(ctx context.Context, purpose string, do func(context.Context, repo.DirectRepositoryWriter) error) error {
	ctx, done, err := v.operation(ctx)
	if err != nil {
		return err
	}
	defer done()
	err = repo.DirectWriteSession(ctx, v.rep, repo.WriteSessionOptions{Purpose: purpose}, do)
	if err != nil {
		return storageFault(purpose, err)
	}
	return v.flushChecksums(ctx)
}

// operation derives a context that ends when kopia gives up. Call done at the end.
func (v *Vault) operation(ctx context.Context) (_ context.Context, done func(), err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fatal != nil {
		cancel(nil)
		return nil, nil, v.fatal
	}
	v.running[&cancel] = true
	return ctx, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.running, &cancel)
		cancel(nil)
	}, nil
}

// abort is called by kopia when it cannot go on: somebody upgrades the repository's format under us.
func (v *Vault) abort(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fatal = fault.Wrap("use vault "+v.name, fault.ErrUnavailable, err, "")
	for cancel := range v.running {
		(*cancel)(v.fatal)
	}
}

// steadyClock returns a clock that never gives the same time twice and never goes back: kopia settles by times which of two versions
// of a manifest holds.
func steadyClock(clock func() time.Time) func() time.Time {
	if clock == nil {
		clock = time.Now //nolint:forbidigo // the default; tests give another
	}
	var mu sync.Mutex
	var last time.Time
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now := clock()
		if !now.After(last) {
			now = last.Add(time.Nanosecond)
		}
		last = now
		return now
	}
}
