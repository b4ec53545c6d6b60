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
	"github.com/backstay/backstay/internal/point"
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
	cmd.AddCommand(newLocationCreateCommand(a), newLocationStatusCommand(a), newChangePasswordCommand(a))
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

// createDocument is what `location create --json` prints.
type createDocument struct {
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
	if a.global.json {
		return a.document(createDocument{documentVersion, location.String()})
	}
	a.say("made a vault at %s", location)
	return nil
}

const statusHelp = `
Status opens the vault and tells what is in it.`

func newLocationStatusCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Tell what is in the vault",
		Long:    exits(statusHelp),
		Example: "  backstay location status",
		Args:    takes(0, 0),
		RunE:    a.runs(func(ctx context.Context, _ []string) error { return a.locationStatus(ctx) }),
	}
}

// statusDocument is what `location status --json` prints.
type statusDocument struct {
	Version    int        `json:"version"`
	Location   string     `json:"location"`
	Points     int        `json:"points"`
	Incomplete int        `json:"incomplete"`
	Held       int        `json:"held"`
	Subjects   int        `json:"subjects"`
	Oldest     *time.Time `json:"oldest,omitempty"`
	Newest     *time.Time `json:"newest,omitempty"`
}

func (a *app) locationStatus(ctx context.Context) error {
	location, _, err := a.location()
	if err != nil {
		return err
	}
	return a.withStore(ctx, toRead, func(s store) error {
		points, err := s.Points(ctx, point.Filter{})
		if err != nil {
			return err
		}
		doc := statusOf(points)
		doc.Location = location.String()
		if a.global.json {
			return a.document(doc)
		}
		a.say("location   %s", doc.Location)
		a.say("points     %d of %s, %d incomplete, %d on hold", doc.Points, plural(int64(doc.Subjects), "subject", "subjects"), doc.Incomplete, doc.Held)
		if doc.Newest != nil {
			a.say("newest     %s UTC", stamp(*doc.Newest))
			a.say("oldest     %s UTC", stamp(*doc.Oldest))
		}
		return nil
	})
}

func statusOf(points []point.Point) statusDocument {
	doc := statusDocument{Version: documentVersion, Points: len(points)}
	subjects := map[point.Subject]bool{}
	for _, p := range points {
		subjects[p.Subject] = true
		if p.State != point.Complete {
			doc.Incomplete++
		}
		if len(p.Holds) > 0 {
			doc.Held++
		}
	}
	doc.Subjects = len(subjects)
	if len(points) > 0 {
		doc.Newest, doc.Oldest = &points[0].Time, &points[len(points)-1].Time
	}
	return doc
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
	return a.withStore(ctx, toWrite, func(s store) error {
		v, ok := s.(interface {
			ChangePassword(ctx context.Context, password fault.Secret) error
		})
		if !ok {
			return fault.New("change password", fault.ErrUnsupported, "", "")
		}
		file, err := a.ownPasswordFile()
		if err != nil {
			return err
		}
		if file == "" {
			return v.ChangePassword(ctx, fresh)
		}
		return replacePasswordFile(file, fresh, func() error { return v.ChangePassword(ctx, fresh) })
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
	beside := file + ".new"
	if err := writePasswordFile(beside, fresh); err != nil {
		hint := "if " + beside + " is left from a change that was interrupted, the vault may have the password in it"
		return fault.Wrap(op, fault.ErrRefused, err, hint)
	}
	if err := change(); err != nil {
		return errors.Join(err, os.Remove(beside))
	}
	return fault.Wrap(op, nil, os.Rename(beside, file), "the new password is in "+beside)
}
