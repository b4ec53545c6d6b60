package kando

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// upload is one object on its way into a store. It is there once finish or whole has succeeded, and not before.
type upload interface {
	whole(ctx context.Context, data []byte) error
	part(ctx context.Context, number int, data []byte) error // numbers begin at 1
	finish(ctx context.Context) error
	abort(ctx context.Context) error
}

// abortTime bounds the tidying up after an upload that failed or was interrupted.
const abortTime = 20 * time.Second

// partSize is how long a part is, in bytes. Stores take 10,000 parts and must be told the length of each beforehand, so that one has to be
// held in memory: they grow as late as lets an object of 5 TiB fit.
func partSize(number int) int {
	switch {
	case number <= 2000: // 15 GiB
		return 8 << 20
	case number <= 4000: // 46 GiB
		return 16 << 20
	case number <= 7000: // 234 GiB
		return 64 << 20
	case number <= 8000: // 734 GiB
		return 512 << 20
	}
	return 2300 << 20
}

// send uploads what r yields, part by part.
func send(ctx context.Context, u upload, r io.Reader) (err error) {
	buffer := make([]byte, partSize(1))
	n, end, err := fill(r, buffer)
	if err != nil {
		return err
	}
	if end {
		return u.whole(ctx, buffer[:n])
	}
	defer func() {
		if err == nil {
			return
		}
		tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
		defer cancel()
		err = errors.Join(err, fault.Wrap("abort the upload", nil, u.abort(tidy), ""))
	}()
	for number := 1; ; number++ {
		if err := u.part(ctx, number, buffer[:n]); err != nil {
			return err
		}
		if end {
			return u.finish(ctx)
		}
		if size := partSize(number + 1); size != len(buffer) {
			buffer = nil // for the garbage collector, before the next is made
			buffer = make([]byte, size)
		}
		if n, end, err = fill(r, buffer); err != nil {
			return err
		}
		if n == 0 {
			return u.finish(ctx)
		}
	}
}

// fill reads until the buffer is full or r ends.
func fill(r io.Reader, buffer []byte) (n int, end bool, err error) {
	n, err = io.ReadFull(r, buffer)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return n, true, nil
	}
	return n, false, err
}
