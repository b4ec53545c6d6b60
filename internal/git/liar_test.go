package git

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1" // git's own
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// liar is a server of protocol version 2 that says what a test wants.
type liar struct {
	refs []Ref
	pack []byte
	lost func() // called once by the first fetch, which then finds that what is wanted is gone
}

// serve returns the address of its repository.
func (l *liar) serve(t *testing.T) string {
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	return server.URL + "/acme/api.git"
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var out bytes.Buffer
	line := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		fmt.Fprintf(&out, "%04x%s", len(text)+4, text)
	}
	body := new(bytes.Buffer)
	body.ReadFrom(r.Body) //nolint:errcheck // a test's own client
	switch {
	case strings.HasSuffix(r.URL.Path, "/info/refs"):
		line("# service=git-upload-pack\n")
		out.WriteString("0000")
		line("version 2\n")
		line("ls-refs=unborn\n")
		line("fetch\n")
		line("object-format=sha1\n")
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
	case strings.Contains(body.String(), "command=ls-refs"):
		for _, ref := range l.refs {
			text := ref.OID + " " + ref.Name
			if ref.Target != "" {
				text += " symref-target:" + ref.Target
			}
			line("%s\n", text)
		}
		w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
	case l.lost != nil:
		line("ERR upload-pack: not our ref %s", l.refs[0].OID)
		l.lost()
		l.lost = nil
		w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
		w.Write(out.Bytes()) //nolint:errcheck // a test's own client
		return
	default:
		line("packfile\n")
		for rest := l.pack; len(rest) > 0; {
			n := min(len(rest), 60_000)
			line("\x01%s", rest[:n])
			rest = rest[n:]
		}
		w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
	}
	out.WriteString("0000")
	w.Write(out.Bytes()) //nolint:errcheck // a test's own client
}

// packOf packs exactly the objects given.
func packOf(s *sourceRepo, oids ...string) []byte {
	s.t.Helper()
	out, err := outputOf(s.t.Context(), s.dir, strings.Join(oids, "\n")+"\n", "pack-objects", "--stdout", "-q")
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// rawObject is an entry of a pack made by hand.
type rawObject struct {
	kind int
	base int // of a delta: which entry
	data []byte
}

// rawPack makes a pack of entries, whatever they are.
func rawPack(objects ...rawObject) []byte {
	var b bytes.Buffer
	b.WriteString("PACK\x00\x00\x00\x02")
	b.Write(binary.BigEndian.AppendUint32(nil, uint32(len(objects))))
	var starts []int
	for _, o := range objects {
		starts = append(starts, b.Len())
		b.Write(entryHead(o.kind, len(o.data)))
		if o.kind == typeOfsDelta {
			b.Write(distance(starts[len(starts)-1] - starts[o.base]))
		}
		z := zlib.NewWriter(&b)
		z.Write(o.data) //nolint:errcheck // into memory
		z.Close()
	}
	sum := sha1.Sum(b.Bytes()) // git's own
	return append(b.Bytes(), sum[:]...)
}

func entryHead(kind, size int) []byte {
	head := []byte{byte(kind<<4 | size&15)}
	for size >>= 4; size > 0; size >>= 7 {
		head[len(head)-1] |= 0x80
		head = append(head, byte(size&0x7f))
	}
	return head
}

func distance(n int) []byte {
	back := []byte{byte(n & 0x7f)}
	for n >>= 7; n > 0; n >>= 7 {
		n--
		back = append([]byte{0x80 | byte(n&0x7f)}, back...)
	}
	return back
}

func deltaSize(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }
