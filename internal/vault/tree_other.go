//go:build !linux

package vault

import (
	"context"
	"os"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

func captureTree(context.Context, point.PartWriter, *os.File, []string) (point.Part, error) {
	return point.Part{}, fault.New("capture directory", fault.ErrUnsupported, "directories are captured on Linux only", "")
}

func restoreAttributes(ctx context.Context, r point.Reader, dest string) error {
	f, err := r.Open(ctx, AttributesFile)
	if err != nil {
		return nil //nolint:nilerr // nothing to restore
	}
	_ = f.Close() // opened for reading
	return fault.New("restore attributes in "+quote(dest), fault.ErrIncomplete, "attributes are restored on Linux only", "")
}

func restoreInto(context.Context, point.Reader, string) error {
	return fault.New("restore into a directory", fault.ErrUnsupported, "that is done on Linux only", "")
}

func restoreOver(context.Context, point.Reader, string) error {
	return fault.New("restore over a directory", fault.ErrUnsupported, "that is done on Linux only", "")
}

func hole(*os.File, int64, int64) bool { return false }

func setFileTime(root *os.Root, name string, _ *os.File, at time.Time) error {
	return root.Chtimes(name, at, at)
}

// setLinkTime leaves the time alone: setting it would follow the link.
func setLinkTime(*os.Root, string, time.Time) error { return nil }

// zeroed reports that it is not known what a device holds.
func zeroed(*os.File, int64) bool { return false }
