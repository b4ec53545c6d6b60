package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// maxSecret bounds what is read as a secret, bytes.
const maxSecret = 1 << 20

// Lookups is where secrets come from.
type Lookups struct {
	// Env looks an environment variable up, as os.LookupEnv does.
	Env func(name string) (string, bool)
	// Home takes the place of ~ in paths.
	Home string
	// Run runs a shell command and returns what it prints.
	Run func(ctx context.Context, command string) ([]byte, error)
	// Key reads a key of a Kubernetes Secret; nil off a cluster.
	Key func(ctx context.Context, ref v1alpha1.SecretKeyRef) ([]byte, error)
	// Warn is told what is unwise but works; may be nil.
	Warn func(message string)
}

// Resolve reads a secret. A line break at its end is dropped. An empty secret is an error, for it never is what was meant; errors say
// where the secret was to be found, and nothing of it.
func Resolve(ctx context.Context, s v1alpha1.Secret, from Lookups) (fault.Secret, error) {
	value, place, err := from.read(ctx, s)
	op := "read the secret in " + place
	if err != nil {
		return "", fault.Wrap(op, secretClass(err), err, "")
	}
	text := strings.TrimSuffix(strings.TrimSuffix(value, "\n"), "\r")
	switch {
	case text == "":
		return "", fault.New(op, fault.ErrInvalid, "it is empty", "")
	case strings.ContainsRune(text, 0):
		return "", fault.New(op, fault.ErrInvalid, "it holds a zero byte", "")
	}
	return fault.Secret(text), nil
}

// secretClass keeps the class that an error has; others are those of the file system.
func secretClass(err error) error {
	if fault.Of(err).Exit != 1 {
		return nil
	}
	return pathClass(err)
}

// read returns the secret as it stands in its place, and the place in words.
func (from Lookups) read(ctx context.Context, s v1alpha1.Secret) (value, place string, err error) {
	switch {
	case s.Env != "":
		place = "the environment variable " + s.Env
		value, found := from.Env(s.Env)
		if !found {
			return "", place, fault.New("", fault.ErrInvalid, "it is not set", "set "+s.Env+" where this program runs")
		}
		return value, place, nil
	case s.File != "":
		path := expandHome(s.File, from.Home)
		value, err := from.file(path)
		return value, path, err
	case s.Command != "":
		out, err := from.Run(ctx, s.Command)
		if err == nil && len(out) > maxSecret {
			err = errTooLarge
		}
		return string(out), "what a command prints", err
	case s.SecretKeyRef != nil:
		place = fmt.Sprintf("the Secret %s, key %s", s.SecretKeyRef.Name, s.SecretKeyRef.Key)
		if from.Key == nil {
			hint := "say env, file or command instead; a Secret can be mounted as a file"
			return "", place, fault.New("", fault.ErrUnsupported, "secretKeyRef works on a cluster only", hint)
		}
		value, err := from.Key(ctx, *s.SecretKeyRef)
		return string(value), place, err
	default:
		return s.Value, "the configuration", nil
	}
}

var errTooLarge = errors.New("larger than 1 MiB")

// file reads a secret's file, and warns of one that everybody on the machine can read.
func (from Lookups) file(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", plainPath(err)
	}
	if !info.Mode().IsRegular() && info.Mode()&(fs.ModeNamedPipe|fs.ModeCharDevice) == 0 {
		return "", fault.New("", fault.ErrInvalid, "not a file", "")
	}
	const others = 0o004
	if from.Warn != nil && info.Mode().IsRegular() && info.Mode().Perm()&others != 0 {
		from.Warn(fmt.Sprintf("%s holds a secret and is readable by everybody on this machine: chmod o-r", path))
	}
	data, err := readFile(path)
	switch {
	case err != nil:
		return "", plainPath(err)
	case len(data) > maxSecret:
		return "", errTooLarge
	}
	return string(data), nil
}

// plainPath leaves the path out of an error that says it already.
func plainPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// expandHome puts the home directory in the place of a leading ~.
func expandHome(path, home string) string {
	if home != "" && (path == "~" || strings.HasPrefix(path, "~/")) {
		return filepath.Join(home, path[1:])
	}
	return path
}
