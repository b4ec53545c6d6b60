package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/blueprint/function"
	"github.com/backstay/backstay/internal/fault"
)

const blueprintHelp = `
Blueprints say how applications are backed up, restored and cleaned up after. They are Kanister's, read as published; docs/blueprints.md
has what they may hold.`

const blueprintValidateHelp = `
Validate reads files of Blueprints, ActionSets and Profiles, and tells every fault that shows without a cluster: functions that are not
there, arguments that are missing or that no function takes, templates that cannot be rendered, references to what cannot be there, and
fields that nothing reads. It reads standard input for the file -.`

func newBlueprintCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "blueprint",
		GroupID: groupPolicies,
		Short:   "Check Kanister's Blueprints, or run their actions",
		Long:    strings.TrimSpace(blueprintHelp),
		Example: "  backstay blueprint validate mysql.yaml\n" +
			"  backstay blueprint run mysql --action backup --object statefulset/shop/mysql --profile shop/s3",
		Args: subcommandOnly,
		RunE: showHelp,
	}
	validate := &cobra.Command{
		Use:     "validate FILE...",
		Short:   "Tell what is wrong with files of Blueprints",
		Long:    exits(blueprintValidateHelp),
		Example: "  backstay blueprint validate mysql.yaml\n  kubectl get blueprint mysql -o yaml | backstay blueprint validate -",
		Args:    takes(1, -1),
		RunE:    a.runs(func(_ context.Context, args []string) error { return a.validateBlueprints(args) }),
	}
	cmd.AddCommand(validate, newBlueprintRunCommand(a))
	return cmd
}

// validatedDocument is what `blueprint validate --json` prints.
type validatedDocument struct {
	Version int             `json:"version"`
	Files   []validatedFile `json:"files"`
}

type validatedFile struct {
	File       string   `json:"file"`
	Blueprints []string `json:"blueprints"`
	Faults     []string `json:"faults"`
	Skipped    []string `json:"skipped,omitempty"` // documents of other kinds
}

// validateBlueprints tells the faults of files.
func (a *app) validateBlueprints(files []string) error {
	functions := function.All(function.Options{})
	doc := validatedDocument{Version: documentVersion}
	blueprints, bad := 0, 0
	var all []error
	for _, name := range files {
		documents, err := a.readBlueprints(name)
		if err != nil {
			return fault.Wrap(name, nil, err, "")
		}
		file := validatedFile{File: name, Blueprints: []string{}, Faults: []string{}, Skipped: documents.Others}
		for _, b := range documents.Blueprints {
			file.Blueprints = append(file.Blueprints, b.Name)
		}
		for _, err := range documents.Validate(functions) {
			file.Faults = append(file.Faults, err.Error())
			a.say("%s: %s", name, err.Error())
			all = append(all, err)
		}
		blueprints += len(file.Blueprints)
		if len(file.Faults) > 0 {
			bad++
		}
		doc.Files = append(doc.Files, file)
	}
	if a.global.json {
		if err := a.document(doc); err != nil {
			return err
		}
	}
	if bad > 0 {
		return faulty(all, bad)
	}
	a.say("good: %s", plural(int64(blueprints), "Blueprint", "Blueprints"))
	return nil
}

// faulty says in one line that there are faults: those that are told already. They are of functions that we lack, or plain wrong.
func faulty(all []error, files int) error {
	kind := fault.ErrUnsupported
	for _, err := range all {
		if !errors.Is(err, fault.ErrUnsupported) {
			kind = fault.ErrInvalid
		}
	}
	hints := errors.Join(all...)
	text := fmt.Sprintf("%s in %s", plural(int64(len(all)), "fault", "faults"), plural(int64(files), "file", "files"))
	hint := ""
	if found := fault.Hints(hints); len(found) > 0 {
		hint = found[0]
	}
	return fault.New("blueprint validate", kind, text, hint)
}

// readBlueprints reads a file of Blueprints and what belongs to them.
func (a *app) readBlueprints(name string) (*blueprint.Documents, error) {
	if name == "-" {
		return blueprint.Parse(a.Stdin)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fault.Wrap("", fault.ErrNotFound, err, "")
	}
	defer f.Close() //nolint:errcheck // opened for reading
	return blueprint.Parse(f)
}
