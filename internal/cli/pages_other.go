//go:build !linux

package cli

// dropPages does nothing: only on Linux are the pages of the program counted as the process's own.
func dropPages() {}
