package database

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// TestDumpsOfRedisAreReadToTheirEnd: who loads a dump counts its bytes, however few come at a time.
func TestDumpsOfRedisAreReadToTheirEnd(t *testing.T) {
	dump := iotest.OneByteReader(strings.NewReader("REDIS0011\xffchecksum"))
	if err := rdbCommands(dump, io.Discard); err != nil {
		t.Fatal(err)
	}
	if n, err := dump.Read(make([]byte, 1)); n > 0 || err != io.EOF {
		t.Errorf("%d bytes are left, %v", n, err)
	}
	if err := rdbCommands(strings.NewReader("REDIS0011\xffcheck"), io.Discard); err == nil {
		t.Error("a dump without its checksum is whole")
	}
}
