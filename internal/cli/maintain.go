package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/internal/fault"
)

const maintainHelp = `
Maintain looks after the vault: it merges the small packs of repositories, frees the space of expired points, and extends
object locks. Run it now and then, and as often as the lock period asks. One at a time: a second is refused.`

func newMaintainCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "maintain",
		GroupID: groupKeeping,
		Short:   "Free space, extend object locks, merge packs",
		Long:    exits(maintainHelp, "6   refused, for the vault does not look whole", "8   another process maintains the vault"),
		Example: "  backstay maintain",
		Args:    takes(0, 0),
		RunE:    a.runs(func(ctx context.Context, _ []string) error { return a.maintain(ctx) }),
	}
}

func (a *app) maintain(ctx context.Context) error {
	return a.withStore(ctx, toWrite, func(store) error {
		return fault.New("maintain", fault.ErrUnsupported, "", "")
	})
}
