package git

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/backstay/backstay/internal/fault"
)

const (
	indexMagic  = "\xfftOc\x00\x00\x00\x02"
	indexHeader = int64(len(indexMagic)) + 256*4
	// indexRun is how many entries of an index are read at once.
	indexRun = 4096
)

// packIndex looks objects up in the index of one pack (version 2), reading only the runs of entries that a look-up needs, so
// that an index in a vault costs a few kilobytes. Not safe for concurrent use.
type packIndex struct {
	r       io.ReadSeeker
	hashLen int // bytes of an object id
	fanout  [256]uint32
	large   int64 // entries in the table of 8-byte offsets

	run      []byte // ids read last
	runStart int    // the number of its first entry
}

// openPackIndex reads the head of an index. format is that of the object ids.
func openPackIndex(r io.ReadSeeker, format string) (*packIndex, error) {
	x := &packIndex{r: r, hashLen: oidLength(format) / 2}
	size, err := r.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	raw, err := x.read(0, int(indexHeader))
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(raw, []byte(indexMagic)) {
		return nil, badIndex("it is not of version 2")
	}
	for i := range x.fanout {
		x.fanout[i] = binary.BigEndian.Uint32(raw[len(indexMagic)+4*i:])
		if i > 0 && x.fanout[i] < x.fanout[i-1] {
			return nil, badIndex("its counts go down")
		}
	}
	rest := size - indexHeader - int64(x.count())*int64(x.hashLen+8) - int64(2*x.hashLen)
	if rest < 0 || rest%8 != 0 || rest/8 > int64(x.count()) {
		return nil, badIndex(fmt.Sprintf("%d bytes do not fit %d objects", size, x.count()))
	}
	x.large = rest / 8
	return x, nil
}

func badIndex(what string) error {
	return fault.Wrap("read pack index", fault.ErrCorrupt, errors.New(what), "")
}

// count is the number of objects in the pack.
func (x *packIndex) count() int { return int(x.fanout[255]) }

// find returns where in the pack the object begins, in bytes.
func (x *packIndex) find(oid string) (offset int64, found bool, err error) {
	n, found, err := x.position(oid)
	if err != nil || !found {
		return 0, false, err
	}
	offset, err = x.offset(n)
	return offset, err == nil, err
}

// has tells whether the pack holds the object. It reads the ids only: the offsets lie far from them.
func (x *packIndex) has(oid string) (bool, error) {
	_, found, err := x.position(oid)
	return found, err
}

// position returns the number of the object's entry.
func (x *packIndex) position(oid string) (n int, found bool, err error) {
	want, err := hex.DecodeString(oid)
	if err != nil || len(want) != x.hashLen {
		return 0, false, nil
	}
	low, high := 0, int(x.fanout[want[0]])
	if want[0] > 0 {
		low = int(x.fanout[want[0]-1])
	}
	for high-low > indexRun {
		middle := low + (high-low)/2
		id, err := x.id(middle)
		if err != nil {
			return 0, false, err
		}
		if bytes.Compare(id, want) <= 0 {
			low = middle
		} else {
			high = middle
		}
	}
	if err := x.load(low, high); err != nil {
		return 0, false, err
	}
	n = low + sort.Search(high-low, func(i int) bool { return bytes.Compare(x.loaded(low+i), want) >= 0 })
	return n, n < high && bytes.Equal(x.loaded(n), want), nil
}

// each calls f with every object id, in order.
func (x *packIndex) each(f func(oid string) error) error {
	for low := 0; low < x.count(); low += indexRun {
		high := min(low+indexRun, x.count())
		if err := x.load(low, high); err != nil {
			return err
		}
		for n := low; n < high; n++ {
			if err := f(hex.EncodeToString(x.loaded(n))); err != nil {
				return err
			}
		}
	}
	return nil
}

// load makes the ids of entries low to high ready for loaded.
func (x *packIndex) load(low, high int) error {
	if low >= x.runStart && high <= x.runStart+len(x.run)/x.hashLen {
		return nil
	}
	raw, err := x.read(indexHeader+int64(low)*int64(x.hashLen), (high-low)*x.hashLen)
	if err != nil {
		return err
	}
	x.run, x.runStart = raw, low
	return nil
}

func (x *packIndex) loaded(n int) []byte {
	at := (n - x.runStart) * x.hashLen
	return x.run[at : at+x.hashLen]
}

func (x *packIndex) id(n int) ([]byte, error) {
	return x.read(indexHeader+int64(n)*int64(x.hashLen), x.hashLen)
}

func (x *packIndex) offset(n int) (int64, error) {
	offsets := indexHeader + int64(x.count())*int64(x.hashLen+4)
	raw, err := x.read(offsets+4*int64(n), 4)
	if err != nil {
		return 0, err
	}
	small := binary.BigEndian.Uint32(raw)
	if small&(1<<31) == 0 {
		return int64(small), nil
	}
	at := int64(small &^ (1 << 31))
	if at >= x.large {
		return 0, badIndex("an offset lies outside its table")
	}
	if raw, err = x.read(offsets+4*int64(x.count())+8*at, 8); err != nil {
		return 0, err
	}
	offset := binary.BigEndian.Uint64(raw)
	if offset > 1<<62 {
		return 0, badIndex("an offset is not possible")
	}
	return int64(offset), nil
}

func (x *packIndex) read(at int64, n int) ([]byte, error) {
	if _, err := x.r.Seek(at, io.SeekStart); err != nil {
		return nil, err
	}
	raw := make([]byte, n)
	if _, err := io.ReadFull(x.r, raw); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, badIndex("it is cut short")
		}
		return nil, err
	}
	return raw, nil
}
