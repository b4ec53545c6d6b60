package offline

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/backstay/backstay/internal/fault"
)

// Stage lets write fill a path beside to, and gives it the name to when all went well. At to there may be nothing, or what is empty.
// Whatever fails, nothing is left; only the kill signal leaves a hidden directory ".NAME.backstay-…" beside it.
func Stage(to string, write func(tmp string) error) (err error) {
	if err := Vacant(to); err != nil {
		return err
	}
	op := "export to " + to
	to, err = filepath.Abs(to)
	if err != nil {
		return fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return fault.Wrap(op, localClass(err), err, "")
	}
	beside, err := os.MkdirTemp(filepath.Dir(to), "."+filepath.Base(to)+".backstay-")
	if err != nil {
		return fault.Wrap(op, localClass(err), err, "")
	}
	defer func() { err = errors.Join(err, os.RemoveAll(beside)) }()
	tmp := filepath.Join(beside, "export")
	if err := write(tmp); err != nil {
		return fault.Wrap(op, localClass(err), err, "")
	}
	if err := Vacant(to); err != nil { // by now
		return err
	}
	// A directory is not renamed over one everywhere.
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(op, localClass(err), err, "")
	}
	err = os.Rename(tmp, to)
	return fault.Wrap(op, localClass(err), err, "")
}

// Vacant refuses (fault.ErrExists) a path where there is anything but an empty directory or file.
func Vacant(to string) error {
	op, hint := "export to "+to, "choose a path that is empty or not there"
	info, err := os.Lstat(to)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fault.Wrap(op, localClass(err), err, "")
	case info.IsDir():
		entries, err := os.ReadDir(to)
		if err != nil {
			return fault.Wrap(op, localClass(err), err, "")
		}
		if len(entries) > 0 {
			return fault.New(op, fault.ErrExists, "the directory is not empty", hint)
		}
	case !info.Mode().IsRegular():
		return fault.New(op, fault.ErrExists, "it is neither a directory nor a file", hint)
	case info.Size() > 0:
		return fault.New(op, fault.ErrExists, "there is a file", hint)
	}
	return nil
}

// localClass is the class of an error of the local disk; nil for one that has a class of its own, or is none of the disk.
func localClass(err error) error {
	var onPath *fs.PathError
	var onLink *os.LinkError
	switch {
	case err == nil, fault.Of(err).Exit != 1:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.ErrUnavailable
	case errors.Is(err, fs.ErrPermission):
		return fault.ErrDenied
	case errors.As(err, &onPath), errors.As(err, &onLink):
		return fault.ErrRefused
	}
	return nil
}
