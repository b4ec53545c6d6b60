package vault

import (
	"testing"
	"time"

	"github.com/backstay/backstay/internal/protect"
	"github.com/backstay/backstay/internal/vault/vaulttest"
)

func TestStore(t *testing.T) {
	vaulttest.Run(t, func(t *testing.T, clock func() time.Time) protect.Store {
		return newVault(t, t.TempDir(), Options{Clock: clock, Tool: "backstay test"})
	})
}
