package kando

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/internal/fault"
)

// A chronicle is an object that names another: the newest output of a command that is run again and again. The outputs are named
// PATH-0, PATH-1, …; the one before is deleted when the next is there.

const (
	maxName     = 4096 // bytes of what a chronicle, or the file that names it, may hold
	maxVariable = 1 << 20
)

type chronicleOptions struct {
	profile, artifact, env string
	frequency              time.Duration
}

func newChronicleCommand(t *tool) *cobra.Command {
	return group("chronicle", "Push the output of a command periodically", newChroniclePushCommand(t), newChroniclePullCommand(t))
}

func newChroniclePushCommand(t *tool) *cobra.Command {
	var o chronicleOptions
	cmd := &cobra.Command{
		Use:     "push <command>",
		Short:   "Run a command again and again, and push what it prints",
		Example: `  kando chronicle push --profile-path /run/profile.json --artifact-path /run/path --frequency 5m "pg_dumpall | gzip"`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return exactly(1)(cmd, args)
			}
			return nil
		},
		RunE: run(func(ctx context.Context, args []string) error {
			if o.profile == "" || o.artifact == "" || o.frequency <= 0 {
				return fault.New("flags", fault.ErrInvalid, "--profile-path and --artifact-path must be given, and --frequency positive", "")
			}
			return t.chronicle(ctx, o, strings.Join(args, " "))
		}),
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.profile, "profile-path", "p", "", "read the profile from `FILE` each time; while there is none, nothing is run")
	flags.StringVarP(&o.artifact, "artifact-path", "s", "", "read the path of the chronicle from `FILE` each time")
	flags.StringVarP(&o.env, "env-dir", "e", "", "give the command the files of `DIR` as environment variables")
	flags.DurationVarP(&o.frequency, "frequency", "f", time.Minute, "run the command every `DURATION`")
	return cmd
}

func newChroniclePullCommand(t *tool) *cobra.Command {
	var profile, path string
	cmd := &cobra.Command{
		Use:     "pull <target>",
		Short:   "Pull the newest output of a chronicle to a file or standard output (-)",
		Example: `  kando chronicle pull --profile @/run/profile.json --path postgres/chronicle - | gunzip | psql`,
		Args:    exactly(1),
		RunE: run(func(ctx context.Context, args []string) error {
			d, err := readProfile(profile, t.Getenv)
			if err != nil {
				return err
			}
			return d.redact(t.pullChronicle(ctx, d, path, args[0]))
		}),
	}
	cmd.Flags().StringVarP(&path, "path", "s", "", "`PATH` of the chronicle below the profile's prefix")
	cmd.Flags().StringVarP(&profile, "profile", "p", "", "the profile: JSON, or @`FILE` (default $KANDO_PROFILE, or the file $KANDO_PROFILE_FILE)")
	return cmd
}

func (t *tool) pullChronicle(ctx context.Context, d *Document, path, to string) error {
	s, err := Open(*d, t.Getenv)
	if err != nil {
		return err
	}
	newest, err := readChronicle(ctx, s, path)
	if err != nil {
		return err
	}
	return (&target{name: to, stdout: t.Stdout}).write(func(w io.Writer) error { return s.Read(ctx, newest, w) })
}

// readChronicle returns the path of the newest output.
func readChronicle(ctx context.Context, s Store, path string) (string, error) {
	var text limited
	if err := s.Read(ctx, path, &text); err != nil {
		return "", err
	}
	if _, is := ordinal(text.String(), path); !is {
		return "", fault.New("read chronicle "+path, fault.ErrInvalid, "it is none", "")
	}
	return text.String(), nil
}

// ordinal is the number of an output of a chronicle.
func ordinal(name, path string) (int, bool) {
	number, below := strings.CutPrefix(name, path+"-")
	n, err := strconv.Atoi(number)
	return n, below && err == nil && n >= 0
}

// limited takes as much as a chronicle may hold.
type limited struct{ bytes.Buffer }

func (l *limited) Write(b []byte) (int, error) {
	if l.Len()+len(b) > maxName {
		return 0, fault.New("read chronicle", fault.ErrInvalid, "it is none", "")
	}
	return l.Buffer.Write(b)
}

// chronicle runs a command until ctx ends. A round that may go well later ends nothing: the next is due anyway.
func (t *tool) chronicle(ctx context.Context, o chronicleOptions, command string) error {
	tick := time.NewTicker(o.frequency)
	defer tick.Stop()
	for {
		err := t.round(ctx, o, command)
		switch {
		case ctx.Err() != nil:
			return nil // it is ended by a signal
		case err != nil && !fault.Of(err).Retry:
			return err
		case err != nil:
			t.warn("%v", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (t *tool) round(ctx context.Context, o chronicleOptions, command string) error {
	d, err := profileIn(o.profile)
	if errors.Is(err, fault.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	path, err := readShort(o.artifact)
	if err != nil {
		return err
	}
	env, err := envDir(o.env)
	if err != nil {
		return err
	}
	s, err := Open(*d, t.Getenv)
	if err != nil {
		return err
	}
	return d.redact(t.record(ctx, s, path, command, env))
}

// record pushes what a command prints, has the chronicle name it, and deletes what it named before.
func (t *tool) record(ctx context.Context, s Store, path, command string, env []string) error {
	before, err := readChronicle(ctx, s, path)
	next := 0
	switch {
	case err == nil:
		next, _ = ordinal(before, path)
		next++
	case !errors.Is(err, fault.ErrNotFound):
		return err
	}
	name := path + "-" + strconv.Itoa(next)
	if err := t.pushOutput(ctx, s, name, command, env); err != nil {
		return err
	}
	if err := s.Write(ctx, path, strings.NewReader(name)); err != nil {
		return err
	}
	if before == "" {
		return nil
	}
	return s.Delete(ctx, before)
}

// pushOutput pushes what a command prints. Where it fails, nothing is pushed.
func (t *tool) pushOutput(ctx context.Context, s Store, name, command string, env []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the command where pushing fails
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = t.Stderr
	cmd.WaitDelay = closeTime
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fault.Wrap("run command", fault.ErrNotFound, err, "")
	}
	printed := &output{r: out, cmd: cmd}
	err = s.Write(ctx, name, printed)
	cancel()
	_ = printed.wait() // what it said is in err, if anybody asked
	return err
}

// output is what a command prints; it ends well only where the command does.
type output struct {
	r    io.Reader
	cmd  *exec.Cmd
	done bool
	err  error
}

func (o *output) Read(b []byte) (int, error) {
	n, err := o.r.Read(b)
	if err == nil {
		return n, nil
	}
	if failed := o.wait(); failed != nil {
		return n, failed
	}
	return n, err
}

func (o *output) wait() error {
	if !o.done {
		o.done = true
		o.err = fault.Wrap("run command", fault.ErrIncomplete, o.cmd.Wait(), "")
	}
	return o.err
}

// readShort reads a file of one line.
func readShort(name string) (string, error) {
	b, err := readFile(name, maxName)
	return strings.TrimSuffix(string(b), "\n"), err
}

func readFile(name string, most int64) ([]byte, error) {
	op := "read " + name
	f, err := os.Open(name)
	if err != nil {
		return nil, localFault(op, err)
	}
	defer f.Close() //nolint:errcheck // opened for reading
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	switch {
	case err != nil:
		return nil, localFault(op, err)
	case int64(len(b)) > most:
		return nil, fault.New(op, fault.ErrInvalid, "it is too long", "")
	}
	return b, nil
}

// envDir reads a directory each of whose files is a variable; one that is not there has none. Kubernetes keeps what it mounts in hidden
// directories, and links to it.
func envDir(dir string) ([]string, error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, localFault("read "+dir, err)
	}
	var env []string
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		info, err := os.Stat(name)
		if err != nil || !info.Mode().IsRegular() || strings.ContainsAny(e.Name(), "=.") {
			continue
		}
		value, err := readFile(name, maxVariable)
		if err != nil {
			return nil, err
		}
		if bytes.ContainsRune(value, 0) {
			return nil, fault.New("read "+name, fault.ErrInvalid, "it has a NUL byte", "")
		}
		env = append(env, e.Name()+"="+strings.TrimSuffix(string(value), "\n"))
	}
	return env, nil
}
