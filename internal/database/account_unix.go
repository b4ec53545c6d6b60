//go:build unix

package database

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"github.com/backstay/backstay/internal/fault"
)

// account is a user of the machine as which a server runs; nil for the caller's own.
type account struct{ uid, gid uint32 }

func (a *account) process() *syscall.SysProcAttr {
	if a == nil {
		return nil
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: a.uid, Gid: a.gid}}
}

// lesser is the account of a server that refuses to run as root: of its package, or nobody. A directory becomes that user's.
func lesser(dir string, names ...string) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // the caller's own is good
	}
	for _, name := range append(names, "nobody") {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
		if uidErr != nil || gidErr != nil {
			continue
		}
		if err := os.Chown(dir, int(uid), int(gid)); err != nil {
			return nil, fmt.Errorf("hand over %s: %w", dir, err)
		}
		return &account{uint32(uid), uint32(gid)}, nil
	}
	return nil, fault.New("", fault.ErrNotFound, "there is no user but root for the server to run as", "")
}
