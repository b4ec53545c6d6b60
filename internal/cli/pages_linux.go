package cli

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// dropPages gives back the pages of the program's own file that starting up has read: most of what a large program seems to take while it
// does little. Whatever of it is needed comes back from the page cache. It is worth doing where memory is promised, and harmless else, so
// that nothing of it is an error.
func dropPages() {
	program, err := os.Executable()
	if err != nil {
		return
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close() //nolint:errcheck // only read from
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		fields := strings.Fields(lines.Text()) // range, rights, offset, device, inode, file
		if len(fields) != 6 || fields[5] != program || strings.Contains(fields[1], "w") {
			continue // what was written must stay
		}
		first, last, _ := strings.Cut(fields[0], "-")
		from, err := strconv.ParseUint(first, 16, 64)
		to, endErr := strconv.ParseUint(last, 16, 64)
		if err == nil && endErr == nil {
			syscall.Syscall(syscall.SYS_MADVISE, uintptr(from), uintptr(to-from), syscall.MADV_DONTNEED) //nolint:errcheck // see above
		}
	}
}
