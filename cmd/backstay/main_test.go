package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"backstay": main})
}

// TestScripts runs the command line as users do; each script is one of their stories.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		Setup:               setUp,
		Condition:           condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":  exits,
			"keep":   keep,
			"silent": silent,
		},
	})
}

// TestReadmeSession holds the README to the script that runs its session.
func TestReadmeSession(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join("testdata", "script", "quickstart.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	_, session, _ := bytes.Cut(readme, []byte("\n```console\n")) // the other one needs a forge: test/e2e runs it
	session, _, _ = bytes.Cut(session, []byte("\n```\n"))
	commands := regexp.MustCompile(`(?m)^\$ (.*)$`).FindAllSubmatch(session, -1)
	if len(commands) < 3 {
		t.Fatalf("the README shows %d commands", len(commands))
	}
	rest := script
	for _, command := range commands {
		_, after, found := bytes.Cut(rest, append([]byte("\nexec "), append(command[1], '\n')...))
		if !found {
			t.Fatalf("quickstart.txtar does not go on with %q", command[1])
		}
		rest = append([]byte{'\n'}, after...)
	}
}

// setUp gives a script a home of its own, a name for its machine, and an author for its commits.
func setUp(env *testscript.Env) error {
	home := filepath.Join(env.WorkDir, "home")
	env.Setenv("HOME", home)
	env.Setenv("BACKSTAY_HOSTNAME", "here")
	env.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	for _, who := range []string{"AUTHOR", "COMMITTER"} {
		env.Setenv("GIT_"+who+"_NAME", "A U Thor")
		env.Setenv("GIT_"+who+"_EMAIL", "author@example.org")
	}
	return os.Mkdir(home, 0o755)
}

// condition knows [root]: scripts that mount file systems need it.
func condition(name string) (bool, error) {
	if name == "root" {
		return os.Geteuid() == 0, nil
	}
	return false, errors.New("unknown condition " + name)
}

// exits runs a program that must end with the given status: exits STATUS PROGRAM [ARGUMENT]...
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS PROGRAM [ARGUMENT]...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var ended interface{ ExitCode() int }
	switch {
	case errors.As(err, &ended):
		got = ended.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// keep keeps what a pattern's first group matches in the last standard output: keep NAME PATTERN
func keep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: keep NAME PATTERN")
	}
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	match := pattern.FindStringSubmatch(ts.ReadFile("stdout"))
	if len(match) < 2 {
		ts.Fatalf("no match for %s", args[1])
	}
	ts.Setenv(args[0], match[1])
}

// silent starts a server that takes connections and never says a word, and puts its address into an environment variable.
func silent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: silent NAME")
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], listener.Addr().String())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			defer connection.Close()
		}
	})
	ts.Defer(func() {
		ts.Check(listener.Close())
		serving.Wait()
	})
}
