//go:build unix

package scratchdir

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// lockFile locks f until it is closed or the process ends. It returns false when another process has it locked.
func lockFile(f *os.File) bool { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil }

// ownDirectory reports whether path is a directory that only the user of this process can list and change. Others may pass through it.
func ownDirectory(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() || info.Mode().Perm()&^0o011 != 0o700 {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}
