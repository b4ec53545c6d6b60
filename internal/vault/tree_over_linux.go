package vault

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

func restoreOver(ctx context.Context, r point.Reader, dir string) error {
	op := "restore over " + quote(dir)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return localFault(op, err)
	}
	defer root.Close() //nolint:errcheck // opened for reading
	f := &filling{r: r, root: root, dir: dir}
	return fault.Wrap(op, nil, errors.Join(f.over(ctx), f.clear()), "")
}

// over extracts the tree inside the directory and moves it to where it belongs.
func (f *filling) over(ctx context.Context) error {
	p, err := f.extract(ctx)
	if err != nil {
		return err
	}
	if err := f.clash("."); err != nil {
		return err
	}
	if err := f.merge(ctx, "."); err != nil {
		return err
	}
	if err := f.sync(); err != nil {
		return err
	}
	if p.Lacks != "" {
		return fault.New("", fault.ErrIncomplete, p.Lacks, "")
	}
	return nil
}

// clear removes what was extracted and not moved.
func (f *filling) clear() error {
	for _, name := range []string{wholeTree, progressFile} {
		if err := f.root.RemoveAll(name); err != nil {
			return localFault("remove "+name, err)
		}
	}
	return nil
}

// clash looks for files in the places of directories and directories in those of files.
func (f *filling) clash(below string) error {
	return f.meet(below, func(name string, both bool, isDir, wasDir bool) error {
		switch {
		case both && isDir != wasDir:
			return fault.New("replace "+quote(name), fault.ErrExists, "one is a directory, the other is none", "move it away")
		case both && isDir:
			return f.clash(name)
		}
		return nil
	})
}

// merge moves what was extracted below a directory into that of the same name.
func (f *filling) merge(ctx context.Context, below string) error {
	from, err := f.root.Open(path.Join(wholeTree, below))
	if err != nil {
		return localFault("open what was restored", err)
	}
	defer from.Close() //nolint:errcheck // opened for reading
	info, err := from.Stat()
	if err != nil {
		return localFault("open what was restored", err)
	}
	err = f.meet(below, func(name string, both, isDir, _ bool) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if both && isDir {
			return f.merge(ctx, name)
		}
		return localFault("replace "+quote(name), f.root.Rename(path.Join(wholeTree, name), name))
	})
	if err != nil {
		return err
	}
	if err := likewise(f.root, below, from); err != nil {
		return localFault("set attributes of "+quote(below), err)
	}
	return localFault("set time of "+quote(below), f.root.Chtimes(below, time.Time{}, info.ModTime()))
}

// meet calls do for each entry of a directory of what was extracted: whether there is one of its name already, and which of both are
// directories.
func (f *filling) meet(below string, do func(name string, both, isDir, wasDir bool) error) error {
	from, err := f.root.Open(path.Join(wholeTree, below))
	if err != nil {
		return localFault("open what was restored", err)
	}
	entries, err := from.ReadDir(-1)
	if err = errors.Join(err, from.Close()); err != nil {
		return localFault("list what was restored", err)
	}
	for _, e := range entries {
		name := path.Join(below, e.Name())
		old, err := f.root.Lstat(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return localFault("look at "+quote(name), err)
		}
		if err := do(name, err == nil, e.IsDir(), err == nil && old.IsDir()); err != nil {
			return err
		}
	}
	return nil
}
