package kando

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/internal/fault"
)

// newProfileCommand brings a profile into a container that runs already, and takes it away: functions of Blueprints call it.
func newProfileCommand(t *tool) *cobra.Command {
	put := &cobra.Command{
		Use:   "put <path>",
		Short: "Write standard input into a file that nobody else can read",
		Args:  exactly(1),
		RunE:  run(func(_ context.Context, args []string) error { return putProfile(t.Stdin, args[0]) }),
	}
	drop := &cobra.Command{
		Use:   "drop <path>",
		Short: "Remove such a file and its directory",
		Args:  exactly(1),
		RunE:  run(func(_ context.Context, args []string) error { return dropProfile(args[0]) }),
	}
	cmd := group("profile", "Keep a profile in a file", put, drop)
	cmd.Hidden = true
	return cmd
}

func putProfile(r io.Reader, name string) error {
	op := "write profile " + name
	b, err := io.ReadAll(io.LimitReader(r, maxProfile+1))
	if err != nil {
		return localFault(op, err)
	}
	if _, err := decodeProfile(b); err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	dir := filepath.Dir(name)
	if err := ownDirectory(dir); err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	f, err := os.CreateTemp(dir, ".profile-") // mode 0600
	if err != nil {
		return localFault(op, err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(localFault(op, err), os.Remove(f.Name()))
	}
	return nil
}

// ownDirectory makes a directory that is only ours. One that is there must be: its parent may be open to everybody.
func ownDirectory(dir string) error {
	if err := os.Mkdir(dir, 0o700); err == nil || !errors.Is(err, fs.ErrExist) {
		return localFault("make directory", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return localFault("look at directory", err)
	}
	owner, known := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || !known || int(owner.Uid) != os.Geteuid() {
		return fault.New("", fault.ErrDenied, "others can reach into its directory", "name a directory that is not there yet")
	}
	return nil
}

// dropProfile succeeds where there is nothing to remove. A directory that holds more stays.
func dropProfile(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return localFault("remove profile "+name, err)
	}
	_ = os.Remove(filepath.Dir(name)) // not empty, or gone
	return nil
}
