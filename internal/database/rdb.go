package database

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/backstay/backstay/internal/fault"
)

// Opcodes of a dump of Redis that are no types of values.
const (
	rdbSlot      = 0xf4
	rdbFunction  = 0xf5
	rdbIdle      = 0xf8
	rdbFrequency = 0xf9
	rdbFact      = 0xfa
	rdbSizes     = 0xfb
	rdbExpiresMS = 0xfc
	rdbExpires   = 0xfd
	rdbDatabase  = 0xfe
)

// mostValue bounds one value, in bytes: what a server takes as one argument, unless it is told otherwise.
const mostValue = 512 << 20

// rdbCommands turns a dump into the commands that bring it back, in the protocol of Redis: RESTORE takes values as a dump has them. One
// value at a time is in memory.
func rdbCommands(from io.Reader, to io.Writer) error {
	r := &rdbReader{from: bufio.NewReaderSize(from, 64<<10)}
	out := bufio.NewWriterSize(to, 64<<10)
	if err := r.commands(out); err != nil {
		var class *fault.Error
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return cutShort("it has no end")
		}
		if errors.As(err, &class) || errors.Is(err, io.ErrClosedPipe) {
			return err
		}
		return fault.Wrap("read the dump", nil, err, "")
	}
	return out.Flush()
}

// rdbReader reads a dump, and keeps what it reads of a value.
type rdbReader struct {
	from    *bufio.Reader
	version uint16
	kept    []byte
	// Of the key that comes next.
	options []string
	expires int64 // in milliseconds; 0 for never
}

func nonsense(what string) error {
	return fault.New("", fault.ErrCorrupt, "the dump makes no sense: "+what, "")
}

func (r *rdbReader) commands(out *bufio.Writer) error {
	head, err := r.bytes(int64(len(rdbMagic) + 4))
	if err != nil {
		return err
	}
	version, err := strconv.ParseUint(string(head[len(rdbMagic):]), 10, 16)
	if err != nil || string(head[:len(rdbMagic)]) != rdbMagic {
		return nonsense("it does not begin as one of Redis")
	}
	r.version = uint16(version)
	for {
		r.kept = r.kept[:0]
		code, err := r.byte()
		if err != nil {
			return err
		}
		if code == rdbEnd {
			_, err := r.from.Discard(rdbSum) // the vault's own makes good for it
			return err
		}
		if err := r.record(code, out); err != nil {
			return err
		}
	}
}

// record reads what follows an opcode.
func (r *rdbReader) record(code byte, out *bufio.Writer) error {
	switch code {
	case rdbFact:
		return r.strings(2)
	case rdbSizes:
		return r.lengths(2)
	case rdbSlot:
		return r.lengths(3)
	case rdbDatabase:
		n, err := r.length()
		if err != nil {
			return err
		}
		return command(out, []byte("SELECT"), []byte(strconv.FormatUint(n, 10)))
	case rdbFunction:
		if err := r.strings(1); err != nil {
			return err
		}
		return command(out, []byte("FUNCTION"), []byte("RESTORE"), r.payload(r.kept), []byte("REPLACE"))
	case rdbExpires, rdbExpiresMS:
		size := map[byte]int64{rdbExpires: 4, rdbExpiresMS: 8}[code]
		b, err := r.bytes(size)
		if err != nil {
			return err
		}
		if size == 4 {
			r.expires = int64(binary.LittleEndian.Uint32(b)) * 1000
			return nil
		}
		r.expires = int64(binary.LittleEndian.Uint64(b) & math.MaxInt64)
		return nil
	case rdbIdle:
		n, err := r.length()
		r.options = []string{"IDLETIME", strconv.FormatUint(n, 10)}
		return err
	case rdbFrequency:
		n, err := r.byte()
		r.options = []string{"FREQ", strconv.Itoa(int(n))}
		return err
	}
	return r.key(code, out)
}

// key reads a key and its value, and writes the command that brings both back.
func (r *rdbReader) key(kind byte, out *bufio.Writer) error {
	name, err := r.text()
	if err != nil {
		return err
	}
	r.kept = append(r.kept[:0], kind)
	if err := r.value(kind); err != nil {
		return fmt.Errorf("key %.80q: %w", name, err)
	}
	args := [][]byte{[]byte("RESTORE"), name, []byte(strconv.FormatInt(r.expires, 10)), r.payload(r.kept)}
	if r.expires != 0 {
		args = append(args, []byte("ABSTTL"))
	}
	for _, o := range r.options {
		args = append(args, []byte(o))
	}
	r.expires, r.options = 0, nil
	return command(out, args...)
}

// payload is a value as DUMP would give it: with the version and a checksum.
func (r *rdbReader) payload(value []byte) []byte {
	value = binary.LittleEndian.AppendUint16(value, r.version)
	return binary.LittleEndian.AppendUint64(value, rdbChecksum(0, value))
}

func command(out *bufio.Writer, args ...[]byte) error {
	fmt.Fprintf(out, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(out, "$%d\r\n", len(a))
		out.Write(a) //nolint:errcheck // the next call says so
		if _, err := out.WriteString("\r\n"); err != nil {
			return err
		}
	}
	return nil
}

// value passes over a value of a type.
func (r *rdbReader) value(kind byte) error {
	switch kind {
	case 0, 9, 10, 11, 12, 13, 16, 17, 20: // strings, and collections packed into one
		return r.strings(1)
	case 1, 2, 14: // lists, sets
		return r.each(func() error { return r.strings(1) })
	case 3: // sorted sets, scores in digits
		return r.each(func() error { return errors.Join(r.strings(1), r.score()) })
	case 4: // hashes
		return r.each(func() error { return r.strings(2) })
	case 5: // sorted sets
		return r.each(func() error { return errors.Join(r.strings(1), r.pass(8)) })
	case 7:
		return r.module()
	case 15, 19, 21:
		return r.stream(kind)
	case 18: // lists of packed lists
		return r.each(func() error { return errors.Join(r.lengths(1), r.strings(1)) })
	case 24: // hashes whose fields expire
		return errors.Join(r.pass(8), r.each(func() error { return errors.Join(r.lengths(1), r.strings(2)) }))
	case 25:
		return errors.Join(r.pass(8), r.strings(1))
	}
	return fault.New("", fault.ErrUnsupported, fmt.Sprintf("values of type %d are not known", kind),
		"start a server on dump.rdb, which restore --to DIR writes, or take a newer backstay")
}

func (r *rdbReader) score() error {
	n, err := r.byte()
	if err != nil || n >= 253 { // not a number, and the infinities
		return err
	}
	return r.pass(int64(n))
}

func (r *rdbReader) module() error {
	if err := r.lengths(1); err != nil {
		return err
	}
	for {
		code, err := r.length()
		if err != nil {
			return err
		}
		switch code {
		case 0:
			return nil
		case 1, 2:
			err = r.lengths(1)
		case 3:
			err = r.pass(4)
		case 4:
			err = r.pass(8)
		case 5:
			err = r.strings(1)
		default:
			err = nonsense("a module's value")
		}
		if err != nil {
			return err
		}
	}
}

func (r *rdbReader) stream(kind byte) error {
	const withOffsets, withActivity = 19, 21
	numbers, group, consumer := uint64(3), uint64(2), int64(8)
	if kind >= withOffsets {
		numbers, group = 8, 3
	}
	if kind >= withActivity {
		consumer = 16
	}
	if err := r.each(func() error { return r.strings(2) }); err != nil {
		return err
	}
	if err := r.lengths(numbers); err != nil {
		return err
	}
	return r.each(func() error {
		if err := errors.Join(r.strings(1), r.lengths(group)); err != nil {
			return err
		}
		if err := r.each(func() error { return errors.Join(r.pass(24), r.lengths(1)) }); err != nil {
			return err
		}
		return r.each(func() error {
			if err := errors.Join(r.strings(1), r.pass(consumer)); err != nil {
				return err
			}
			return r.each(func() error { return r.pass(16) })
		})
	})
}

// each reads a number, and as many items.
func (r *rdbReader) each(item func() error) error {
	n, err := r.length()
	for ; n > 0 && err == nil; n-- {
		err = item()
	}
	return err
}

func (r *rdbReader) lengths(n uint64) error {
	for range n {
		if _, err := r.length(); err != nil {
			return err
		}
	}
	return nil
}

func (r *rdbReader) strings(n int) error {
	for range n {
		size, packed, err := r.size()
		if err != nil {
			return err
		}
		if packed {
			if size, err = r.packedSize(size); err != nil {
				return err
			}
		}
		if err := r.pass(size); err != nil {
			return err
		}
	}
	return nil
}

// packedSize is how many bytes a string takes that is written in another way: as a number, or compressed.
func (r *rdbReader) packedSize(code int64) (int64, error) {
	switch code {
	case 0, 1, 2:
		return 1 << code, nil
	case 3:
		size, err := r.length()
		if err == nil {
			_, err = r.length()
		}
		if size > mostValue {
			return 0, nonsense("the length of a string")
		}
		return int64(size), err
	}
	return 0, nonsense("how a string is written")
}

func (r *rdbReader) length() (uint64, error) {
	n, packed, err := r.number()
	if err == nil && packed {
		err = nonsense("a number")
	}
	return n, err
}

func (r *rdbReader) size() (n int64, packed bool, err error) {
	size, packed, err := r.number()
	if err == nil && size > mostValue {
		err = nonsense("the length of a string")
	}
	return int64(size & math.MaxInt64), packed, err
}

// number reads a length: its first two bits say how many bits follow, or that it is none, but a way of writing.
func (r *rdbReader) number() (n uint64, packed bool, err error) {
	first, err := r.byte()
	if err != nil {
		return 0, false, err
	}
	var b []byte
	switch first >> 6 {
	case 0:
		return uint64(first & 0x3f), false, nil
	case 1:
		b, err = r.bytes(1)
		if err != nil {
			return 0, false, err
		}
		return uint64(first&0x3f)<<8 | uint64(b[0]), false, nil
	case 3:
		return uint64(first & 0x3f), true, nil
	}
	switch first {
	case 0x80:
		if b, err = r.bytes(4); err == nil {
			n = uint64(binary.BigEndian.Uint32(b))
		}
	case 0x81:
		if b, err = r.bytes(8); err == nil {
			n = binary.BigEndian.Uint64(b)
		}
	default:
		err = nonsense("a length")
	}
	return n, false, err
}

// text reads a string for what it says.
func (r *rdbReader) text() ([]byte, error) {
	n, packed, err := r.size()
	switch {
	case err != nil:
		return nil, err
	case !packed:
		b, err := r.bytes(n)
		return append([]byte(nil), b...), err
	case n == 3:
		return r.compressed()
	case n > 3:
		return nil, nonsense("how a string is written")
	}
	b, err := r.bytes(1 << n)
	if err != nil {
		return nil, err
	}
	var v int64
	switch n {
	case 0:
		v = int64(int8(b[0]))
	case 1:
		v = int64(int16(binary.LittleEndian.Uint16(b)))
	case 2:
		v = int64(int32(binary.LittleEndian.Uint32(b)))
	}
	return strconv.AppendInt(nil, v, 10), nil
}

// compressed reads a string that is compressed by LZF: literals, and copies of what came before.
func (r *rdbReader) compressed() ([]byte, error) {
	size, err := r.length()
	full, fullErr := r.length()
	if err := errors.Join(err, fullErr); err != nil {
		return nil, err
	}
	if size > mostValue || full > mostValue {
		return nil, nonsense("the length of a string")
	}
	in, err := r.bytes(int64(size))
	if err != nil {
		return nil, err
	}
	var out []byte
	for len(in) > 0 {
		control := int(in[0])
		in = in[1:]
		if control < 32 {
			n := control + 1
			if n > len(in) {
				return nil, nonsense("a compressed string")
			}
			out, in = append(out, in[:n]...), in[n:]
			continue
		}
		n := control >> 5
		if n == 7 {
			if len(in) == 0 {
				return nil, nonsense("a compressed string")
			}
			n, in = n+int(in[0]), in[1:]
		}
		if len(in) == 0 {
			return nil, nonsense("a compressed string")
		}
		back := (control&0x1f)<<8 + int(in[0]) + 1
		in = in[1:]
		if back > len(out) || uint64(len(out)+n+2) > full {
			return nil, nonsense("a compressed string")
		}
		for range n + 2 {
			out = append(out, out[len(out)-back])
		}
	}
	if uint64(len(out)) != full {
		return nil, nonsense("a compressed string")
	}
	return out, nil
}

func (r *rdbReader) byte() (byte, error) {
	b, err := r.bytes(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

func (r *rdbReader) pass(n int64) error {
	_, err := r.bytes(n)
	return err
}

// bytes reads some bytes, and keeps them.
func (r *rdbReader) bytes(n int64) ([]byte, error) {
	const step = 1 << 20 // what a length claims is allocated only as it comes
	begin := len(r.kept)
	if int64(begin)+n > mostValue+(1<<20) {
		return nil, fault.New("", fault.ErrUnsupported, "a value of more than 512 MiB", "start a server on dump.rdb, which restore --to DIR writes")
	}
	for n > 0 {
		some := int(min(n, step))
		at := len(r.kept)
		r.kept = append(r.kept, make([]byte, some)...)
		if _, err := io.ReadFull(r.from, r.kept[at:]); err != nil {
			return nil, err
		}
		n -= int64(some)
	}
	return r.kept[begin:], nil
}
