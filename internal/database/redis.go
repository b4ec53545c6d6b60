package database

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// redisEngine is Redis and Valkey. The server makes a snapshot of all its keys for redis-cli as for a replica.
type redisEngine struct{}

const redisFile = "dump.rdb"

func (redisEngine) ping(ctx context.Context, c *client) error {
	answer, err := c.redisAsk(ctx, "PING")
	if err == nil && strings.TrimSpace(answer) != "PONG" {
		err = &Ended{Program: "redis-cli", Status: 1, Said: strings.TrimSpace(answer)}
	}
	return err
}

// redisTool is the client, and its options by which it reaches the server.
func (c *client) redisTool(ctx context.Context) (argv []string, version string, err error) {
	tool, version, err := c.tool(ctx, "redis-cli", "valkey-cli")
	if err != nil {
		return nil, "", err
	}
	argv = []string{tool, "--no-auth-warning"}
	switch {
	case strings.HasPrefix(c.Host, "/"):
		argv = append(argv, "-s", c.Host)
	case c.Host != "":
		argv = append(argv, "-h", c.Host)
	}
	if c.Port != 0 {
		argv = append(argv, "-p", strconv.Itoa(c.Port))
	}
	if c.Username != "" {
		argv = append(argv, "--user", c.Username)
	}
	if c.TLS == TLSRequire || c.TLS == TLSVerify {
		argv = append(argv, "--tls")
		if c.TLS == TLSRequire {
			argv = append(argv, "--insecure")
		} else if c.CAFile != "" {
			argv = append(argv, "--cacert", c.CAFile)
		}
	}
	return argv, version, nil
}

func (c *client) redisEnv() map[string]string {
	if c.Password == "" {
		return nil
	}
	return map[string]string{"REDISCLI_AUTH": c.Password.Reveal()}
}

// redisAsk has the server answer. The client ends well also where the answer is an error, which begins with its kind in capitals.
func (c *client) redisAsk(ctx context.Context, command ...string) (string, error) {
	argv, _, err := c.redisTool(ctx)
	if err != nil {
		return "", err
	}
	answer, err := c.ask(ctx, Command{Argv: append(argv, command...), Env: c.redisEnv()})
	kind, _, _ := strings.Cut(answer, " ")
	if err == nil && (kind == "ERR" || kind == "NOAUTH" || kind == "NOPERM" || kind == "WRONGPASS" || kind == "LOADING" || kind == "(error)") {
		err = &Ended{Program: argv[0], Status: 1, Said: strings.TrimSpace(answer)}
	}
	return answer, err
}

func (redisEngine) begin(ctx context.Context, c *client) (*Dump, error) {
	info, err := c.redisAsk(ctx, "INFO")
	if err != nil {
		return nil, err
	}
	argv, version, err := c.redisTool(ctx)
	if err != nil {
		return nil, err
	}
	facts := redisFacts(info)
	out, err := start(ctx, c.runner, Command{Argv: append(argv, "--rdb", "-"), Env: c.redisEnv()})
	if err != nil {
		return nil, err
	}
	// The first bytes come after the server has forked: the dump is of that moment.
	head := make([]byte, len(rdbMagic))
	if _, err := io.ReadFull(out, head); err != nil {
		out.Close()                                      //nolint:errcheck // why nothing came is told
		if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // as io.ReadFull has it
			err = cutShort("nothing came")
		}
		return nil, err
	}
	d := &Dump{release: out.Close, count: point.Count{Of: "databases", Expected: 1}}
	d.manifest.Server = strings.TrimSpace(facts["server_name"] + " " + facts["redis_version"])
	d.manifest.Tool = version
	if id := facts["master_replid"]; id != "" {
		d.manifest.Position = "replication:" + id + ":" + facts["master_repl_offset"]
	}
	check := &redisEnding{}
	d.streams = []stream{{
		file: File{Name: redisFile}, check: check,
		open: func(context.Context) (io.ReadCloser, error) {
			return struct {
				io.Reader
				io.Closer
			}{&unmarked{from: io.MultiReader(bytes.NewReader(head), out)}, out}, nil
		},
		finish: func(*File) error {
			d.count.Stored = 1
			if check.unsummed() {
				d.manifest.Notes = append(d.manifest.Notes, "the server puts no checksum into its dumps (rdbchecksum no)")
			}
			return nil
		},
	}}
	return d, nil
}

// redisFacts are the lines of INFO.
func redisFacts(info string) map[string]string {
	facts := map[string]string{}
	for line := range strings.Lines(info) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), ":"); found {
			facts[name] = value
		}
	}
	return facts
}

// load hands the keys over one by one, as they are in the dump: RESTORE takes them so.
func (redisEngine) load(ctx context.Context, c *client, l *loading) error {
	info, err := c.redisAsk(ctx, "INFO", "keyspace")
	if err != nil {
		return err
	}
	full := strings.Contains(info, "keys=")
	if full && !l.replace {
		return fault.New("", fault.ErrRefused, "the server has keys already", "--replace removes all of them first")
	}
	if l.changing != nil {
		if err := l.changing(); err != nil {
			return err
		}
	}
	if full {
		if _, err := c.redisAsk(ctx, "FLUSHALL", "ASYNC"); err != nil {
			return err
		}
	}
	argv, _, err := c.redisTool(ctx)
	if err != nil {
		return err
	}
	for _, f := range l.manifest.Files {
		err := l.feed(ctx, f, func(r io.Reader) error { return c.redisPipe(ctx, argv, r) })
		if err != nil {
			return err
		}
	}
	return nil
}

// redisPipe turns a dump into commands on the way to the server, and counts what it answers.
func (c *client) redisPipe(ctx context.Context, argv []string, dump io.Reader) error {
	reads, writes := io.Pipe()
	turned := make(chan error, 1)
	go func() {
		err := rdbCommands(dump, writes)
		writes.CloseWithError(err)
		turned <- err
	}()
	answer, err := c.answer(ctx, Command{Argv: append(argv, "--pipe"), Env: c.redisEnv(), Stdin: reads})
	reads.Close()                                                        //nolint:errcheck // never fails
	if failed := <-turned; failed != nil && failed != io.ErrClosedPipe { //nolint:errorlint // of our own pipe
		return failed
	}
	if err == nil && !strings.Contains(answer, "errors: 0,") {
		err = fault.New("", fault.ErrRefused, fmt.Sprintf("the server refused keys: %.300s", strings.Join(strings.Fields(answer), " ")), "")
	}
	return err
}
