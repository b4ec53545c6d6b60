package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/backstay/backstay/internal/evidence"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/vault"
)

const hintEvidenceKey = "docs/evidence.md says where the key may come from"

// evidenceKey is the key that signs: the one that is named, else one's own, which is made on first use.
func (a *app) evidenceKey() (*evidence.Key, error) {
	key, err := a.ownEvidenceKey()
	if err == nil || !errors.Is(err, fs.ErrNotExist) || a.global.evidenceKey != "" {
		return key, err
	}
	file, err := a.evidenceKeyFile()
	if err != nil {
		return nil, err
	}
	key = evidence.NewKey()
	switch err := writeNew(file, key.PEM()); {
	case errors.Is(err, fs.ErrExist):
		return a.ownEvidenceKey() // another run was faster
	case err != nil:
		return nil, fault.Wrap("make a key for evidence", fault.ErrDenied, err, hintEvidenceKey)
	}
	a.told.notice("made a key to sign evidence with, %s: keep a copy of what `backstay evidence key` prints elsewhere", file)
	return key, nil
}

// ownEvidenceKey is the key that signs, where there is one.
func (a *app) ownEvidenceKey() (*evidence.Key, error) {
	if text := a.Getenv(envEvidenceKey); text != "" && a.global.evidenceKey == "" {
		key, err := evidence.ParseKey([]byte(text))
		return key, fault.Wrap(envEvidenceKey, nil, err, "")
	}
	file, err := a.evidenceKeyFile()
	if err != nil {
		return nil, err
	}
	text, err := readKeyFile(file)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o077 != 0 {
		a.told.notice("others may read the key %s: chmod 600 it", file)
	}
	key, err := evidence.ParseKey(text)
	return key, fault.Wrap(file, nil, err, "")
}

// evidenceKeyFile is where the key is: where the user says, else beside the default vault's password.
func (a *app) evidenceKeyFile() (string, error) {
	if a.global.evidenceKey != "" {
		return a.global.evidenceKey, nil
	}
	password, err := vault.DefaultPasswordFile(a.Getenv)
	if err != nil {
		return "", fault.Wrap("find the key for evidence", nil, err, hintEvidenceKey)
	}
	return filepath.Join(filepath.Dir(password), "evidence.key"), nil
}

// writeNew makes a file of mode 0600, which must not exist. It is there only when it is whole.
func writeNew(file string, content []byte) error {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // a second name of the same file
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), file)
}

// once keeps what read gave, once it gave something.
func once(read func(ctx context.Context) (*evidence.Key, error)) func(ctx context.Context) (*evidence.Key, error) {
	var mu sync.Mutex
	var kept *evidence.Key
	return func(ctx context.Context) (*evidence.Key, error) {
		mu.Lock()
		defer mu.Unlock()
		if kept != nil {
			return kept, nil
		}
		key, err := read(ctx)
		if err == nil {
			kept = key
		}
		return key, err
	}
}
