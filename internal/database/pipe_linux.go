package database

import (
	"os"

	"golang.org/x/sys/unix"
)

// pipeSize is how much a pipe takes before who writes into it waits, in bytes: the most that Linux gives to anybody.
const pipeSize = 1 << 20

// widen makes a pipe take more. Where the system refuses it stays as it is.
func widen(pipe *os.File) {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) { //nolint:errcheck // see above
		unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) //nolint:errcheck // see above
	})
}
