package export

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockName is the file whose bytes are locked, each for some of the copies in the place.
const lockName = recordName + ".lock"

// lockRetry is how long to wait before trying again to get a lock.
const lockRetry = 100 * time.Millisecond

// Lock waits until no other process or exporter changes the copy of that name, and keeps them from it until unlock is called or the
// process ends. Where files cannot be locked, it does not.
func (l *Local) Lock(ctx context.Context, name string) (unlock func(), err error) {
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return nil, systemFault("make "+l.dir, err)
	}
	var f *os.File
	err = l.in(ctx, "lock", lockName, func(root *os.Root, file string) error {
		f, err = root.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o644)
		return err
	})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(name))
	at := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: int64(binary.BigEndian.Uint64(sum[:]) >> 2), Len: 1} //nolint:gosec // 62 bits
	for {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &at) // of the open file: two exporters of one process are two
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return func() { f.Close() }, nil //nolint:errcheck // nothing was written
		}
		select {
		case <-ctx.Done():
			f.Close() //nolint:errcheck // nothing was written
			return nil, ctx.Err()
		case <-time.After(lockRetry):
		}
	}
}
