//go:build !linux

package database

import "os/exec"

// dieWithParent does nothing here: a server outlives a process that is killed.
func dieWithParent(*exec.Cmd) {}
