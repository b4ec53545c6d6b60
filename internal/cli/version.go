package cli

import (
	"context"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// versionDocument is what `version --json` prints.
type versionDocument struct {
	Version  int    `json:"version"`
	Backstay string `json:"backstay"`
	Go       string `json:"go"`
	System   string `json:"system"`
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  backstay version",
		Args:    takes(0, 0),
		RunE: a.runs(func(context.Context, []string) error {
			system := runtime.GOOS + "/" + runtime.GOARCH
			if a.global.json {
				return a.document(versionDocument{documentVersion, a.Version, runtime.Version(), system})
			}
			_, err := fmt.Fprintf(a.Stdout, "backstay %s (%s, %s)\n", a.Version, runtime.Version(), system)
			return err
		}),
	}
}
