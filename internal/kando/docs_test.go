package kando

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// TestMain is kando where the test's program is called by that name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != "kando" {
		os.Exit(m.Run())
	}
	cmd := NewCommand(Options{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Clock: time.Now, Version: "test"})
	os.Exit(fault.Of(cmd.ExecuteContext(context.Background())).Exit)
}

// program returns an environment in which kando is a program.
func program(t *testing.T) []string {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	bin := t.TempDir()
	must(t, os.Symlink(self, filepath.Join(bin, "kando")))
	return append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
}

func TestTheDocumentedExample(t *testing.T) {
	t.Parallel()
	server := newS3(t)
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "kando.md"))
	must(t, err)
	_, rest, _ := strings.Cut(string(page), "\n```sh\n")
	script, _, _ := strings.Cut(rest, "\n```\n")
	cmd := exec.CommandContext(t.Context(), "sh", "-eu")
	cmd.Dir, cmd.Stdin = t.TempDir(), strings.NewReader(script)
	cmd.Env = append(program(t), "S3_ENDPOINT=http://"+server.address, "S3_KEY="+s3Key, "S3_SECRET="+s3Secret)
	said, err := cmd.CombinedOutput()
	want := "create table orders();\n###Phase-output###: {\"key\":\"dumpPath\",\"value\":\"db/dump.sql\"}\n"
	if err != nil || string(said) != want || !strings.Contains(script, strings.TrimSpace(strings.Split(want, "\n")[1])) {
		t.Errorf("it says %q, %v", said, err)
	}
	if b, err := os.ReadFile(filepath.Join(cmd.Dir, "restored.sql")); err != nil || string(b) != "create table orders();\n" {
		t.Errorf("restored %q, %v", b, err)
	}
	if names := server.names(t); len(names) > 0 {
		t.Errorf("objects %v", names)
	}
}

func TestStandardInputMustBePiped(t *testing.T) {
	t.Parallel()
	server := newS3(t)
	for input, want := range map[string]int{"/dev/null": 2, "docs_test.go": 0} {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", "kando location push -s x - < "+input)
		cmd.Env = append(program(t), "KANDO_PROFILE="+inline(t, server.profile()))
		_ = cmd.Run() // its state says more
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("%s: exit %d, want %d", input, got, want)
		}
	}
	if got, want := kando(t, "", "location", "pull", "-s", "x", "-p", inline(t, server.profile()), "-"), "package kando"; !strings.HasPrefix(got, want) {
		t.Errorf("pulled %.20q", got)
	}
}
