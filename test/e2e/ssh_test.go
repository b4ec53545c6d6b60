//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sshd is a running OpenSSH server that lets the test's key in.
type sshd struct {
	port       string
	key        string // file of the private key
	knownHosts string // file with the server's key
}

func startSSHD(t *testing.T) *sshd {
	t.Helper()
	binary, err := exec.LookPath("sshd")
	if err != nil {
		binary = "/usr/sbin/sshd"
	}
	if _, err := os.Stat(binary); err != nil {
		t.Fatal("there is no sshd: run `make debian`")
	}
	if os.Getuid() == 0 { // sshd run by root wants its empty directory
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	keygen := func(name string) string {
		path := filepath.Join(dir, name)
		if r := finish(t, exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path)); r.exit != 0 {
			t.Fatalf("ssh-keygen: %s", r.stderr)
		}
		return path
	}
	host, user, port := keygen("host"), keygen("user"), freePort(t)
	config := fmt.Sprintf("ListenAddress 127.0.0.1:%s\nHostKey %s\nAuthorizedKeysFile %s.pub\nStrictModes no\nPidFile none\n"+
		"PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nPermitRootLogin prohibit-password\n", port, host, user)
	write(t, dir, "config", config)
	public, err := os.ReadFile(host + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "known_hosts", fmt.Sprintf("[127.0.0.1]:%s %s", port, public))

	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	serve := exec.CommandContext(ctx, binary, "-D", "-e", "-f", filepath.Join(dir, "config"))
	var log bytes.Buffer
	serve.Stderr = &log
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		serve.Wait() // it was killed
		if t.Failed() {
			t.Logf("sshd said:\n%s", log.Bytes())
		}
	})
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", "127.0.0.1:"+port); err == nil {
			conn.Close()
			return &sshd{port, user, filepath.Join(dir, "known_hosts")}
		}
	}
	t.Fatal("sshd is not up after two minutes")
	return nil
}

// command is the ssh command by which a client trusts the hosts in a file.
func (s *sshd) command(knownHosts string) string {
	return fmt.Sprintf("GIT_SSH_COMMAND=ssh -F none -o IdentitiesOnly=yes -i %s -o UserKnownHostsFile=%s -o GlobalKnownHostsFile=none", s.key, knownHosts)
}

func TestSSH(t *testing.T) {
	s := startSSHD(t)
	source := newWorkTree(t)
	address := fmt.Sprintf("ssh://%s@127.0.0.1:%s%s", userName(), s.port, source)
	b := newBackstay(t, s.command(s.knownHosts))

	r := b.backup(t, address)
	if r.Point.State != "complete" {
		t.Errorf("the point is %s", r.Point.State)
	}
	dir := filepath.Join(t.TempDir(), "restored")
	b.ok(t, "restore", "latest", "--to", dir)
	same(t, dir, source)

	git(t, source, "commit", "--quiet", "--allow-empty", "-m", "second")
	b.backup(t, address)
	if r := b.backup(t, address); r.Requests != 1 || r.StoredBytes > 10_000 {
		t.Errorf("unchanged: %d requests, %d bytes stored; want 1 and at most 10,000", r.Requests, r.StoredBytes)
	}

	target := t.TempDir()
	git(t, target, "init", "--quiet", "--bare", "--initial-branch=main")
	b.ok(t, "restore", "latest", "--to", fmt.Sprintf("ssh://%s@127.0.0.1:%s%s", userName(), s.port, target))
	same(t, target, source)
}

func TestSSHHostKeyIsChecked(t *testing.T) {
	s := startSSHD(t)
	source := newWorkTree(t)
	b := newBackstay(t, s.command(os.DevNull))
	r := b.run(t, "backup", fmt.Sprintf("ssh://%s@127.0.0.1:%s%s", userName(), s.port, source))
	if r.exit == 0 || !strings.Contains(strings.ToLower(r.stderr), "host key") {
		t.Errorf("exit %d, want a failure that speaks of the host key:\n%s", r.exit, r.stderr)
	}
}
