package database

import (
	"os/exec"
	"syscall"
)

// dieWithParent has a server end with the thread that starts it, and so with this process, however that ends.
func dieWithParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
