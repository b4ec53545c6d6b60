package database

import (
	"bytes"
	"fmt"

	"github.com/backstay/backstay/internal/fault"
)

// postgresEnding reads pg_dump's custom format as it passes: every table that the list of contents announces must come with its data, and
// each must come to its end.
//
// The format: a head; the list, whose entries are numbers and strings in a fixed order; and for each entry with data a block of chunks, of
// which the last is empty. It grows by a field now and then, which the version tells.
type postgresEnding struct {
	tables int64

	version   [3]byte
	intSize   int
	offSize   int
	entries   int64
	announced int64 // entries with data
	blocks    int64 // that came to their end
	err       error

	skip int64  // bytes to pass over
	want int    // bytes to gather before next is called
	have []byte // gathered
	next func([]byte)
	done bool // at a place where the dump may end

	chunks, objects func(int64) // kept, for they are called for every row
	gathered        func([]byte)
	number          func(int64)
}

// mostField bounds a number's bytes; mostEntries the list.
const (
	mostField   = 8
	mostEntries = 50_000_000
)

func newPostgresEnding() *postgresEnding {
	e := &postgresEnding{}
	e.chunks = e.chunk
	e.gathered = func(b []byte) { e.number(e.value(b)) }
	e.take(11, e.head)
	return e
}

func (e *postgresEnding) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && e.err == nil {
		if e.skip > 0 {
			some := min(e.skip, int64(len(p)))
			e.skip -= some
			p = p[some:]
			continue
		}
		some := min(e.want-len(e.have), len(p))
		e.have = append(e.have, p[:some]...)
		p = p[some:]
		if len(e.have) == e.want {
			gathered := e.have
			e.have = e.have[:0]
			e.next(gathered)
		}
	}
	return n, nil
}

func (e *postgresEnding) end() error {
	switch {
	case e.err != nil:
		return e.err
	case !e.done || e.skip > 0 || len(e.have) > 0 || e.blocks != e.announced:
		return cutShort(fmt.Sprintf("the data of %d tables of %d has come", e.blocks, e.announced))
	}
	return nil
}

func (e *postgresEnding) fail(what string) {
	e.err = fault.New("", fault.ErrCorrupt, "the dump makes no sense: "+what, "")
}

func (e *postgresEnding) take(n int, next func([]byte)) { e.want, e.next = n, next }

// int reads a number: a sign, and as many bytes as the head says.
func (e *postgresEnding) int(next func(int64)) {
	e.number = next
	e.take(1+e.intSize, e.gathered)
}

func (e *postgresEnding) value(b []byte) (v int64) {
	for i := e.intSize; i > 0; i-- {
		v = v<<8 | int64(b[i])
	}
	if b[0] != 0 {
		return -v
	}
	return v
}

// text reads a string: its length, which is negative for none, and its bytes, of which only the first few are looked at.
func (e *postgresEnding) text(next func(s string, none bool)) {
	const enough = 32
	e.int(func(length int64) {
		if length <= 0 {
			next("", length < 0)
			return
		}
		e.take(int(min(length, enough)), func(b []byte) {
			e.skip = length - int64(len(b))
			next(string(b), false)
		})
	})
}

func (e *postgresEnding) atLeast(minor byte) bool { return e.version[0] > 1 || e.version[1] >= minor }

func (e *postgresEnding) head(b []byte) {
	copy(e.version[:], b[5:8])
	e.intSize, e.offSize = int(b[8]), int(b[9])
	switch {
	case !bytes.HasPrefix(b, []byte("PGDMP")):
		e.fail("it does not begin as one")
	case e.version[0] != 1 || !e.atLeast(12):
		e.fail(fmt.Sprintf("it is of version %d.%d", e.version[0], e.version[1]))
	case e.intSize < 1 || e.intSize > mostField || e.offSize < 1 || e.offSize > mostField || b[10] != 1:
		e.fail("its head is none of this format")
	case e.atLeast(15):
		e.take(1, func([]byte) { e.fields("iiiiiiisss", e.contents) }) // how it is compressed; when, of what and by what it was made
	default:
		e.fields("iiiiiiiisss", e.contents)
	}
}

// fields passes over numbers and strings.
func (e *postgresEnding) fields(kinds string, then func()) {
	switch {
	case e.err != nil:
	case kinds == "":
		then()
	case kinds[0] == 'i':
		e.int(func(int64) { e.fields(kinds[1:], then) })
	default:
		e.text(func(string, bool) { e.fields(kinds[1:], then) })
	}
}

func (e *postgresEnding) contents() {
	e.int(func(entries int64) {
		if entries < 0 || entries > mostEntries {
			e.fail("the number of its entries")
			return
		}
		e.entries = entries
		e.entry()
	})
}

func (e *postgresEnding) entry() {
	if e.entries == 0 {
		e.block()
		return
	}
	e.entries--
	e.int(func(int64) { // its number
		e.int(func(data int64) {
			if data != 0 {
				e.announced++
			}
			e.fields("sss", func() { // object ids, name
				e.text(func(kind string, _ bool) {
					if kind == "TABLE" {
						e.tables++
					}
					e.fields(e.rest(), e.dependencies)
				})
			})
		})
	})
}

// rest are the fields of an entry after its kind: section, definition, drop, copy, schema, tablespace; then those that came later; owner and
// what OIDs were.
func (e *postgresEnding) rest() string {
	kinds := "isssss"
	if e.atLeast(14) {
		kinds += "s" // access method
	}
	if e.atLeast(16) {
		kinds += "i" // kind of relation
	}
	return kinds + "ss"
}

func (e *postgresEnding) dependencies() {
	e.text(func(_ string, none bool) {
		if !none {
			e.dependencies()
			return
		}
		e.take(1+e.offSize, func([]byte) { e.entry() })
	})
}

// block begins one, or is the end.
func (e *postgresEnding) block() {
	e.done = true
	e.take(1, func(kind []byte) {
		e.done = false
		large := kind[0] == 3
		if kind[0] != 1 && !large {
			e.fail("a block of an unknown kind")
			return
		}
		e.int(func(int64) { // whose it is
			if large {
				e.object()
				return
			}
			e.objects = nil
			e.int(e.chunks)
		})
	})
}

// object reads a large object: its number, which is 0 after the last, and its chunks.
func (e *postgresEnding) object() {
	e.int(func(oid int64) {
		if oid == 0 {
			e.ended()
			return
		}
		e.objects = func(int64) { e.object() }
		e.int(e.chunks)
	})
}

func (e *postgresEnding) chunk(length int64) {
	switch {
	case length < 0:
		e.fail("a chunk of no length")
	case length > 0:
		e.skip = length
		e.int(e.chunks)
	case e.objects != nil:
		e.objects(0)
	default:
		e.ended()
	}
}

func (e *postgresEnding) ended() {
	e.blocks++
	e.block()
}
