package vault

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sync/errgroup"

	"github.com/backstay/backstay/internal/fault"
)

const (
	minLock        = 24 * time.Hour
	extendParallel = 8
	extendTries    = 3
)

// LockStatus tells how well the store holds on to a vault's blobs.
type LockStatus struct {
	Mode          string        `json:"mode"` // "GOVERNANCE" or "COMPLIANCE"
	Period        time.Duration `json:"periodNanoseconds"`
	LastExtension time.Time     `json:"lastExtension,omitzero"` // that reached every blob; zero before the first
	SafeUntil     time.Time     `json:"safeUntil"`              // from then on blobs that points refer to may be unlocked
	Alarm         string        `json:"alarm,omitempty"`        // what somebody must see to; "" where all is well
}

// LockStatus tells about the object lock; nil where the vault has none.
func (v *Vault) LockStatus(ctx context.Context) (*LockStatus, error) {
	past, err := v.readUpkeep(ctx)
	if err != nil {
		return nil, fault.Wrap("object lock of vault "+v.name, nil, err, "")
	}
	return v.lockStatus(ctx, past)
}

// locked reports whether the vault's blobs are under object lock.
func (v *Vault) locked() bool { return v.lock.IsRetentionEnabled() }

func (v *Vault) lockStatus(ctx context.Context, past upkeep) (*LockStatus, error) {
	if !v.locked() {
		return nil, nil //nolint:nilnil // there is no lock
	}
	s := &LockStatus{Mode: string(v.lock.RetentionMode), Period: v.lock.RetentionPeriod, LastExtension: past.LastExtension}
	since := past.LastExtension
	if since.IsZero() {
		var err error
		if since, err = v.oldestBlob(ctx); err != nil {
			return nil, err
		}
	}
	s.SafeUntil = since.Add(s.Period)
	left := s.SafeUntil.Sub(v.now())
	switch {
	case left <= 0:
		s.Alarm = "the object lock ran out at " + s.SafeUntil.Format(time.RFC3339) + ": blobs can be deleted; run `backstay maintain --full`"
	case past.Failure != "":
		s.Alarm = "the last extension of the object lock failed: " + past.Failure
	case left < alarmBelow(s.Period):
		s.Alarm = fmt.Sprintf("the object lock was not extended for %s and runs out in %s: run `backstay maintain`",
			v.now().Sub(since).Round(time.Minute), left.Round(time.Minute))
	}
	return s, nil
}

// alarmBelow is how much of a lock must be left: a quarter of the period, a day at least, but no more than half of a short period.
func alarmBelow(period time.Duration) time.Duration {
	return min(max(24*time.Hour, period/4), period/2)
}

// oldestBlob is when the lock of a vault that was never extended began.
func (v *Vault) oldestBlob(ctx context.Context) (oldest time.Time, err error) {
	err = v.store.ListBlobs(ctx, "", func(m blob.Metadata) error {
		if lockable(m.BlobID) && (oldest.IsZero() || m.Timestamp.Before(oldest)) {
			oldest = m.Timestamp.UTC()
		}
		return nil
	})
	return oldest, storageFault("list blobs", err)
}

// lockable reports whether a blob is put under object lock: what kopia locks, and our catalogue. Leases, notes, the record of
// maintenance, kopia's session markers, logs and schedule are overwritten or deleted in daily work.
func lockable(id blob.ID) bool {
	if strings.HasPrefix(string(id), string(cataloguePrefix)) {
		return id != upkeepBlob && !isPassing(id)
	}
	return slices.ContainsFunc(repo.GetLockingStoragePrefixes(), func(p blob.ID) bool { return strings.HasPrefix(string(id), string(p)) })
}

// extendAll locks every blob for a whole period from now, and returns how many it reached. One failure does not keep the others
// from being extended.
func (v *Vault) extendAll(ctx context.Context) (int64, error) {
	all, err := blob.ListAllBlobs(ctx, v.store, "")
	if err != nil {
		return 0, storageFault("extend object lock: list blobs", err)
	}
	var extended, failed atomic.Int64
	var first atomic.Pointer[error]
	var g errgroup.Group
	g.SetLimit(extendParallel)
	for _, m := range all {
		if !lockable(m.BlobID) {
			continue
		}
		g.Go(func() error {
			if err := v.extend(ctx, m.BlobID); err != nil {
				failed.Add(1)
				first.CompareAndSwap(nil, &err)
				return nil
			}
			extended.Add(1)
			return nil
		})
	}
	_ = g.Wait() // they return none
	if n := failed.Load(); n > 0 {
		return extended.Load(), storageFault(fmt.Sprintf("extend object lock: %d of %d blobs failed", n, n+extended.Load()), *first.Load())
	}
	return extended.Load(), nil
}

// extend extends one lock. Some stores deny it for a moment after the blob was written.
func (v *Vault) extend(ctx context.Context, id blob.ID) error {
	o := blob.ExtendOptions{RetentionMode: v.lock.RetentionMode, RetentionPeriod: v.lock.RetentionPeriod}
	for try := 1; ; try++ {
		err := v.store.ExtendBlobRetention(ctx, id, o)
		if err == nil {
			return nil
		}
		if _, gone := v.store.GetMetadata(ctx, id); errors.Is(gone, blob.ErrBlobNotFound) {
			return nil
		}
		if try == extendTries {
			return fmt.Errorf("blob %s: %w", id, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Duration(try) * 500 * time.Millisecond):
		}
	}
}

// checkLock refuses a lock that the location cannot keep, and a location that would lock what must stay free. A bucket that does
// not let itself be asked is believed.
func (l Location) checkLock(ctx context.Context, env func(string) string, lock Lock) error {
	op := "check object lock of " + l.String()
	if lock != (Lock{}) {
		switch {
		case !blob.RetentionMode(lock.Mode).IsValid():
			return fault.New(op, fault.ErrInvalid, fmt.Sprintf("mode %q", lock.Mode), "write GOVERNANCE or COMPLIANCE")
		case lock.Period < minLock:
			return fault.New(op, fault.ErrInvalid, "a period of "+lock.Period.String()+" is too short", "give at least 24h, better 720h")
		case !schemes()[l.scheme].bucket:
			return fault.New(op, fault.ErrUnsupported, "there is none on "+l.scheme, "use a bucket: s3, gs or azblob")
		}
	}
	if l.scheme != schemeS3 {
		return nil
	}
	client, err := l.s3Client(env)
	if err != nil {
		return storageFault(op, err)
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	_, mode, _, _, err := client.GetObjectLockConfig(ctx, l.host)
	var answer minio.ErrorResponse
	switch {
	case err == nil && mode != nil && *mode != "":
		return fault.New(op, fault.ErrRefused, "the bucket locks every object by a default retention", "switch the default retention "+
			"off, but not object lock: the vault sets the lock of each blob itself, and must delete its markers and leases")
	case errors.As(err, &answer) && answer.Code == "ObjectLockConfigurationNotFoundError" && lock != (Lock{}):
		return fault.New(op, fault.ErrUnsupported, "the bucket was made without object lock", "make a bucket with object lock enabled")
	}
	return nil
}

// s3Client is for the few questions that kopia's provider does not ask.
func (l Location) s3Client(env func(string) string) (*minio.Client, error) {
	o, err := s3Options(l, env)
	if err != nil {
		return nil, err
	}
	chain := credentials.NewChainCredentials([]credentials.Provider{
		&credentials.Static{Value: credentials.Value{
			AccessKeyID: o.AccessKeyID, SecretAccessKey: o.SecretAccessKey, SessionToken: o.SessionToken, SignerType: credentials.SignatureV4,
		}},
		&credentials.EnvAWS{}, &credentials.IAM{},
	})
	transport, err := minio.DefaultTransport(!o.DoNotUseTLS)
	if err != nil {
		return nil, err
	}
	if o.RootCA != nil && transport.TLSClientConfig != nil {
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(o.RootCA) {
			return nil, fault.New("read AWS_CA_BUNDLE", fault.ErrInvalid, "it holds no certificate", "")
		}
	}
	return minio.New(o.Endpoint, &minio.Options{
		Creds: chain, Secure: !o.DoNotUseTLS, Region: o.Region, Transport: transport, MaxRetries: 3,
	})
}

func newNonce(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}
