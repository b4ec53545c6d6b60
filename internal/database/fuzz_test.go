package database

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
)

// inPieces feeds an ending in pieces of a size, and gives its verdict.
func inPieces(e ending, data []byte, size int) string {
	for len(data) > 0 {
		n := min(size, len(data))
		e.Write(data[:n]) //nolint:errcheck // fails never
		data = data[n:]
	}
	if err := e.end(); err != nil {
		return err.Error()
	}
	return ""
}

// FuzzEndings makes sure that what is said of a dump does not hang on how it comes, and that nothing in it is a panic.
func FuzzEndings(f *testing.F) {
	f.Add([]byte("-- Current Database: `a`\n-- Table structure for table `t`\n-- Dump completed\n"))
	f.Add([]byte("-- CHANGE MASTER TO MASTER_LOG_FILE='a', MASTER_LOG_POS=4;\n-- SET GLOBAL gtid_slave_pos='0-1-2';\n\n"))
	f.Add(archive(14))
	f.Add(archive(16))
	f.Add(append([]byte("REDIS0009\xff"), binary.LittleEndian.AppendUint64(nil, rdbChecksum(0, []byte("REDIS0009\xff")))...))
	f.Add(append([]byte(sqliteMagic), make([]byte, 200)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		endings := map[string]func() ending{
			"mysql":    func() ending { return newMySQLEnding([]string{"a"}) },
			"postgres": func() ending { return newPostgresEnding() },
			"redis":    func() ending { return &redisEnding{} },
			"sqlite":   func() ending { return &sqliteEnding{} },
		}
		for name, begin := range endings {
			whole := inPieces(begin(), data, len(data))
			for _, size := range []int{1, 7, 41} {
				if got := inPieces(begin(), data, size); got != whole {
					t.Errorf("%s: in pieces of %d %q, at once %q", name, size, got, whole)
				}
			}
		}
	})
}

// archive is a dump of PostgreSQL of one table with one chunk of data.
func archive(minor byte) []byte {
	b := append([]byte("PGDMP"), 1, minor, 0, 4, 8, 1)
	number := func(n uint32) { b = binary.LittleEndian.AppendUint32(append(b, 0), n) }
	text := func(s string) { number(uint32(len(s))); b = append(b, s...) }
	none := func() { b = append(b, 1, 1, 0, 0, 0) }
	if minor >= 15 {
		b = append(b, 0)
	} else {
		number(0)
	}
	for range 7 {
		number(1)
	}
	text("db")
	text("15")
	text("15")
	number(1) // entries
	number(3)
	number(1) // with data
	for _, s := range []string{"0", "0", "t", "TABLE"} {
		text(s)
	}
	number(2)
	for _, s := range []string{"def", "", "copy", "public", ""} {
		text(s)
	}
	if minor >= 14 {
		text("heap")
	}
	if minor >= 16 {
		number('r')
	}
	text("owner")
	text("false")
	none()
	b = append(b, 1, 0, 0, 0, 0, 0, 0, 0, 0) // where the data is
	b = append(b, 1)                         // a block
	number(3)
	text("1\tone\n")
	number(0)
	return b
}

func TestPostgresArchivesOfEachVersion(t *testing.T) {
	for minor := byte(12); minor <= 16; minor++ {
		whole := archive(minor)
		if got := inPieces(newPostgresEnding(), whole, 5); got != "" {
			t.Errorf("1.%d: %s", minor, got)
		}
		for cut := range whole {
			if inPieces(newPostgresEnding(), whole[:cut], len(whole)) == "" {
				t.Errorf("1.%d: cut at %d of %d, and not found", minor, cut, len(whole))
			}
		}
	}
}

// FuzzRedis turns what need not be a dump into commands.
func FuzzRedis(f *testing.F) {
	f.Add([]byte("REDIS0010\xfe\x00\x00\x01k\x01v\xff"))
	f.Add([]byte("REDIS0010\xfc\x01\x02\x03\x04\x05\x06\x07\x08\x00\xc0\x07\xc3\x05\x06\x00a\x80\x00\xff"))
	f.Add([]byte("REDIS0010\xfa\x01a\x01b\x05\x01z\x01\x01m\x00\x00\x00\x00\x00\x00\xf0\x3f\xff"))
	f.Add([]byte("REDIS0010\x15\x01s\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff"))
	f.Add([]byte("REDIS0010\x07\x01m\x81\x00\x00\x00\x00\x00\x00\x00\x01\x02\x05\x00\xff"))
	f.Fuzz(func(t *testing.T, dump []byte) {
		var out bytes.Buffer
		if err := rdbCommands(bytes.NewReader(dump), &out); err != nil {
			return
		}
		if out.Len() > 0 && (out.Bytes()[0] != '*' || !bytes.HasSuffix(out.Bytes(), []byte("\r\n"))) {
			t.Errorf("no commands: %q", out.Bytes())
		}
	})
}

// FuzzUnmarked passes on all of what it reads, or all but a mark.
func FuzzUnmarked(f *testing.F) {
	dump := append([]byte("REDIS0009\xff"), make([]byte, rdbSum)...)
	f.Add(dump, 3)
	f.Add(append(dump, bytes.Repeat([]byte("a"), rdbMark)...), 100)
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		size = max(1, min(size, 4096))
		u := &unmarked{from: bytes.NewReader(data)}
		var got []byte
		buffer := make([]byte, size)
		for {
			n, err := u.Read(buffer)
			got = append(got, buffer[:n]...)
			if err == io.EOF { //nolint:errorlint // as io.Reader has it
				break
			}
		}
		if !bytes.Equal(got, data) && !(len(data) >= rdbMark && bytes.Equal(got, data[:len(data)-rdbMark])) {
			t.Errorf("%d bytes became %d", len(data), len(got))
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"version":1,"engine":"mysql","files":[{"name":"dump.sql","databases":["a"],"tables":1}]}`))
	f.Add([]byte(`{"version":1,"files":[{"name":"../dump.sql"}]}`))
	f.Fuzz(func(t *testing.T, document []byte) {
		m, err := parseManifest(document)
		if (m == nil) == (err == nil) {
			t.Errorf("got %v and %v", m, err)
		}
	})
}
