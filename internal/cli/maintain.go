package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/internal/protect"
	"github.com/backstay/backstay/internal/vault"
)

const maintainHelp = `
Maintain looks after the vault: it merges the small packs of repositories, frees the space of expired points, and extends
object locks. Run it now and then, and as often as the lock period asks. One at a time: a second is refused.`

func newMaintainCommand(a *app) *cobra.Command {
	var o vault.MaintainOptions
	var repack bool
	cmd := &cobra.Command{
		Use:     "maintain",
		GroupID: groupKeeping,
		Short:   "Free space, extend object locks, merge packs",
		Long:    exits(maintainHelp, "6   refused, for the vault does not look whole", "8   another process maintains the vault"),
		Example: "  backstay maintain",
		Args:    takes(0, 0),
		RunE:    a.runs(func(ctx context.Context, _ []string) error { return a.maintain(ctx, o, repack) }),
	}
	cmd.Flags().BoolVar(&o.Full, "full", false, "free space and extend locks even if that was done within the day")
	cmd.Flags().BoolVar(&repack, "repack", false, "pack every repository anew, without what no point needs any more (reads all of it; takes scratch space of its size)")
	return cmd
}

// maintainDocument is what `maintain --json` prints.
type maintainDocument struct {
	Version     int `json:"version"`
	MergedPacks int `json:"mergedPacks"`
	*vault.MaintainReport
	Seconds float64 `json:"seconds"`
}

func (a *app) maintain(ctx context.Context, o vault.MaintainOptions, repack bool) error {
	return a.withVault(ctx, toWrite, func(v *vault.Vault) error {
		began := a.Clock()
		merged, compactErr := protect.Compact(ctx, v, compactors(), repack)
		if ctx.Err() != nil {
			return errors.Join(compactErr, ctx.Err())
		}
		report, err := v.Maintain(ctx, o) // locks must be extended even where packs could not be merged
		err = errors.Join(compactErr, err)
		if report == nil {
			return err
		}
		if a.global.json {
			return errors.Join(err, a.document(maintainDocument{documentVersion, merged, report, seconds(a.Clock().Sub(began))}))
		}
		a.tellMaintained(merged, report)
		return err
	})
}

func (a *app) tellMaintained(merged int, r *vault.MaintainReport) {
	if merged > 0 {
		a.say("merged %s", plural(int64(merged), "pack", "packs"))
	}
	if !r.Full {
		a.say("done: freeing space was not due yet (--full does it now)")
	} else {
		a.say("done: freed %s in %s, rewrote %s", size(r.FreedBytes), plural(r.FreedBlobs, "blob", "blobs"), size(r.RewrittenBytes))
	}
	if !r.FreedLockedUntil.IsZero() {
		a.say("what was freed stays locked until %s UTC", stamp(r.FreedLockedUntil))
	}
	if r.Lock != nil {
		a.say("extended the lock of %s; all are locked until %s UTC", plural(r.ExtendedBlobs, "blob", "blobs"), stamp(r.Lock.SafeUntil))
		if r.Lock.Alarm != "" {
			a.say("alarm: %s", r.Lock.Alarm)
		}
	}
}
