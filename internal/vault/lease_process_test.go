package vault

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

func TestWasKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no /proc")
	}
	own := process(os.Getpid())
	if own == "" || wasKilled(own) {
		t.Fatalf("this process, %q, is told to have ended", own)
	}
	child := exec.CommandContext(t.Context(), "sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	name := process(child.Process.Pid)
	if wasKilled(name) {
		t.Errorf("a running child, %q, is told to have ended", name)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Wait() // it was killed
	if !wasKilled(name) {
		t.Errorf("a killed child, %q, is told to run", name)
	}

	words := strings.Fields(own)
	for what, name := range map[string]string{
		"of no name":          "",
		"of another machine":  strings.Join([]string{"other/pid:[1]", "999999", "1"}, " "),
		"of no number":        words[0] + " x 1",
		"of a lease too long": own + " 1",
	} {
		if wasKilled(name) {
			t.Errorf("a process %s (%q) is told to have ended", what, name)
		}
	}
	if reused := words[0] + " " + words[1] + " 1"; !wasKilled(reused) {
		t.Errorf("%q, whose number another process has by now, is told to run", reused)
	}
}
