package cli

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
	"github.com/backstay/backstay/internal/vault"
)

// directorySource is a plain directory, without the vault where that lies in it.
func (a *app) directorySource(dir string) (protect.Source, error) {
	location, _, err := a.location()
	if err != nil {
		return nil, err
	}
	var exclude []string
	if location.Path() != "" {
		exclude = append(exclude, location.Path())
	}
	return vault.NewDirectory(dir, a.Getenv(envHostname), exclude...)
}

// restoreTree brings a directory back with all its attributes.
func restoreTree(ctx context.Context, from point.Reader, _ point.Part, to string) ([]string, error) {
	if err := protect.Vacant(to); err != nil {
		return nil, err
	}
	if real, err := filepath.EvalSymlinks(to); err == nil { // or the link would be replaced, and not what it names be filled
		to = real
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return nil, vault.RestoreTree(ctx, from, to)
}

// diffTree tells which files of a directory changed. The file of attributes is new in every point; it counts when its bytes changed.
func diffTree(ctx context.Context, before, after point.Reader, tell func(protect.Change)) error {
	var attributes *protect.Change
	err := protect.DiffFiles(ctx, before, after, func(c protect.Change) {
		if c.Item == vault.AttributesFile {
			attributes = &c
			return
		}
		tell(c)
	})
	if err != nil || attributes == nil {
		return err
	}
	if attributes.What == "changed" {
		old, err := digest(ctx, before, vault.AttributesFile)
		if err != nil {
			return err
		}
		fresh, err := digest(ctx, after, vault.AttributesFile)
		if err != nil || old == fresh {
			return err
		}
	}
	tell(*attributes)
	return nil
}

func digest(ctx context.Context, r point.Reader, name string) (sum [sha256.Size]byte, _ error) {
	f, err := r.Open(ctx, name)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	hash := sha256.New()
	_, err = io.Copy(hash, f)
	return [sha256.Size]byte(hash.Sum(nil)), err
}
