package notify_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/notify"
)

// A log that goes to a device or a pipe leaves it as it is: /dev/null with the mode 0600 stops every other user's programs.
func TestLogFileLeavesDevicesAlone(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o666); err != nil {
		t.Skip(err)
	}
	if err := os.Chmod(pipe, 0o666); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(pipe, os.O_RDWR, 0) // opening for writing alone waits for one
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	l, err := notify.OpenLogFile(notify.LogFileOptions{Dir: dir, Name: "pipe", MaxSize: 10, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 3 {
		write(t, l, "a line of a log\n")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(pipe)
	if err != nil || info.Mode().Perm() != 0o666 || info.Mode().Type() != os.ModeNamedPipe || len(entries) != 1 {
		t.Errorf("%v, %v, %v", info.Mode(), err, entries)
	}
}
