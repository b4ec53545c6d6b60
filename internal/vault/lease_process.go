package vault

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// process names a process so that those beside it can tell whether it still runs, and nobody else thinks so: a process id means
// something only in its boot of its machine, in its container, and until it is given again. It is "" where the system has no /proc.
func process(pid int) string {
	place, started := place(), started(pid)
	if place == "" || started == "" {
		return ""
	}
	return fmt.Sprintf("%s %d %s", place, pid, started)
}

// wasKilled reports whether a process named so ran in this place and runs no more.
func wasKilled(name string) bool {
	words := strings.Fields(name)
	if len(words) != 3 || words[0] != place() {
		return false
	}
	pid, err := strconv.Atoi(words[1])
	return err == nil && started(pid) != words[2] && !hidden(pid)
}

// hidden reports whether a process of another user is there that /proc may not show us.
func hidden(pid int) bool {
	p, err := os.FindProcess(pid)
	return err == nil && errors.Is(p.Signal(syscall.Signal(0)), os.ErrPermission)
}

// place is this boot of this machine, and the container in it.
func place() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	space, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(boot)) + "/" + space
}

// started is when a running process was started, in ticks since the boot; "" for one that has ended.
func started(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The program's name stands in brackets and may hold anything. After it come the state and, as the 22nd of all, the time.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return ""
	}
	return fields[19]
}
