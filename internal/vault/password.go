package vault

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/kopia/kopia/repo/blob"

	"github.com/backstay/backstay/internal/fault"
)

const hintNewPassword = "give the password that the vault has now"

// OpenEither opens a vault that has one of several passwords; empty ones do not count. Between the two writes of a change neither opens
// it: that is worth another try later (fault.ErrUnavailable).
func OpenEither(ctx context.Context, loc Location, passwords []fault.Secret, o Options) (*Vault, error) {
	var first error
	tried := 0
	for _, password := range passwords {
		if password == "" {
			continue
		}
		tried++
		v, err := Open(ctx, loc, password, o)
		if err == nil || !errors.Is(err, fault.ErrDenied) && !errors.Is(err, fault.ErrCorrupt) {
			return v, err
		}
		if first == nil || errors.Is(err, fault.ErrCorrupt) {
			first = err
		}
	}
	if tried > 1 && errors.Is(first, fault.ErrCorrupt) {
		return nil, fault.New("open "+loc.String(), fault.ErrUnavailable, "its password is being changed: "+first.Error(),
			"where that was interrupted, ask for the change again")
	}
	return nil, first
}

// ChangePassword gives the vault a new password. The old one opens nothing any more; who had it before could have kept the key
// that it opened. Data is not written again, and others who have the vault open go on.
func (v *Vault) ChangePassword(ctx context.Context, password fault.Secret) error {
	op := "change password of vault " + v.name
	if password == "" {
		return fault.New(op, fault.ErrInvalid, "empty password", "")
	}
	if err := v.writable(op); err != nil {
		return err
	}
	ctx, done, err := v.operation(ctx)
	if err != nil {
		return err
	}
	defer done()
	// Two changes at once could leave one blob of each.
	err = newLease(v.store, v.now).hold(ctx, func(ctx context.Context) error { return v.changePassword(ctx, password) })
	return fault.Wrap(op, nil, err, "")
}

func (v *Vault) changePassword(ctx context.Context, password fault.Secret) error {
	if now, err := formatInPlace(ctx, v.store); err != nil {
		return err
	} else if !now.opens(ctx, v.opened.secret()) {
		return fault.New("", fault.ErrDenied, "somebody else has changed it", hintNewPassword)
	}
	// kopia writes two blobs; a crash between them would lock everybody out. So what it writes is held back, kept as a copy first,
	// and put in place then: at any time the old or the new password opens the blobs in place or a copy that Repair puts there.
	v.store.mu.Lock()
	v.store.staged = map[blob.ID][]byte{}
	v.store.mu.Unlock()
	err := v.rep.FormatManager().ChangePassword(ctx, password.Reveal())
	v.store.mu.Lock()
	staged := v.store.staged
	v.store.staged = nil
	v.store.mu.Unlock()
	if err != nil {
		return storageFault("", err)
	}
	v.opened.become(password, staged)
	return v.keepFormat(ctx, staged, func() error {
		for _, id := range formatBlobs {
			if err := v.store.PutBlob(ctx, id, &raw{staged[id]}, v.putOptions()); err != nil {
				return storageFault("write "+string(id), err)
			}
		}
		return nil
	})
}

// Rotate gives the vault of a location a new password, unless it has it, and ends a change that was cut short. It reports whether
// anything was to be done.
func Rotate(ctx context.Context, loc Location, old, fresh fault.Secret, o Options) (changed bool, err error) {
	st, err := loc.storage(ctx, o.env(), false)
	if err != nil {
		return false, err
	}
	changed, err = rotateIn(ctx, st, loc.String(), old, fresh, o)
	return changed, errors.Join(err, st.Close(ctx))
}

// rotateIn rotates the password of the vault in st, which stays the caller's to close.
func rotateIn(ctx context.Context, st blob.Storage, name string, old, fresh fault.Secret, o Options) (changed bool, err error) {
	op := "change password of vault " + name
	if has, err := opensInPlace(ctx, st, fresh); has || err != nil {
		return false, fault.Wrap(op, nil, err, "")
	}
	has, err := opensInPlace(ctx, st, old)
	if err == nil && !has {
		if err = finishRotation(ctx, st, name, []fault.Secret{fresh, old}, o); err == nil {
			has, err = opensInPlace(ctx, st, fresh)
		}
		if has {
			return true, nil
		}
	}
	if err != nil {
		return false, fault.Wrap(op, nil, err, "")
	}
	v, err := openIn(ctx, keepOpen{st}, name, old, o)
	if err != nil {
		return false, err
	}
	err = v.ChangePassword(ctx, fresh)
	return err == nil, errors.Join(err, v.Close(ctx))
}

// opensInPlace reports whether the format blobs in place are both there, and open.
func opensInPlace(ctx context.Context, st blob.Reader, password fault.Secret) (bool, error) {
	now, err := formatInPlace(ctx, st)
	if errors.Is(err, fault.ErrNotFound) {
		return false, nil
	}
	return err == nil && now.opens(ctx, password), err
}

// finishRotation puts the format blobs in place that a change had written as a copy before it was cut short.
func finishRotation(ctx context.Context, st blob.Storage, name string, passwords []fault.Secret, o Options) error {
	return newLease(st, steadyClock(o.Clock)).hold(ctx, func(ctx context.Context) error {
		for _, p := range passwords {
			if done, err := repairFormat(ctx, st, name, p); done || err != nil {
				return err
			}
		}
		return nil
	})
}

// formatInPlace is the format blobs as they are. Where one is missing, the error is fault.ErrNotFound.
func formatInPlace(ctx context.Context, st blob.Reader) (formatCopy, error) {
	now := formatCopy{Blobs: map[blob.ID][]byte{}}
	for _, id := range formatBlobs {
		b, err := getBlob(ctx, st, id)
		if errors.Is(err, blob.ErrBlobNotFound) {
			return now, fault.New("read format blobs", fault.ErrNotFound, string(id)+" is missing", "")
		}
		if err != nil {
			return now, storageFault("read format blobs", err)
		}
		now.Blobs[id] = b
	}
	return now, nil
}

// opened is the format blobs that a vault was opened with. kopia reads them again every quarter of an hour, with the password of before:
// after a change by somebody else they would not open, and whatever is under way would end.
type opened struct {
	mu       sync.Mutex
	password fault.Secret
	blobs    map[blob.ID][]byte
}

func (o *opened) secret() fault.Secret {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.password
}

// become takes a change of one's own in.
func (o *opened) become(password fault.Secret, blobs map[blob.ID][]byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.password, o.blobs = password, blobs
}

// instead returns what kopia is to see of a format blob that was read: itself, or where another password has been set since, the one
// of before.
func (o *opened) instead(ctx context.Context, id blob.ID, read []byte) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	before, seen := o.blobs[id]
	if !seen {
		o.blobs[id] = read
		return read
	}
	if bytes.Equal(before, read) {
		return read
	}
	pair := formatCopy{Blobs: map[blob.ID][]byte{}}
	for other, b := range o.blobs {
		pair.Blobs[other] = b
	}
	pair.Blobs[id] = read
	if !pair.opens(ctx, o.password) {
		return before
	}
	o.blobs[id] = read
	return read
}

// lasting is a storage in which the format blobs stay as the password opened them.
type lasting struct {
	blob.Storage
	opened *opened
}

// GetBlob reads a blob.
func (l lasting) GetBlob(ctx context.Context, id blob.ID, offset, length int64, output blob.OutputBuffer) error {
	if !slices.Contains(formatBlobs, id) {
		return l.Storage.GetBlob(ctx, id, offset, length, output)
	}
	var r raw
	if err := l.Storage.GetBlob(ctx, id, offset, length, &r); err != nil {
		return err
	}
	output.Reset()
	_, err := output.Write(l.opened.instead(ctx, id, r.b))
	return err
}
