package kando

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// target is where what is pulled goes: standard output or a name on the disk.
type target struct {
	name   string
	stdout io.Writer
}

func (t *target) stream() bool { return t.name == standard }

// write has fill write the target. A file is written beside its name and takes it when it is whole, so that a pull that fails leaves what
// was there.
func (t *target) write(fill func(io.Writer) error) error {
	op := "write " + t.name
	if t.stream() {
		return fill(failing{t.stdout, "write standard output"})
	}
	name, err := filepath.EvalSymlinks(t.name) // a link stays one
	if errors.Is(err, fs.ErrNotExist) {
		name, err = t.name, nil
	}
	if err != nil {
		return localFault(op, err)
	}
	switch info, err := os.Stat(name); {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return localFault(op, err)
	case err == nil && info.IsDir():
		return fault.New(op, fault.ErrInvalid, "it is a directory", "name a file")
	case err == nil && !info.Mode().IsRegular():
		return writeOnto(op, name, fill)
	}
	return writeBeside(op, name, fill)
}

// writeOnto writes a pipe or a device.
func writeOnto(op, name string, fill func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return localFault(op, err)
	}
	err = fill(failing{f, op})
	return errors.Join(err, localFault(op, f.Close()))
}

func writeBeside(op, name string, fill func(io.Writer) error) (err error) {
	beside := filepath.Join(filepath.Dir(name), point.UnfinishedPrefix+filepath.Base(name))
	f, err := os.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o644)
	if err != nil {
		return localFault(op, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(beside) // the error that came before counts
		}
	}()
	w := bufio.NewWriterSize(failing{f, op}, 1<<20)
	err = fill(w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = localFault(op, f.Sync())
	}
	if err = errors.Join(err, localFault(op, f.Close())); err != nil {
		return err
	}
	return localFault(op, os.Rename(beside, name))
}

// failing gives a writer's errors a class.
type failing struct {
	w  io.Writer
	op string
}

func (f failing) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	return n, localFault(f.op, err)
}
