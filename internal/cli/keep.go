package cli

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/policy"
	"github.com/backstay/backstay/internal/protect"
)

const holdHelp = `
Hold keeps a restore point from expiring until the hold is lifted. Backstay itself holds the last good point of a part when
its source looks damaged.` + referenceHelp

type holdOptions struct {
	reason string
	lift   bool
}

func newHoldCommand(a *app) *cobra.Command {
	var o holdOptions
	cmd := &cobra.Command{
		Use:               "hold POINT",
		GroupID:           groupKeeping,
		Short:             "Keep a restore point from expiring",
		Long:              exits(holdHelp),
		Example:           "  backstay hold latest --reason \"before the migration\"\n  backstay hold 3f2a91c0 --lift",
		Args:              takes(1, 1),
		ValidArgsFunction: a.completePoints(1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			return a.hold(ctx, args[0], o)
		}),
	}
	cmd.Flags().StringVar(&o.reason, "reason", "", "why the point must be kept")
	cmd.Flags().BoolVar(&o.lift, "lift", false, "lift all holds of the point")
	return cmd
}

// holdDocument is what `hold --json` prints.
type holdDocument struct {
	Version int    `json:"version"`
	Point   string `json:"point"`
	Reason  string `json:"reason,omitempty"`
	Lifted  bool   `json:"lifted,omitempty"`
}

func (a *app) hold(ctx context.Context, ref string, o holdOptions) error {
	if o.lift == (o.reason != "") {
		return fault.New("hold", fault.ErrInvalid, "give either --reason or --lift", "")
	}
	return a.withStore(ctx, toWrite, func(s store) error {
		p, err := protect.Resolve(ctx, s, ref, time.Time{})
		if err != nil {
			return err
		}
		if err := s.Hold(ctx, p.ID, o.reason); err != nil {
			return err
		}
		if a.global.json {
			return a.document(holdDocument{documentVersion, p.ID, o.reason, o.lift})
		}
		if o.lift {
			a.say("lifted the holds of point %s", p.ID)
		} else {
			a.say("holding point %s: %s", p.ID, o.reason)
		}
		return nil
	})
}

const expireHelp = `
Expire deletes the restore points that no rule keeps. A rule such as --keep-daily 7 keeps the newest point of each of the
newest seven days that have one; each subject is judged for itself, and each policy's points of it. Whatever the rules, the newest
complete point of these and points on hold stay. Incomplete points never cost a complete one its place.

The space is given back by ` + "`backstay maintain`" + `. In a location with object lock it stays occupied until the lock ends.`

type expireOptions struct {
	pointFilter
	retention policy.Retention
	zone      string
	dryRun    bool
}

func newExpireCommand(a *app) *cobra.Command {
	var o expireOptions
	cmd := &cobra.Command{
		Use:     "expire --keep-RULE N...",
		GroupID: groupKeeping,
		Short:   "Delete the restore points that no rule keeps",
		Long:    exits(expireHelp, "6   a point could not be deleted yet, for it is locked"),
		Example: "  backstay expire --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run\n  backstay expire --keep-within 30d",
		Args:    takes(0, 0),
		RunE: a.runs(func(ctx context.Context, _ []string) error {
			return a.expire(ctx, o)
		}),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.IntVar(&o.retention.Last, "keep-last", 0, "keep the newest `N` points")
	flags.IntVar(&o.retention.Hourly, "keep-hourly", 0, "keep the newest point of each of `N` hours")
	flags.IntVar(&o.retention.Daily, "keep-daily", 0, "keep the newest point of each of `N` days")
	flags.IntVar(&o.retention.Weekly, "keep-weekly", 0, "keep the newest point of each of `N` ISO weeks")
	flags.IntVar(&o.retention.Monthly, "keep-monthly", 0, "keep the newest point of each of `N` months")
	flags.IntVar(&o.retention.Yearly, "keep-yearly", 0, "keep the newest point of each of `N` years")
	flags.Var(&o.retention.Within, "keep-within", "keep all points at most `SPAN` older than the newest complete one (1y6m, 30d, 36h)")
	flags.Lookup("keep-within").DefValue = "" // an empty span is no rule
	flags.StringVar(&o.zone, "zone", "UTC", "time `ZONE` of hours, days, weeks, months and years")
	flags.BoolVarP(&o.dryRun, "dry-run", "n", false, "delete nothing, only tell what would be")
	o.pointFilter.bind(cmd)
	return cmd
}

// expireDocument is what `expire --json` prints.
type expireDocument struct {
	Version int              `json:"version"`
	DryRun  bool             `json:"dryRun"`
	Kept    []expireDecision `json:"kept"`
	Expired []expireDecision `json:"expired"`
	Deleted int              `json:"deleted"`
}

type expireDecision struct {
	Point   string        `json:"point"`
	Subject point.Subject `json:"subject"`
	Time    time.Time     `json:"time"`
	State   point.State   `json:"state"`
	Reasons []string      `json:"reasons,omitempty"`
}

func (a *app) expire(ctx context.Context, o expireOptions) error {
	zone, err := o.check()
	if err != nil {
		return err
	}
	return a.withStore(ctx, toWrite, func(s store) error {
		points, err := o.list(ctx, s)
		if err != nil {
			return err
		}
		expired, err := protect.Expire(ctx, s, points, protect.Expiry{
			Retention: o.retention, Now: a.Clock(), Zone: zone, DryRun: o.dryRun,
		})
		if expired == nil {
			return err
		}
		return errors.Join(err, a.tellExpire(expired, o.dryRun))
	})
}

// check refuses rules that keep everything or make no sense, and finds the zone.
func (o *expireOptions) check() (*time.Location, error) {
	r := o.retention
	for _, n := range []int{r.Last, r.Hourly, r.Daily, r.Weekly, r.Monthly, r.Yearly} {
		if n < 0 {
			return nil, fault.New("expire", fault.ErrInvalid, "a rule keeps fewer than no points", "")
		}
	}
	if r.IsEmpty() {
		return nil, fault.New("expire", fault.ErrInvalid, "no rule is given, so every point is kept", "give one, such as --keep-daily 7")
	}
	zone, err := time.LoadLocation(o.zone)
	return zone, fault.Wrap("expire", fault.ErrInvalid, err, "name a zone such as Europe/Berlin")
}

func (a *app) tellExpire(e *protect.Expired, dryRun bool) error {
	doc := expireDocument{Version: documentVersion, DryRun: dryRun, Kept: []expireDecision{}, Expired: []expireDecision{}, Deleted: e.Deleted}
	rows := make([][]string, 0, len(e.Decisions))
	for _, d := range e.Decisions {
		row := expireDecision{d.Point.ID, d.Point.Subject, d.Point.Time, d.Point.State, d.Reasons}
		word := "expire"
		if d.Keep {
			word = "keep"
			doc.Kept = append(doc.Kept, row)
		} else {
			doc.Expired = append(doc.Expired, row)
		}
		rows = append(rows, []string{
			shortID(d.Point.ID), stamp(d.Point.Time), d.Point.Subject.Name, string(d.Point.State), word, strings.Join(d.Reasons, ", "),
		})
	}
	if a.global.json {
		return a.document(doc)
	}
	if !a.global.quiet && len(rows) > 0 {
		if err := a.table([]string{"ID", "TIME (UTC)", "SUBJECT", "STATE", "VERDICT", "REASONS"}, rows); err != nil {
			return err
		}
	}
	if dryRun {
		a.say("would delete %s and keep %d", plural(int64(len(doc.Expired)), "point", "points"), len(doc.Kept))
		return nil
	}
	a.say("deleted %s, kept %d", plural(int64(e.Deleted), "point", "points"), len(e.Decisions)-e.Deleted)
	return nil
}
