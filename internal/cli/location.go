package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/vault"
)

const locationHelp = `
A location is where a vault lives: a directory, or a URL.

  file:///path
  s3://bucket/prefix?endpoint=HOST&region=REGION
  gs://bucket/prefix
  azblob://container/prefix?account=NAME
  sftp://user@host/path
  webdavs://host/path

Credentials never stand in the URL: they come from the environment or from the provider's own files.`

func newLocationCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "location",
		GroupID: groupLocation,
		Short:   "Make and look after the vault at a location",
		Long:    strings.TrimSpace(locationHelp),
		Args:    subcommandOnly,
		RunE:    showHelp,
	}
	cmd.AddCommand(newLocationCreateCommand(a), newLocationStatusCommand(a), newLocationRepairCommand(a), newChangePasswordCommand(a))
	return cmd
}

const createHelp = `
Create makes an empty vault at the location, encrypted with the password given. There is no way to read a vault without its
password: keep a copy of it.

With --lock the store itself refuses to delete or overwrite what Backstay writes, for the period given and for as long as
` + "`backstay maintain`" + ` extends it. The bucket must have been made with object lock.`

type createOptions struct {
	lock   string
	period lockPeriod
}

// lockPeriod is a number of days.
type lockPeriod struct{ time.Duration }

// Set and the methods after it make lockPeriod a flag.
func (p *lockPeriod) Set(s string) error {
	days, found := strings.CutSuffix(s, "d")
	d, err := time.ParseDuration(days + "h")
	if !found || err != nil || d <= 0 {
		return fault.New("lock period", fault.ErrInvalid, "not a number of days", `write "30d"`)
	}
	p.Duration = d * 24
	return nil
}

func (p *lockPeriod) String() string {
	if p.Duration == 0 {
		return ""
	}
	return fmt.Sprintf("%dd", p.Duration/(24*time.Hour))
}

func (*lockPeriod) Type() string { return "days" }

func newLocationCreateCommand(a *app) *cobra.Command {
	var o createOptions
	cmd := &cobra.Command{
		Use:   "create [URL]",
		Short: "Make an empty vault",
		Long:  exits(createHelp, "6   there is a vault already"),
		Example: "  backstay location create file:///srv/vault --password-file ~/vault-password\n" +
			"  backstay location create \"s3://bucket/backstay?region=eu-central-1\" --lock compliance --lock-period 30d",
		Args: takes(0, 1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			if len(args) == 1 {
				a.global.location = args[0]
			}
			return a.createLocation(ctx, o)
		}),
	}
	cmd.Flags().StringVar(&o.lock, "lock", "", "object lock `MODE`: governance or compliance")
	cmd.Flags().Var(&o.period, "lock-period", "how long written data stays locked, at least 1d")
	return cmd
}

// locationDocument is what `location create --json` and `location change-password --json` print.
type locationDocument struct {
	Version  int    `json:"version"`
	Location string `json:"location"`
}

func (a *app) createLocation(ctx context.Context, o createOptions) error {
	location, isDefault, err := a.location()
	if err != nil {
		return err
	}
	if (o.lock == "") != (o.period.Duration == 0) {
		return fault.New("create vault", fault.ErrInvalid, "--lock and --lock-period go together", "")
	}
	password, err := a.vaultPassword(ctx, location, isDefault, isDefault)
	if err != nil {
		return err
	}
	options := a.vaultOptions()
	options.Lock = vault.Lock{Mode: strings.ToUpper(o.lock), Period: o.period.Duration}
	if err := vault.Create(ctx, location, password, options); err != nil {
		return err
	}
	return a.tellLocation(location, "made a vault at")
}

func (a *app) tellLocation(location vault.Location, done string) error {
	if a.global.json {
		return a.document(locationDocument{documentVersion, location.String()})
	}
	a.say("%s %s", done, location)
	return nil
}

const statusHelp = `
Status tells how a vault is: its points, its size, its object lock, and what is missing.`

func newLocationStatusCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Tell how the vault is",
		Long:    exits(statusHelp, "3   object locks were not extended in time", "7   something is missing or damaged"),
		Example: "  backstay location status",
		Args:    takes(0, 0),
		RunE:    a.runs(func(ctx context.Context, _ []string) error { return a.locationStatus(ctx) }),
	}
}

// statusDocument is what `location status --json` prints.
type statusDocument struct {
	Version int `json:"version"`
	*vault.Status
	Lock *vault.LockStatus `json:"lock,omitempty"`
}

func (a *app) locationStatus(ctx context.Context) error {
	return a.withVault(ctx, toRead, func(v *vault.Vault) error {
		status, err := v.Status(ctx)
		if err != nil {
			return err
		}
		lock, err := v.LockStatus(ctx)
		if err != nil {
			return err
		}
		alarm := alarmOf(status, lock)
		if a.global.json {
			return errors.Join(alarm, a.document(statusDocument{documentVersion, status, lock}))
		}
		a.tellStatus(status, lock)
		return alarm
	})
}

// alarmOf is the error about a vault that somebody must see to; nil where it is as it should be.
func alarmOf(s *vault.Status, lock *vault.LockStatus) error {
	op := "vault " + s.Location
	switch {
	case len(s.Missing) > 0:
		return fault.New(op, fault.ErrCorrupt, plural(int64(len(s.Missing)), "point is", "points are")+" missing", "run `backstay location repair`")
	case s.Unreadable > 0:
		return fault.New(op, fault.ErrCorrupt, plural(int64(s.Unreadable), "list", "lists")+" of points cannot be read", "run `backstay location repair`")
	case s.FormatCopies == 0 || !s.FormatSame:
		return fault.New(op, fault.ErrCorrupt, "there is no good copy of the format blobs", "run `backstay location repair`")
	case lock != nil && lock.Alarm != "":
		return fault.New(op, fault.ErrIncomplete, "object lock: "+lock.Alarm, "run `backstay maintain`, and as often as the lock period asks")
	}
	return nil
}

func (a *app) tellStatus(s *vault.Status, lock *vault.LockStatus) {
	a.say("location  %s", s.Location)
	a.say("points    %d, and %s of runs not ended", s.Points, plural(int64(s.Drafts), "checkpoint", "checkpoints"))
	a.say("size      %s in %d packs", size(s.Bytes), s.Packs)
	if n := len(s.Missing); n > 0 {
		a.say("missing   %s", plural(int64(n), "point", "points"))
	}
	if s.Unreadable > 0 {
		a.say("damaged   %s of points", plural(int64(s.Unreadable), "list", "lists"))
	}
	if s.FormatCopies == 0 || !s.FormatSame {
		a.say("format    no good copy of the format blobs")
	}
	if lock == nil {
		a.say("lock      none")
		return
	}
	a.say("lock      %s, %d days, all blobs until %s UTC", s.LockMode, s.LockPeriod/(24*time.Hour), stamp(lock.SafeUntil))
	if lock.Alarm != "" {
		a.say("alarm     %s", lock.Alarm)
	}
}

const repairHelp = `
Repair brings back what lost or damaged format blobs, indexes and lists of points have hidden. It deletes nothing that can be
read, and says exactly what is gone. Nobody else should use the vault meanwhile.`

func newLocationRepairCommand(a *app) *cobra.Command {
	var readData bool
	cmd := &cobra.Command{
		Use:     "repair",
		Short:   "Bring back what a damaged vault still holds",
		Long:    exits(repairHelp, "7   something is lost; it is named"),
		Example: "  backstay location repair --read-data",
		Args:    takes(0, 0),
		RunE:    a.runs(func(ctx context.Context, _ []string) error { return a.repair(ctx, readData) }),
	}
	cmd.Flags().BoolVar(&readData, "read-data", false, "read every byte, and forget what is damaged, so that the next backup stores it again")
	return cmd
}

// repairDocument is what `location repair --json` prints.
type repairDocument struct {
	Version int `json:"version"`
	*vault.Repaired
}

func (a *app) repair(ctx context.Context, readData bool) error {
	location, isDefault, err := a.location()
	if err != nil {
		return err
	}
	password, err := a.vaultPassword(ctx, location, isDefault, false)
	if err != nil {
		return err
	}
	options := a.vaultOptions()
	options.ReadData = readData
	repaired, err := vault.Repair(ctx, location, password, options)
	if repaired == nil {
		return err
	}
	if err == nil {
		err = lossOf(location, repaired)
	}
	if a.global.json {
		return errors.Join(err, a.document(repairDocument{documentVersion, repaired}))
	}
	a.tellRepaired(repaired)
	return err
}

// lossOf is the error about what a repair could not bring back; nil where that is nothing.
func lossOf(l vault.Location, r *vault.Repaired) error {
	lost := len(r.Gone)
	if r.Report != nil {
		lost += len(r.Report.Faults)
	}
	if lost == 0 {
		return nil
	}
	return fault.New("repair "+l.String(), fault.ErrCorrupt, plural(int64(lost), "thing is", "things are")+" lost",
		"back up again: what the sources still have is stored anew")
}

func (a *app) tellRepaired(r *vault.Repaired) {
	if r.Format {
		a.say("put the format blobs back")
	}
	a.say("removed %s, read %s anew, brought %s back", plural(int64(len(r.Indexes)), "damaged index", "damaged indexes"),
		plural(int64(r.Packs), "pack", "packs"), plural(int64(len(r.Points)), "point", "points"))
	for _, note := range r.Notes {
		a.say("note: %s", note)
	}
	for _, gone := range r.Gone {
		a.say("lost: %s", gone)
	}
	if r.Report != nil {
		a.say("%s checked, %s", plural(int64(r.Report.Points), "point", "points"), plural(int64(len(r.Report.Faults)), "fault", "faults"))
		for _, f := range r.Report.Faults {
			a.say("fault: %s", f)
		}
	}
}

const changePasswordHelp = `
Change-password gives the vault a new password, from BACKSTAY_NEW_PASSWORD, --new-password-file or --new-password-command.
Nothing is uploaded anew. The old password opens the vault no more, but whoever copied its blobs and knows the old password
can still read what he copied.`

func newChangePasswordCommand(a *app) *cobra.Command {
	from := passwordSource{env: envNewPassword}
	cmd := &cobra.Command{
		Use:     "change-password",
		Short:   "Give the vault a new password",
		Long:    exits(changePasswordHelp),
		Example: "  backstay location change-password --new-password-file ~/new-password",
		Args:    takes(0, 0),
		RunE:    a.runs(func(ctx context.Context, _ []string) error { return a.changePassword(ctx, from) }),
	}
	cmd.Flags().StringVar(&from.file, "new-password-file", "", "read the new password from `FILE` (default $BACKSTAY_NEW_PASSWORD)")
	cmd.Flags().StringVar(&from.command, "new-password-command", "", "read the new password from what the shell `COMMAND` prints")
	return cmd
}

func (a *app) changePassword(ctx context.Context, from passwordSource) error {
	fresh, err := a.password(ctx, from)
	if err != nil {
		return err
	}
	if fresh == "" {
		return fault.New("change password", fault.ErrInvalid, "no new password is given",
			"set "+envNewPassword+", --new-password-file or --new-password-command")
	}
	return a.withVault(ctx, toWrite, func(v *vault.Vault) error {
		file, err := a.ownPasswordFile()
		if err != nil {
			return err
		}
		if file == "" {
			err = v.ChangePassword(ctx, fresh)
		} else {
			err = replacePasswordFile(file, fresh, func() error { return v.ChangePassword(ctx, fresh) })
		}
		if err != nil {
			return err
		}
		location, _, err := a.location()
		if err != nil {
			return err
		}
		return a.tellLocation(location, "changed the password of the vault at")
	})
}

// ownPasswordFile is the file that we keep the vault's password in; "" where the user keeps it.
func (a *app) ownPasswordFile() (string, error) {
	_, isDefault, err := a.location()
	if err != nil || !isDefault || a.global.passwordFile != "" || a.global.passwordCommand != "" || a.Getenv(envPassword) != "" {
		return "", err
	}
	return vault.DefaultPasswordFile(a.Getenv)
}

// replacePasswordFile has the new password on the disk before it is the vault's, and in its place once it is.
func replacePasswordFile(file string, fresh fault.Secret, change func() error) error {
	const op = "change password"
	beside := file + changing
	if err := writePasswordFile(beside, fresh); err != nil {
		hint := "if " + beside + " is left from a change that was interrupted, the vault may have the password in it"
		return fault.Wrap(op, fault.ErrRefused, err, hint)
	}
	if err := change(); err != nil {
		return errors.Join(err, os.Remove(beside))
	}
	return fault.Wrap(op, nil, os.Rename(beside, file), "the new password is in "+beside)
}
