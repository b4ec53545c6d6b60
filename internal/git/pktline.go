package git

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/backstay/backstay/internal/fault"
)

// pktMax is the longest packet of the protocol, its four digits of length included.
const pktMax = 65520

// pktKind tells data from the packets that only delimit.
type pktKind int

const (
	pktData        pktKind = iota
	pktFlush               // 0000: the end of a message
	pktDelim               // 0001: the end of a section
	pktResponseEnd         // 0002: the end of a stateless answer
)

// pktReader reads packets one by one from a stream.
type pktReader struct {
	r   *bufio.Reader
	buf [pktMax]byte
}

func newPktReader(r io.Reader) *pktReader { return &pktReader{r: bufio.NewReaderSize(r, 64<<10)} }

// next reads one packet. The data is valid until the next call. The end of the stream between packets is io.EOF, inside of one
// io.ErrUnexpectedEOF. An ERR packet is returned as a *remoteError.
func (p *pktReader) next() ([]byte, pktKind, error) {
	head := p.buf[:4]
	if n, err := io.ReadFull(p.r, head); err != nil {
		if n == 0 && errors.Is(err, io.EOF) {
			return nil, 0, io.EOF
		}
		return nil, 0, err
	}
	size, ok := pktSize(head)
	switch {
	case !ok || size == 3 || size > pktMax:
		return nil, 0, malformed("%q where a packet's length should be", head)
	case size < 4:
		return nil, pktKind(size + 1), nil // 0, 1, 2 are flush, delim, response end
	}
	data := p.buf[4:size]
	if _, err := io.ReadFull(p.r, data); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, 0, err
	}
	if said, ok := bytes.CutPrefix(data, []byte("ERR ")); ok {
		return nil, 0, &remoteError{said: printable(string(said))}
	}
	return data, pktData, nil
}

// line reads one packet of text without its newline.
func (p *pktReader) line() (string, pktKind, error) {
	data, kind, err := p.next()
	return string(bytes.TrimSuffix(data, []byte("\n"))), kind, err
}

// pktSize reads four hexadecimal digits.
func pktSize(digits []byte) (int, bool) {
	size := 0
	for _, d := range digits {
		switch {
		case '0' <= d && d <= '9':
			size = size<<4 | int(d-'0')
		case 'a' <= d && d <= 'f':
			size = size<<4 | int(d-'a'+10)
		case 'A' <= d && d <= 'F':
			size = size<<4 | int(d-'A'+10)
		default:
			return 0, false
		}
	}
	return size, true
}

// Packets that only delimit, as written.
const (
	flushPkt = "0000"
	delimPkt = "0001"
)

// appendPkt appends line as a packet with its newline. Lines of ours are short: capabilities and object ids.
func appendPkt(b []byte, line string) []byte {
	b = fmt.Appendf(b, "%04x", len(line)+5)
	b = append(b, line...)
	return append(b, '\n')
}

// malformed is the error for an answer that breaks the protocol.
func malformed(format string, args ...any) error {
	return fault.New("", fault.ErrCorrupt, "the answer is not the git protocol: "+fmt.Sprintf(format, args...), "")
}

// remoteError is what the server says went wrong, by an ERR packet or on the error band.
type remoteError struct{ said string }

func (e *remoteError) Error() string { return "the server says: " + e.said }

// Bands of a multiplexed answer.
const (
	bandData     = 1
	bandProgress = 2
	bandError    = 3
)

// packReader gives the pack out of a multiplexed answer. Its io.EOF means that the closing flush was seen.
type packReader struct {
	pkts *pktReader
	rest []byte // data of the packet being handed out
	done bool
}

func (b *packReader) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		if err := b.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// fill reads the next packet of data into rest.
func (b *packReader) fill() error {
	if b.done {
		return io.EOF
	}
	data, kind, err := b.pkts.next()
	switch {
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	case err != nil:
		return err
	case kind == pktFlush:
		b.done = true
		return io.EOF
	case kind != pktData || len(data) == 0:
		return malformed("an empty packet inside the pack")
	}
	switch data[0] {
	case bandData:
		b.rest = data[1:]
	case bandProgress:
	case bandError:
		return &remoteError{said: printable(string(data[1:]))}
	default:
		return malformed("band %d", data[0])
	}
	return nil
}
