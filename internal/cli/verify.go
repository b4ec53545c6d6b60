package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/internal/protect"
)

const verifyHelp = `
Verify checks that restore points are whole: that every object they refer to is in the vault, and with --read-data that
every stored byte is the one that was written. Without an argument it checks all points.` + referenceHelp

type verifyOptions struct {
	readData bool
	asOf     timeFlag
}

func newVerifyCommand(a *app) *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:               "verify [POINT]...",
		GroupID:           groupKeeping,
		Short:             "Check that restore points are whole",
		Long:              exits(verifyHelp, "7   something is not as it was stored"),
		Example:           "  backstay verify\n  backstay verify latest --read-data",
		Args:              takes(0, -1),
		ValidArgsFunction: a.completePoints(-1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			return a.verify(ctx, args, o)
		}),
	}
	cmd.Flags().BoolVar(&o.readData, "read-data", false, "read every stored byte")
	o.asOf.bind(cmd)
	return cmd
}

// verifyDocument is what `verify --json` prints.
type verifyDocument struct {
	Version int `json:"version"`
	protect.Report
	Seconds float64 `json:"seconds"`
}

func (a *app) verify(ctx context.Context, refs []string, o verifyOptions) error {
	return a.withStore(ctx, toRead, func(s store) error {
		began := a.Clock()
		var ids []string
		for _, ref := range refs {
			p, err := protect.Resolve(ctx, s, ref, o.asOf.Time)
			if err != nil {
				return err
			}
			ids = append(ids, p.ID)
		}
		report, err := protect.Verify(ctx, s, o.readData, ids...)
		if report == nil {
			return err
		}
		return errors.Join(err, a.tellVerify(report, o.readData, a.Clock().Sub(began)))
	})
}

func (a *app) tellVerify(r *protect.Report, readData bool, took time.Duration) error {
	if a.global.json {
		return a.document(verifyDocument{documentVersion, *r, seconds(took)})
	}
	for _, f := range r.Faults {
		a.say("fault: %s", f)
	}
	checked := plural(int64(r.Points), "point", "points") + ", " + plural(r.Files, "file", "files")
	if readData {
		checked += ", " + size(r.Bytes) + " read"
	} else {
		checked += ", no data read (--read-data does)"
	}
	verdict := "good"
	if len(r.Faults) > 0 {
		verdict = plural(int64(len(r.Faults)), "fault", "faults")
	}
	a.say("%s: %s, %.1f s", verdict, checked, took.Seconds())
	return nil
}
