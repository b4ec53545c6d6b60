package git

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// sshTransport runs the system's ssh, with the user's configuration, agent and known hosts. Host keys are checked as that
// configuration says; ssh never asks.
type sshTransport struct {
	url  *URL
	opt  Options
	args []string // of sshArgs
}

// sshArgs are the arguments that ssh gets before all others.
func sshArgs(o Options) ([]string, error) {
	args := []string{"-o", "BatchMode=yes", "-o", "ForwardAgent=no", "-o", "ClearAllForwardings=yes"}
	if o.KeyFile != "" {
		file, err := sshFile("key file", o.KeyFile)
		if err != nil {
			return nil, err
		}
		args = append(args, "-i", file, "-o", "IdentitiesOnly=yes")
	}
	if o.KnownHostsFile != "" {
		file, err := sshFile("known hosts file", o.KnownHostsFile)
		if err != nil {
			return nil, err
		}
		args = append(args, "-o", `UserKnownHostsFile="`+file+`"`, "-o", "GlobalKnownHostsFile="+os.DevNull)
	}
	if o.KeyFile != "" || o.KnownHostsFile != "" {
		args = append(args, "-o", "StrictHostKeyChecking=yes")
	}
	return args, nil
}

// sshFile is a path as ssh takes it: it runs elsewhere, and reads some characters in file names as its own.
func sshFile(what, path string) (string, error) {
	op := what + " " + printable(path)
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	if strings.ContainsAny(path, "\"%$\n\r") {
		return "", fault.New(op, fault.ErrInvalid, `ssh takes no file name with ", % or $ in it`, "rename the file")
	}
	if _, err := os.Stat(path); err != nil {
		return "", fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	return path, nil
}

func (t *sshTransport) open(ctx context.Context, _ *watch) (*stream, error) {
	if err := refuseLiteral(t.url.Host); err != nil {
		return nil, err
	}
	return startStream(ctx, func(ctx context.Context) *exec.Cmd {
		return t.command(ctx, "git-upload-pack "+quoteShell(t.url.Path))
	}, t.opt.Password)
}

// command runs remote on the server. ParseURL lets no host, user or path through that ssh could take for an option.
func (t *sshTransport) command(ctx context.Context, remote string) *exec.Cmd {
	args := append(slices.Clone(t.args), "-o", "SendEnv=GIT_PROTOCOL")
	if t.url.Port != "" {
		args = append(args, "-p", t.url.Port)
	}
	host := t.url.Host
	if t.url.User != "" {
		host = t.url.User + "@" + host
	}
	args = append(args, host, remote)
	cmd := t.program(ctx, args)
	cmd.Env = append(cleanEnviron(t.opt.Env), "GIT_PROTOCOL=version="+t.opt.protocol)
	return cmd
}

// program is ssh, or what the user has put in its place; a command of several words is the shell's to read, as with git.
func (t *sshTransport) program(ctx context.Context, args []string) *exec.Cmd {
	shell := t.opt.SSHCommand
	if shell == "" {
		shell = t.opt.env("GIT_SSH_COMMAND")
	}
	switch program := t.opt.env("GIT_SSH"); {
	case shell != "":
		return command(ctx, "sh", append([]string{"-c", shell + ` "$@"`, "ssh"}, args...)...)
	case program != "":
		return command(ctx, program, args...)
	}
	return command(ctx, "ssh", args...)
}

// quoteShell quotes s for a shell, as git does.
func quoteShell(s string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(s) + "'"
}

// sshLFS finds the LFS server of a source that is reached by ssh.
type sshLFS struct {
	ssh     *sshTransport
	traffic *traffic
}

// access asks the server, by git-lfs-authenticate, where its LFS objects are and what opens them.
func (l *sshLFS) access(ctx context.Context, operation string) (*lfsAccess, error) {
	text, err := l.authenticate(ctx, operation)
	if err != nil {
		return nil, err
	}
	var answer lfsAction // the same document but for the name
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, fault.New("", fault.ErrCorrupt, "the answer to git-lfs-authenticate is not the JSON that it should be", "")
	}
	c, err := answer.call("", false)
	if err != nil {
		return nil, err
	}
	guard := newAddressGuard(l.ssh.url.Host)
	guard.look(ctx)
	client, err := newHTTPClient(l.ssh.opt, guard)
	if err != nil {
		return nil, err
	}
	web := &web{client: client, origin: c.url, agent: l.ssh.opt.UserAgent, idle: l.ssh.opt.IdleTimeout, traffic: l.traffic}
	return &lfsAccess{web: web, endpoint: c.url, header: c.own}, nil
}

// exitNoCommand is the exit status of a shell that finds no such command.
const exitNoCommand = 127

func (l *sshLFS) authenticate(ctx context.Context, operation string) ([]byte, error) {
	if err := refuseLiteral(l.ssh.url.Host); err != nil {
		return nil, err
	}
	watched, w := newWatch(ctx, l.ssh.opt.IdleTimeout)
	defer w.stop()
	cmd := l.ssh.command(watched, "git-lfs-authenticate "+quoteShell(l.ssh.url.Path)+" "+operation)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	l.traffic.requests.Add(1)
	c, err := start(cmd, 0)
	if err != nil {
		return nil, err
	}
	text, readErr := io.ReadAll(io.LimitReader(w.answer(l.traffic.counted(out)), smallFile))
	out.Close() // a program that still writes ends on it
	err = c.wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == exitNoCommand {
		return nil, errNoLFS("the server does not know git-lfs-authenticate", err)
	}
	if err == nil {
		err = readErr
	}
	return text, w.explain(watched, err)
}
