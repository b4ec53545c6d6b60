package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// files is what a copy is read by: a Place, or a zip file.
type files interface {
	List(ctx context.Context, dir string) ([]point.Entry, error)
	Open(ctx context.Context, name string) (io.ReadSeekCloser, error)
}

// readLimited reads a small file.
func readLimited(ctx context.Context, from files, name string, limit int64) ([]byte, error) {
	f, err := from.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fault.New("read "+name, fault.ErrCorrupt, fmt.Sprintf("it is longer than %d bytes", limit), "")
	}
	return data, err
}

// slotReader reads one slot of a copy as a point.Reader.
type slotReader struct {
	from files
	at   site
	slot slot
}

// List leaves out what belongs to other slots or to nobody: a pack without its index was cut short on its way.
func (r slotReader) List(ctx context.Context, dir string) ([]point.Entry, error) {
	all, err := r.from.List(ctx, r.at.path(r.slot, dir))
	if err != nil {
		return nil, err
	}
	there := make(map[string]bool, len(all))
	for _, e := range all {
		there[e.Name] = true
	}
	var entries []point.Entry
	for _, e := range all {
		stem, isPack := strings.CutSuffix(e.Name, ".pack")
		switch {
		case strings.HasPrefix(e.Name, recordName), isPack && !there[stem+".idx"]:
		case r.slot == slotGit && path.Clean(dir) == "." && e.Name == "lfs":
		default:
			entries = append(entries, e)
		}
	}
	if len(entries) == 0 && len(all) == 0 && path.Clean(dir) != "." {
		return nil, fault.New("list "+dir, fault.ErrNotFound, "", "")
	}
	return entries, nil
}

// Open opens a file.
func (r slotReader) Open(ctx context.Context, name string) (io.ReadSeekCloser, error) {
	return r.from.Open(ctx, r.at.path(r.slot, name))
}

// Extract copies a file or a tree to the local disk.
func (r slotReader) Extract(ctx context.Context, name, dest string) error {
	f, err := r.Open(ctx, name)
	if err == nil {
		defer f.Close()
		return extractFile(f, dest)
	}
	if !errors.Is(err, fault.ErrNotFound) {
		return err
	}
	entries, listErr := r.List(ctx, name)
	if listErr != nil {
		return err
	}
	if err := os.MkdirAll(dest, 0o755); err != nil {
		return err
	}
	for _, e := range entries {
		if e.Mode.Type()&^fs.ModeDir != 0 {
			continue
		}
		if !filepath.IsLocal(e.Name) || strings.ContainsAny(e.Name, `/\`) {
			return fault.New("extract "+name, fault.ErrCorrupt, fmt.Sprintf("%q is no file name", e.Name), "")
		}
		if err := r.Extract(ctx, path.Join(name, e.Name), filepath.Join(dest, e.Name)); err != nil {
			return err
		}
	}
	return nil
}

func extractFile(from io.Reader, dest string) error {
	f, err := os.OpenFile(dest, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}
