package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/backstay/backstay/internal/evidence"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/vault"
)

// Environment variables of the command line.
const (
	envLocation    = "BACKSTAY_LOCATION"
	envPassword    = "BACKSTAY_PASSWORD"
	envNewPassword = "BACKSTAY_NEW_PASSWORD"
	envEvidenceKey = "BACKSTAY_EVIDENCE_KEY"
	envHostname    = "BACKSTAY_HOSTNAME" // names this machine in subjects
)

// changing ends the name of the file that has the new password while it is being changed.
const changing = ".new"

// maxPassword is the longest password accepted, in bytes.
const maxPassword = 4096

// access says what a command does with the vault.
type access int

const (
	toRead          access = iota
	toWrite                // points are made, changed or deleted
	toWriteOrCreate        // and the default vault is made where it is missing
)

// openVault is the openStore of the product: the vault at the location that the options or the environment name.
func (a *app) openVault(ctx context.Context, want access) (store, error) {
	location, isDefault, err := a.location()
	if err != nil {
		return nil, err
	}
	create := isDefault && want == toWriteOrCreate
	password, err := a.vaultPassword(ctx, location, isDefault, create)
	if err != nil {
		return nil, err
	}
	o := a.vaultOptions()
	o.ReadOnly = want == toRead
	v, err := vault.Open(ctx, location, password, o)
	if errors.Is(err, fault.ErrDenied) || errors.Is(err, fault.ErrCorrupt) {
		return a.openChanged(ctx, location, isDefault, password, o, err)
	}
	if !create || !errors.Is(err, fault.ErrNotFound) {
		return v, err
	}
	if err := a.makeDefaultVault(ctx, location, password); err != nil {
		return nil, err
	}
	return vault.Open(ctx, location, password, o)
}

// openChanged opens a vault whose password may be changing: where its file does not open it, what lies beside the file does while
// change-password is at work, or where it was interrupted; or the file has changed since it was read. why is why it did not open.
func (a *app) openChanged(
	ctx context.Context, location vault.Location, isDefault bool, tried fault.Secret, o vault.Options, why error,
) (store, error) {
	file, err := a.passwordFileInUse(isDefault)
	if err != nil || file == "" {
		return nil, why
	}
	var others []fault.Secret
	for _, name := range []string{file + changing, file} {
		if other, err := readPasswordFile(name); err == nil && other != tried {
			others = append(others, other)
		}
	}
	if len(others) == 0 {
		return nil, why
	}
	v, err := vault.OpenEither(ctx, location, others, o)
	if errors.Is(err, fault.ErrDenied) {
		return nil, why
	}
	return v, err
}

// passwordFileInUse is the file that the vault's password was read from; "" for none.
func (a *app) passwordFileInUse(isDefault bool) (string, error) {
	switch {
	case a.global.passwordFile != "":
		return a.global.passwordFile, nil
	case a.global.passwordCommand != "" || a.Getenv(envPassword) != "" || !isDefault:
		return "", nil
	}
	return vault.DefaultPasswordFile(a.Getenv)
}

// makeDefaultVault makes the vault beside its place and puts it there whole: another first run may do the same at this moment, and
// neither should be refused; and one that is killed leaves no half a vault in the way of the next.
func (a *app) makeDefaultVault(ctx context.Context, location vault.Location, password fault.Secret) error {
	op := "make vault " + location.String()
	dir := location.Path()
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return fault.Wrap(op, fault.ErrDenied, err, "")
	}
	beside, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".new-")
	if err != nil {
		return fault.Wrap(op, fault.ErrDenied, err, "")
	}
	defer os.RemoveAll(beside) //nolint:errcheck // gone already when all went well
	there, err := vault.ParseLocation(beside)
	if err != nil {
		return err
	}
	if err := vault.Create(ctx, there, password, a.vaultOptions()); err != nil {
		return err
	}
	if err := os.Rename(beside, dir); err != nil {
		if !emptyDir(dir) {
			return nil // another run was faster
		}
		return fault.Wrap(op, fault.ErrDenied, err, "")
	}
	a.told.notice("made a vault at %s", location)
	return nil
}

// withVault is withStore for what only a vault can do.
func (a *app) withVault(ctx context.Context, want access, do func(*vault.Vault) error) error {
	return a.withStore(ctx, want, func(s store) error {
		v, ok := s.(*vault.Vault)
		if !ok {
			return fault.New("use the vault", fault.ErrUnsupported, "the store is none", "")
		}
		return do(v)
	})
}

func (a *app) vaultOptions() vault.Options {
	return vault.Options{
		Tool: "backstay " + a.Version, Clock: a.Clock,
		Evidence: once(func(context.Context) (*evidence.Key, error) { return a.evidenceKey() }),
	}
}

// location is the vault's, and whether it is the default because nobody named one.
func (a *app) location() (_ vault.Location, isDefault bool, err error) {
	named := a.global.location
	if named == "" {
		named = a.Getenv(envLocation)
	}
	if named == "" {
		location, err := vault.DefaultLocation(a.Getenv)
		return location, true, err
	}
	location, err := vault.ParseLocation(named)
	return location, false, err
}

// vaultPassword finds the vault's password: from a flag, from the environment, or for the default vault from its file, which it
// makes with create.
func (a *app) vaultPassword(ctx context.Context, location vault.Location, isDefault, create bool) (fault.Secret, error) {
	password, err := a.password(ctx, passwordSource{a.global.passwordFile, a.global.passwordCommand, envPassword})
	if err != nil || password != "" {
		return password, err
	}
	if !isDefault {
		return "", fault.New("find the vault's password", fault.ErrInvalid, "none is given", "set "+envPassword+", --password-file or --password-command")
	}
	file, err := vault.DefaultPasswordFile(a.Getenv)
	if err != nil {
		return "", err
	}
	password, err = readPasswordFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		switch {
		case !emptyDir(location.Path()):
			return "", fault.New("open "+location.String(), fault.ErrDenied, "its password file "+file+" is missing",
				"put the copy of it back, or set "+envPassword)
		case create:
			return a.makePassword(file)
		}
		return "", fault.New("open the default vault", fault.ErrNotFound, "there is none yet, and no password file "+file,
			"`backstay backup` makes it; name another with --location or "+envLocation)
	}
	if info, statErr := os.Stat(file); statErr == nil && info.Mode().Perm()&0o077 != 0 {
		a.told.notice("others may read the password file %s: chmod 600 it", file)
	}
	return password, err
}

// emptyDir reports whether a directory has nothing in it, or is not there.
func emptyDir(dir string) bool {
	entries, err := os.ReadDir(dir)
	return len(entries) == 0 && (err == nil || errors.Is(err, fs.ErrNotExist))
}

// makePassword writes a new random password to file. Where another run was faster, its password is the one.
func (a *app) makePassword(file string) (fault.Secret, error) {
	password := fault.Secret(rand.Text())
	err := writePasswordFile(file, password)
	if errors.Is(err, fs.ErrExist) {
		return readPasswordFile(file)
	}
	if err != nil {
		return "", fault.Wrap("make the default vault's password", fault.ErrDenied, err, "")
	}
	a.told.notice("wrote the new vault's password to %s: keep a copy of it elsewhere, for without it no point can ever be restored", file)
	return password, nil
}

// writePasswordFile makes file, which must not exist. It is there only when it is whole, and it is on the disk before anything is
// encrypted with what it holds.
func writePasswordFile(file string, password fault.Secret) error {
	return writeNew(file, []byte(password.Reveal()+"\n"))
}

// passwordSource is where a password may come from, the flags first. At most one flag may be set.
type passwordSource struct{ file, command, env string }

// password reads a password; it is empty where no source is set.
func (a *app) password(ctx context.Context, from passwordSource) (fault.Secret, error) {
	switch {
	case from.file != "" && from.command != "":
		return "", fault.New("find the password", fault.ErrInvalid, "a file and a command are given", "give one of them")
	case from.file != "":
		return readPasswordFile(from.file)
	case from.command != "":
		return a.passwordOf(ctx, from.command)
	}
	return fault.Secret(a.Getenv(from.env)), nil
}

func readPasswordFile(file string) (fault.Secret, error) {
	op := "read password file " + file
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fault.Wrap(op, fault.ErrNotFound, err, "")
	}
	if errors.Is(err, fs.ErrPermission) {
		return "", fault.Wrap(op, fault.ErrDenied, err, "")
	}
	if err != nil {
		return "", fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	defer f.Close() //nolint:errcheck // opened for reading
	text, err := io.ReadAll(io.LimitReader(f, maxPassword+2))
	if err != nil {
		return "", fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	return checkPassword(op, text)
}

// passwordOf runs a command of the shell and takes what it prints. It may ask the user something on the terminal.
func (a *app) passwordOf(ctx context.Context, command string) (fault.Secret, error) {
	const op = "run the password command"
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.Stdin, &out, a.Stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", fault.Wrap(op, fault.ErrDenied, err, "")
	}
	return checkPassword(op, out.Bytes())
}

// checkPassword takes a password as files and commands give it, with a newline at its end or without.
func checkPassword(op string, text []byte) (fault.Secret, error) {
	password := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	switch {
	case password == "":
		return "", fault.New(op, fault.ErrInvalid, "the password is empty", "")
	case len(password) > maxPassword:
		return "", fault.New(op, fault.ErrInvalid, fmt.Sprintf("the password has more than %d bytes", maxPassword), "")
	case strings.ContainsAny(password, "\n\x00"):
		return "", fault.New(op, fault.ErrInvalid, "the password has more than one line", "")
	}
	return fault.Secret(password), nil
}
