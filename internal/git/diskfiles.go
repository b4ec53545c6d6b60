package git

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// diskFiles reads a directory of the local disk as packs in a vault are read.
type diskFiles string

func (d diskFiles) List(_ context.Context, path string) ([]point.Entry, error) {
	entries, err := os.ReadDir(d.at(path))
	if err != nil {
		return nil, diskError(err)
	}
	list := make([]point.Entry, 0, len(entries))
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, diskError(err)
		}
		list = append(list, point.Entry{Name: e.Name(), Mode: info.Mode(), Size: info.Size(), Time: info.ModTime()})
	}
	return list, nil
}

func (d diskFiles) Open(_ context.Context, path string) (io.ReadSeekCloser, error) {
	f, err := os.Open(d.at(path))
	if err != nil {
		return nil, diskError(err)
	}
	return f, nil
}

func (d diskFiles) at(path string) string { return filepath.Join(string(d), filepath.FromSlash(path)) }

func diskError(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap("", fault.ErrNotFound, err, "")
	}
	return err
}
