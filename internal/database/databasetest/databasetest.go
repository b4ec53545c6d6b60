// Package databasetest starts database servers for tests. A machine without one of them fails the tests: test/debian.sh installs all.
package databasetest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/backstay/backstay/internal/database"
)

// Start starts a server of an engine, which listens on a socket, and on a port of the loopback where ports is set. It ends with the test.
func Start(t *testing.T, engine string, o database.ScratchOptions) *database.Scratch {
	t.Helper()
	s, err := database.StartScratch(context.Background(), engine, Open(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Open is a directory of a short name, for sockets, that other users may enter: servers may run as one. It ends with the test.
func Open(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "backstay-db-") //nolint:usetesting // its names are too long for sockets, and closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Port is one that nobody listens on, and that nobody is given by chance until the test ends. Who asks for it by its number gets it, as
// servers do that reuse addresses.
func Port(t *testing.T) int {
	t.Helper()
	held, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Close(held); err != nil {
			t.Error(err)
		}
	})
	syscall.CloseOnExec(held)
	err = errors.Join(
		syscall.SetsockoptInt(held, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1),
		syscall.Bind(held, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), // and no Listen, which would keep the server out
	)
	if err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(held)
	if err != nil {
		t.Fatal(err)
	}
	return at.(*syscall.SockaddrInet4).Port //nolint:errcheck // of the family asked for
}

// SQL has MariaDB do something, and gives its answer.
func SQL(t *testing.T, s database.Server, sql string) string {
	t.Helper()
	return run(t, sql, nil, "mariadb", "--no-defaults", "--user=root", "--socket="+s.Host, "--default-character-set=utf8mb4", "--batch", "--skip-column-names")
}

func run(t *testing.T, stdin string, env []string, argv ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = strings.NewReader(stdin), &out, &said, append(os.Environ(), env...)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v: %s", argv[0], err, said.String())
	}
	return out.String()
}

// PSQL has PostgreSQL do something in a database, and gives its answer.
func PSQL(t *testing.T, s database.Server, db, sql string) string {
	t.Helper()
	env := []string{"PGHOST=" + s.Host, "PGUSER=postgres", "PGDATABASE=" + db, "PGCLIENTENCODING=UTF8"}
	if s.Port != 0 {
		env = append(env, "PGPORT="+strconv.Itoa(s.Port))
	}
	return run(t, sql, env, "psql", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1")
}

// RedisCLI has Redis carry out commands, one a line, and gives its answers.
func RedisCLI(t *testing.T, s database.Server, commands string) string {
	t.Helper()
	return run(t, commands, nil, "redis-cli", "-s", s.Host)
}
