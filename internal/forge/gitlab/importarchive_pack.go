package gitlab

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// pack writes all that there is into one archive.
func (i *importer) pack(ctx context.Context, to io.Writer) error {
	z := gzip.NewWriter(to)
	p := packer{tar.NewWriter(z)}
	versions := map[string]string{"VERSION": importVersion, "GITLAB_VERSION": importGitLab, "GITLAB_REVISION": "backstay"}
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		if err := p.add(ctx, name, int64(len(versions[name])), strings.NewReader(versions[name])); err != nil {
			return err
		}
	}
	for _, part := range []func() error{
		func() error { return p.file(ctx, "project.bundle", i.Bundle) },
		func() error { return p.file(ctx, "project.wiki.bundle", i.Wiki) },
		func() error {
			return p.below(ctx, filepath.Join(i.Scratch, "tree"), func(at string) string { return path.Join("tree", at) })
		},
		func() error {
			return p.below(ctx, i.LFS, func(at string) string { // ab/cd/abcd… without its directories
				i.report.LFS++
				return path.Join("lfs-objects", path.Base(at))
			})
		},
		func() error { return i.uploads(ctx, p) },
		p.tar.Close,
		z.Close,
	} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// packer adds files to an archive.
type packer struct{ tar *tar.Writer }

func (p packer) add(ctx context.Context, name string, size int64, content io.Reader) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.tar.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err := io.Copy(p.tar, content)
	return err
}

// file adds one of the disk, if it is there.
func (p packer) file(ctx context.Context, name, from string) error {
	f, err := os.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read from
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return p.add(ctx, name, info.Size(), f)
}

// below adds all files below a directory, if it is there.
func (p packer) below(ctx context.Context, dir string, named func(at string) string) error {
	if _, err := os.Stat(dir); err != nil {
		return nil //nolint:nilerr // there is none
	}
	return fs.WalkDir(os.DirFS(dir), ".", func(at string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		return p.file(ctx, named(at), filepath.Join(dir, filepath.FromSlash(at)))
	})
}

// uploads adds the files of the source. One that is not there after all is named as missing.
func (i *importer) uploads(ctx context.Context, p packer) error {
	for _, f := range i.files {
		from, err := i.Source.Open(ctx, f.file)
		if errors.Is(err, fault.ErrNotFound) {
			i.report.Missing = append(i.report.Missing, f.file.URL+": its bytes are not in the point")
			continue
		}
		if err != nil {
			return err
		}
		size, err := from.Seek(0, io.SeekEnd)
		if err == nil {
			_, err = from.Seek(0, io.SeekStart)
		}
		if err == nil {
			i.report.Files++
			err = p.add(ctx, "uploads/"+f.at, size, from)
		}
		if err := errors.Join(err, from.Close()); err != nil {
			return err
		}
	}
	return nil
}
