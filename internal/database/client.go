package database

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// mostAnswer bounds what a server may answer to a question, in bytes.
const mostAnswer = 64 << 20

// answerTime bounds how long a server may think about a short question. redis-cli waits for ever for one that does not speak.
const answerTime = time.Minute

// ask runs a command whose answer is small, and comes soon.
func (c *client) ask(ctx context.Context, command Command) (string, error) {
	soon, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	answer, err := c.answer(soon, command)
	if err != nil && ctx.Err() == nil && soon.Err() != nil {
		return "", fault.New(command.Argv[0], fault.ErrUnavailable, "the server does not answer", "look at its address, and whether it speaks TLS")
	}
	return answer, err
}

// answer runs a command whose answer is small.
func (c *client) answer(ctx context.Context, command Command) (string, error) {
	var answer bounded
	command.Stdout = &answer
	if err := c.runner.Run(ctx, command); err != nil {
		return "", err
	}
	return answer.String(), nil
}

// bounded takes no more than mostAnswer.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > mostAnswer {
		return 0, errors.New("the answer is too long")
	}
	return b.Buffer.Write(p)
}

// tool finds the first of several programs that is there, and what it says of its version.
func (c *client) tool(ctx context.Context, names ...string) (name, version string, err error) {
	for _, name := range names {
		version, err := c.ask(ctx, Command{Argv: []string{name, "--version"}})
		if errors.Is(err, fault.ErrNotFound) {
			continue
		}
		return name, strings.TrimSpace(version), err
	}
	return "", "", fault.New("", fault.ErrNotFound, "there is no "+strings.Join(names, " and no ")+" where it should run",
		"install the client of the database: mariadb-client, postgresql-client or redis-tools")
}

// chosen are the databases that are wanted of those there are.
func (c *client) chosen(there []string) ([]string, error) {
	var names []string
	for _, name := range there {
		if c.wants(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, fault.New("", fault.ErrNotFound, "the server has no database that is wanted", "look at the names, and at what the user may see")
	}
	return names, nil
}

// failures tell by what tools complain of what has happened. The first that fits counts.
var failures = []struct { //nolint:gochecknoglobals // a constant table
	kind  error
	hint  string
	words []string
}{
	{fault.ErrUnavailable, "look whether the server runs, and at its log", []string{"unexpected eof", "SSL connection has been closed unexpectedly"}}, // half way
	{fault.ErrRefused, "look at what the server offers, and at the authorities in --ca-file; --tls says what is asked for", []string{
		"TLS/SSL error", "SSL connection error", "SSL is required", "does not support SSL", "certificate verify failed", "SSL error", "SSL_connect failed",
		"server certificate for", "root certificate file",
	}},
	{fault.ErrDenied, "look at the user name, the password, and what the user may do", []string{
		"Access denied", "password authentication failed", "no password supplied", "permission denied", "must be superuser", "no pg_hba.conf entry",
		"WRONGPASS", "NOAUTH", "NOPERM", "authentication failed", "command denied",
	}},
	{fault.ErrNotFound, "", []string{"Unknown database", "role \"", "does not exist"}},
	{fault.ErrUnavailable, "look whether the server runs, and at its address and port", []string{
		"Can't connect", "Could not connect", "could not connect", "Connection refused", "Lost connection", "server has gone away", "server closed the connection",
		"could not translate host name", "Unknown MySQL server host", "Unknown server host", "timeout expired", "Connection reset", "terminating connection", "No route to host",
		"the database system is", "LOADING", "Server closed", "Too many connections", "too many clients", "connection to server",
	}},
}

// explained gives the end of a tool the class that its complaint has, without the password.
func (c *client) explained(err error) error {
	var ended *Ended
	if !errors.As(err, &ended) {
		return err
	}
	told := errors.New(fault.Redact(ended.Error(), c.Password))
	for _, f := range failures {
		for _, word := range f.words {
			if strings.Contains(ended.Said, word) {
				return fault.Wrap("", f.kind, told, f.hint)
			}
		}
	}
	if ended.Status < 0 {
		return fault.Wrap("", fault.ErrUnavailable, told, "")
	}
	return fault.Wrap("", fault.ErrRefused, told, "")
}
