package kando

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/internal/fault"
)

// snapshot is what is printed of a push into a kopia repository or a vault, and given back to pull it.
type snapshot struct {
	ID           string `json:"id"`
	LogicalSize  int64  `json:"logicalSize"`  // bytes
	PhysicalSize int64  `json:"physicalSize"` // bytes
}

// place is where a profile leads. Paths are as the commands were given them.
type place interface {
	// push stores a source at a path. Only what makes snapshots returns one.
	push(ctx context.Context, s *source, path string) (*snapshot, error)
	pull(ctx context.Context, t *target, path, id string) error
	delete(ctx context.Context, path, id string) error
}

// open opens the place that a profile leads to.
func (t *tool) open(d *Document) (place, error) {
	switch {
	case d.Credential.Type == CredentialVault:
		return newVaultPlace(t, d)
	case d.Location.Type == TypeKopia:
		return newServerPlace(d)
	}
	s, err := Open(*d, t.Getenv)
	if err != nil {
		return nil, err
	}
	return objects{s}, nil
}

type locationOptions struct{ profile, path, snapshot, output string }

func newLocationCommand(t *tool) *cobra.Command {
	var o locationOptions
	cmd := group("location", "Push to, pull from and delete at the place of a profile",
		newPushCommand(t, &o), newPullCommand(t, &o), newDeleteCommand(t, &o))
	cmd.PersistentFlags().StringVarP(&o.path, "path", "s", "", "`PATH` below the profile's prefix")
	cmd.PersistentFlags().StringVarP(&o.profile, "profile", "p", "",
		"the profile: JSON, or @`FILE` (default $KANDO_PROFILE, or the file $KANDO_PROFILE_FILE)")
	return cmd
}

func newPushCommand(t *tool, o *locationOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "push <source>",
		Short:   "Push a file, a directory, or standard input (-)",
		Example: `  pg_dumpall | kando location push --profile @/run/profile.json --path postgres/all.sql -`,
		Args:    exactly(1),
		RunE:    run(func(ctx context.Context, args []string) error { return t.push(ctx, *o, args[0]) }),
	}
	cmd.Flags().StringVarP(&o.output, "output-name", "o", "kandoOutput", "print what was pushed as the output `KEY`; kopia profiles only")
	return cmd
}

func newPullCommand(t *tool, o *locationOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "pull <target>",
		Short:   "Pull to a file, a directory, or standard output (-)",
		Example: `  kando location pull --profile @/run/profile.json --path postgres/all.sql - | psql`,
		Args:    exactly(1),
		RunE:    run(func(ctx context.Context, args []string) error { return t.pull(ctx, *o, args[0]) }),
	}
	snapshotFlag(cmd, o)
	return cmd
}

func newDeleteCommand(t *tool, o *locationOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "delete",
		Short:   "Delete what lies at a path and below it",
		Example: `  kando location delete --profile @/run/profile.json --path postgres/all.sql`,
		Args:    exactly(0),
		RunE:    run(func(ctx context.Context, _ []string) error { return t.delete(ctx, *o) }),
	}
	snapshotFlag(cmd, o)
	return cmd
}

func snapshotFlag(cmd *cobra.Command, o *locationOptions) {
	cmd.Flags().StringVarP(&o.snapshot, "kopia-snapshot", "k", "", "`JSON` that push printed; kopia profiles only")
}

// at opens the place that the options name and does something there.
func (t *tool) at(o locationOptions, do func(p place, id string) error) error {
	d, err := readProfile(o.profile, t.Getenv)
	if err != nil {
		return err
	}
	id := ""
	if o.snapshot != "" {
		if id, err = readSnapshot(o.snapshot); err != nil {
			return err
		}
	}
	p, err := t.open(d)
	if err == nil {
		err = do(p, id)
	}
	return d.redact(err)
}

// readSnapshot returns the id that push printed.
func readSnapshot(text string) (string, error) {
	var s snapshot
	if err := json.Unmarshal([]byte(text), &s); err != nil || s.ID == "" {
		return "", fault.New("--kopia-snapshot", fault.ErrInvalid, "it is not what `kando location push` printed", "")
	}
	return s.ID, nil
}

// needed says that a snapshot has to be named.
func needed(id string) error {
	if id != "" {
		return nil
	}
	return fault.New("--kopia-snapshot", fault.ErrInvalid, "it is missing", "give the output that `kando location push` printed")
}

func (t *tool) push(ctx context.Context, o locationOptions, from string) error {
	if err := checkKey(o.output); err != nil {
		return err
	}
	return t.at(o, func(p place, _ string) error {
		s, err := t.openSource(ctx, from)
		if err != nil {
			return err
		}
		defer s.close()
		made, err := p.push(ctx, s, o.path)
		if err != nil || made == nil {
			return err
		}
		value, err := json.Marshal(made)
		if err != nil {
			return fmt.Errorf("encode snapshot: %w", err)
		}
		return printOutput(t.Stdout, o.output, string(value))
	})
}

func (t *tool) pull(ctx context.Context, o locationOptions, to string) error {
	return t.at(o, func(p place, id string) error { return p.pull(ctx, &target{name: to, stdout: t.Stdout}, o.path, id) })
}

func (t *tool) delete(ctx context.Context, o locationOptions) error {
	return t.at(o, func(p place, id string) error { return p.delete(ctx, o.path, id) })
}
