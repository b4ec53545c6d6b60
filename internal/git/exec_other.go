//go:build !linux

package git

import "os/exec"

// ownGroup does nothing here: cancellation kills the program itself, whose children end on their broken pipes.
func ownGroup(*exec.Cmd) {}

// limitMemory does nothing here: only Linux limits a process that is running.
func limitMemory(int, int64) error { return nil }

// widenPipe does nothing here.
func widenPipe(any) {}
