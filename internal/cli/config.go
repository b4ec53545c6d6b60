package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/config"
	"github.com/backstay/backstay/internal/fault"
)

const configCheckHelp = `
Check reads files of policies and locations as run does, and tells everything that is wrong with them, with file, line and column.
It reads no secret and asks nobody.`

func newConfigCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config",
		GroupID: groupPolicies,
		Short:   "Check files of policies, or print their schema",
		Example: "  backstay config check -f /etc/backstay\n  backstay config schema > backstay.schema.json",
		Args:    subcommandOnly,
		RunE:    showHelp,
	}
	var files []string
	check := &cobra.Command{
		Use:     "check -f FILE|DIR",
		Short:   "Tell what is wrong with files of policies",
		Long:    exits(configCheckHelp),
		Example: "  backstay config check -f policy.yaml",
		Args:    takes(0, 0),
		RunE:    a.runs(func(context.Context, []string) error { return a.checkConfig(files) }),
	}
	check.Flags().StringArrayVarP(&files, "file", "f", nil, "`FILE` of policies, or directory of such files; repeat for more")
	schema := &cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON schema of the files, for editors",
		Long:    exits("Schema prints the JSON schema of files of policies and locations. Editors that are given it complete and check them."),
		Example: "  backstay config schema > backstay.schema.json",
		Args:    takes(0, 0),
		RunE: a.runs(func(context.Context, []string) error {
			_, err := a.Stdout.Write(v1alpha1.Schema())
			return unwritten(err)
		}),
	}
	cmd.AddCommand(check, schema)
	return cmd
}

// configDocument is what `config check --json` prints.
type configDocument struct {
	Version   int      `json:"version"`
	Files     []string `json:"files"`
	Policies  []string `json:"policies"`
	Locations []string `json:"locations"`
	Notes     []string `json:"notes"`
}

func (a *app) checkConfig(files []string) error {
	if len(files) == 0 {
		return fault.New("config check", fault.ErrInvalid, "no file", "say where the policies are: -f FILE or -f DIR")
	}
	set, err := config.Load(files...)
	if err != nil {
		return err
	}
	doc := configDocument{documentVersion, set.Files, []string{}, []string{}, []string{}}
	for _, p := range set.Policies {
		doc.Policies = append(doc.Policies, p.Name)
	}
	for _, l := range set.Locations {
		doc.Locations = append(doc.Locations, l.Name)
	}
	for _, n := range set.Notes {
		doc.Notes = append(doc.Notes, n.String())
	}
	if a.global.json {
		return a.document(doc)
	}
	for _, n := range doc.Notes {
		a.say("note: %s", n)
	}
	a.say("good: %s, %s", plural(int64(len(doc.Policies)), "policy", "policies"), plural(int64(len(doc.Locations)), "location", "locations"))
	return nil
}
