package git

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/zlib"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/backstay/backstay/internal/fault"
)

// Types of objects in a pack.
const (
	typeCommit   = 1
	typeTag      = 4
	typeOfsDelta = 6
	typeRefDelta = 7
)

const (
	// maxHistoryObject bounds a commit or tag that is read, and a delta on the way to it, in bytes.
	maxHistoryObject = 1 << 20
	// maxDeltaDepth is more than git itself writes or reads (4,095).
	maxDeltaDepth = 4096
	// maxDeltaBytes bounds the deltas of one object together.
	maxDeltaBytes = 8 << 20
)

// errTooBig says that an object is larger than is read here. It says nothing bad of the object.
var errTooBig = errors.New("the object is too large to look into")

// read returns the type and content of a commit or tag. An object that no pack holds is fault.ErrNotFound; one that is of
// another type is returned without content.
func (s *packSet) read(ctx context.Context, oid string) (kind int, content []byte, err error) {
	var deltas [][]byte
	room := maxDeltaBytes
	p, offset, err := s.locate(oid)
	if err == nil && p == nil {
		err = fault.New("read object "+oid, fault.ErrNotFound, "", "")
	}
	for depth := 0; err == nil; depth++ {
		if depth > maxDeltaDepth {
			return 0, nil, errTooBig
		}
		var e *packEntry
		if e, err = p.entry(ctx, s, offset); err != nil {
			break
		}
		if e.kind != typeOfsDelta && e.kind != typeRefDelta {
			return applyDeltas(e.kind, e.content, deltas)
		}
		if room -= len(e.content); room < 0 {
			return 0, nil, errTooBig
		}
		deltas = append(deltas, e.content)
		offset = e.base
		if e.kind == typeRefDelta {
			var found bool
			if offset, found, err = p.index.find(e.baseID); err == nil && !found {
				err = badPack("the base of a delta is not in it")
			}
		}
	}
	return 0, nil, err
}

func applyDeltas(kind int, content []byte, deltas [][]byte) (int, []byte, error) {
	if kind != typeCommit && kind != typeTag {
		return kind, nil, nil
	}
	for i := len(deltas) - 1; i >= 0; i-- {
		var err error
		if content, err = applyDelta(content, deltas[i]); err != nil {
			return 0, nil, err
		}
	}
	return kind, content, nil
}

// packEntry is one entry of a pack.
type packEntry struct {
	kind    int
	content []byte // inflated; only of commits, tags and deltas
	base    int64  // of typeOfsDelta: where the base begins
	baseID  string // of typeRefDelta
}

// entry reads the entry at offset.
func (p *storedPack) entry(ctx context.Context, s *packSet, offset int64) (*packEntry, error) {
	if p.pack == nil {
		f, err := s.from.Open(ctx, p.packPath())
		if err != nil {
			return nil, err
		}
		p.pack = f
	}
	if offset < packHeader || offset >= p.size {
		return nil, badPack("an object lies outside it")
	}
	if _, err := p.pack.Seek(offset, io.SeekStart); err != nil {
		return nil, err
	}
	return readPackEntry(bufio.NewReader(p.pack), offset, p.index.hashLen)
}

// readPackEntry reads the entry that begins at offset of its pack.
func readPackEntry(r *bufio.Reader, offset int64, hashLen int) (*packEntry, error) {
	kind, size, err := readEntryHead(r)
	if err != nil {
		return nil, err
	}
	e := &packEntry{kind: kind}
	switch kind {
	case typeOfsDelta:
		back, err := readDistance(r)
		if err != nil {
			return nil, err
		}
		if e.base = offset - back; back <= 0 || e.base < packHeader {
			return nil, badPack("the base of a delta lies outside it")
		}
	case typeRefDelta:
		id := make([]byte, hashLen)
		if _, err := io.ReadFull(r, id); err != nil {
			return nil, cutPack(err)
		}
		e.baseID = hex.EncodeToString(id)
	case typeCommit, typeTag:
	default:
		return e, nil
	}
	if size > maxHistoryObject {
		return nil, errTooBig
	}
	e.content, err = inflate(r, int(size))
	return e, err
}

// readEntryHead reads the type of an entry and the size of its inflated content.
func readEntryHead(r io.ByteReader) (kind int, size uint64, err error) {
	b, err := r.ReadByte()
	if err != nil {
		return 0, 0, cutPack(err)
	}
	kind, size = int(b>>4)&7, uint64(b&15)
	for shift := 4; b&0x80 != 0; shift += 7 {
		if shift > 57 {
			return 0, 0, badPack("the size of an object is not possible")
		}
		if b, err = r.ReadByte(); err != nil {
			return 0, 0, cutPack(err)
		}
		size |= uint64(b&0x7f) << shift
	}
	return kind, size, nil
}

// readDistance reads how far before a delta its base begins.
func readDistance(r io.ByteReader) (int64, error) {
	b, err := r.ReadByte()
	if err != nil {
		return 0, cutPack(err)
	}
	distance := int64(b & 0x7f)
	for b&0x80 != 0 {
		if distance >= 1<<54 {
			return 0, badPack("the base of a delta is not possible")
		}
		if b, err = r.ReadByte(); err != nil {
			return 0, cutPack(err)
		}
		distance = (distance+1)<<7 | int64(b&0x7f)
	}
	return distance, nil
}

func inflate(r io.Reader, size int) ([]byte, error) {
	z, err := zlib.NewReader(r)
	if err != nil {
		return nil, cutPack(err)
	}
	defer z.Close()
	content, err := io.ReadAll(io.LimitReader(z, int64(size)+1))
	if err != nil {
		return nil, cutPack(err)
	}
	if len(content) != size {
		return nil, badPack("an object is not of the size it says")
	}
	return content, nil
}

// applyDelta makes the object that delta describes out of its base.
func applyDelta(base, delta []byte) ([]byte, error) {
	r := bytes.NewReader(delta)
	baseSize, err := readDeltaSize(r)
	if err != nil {
		return nil, err
	}
	size, err := readDeltaSize(r)
	if err != nil {
		return nil, err
	}
	if size > maxHistoryObject {
		return nil, errTooBig
	}
	if baseSize != uint64(len(base)) {
		return nil, badPack("a delta is for another base")
	}
	out := make([]byte, 0, size)
	for r.Len() > 0 {
		piece, err := readDeltaPiece(r, base)
		if err != nil {
			return nil, err
		}
		if uint64(len(out)+len(piece)) > size {
			return nil, badPack("a delta makes more than it says")
		}
		out = append(out, piece...)
	}
	if uint64(len(out)) != size {
		return nil, badPack("a delta makes less than it says")
	}
	return out, nil
}

// readDeltaPiece reads one instruction of a delta and returns the bytes it adds: literal ones, or a copy out of base.
func readDeltaPiece(r *bytes.Reader, base []byte) ([]byte, error) {
	op, err := r.ReadByte()
	if err != nil || op == 0 {
		return nil, badPack("a delta has an instruction that is not known")
	}
	if op&0x80 == 0 {
		piece := make([]byte, op)
		if _, err := io.ReadFull(r, piece); err != nil {
			return nil, cutPack(err)
		}
		return piece, nil
	}
	var field [7]byte // offset in four bytes, size in three, little end first; those absent are 0
	for i := range field {
		if op&(1<<i) == 0 {
			continue
		}
		if field[i], err = r.ReadByte(); err != nil {
			return nil, cutPack(err)
		}
	}
	start := int(field[0]) | int(field[1])<<8 | int(field[2])<<16 | int(field[3])<<24
	n := int(field[4]) | int(field[5])<<8 | int(field[6])<<16
	if n == 0 {
		n = 0x10000
	}
	if start > len(base) || n > len(base)-start {
		return nil, badPack("a delta copies from outside its base")
	}
	return base[start : start+n], nil
}

func readDeltaSize(r io.ByteReader) (uint64, error) {
	var size uint64
	for shift := 0; ; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, cutPack(err)
		}
		if shift > 56 {
			return 0, badPack("the size in a delta is not possible")
		}
		size |= uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			return size, nil
		}
	}
}

func badPack(what string) error {
	return fault.Wrap("read pack", fault.ErrCorrupt, errors.New(what), "")
}

// cutPack tells an end that comes too early, and zlib's findings, from failures of reading.
func cutPack(err error) error {
	var garbled flate.CorruptInputError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return badPack("it is cut short")
	case errors.Is(err, zlib.ErrHeader), errors.Is(err, zlib.ErrChecksum), errors.Is(err, zlib.ErrDictionary), errors.As(err, &garbled):
		return fault.Wrap("read pack", fault.ErrCorrupt, err, "")
	}
	return fmt.Errorf("read pack: %w", err)
}
