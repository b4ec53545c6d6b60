package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

// completionTime bounds how long a press of the tab key may take.
const completionTime = 5 * time.Second

// completePoints completes references to points, for as many arguments as the command takes; -1 for any number.
func (a *app) completePoints(most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if most >= 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found := []cobra.Completion{"latest"}
		_ = a.whileCompleting(cmd, func(ctx context.Context, s store) error { // without a vault there is less to offer
			points, err := s.Points(ctx, point.Filter{})
			subjects := map[string]bool{}
			for _, p := range points {
				found = append(found, cobra.CompletionWithDesc(shortID(p.ID), p.Subject.Name+" "+stamp(p.Time)))
				if !subjects[p.Subject.Name] {
					subjects[p.Subject.Name] = true
					found = append(found, "latest:"+p.Subject.Name)
				}
			}
			return err
		})
		var fitting []cobra.Completion
		for _, f := range found {
			if strings.HasPrefix(f, typed) {
				fitting = append(fitting, f)
			}
		}
		return fitting, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeParts completes --part with the parts of the point already named.
func (a *app) completeParts(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var names []cobra.Completion
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	_ = a.whileCompleting(cmd, func(ctx context.Context, s store) error {
		p, err := protect.Resolve(ctx, s, args[0], time.Time{})
		if err != nil {
			return err
		}
		record, _, err := s.Open(ctx, p.ID)
		if err != nil {
			return err
		}
		for _, part := range record.Point.Parts {
			if strings.HasPrefix(part.Name, typed) {
				names = append(names, part.Name)
			}
		}
		return nil
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) whileCompleting(cmd *cobra.Command, do func(context.Context, store) error) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	return a.withStore(ctx, toRead, func(s store) error { return do(ctx, s) })
}
