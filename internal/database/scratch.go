package database

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// Scratch is a server of its own in a directory, which nobody reaches but through its socket there: to try a dump on.
type Scratch struct {
	Server Server // how it is reached
	Port   int    // of the loopback that it listens on besides; 0 for none

	cmd  *exec.Cmd
	said tail
	done chan struct{} // closed at its end
	quit atomic.Bool
}

// ScratchOptions change how a scratch server runs. The zero value is good for all but tests.
type ScratchOptions struct {
	Arguments []string // of the server, after all others
	Port      int      // of the loopback that it listens on besides; 0 for none
}

// startTime bounds how long a scratch server may take until it answers.
const startTime = 2 * time.Minute

// StartScratch starts a server with what is installed on this machine. The directory must be there, and be the caller's to remove after Stop.
// Servers that refuse to run as root run as the user of their package. No server of the engine is fault.ErrNotFound.
func StartScratch(ctx context.Context, engine, dir string, o ScratchOptions) (*Scratch, error) {
	op := "start a scratch server of " + engine
	var s *Scratch
	var err error
	switch engine {
	case MySQL:
		s, err = startMariaDB(ctx, dir, o)
	case Postgres:
		s, err = startPostgres(ctx, dir, o)
	case Redis:
		s, err = startRedis(ctx, dir, o)
	default:
		return nil, fault.New(op, fault.ErrUnsupported, "there is none", "")
	}
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	s.Port = o.Port
	return s, nil
}

// launch starts a server's program, and waits until it answers.
func launch(ctx context.Context, server Server, as *account, dir, program string, argv ...string) (*Scratch, error) {
	s := &Scratch{Server: server, cmd: exec.Command(program, argv...), done: make(chan struct{})} //nolint:noctx // it outlives the call: Stop ends it
	s.cmd.Env, s.cmd.Dir, s.cmd.SysProcAttr = scratchEnv(dir), dir, as.process()
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.WaitDelay = &s.said, &s.said, killedTime
	dieWithParent(s.cmd)
	started := make(chan error)
	go func() {
		defer close(s.done)
		runtime.LockOSThread() // whose end is the server's
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			s.cmd.Wait() //nolint:errcheck // how it ended says nothing that it did not complain of
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	if err := s.await(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// await asks until the server answers.
func (s *Scratch) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	const pause = 20 * time.Millisecond
	for {
		err := Ping(ctx, s.Server, Local{})
		if err == nil {
			return nil
		}
		select {
		case <-s.done:
			return fault.New("", fault.ErrRefused, "it ended: "+s.said.String(), "")
		case <-ctx.Done():
			return fault.Wrap("", fault.ErrUnavailable, errors.Join(ctx.Err(), err), "")
		case <-time.After(pause):
		}
	}
}

// Stop ends the server at once, and waits for it: what it holds is scratch. Idempotent.
func (s *Scratch) Stop() error {
	if s.quit.Swap(true) {
		return nil
	}
	select {
	case <-s.done:
		return nil
	default:
	}
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the scratch server: %w", err)
	}
	<-s.done
	return nil
}

func scratchEnv(dir string) []string {
	return []string{"PATH=" + os.Getenv("PATH") + serverPaths, "LC_ALL=C.UTF-8", "HOME=" + dir, "TMPDIR=" + dir}
}

// serverPaths are where packages put what only servers run.
const serverPaths = ":/usr/sbin:/usr/local/sbin:/usr/libexec"

// find looks for a server's program where its package puts it.
func find(name string, patterns ...string) (string, error) {
	if found, err := exec.LookPath(name); err == nil {
		return found, nil
	}
	for _, dir := range append(filepath.SplitList(serverPaths[1:]), patterns...) {
		all, _ := filepath.Glob(filepath.Join(dir, name)) // of a pattern of ours
		for i := len(all) - 1; i >= 0; i-- {
			if found, err := exec.LookPath(all[i]); err == nil {
				return found, nil
			}
		}
	}
	return "", fault.New("", fault.ErrNotFound, name+" is not installed", "a scratch server needs the server's own package on this machine")
}

// prepare runs what makes the files of an empty server.
func prepare(ctx context.Context, as *account, dir, program string, argv ...string) error {
	cmd := exec.CommandContext(ctx, program, argv...)
	var said bytes.Buffer
	cmd.Env, cmd.Dir, cmd.SysProcAttr, cmd.WaitDelay = scratchEnv(dir), dir, as.process(), killedTime
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		var end tail
		end.Write(said.Bytes()) //nolint:errcheck // fails never
		return fault.New(filepath.Base(program), fault.ErrRefused, err.Error()+": "+end.String(), "")
	}
	return nil
}

func startMariaDB(ctx context.Context, dir string, o ScratchOptions) (*Scratch, error) {
	program, err := find("mariadbd")
	if err != nil {
		return nil, err
	}
	install, err := find("mariadb-install-db")
	if err != nil {
		return nil, err
	}
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "s")
	as := []string{}
	if os.Geteuid() == 0 {
		as = []string{"--user=root"} // it is the only one who is asked, and nobody else is
	}
	quick := append(as, "--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0", "--skip-name-resolve")
	err = prepare(ctx, nil, dir, install, append([]string{
		"--no-defaults", "--datadir=" + data, "--auth-root-authentication-method=normal", "--skip-test-db",
	}, quick...)...)
	if err != nil {
		return nil, err
	}
	argv := append([]string{"--no-defaults", "--datadir=" + data, "--socket=" + socket, "--pid-file=" + filepath.Join(dir, "pid")}, quick...)
	if o.Port == 0 {
		argv = append(argv, "--skip-networking")
	} else {
		argv = append(argv, "--bind-address=127.0.0.1", fmt.Sprintf("--port=%d", o.Port))
	}
	return launch(ctx, Server{Name: "scratch", Engine: MySQL, Host: socket}, nil, dir, program, append(argv, o.Arguments...)...)
}

func startPostgres(ctx context.Context, dir string, o ScratchOptions) (*Scratch, error) {
	const installed = "/usr/lib/postgresql/*/bin" // of Debian
	program, err := find("postgres", installed)
	if err != nil {
		return nil, err
	}
	initdb, err := find("initdb", installed)
	if err != nil {
		return nil, err
	}
	as, err := lesser(dir, "postgres")
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	err = prepare(ctx, as, dir, initdb, "--pgdata="+data, "--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8")
	if err != nil {
		return nil, err
	}
	argv := []string{"-D", data, "-k", dir, "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_wal_size=256MB", "-c", "listen_addresses="}
	if o.Port != 0 {
		argv = append(argv, "-c", "listen_addresses=127.0.0.1", "-p", strconv.Itoa(o.Port))
	}
	server := Server{Name: "scratch", Engine: Postgres, Host: dir, Port: o.Port}
	return launch(ctx, server, as, dir, program, append(argv, o.Arguments...)...)
}

func startRedis(ctx context.Context, dir string, o ScratchOptions) (*Scratch, error) {
	program, err := find("redis-server")
	if err != nil {
		if program, err = find("valkey-server"); err != nil {
			return nil, err
		}
	}
	socket := filepath.Join(dir, "s")
	argv := []string{
		"--port", strconv.Itoa(o.Port), "--bind", "127.0.0.1", "--unixsocket", socket, "--dir", dir, "--save", "", "--appendonly", "no",
		"--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--daemonize", "no",
	}
	return launch(ctx, Server{Name: "scratch", Engine: Redis, Host: socket}, nil, dir, program, append(argv, o.Arguments...)...)
}
