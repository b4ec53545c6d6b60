package forge

import (
	"context"

	"github.com/backstay/backstay/internal/point"
)

// CaptureMetadata captures one repository's metadata alone.
func CaptureMetadata(ctx context.Context, a *Account, to point.Sink, r Repository) error {
	c, err := a.newCapture(ctx, to)
	if err != nil {
		return err
	}
	return c.metadata(ctx, r)
}
