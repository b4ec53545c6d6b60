package database

import (
	"encoding/binary"
	"hash/crc64"
	"io"
	"slices"

	"github.com/backstay/backstay/internal/fault"
)

// rdbMagic begins every dump of Redis; four digits of its version follow.
const rdbMagic = "REDIS"

// rdbEnd is the last opcode; the checksum follows.
const (
	rdbEnd = 0xff
	rdbSum = 8
)

// redisEnding sums up a dump as it passes: its last bytes are the end's opcode and the checksum of all before.
type redisEnding struct {
	sum  uint64
	last []byte // not yet summed up: what may be the checksum
	seen int64
	code byte // the last byte that was summed up
}

// rdbTable is of the polynomial that Redis takes (Jones), reflected.
var rdbTable = crc64.MakeTable(0x95ac9329ac4bc9b5) //nolint:gochecknoglobals // a constant

// rdbChecksum goes on with a sum. Unlike crc64 it neither begins nor ends with its complement.
func rdbChecksum(sum uint64, p []byte) uint64 { return ^crc64.Update(^sum, rdbTable, p) }

func (e *redisEnding) Write(p []byte) (int, error) {
	e.seen += int64(len(p))
	if over := len(e.last) + len(p) - rdbSum; over > 0 {
		old := min(over, len(e.last))
		e.add(e.last[:old])
		e.last = append(e.last[:0], e.last[old:]...)
		fresh := over - old
		e.add(p[:fresh])
		e.last = append(e.last, p[fresh:]...)
	} else {
		e.last = append(e.last, p...)
	}
	return len(p), nil
}

func (e *redisEnding) add(p []byte) {
	if len(p) > 0 {
		e.sum, e.code = rdbChecksum(e.sum, p), p[len(p)-1]
	}
}

// unsummed reports whether the server was told to put no checksum.
func (e *redisEnding) unsummed() bool {
	return len(e.last) == rdbSum && binary.LittleEndian.Uint64(e.last) == 0
}

func (e *redisEnding) end() error {
	switch {
	case e.seen <= int64(len(rdbMagic))+rdbSum || e.code != rdbEnd:
		return cutShort("it has no end")
	case !e.unsummed() && binary.LittleEndian.Uint64(e.last) != e.sum:
		return fault.New("", fault.ErrCorrupt, "the dump does not have the checksum that it says", "")
	}
	return nil
}

// rdbMark is how long the mark is that a server without a disk puts after a dump whose length it does not know. What redis-cli writes into
// a pipe still has it.
const rdbMark = 40

// unmarked passes a dump on without the mark after it.
type unmarked struct {
	from io.Reader
	end  redisEnding // of what was passed on
	held []byte      // read, and not passed on: the mark may be in it
	err  error       // of from
	over bool        // what is held is all that is still to come
}

func (u *unmarked) Read(p []byte) (int, error) {
	chunk := make([]byte, max(len(p), rdbMark))
	for u.err == nil && len(u.held) <= rdbMark {
		var n int
		n, u.err = u.from.Read(chunk)
		u.held = append(u.held, chunk[:n]...)
	}
	keep := rdbMark
	if u.err != nil {
		keep = 0
	}
	if u.err == io.EOF && !u.over && len(u.held) >= rdbMark { //nolint:errorlint // as io.Reader has it
		before := u.end
		before.last = slices.Clone(before.last)
		before.Write(u.held[:len(u.held)-rdbMark]) //nolint:errcheck // fails never
		if before.end() == nil {
			u.held = u.held[:len(u.held)-rdbMark]
		}
	}
	u.over = u.err != nil
	n := copy(p, u.held[:len(u.held)-min(keep, len(u.held))])
	u.end.Write(p[:n]) //nolint:errcheck // fails never
	u.held = append(u.held[:0], u.held[n:]...)
	if n == 0 && len(u.held) == 0 {
		return 0, u.err
	}
	return n, nil
}
