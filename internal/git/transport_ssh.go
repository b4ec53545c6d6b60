package git

import (
	"context"
	"os/exec"
	"strings"
)

// sshTransport runs the system's ssh, with the user's configuration, agent and known hosts. Host keys are checked as that
// configuration says; ssh never asks.
type sshTransport struct {
	url *URL
	opt Options
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
	args := []string{"-o", "BatchMode=yes", "-o", "ForwardAgent=no", "-o", "ClearAllForwardings=yes", "-o", "SendEnv=GIT_PROTOCOL"}
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
