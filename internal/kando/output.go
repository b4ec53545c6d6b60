package kando

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/internal/fault"
)

// outputMark begins the lines by which a phase hands values on.
const outputMark = "###Phase-output###:"

func newOutputCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use:     "output <key> <value>",
		Short:   "Print an output of the phase",
		Example: `  kando output dumpPath mysql/dump.sql`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := exactly(2)(cmd, args); err != nil {
				return err
			}
			return checkKey(args[0])
		},
		RunE: run(func(_ context.Context, args []string) error { return printOutput(t.Stdout, args[0], args[1]) }),
	}
}

func checkKey(key string) error {
	if regexp.MustCompile(`^[a-zA-Z0-9_]+$`).MatchString(key) {
		return nil
	}
	return fault.New("output key", fault.ErrInvalid, fmt.Sprintf("%q", key), "a key has letters, digits and underscores")
}

// printOutput writes the line of an output in one piece, so that lines of others do not get into it.
func printOutput(w io.Writer, key, value string) error {
	document, err := json.Marshal(struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	}{key, value})
	if err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	var line bytes.Buffer
	fmt.Fprintln(&line, outputMark, string(document))
	_, err = w.Write(line.Bytes())
	return fault.Wrap("print output", fault.ErrRefused, err, "")
}
