package vault

import (
	"context"

	"github.com/backstay/backstay/internal/protect"
)

// Verify checks points.
func (v *Vault) Verify(context.Context, bool, ...string) (*protect.Report, error) { panic("soon") }
