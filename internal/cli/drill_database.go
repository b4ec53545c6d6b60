package cli

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/database"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// questions are what drills ask restored databases. One that nobody was asked must not pass for one that was answered.
type questions struct {
	checks []v1alpha1.SQLCheck
	asked  map[int]bool
}

// drill loads a dump that was restored to dir into a scratch server beside it, and asks the questions.
func (q *questions) drill(ctx context.Context, from point.Reader, part point.Part, dir string) ([]point.Check, error) {
	m, err := database.ReadManifest(ctx, from)
	if err != nil {
		return nil, err
	}
	var all []database.Question
	for i, c := range q.checks {
		if m.Engine == database.Redis || c.Database != "" && c.Database != path.Base(part.Name) { // Redis speaks no SQL
			continue
		}
		if q.asked == nil {
			q.asked = map[int]bool{}
		}
		q.asked[i] = true
		all = append(all, database.Question{Database: c.Schema, Query: c.Query, Want: c.Want})
	}
	server := filepath.Join(filepath.Dir(dir), "db") // short, for a socket is in it
	if err := besideRestored(server, dir); err != nil {
		return nil, err
	}
	return database.Drill(ctx, from, server, all)
}

// besideRestored makes a directory for a scratch server. One that does not run as root must get there, but not at what was restored.
func besideRestored(dir, restored string) error {
	if err := os.Chmod(restored, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		return err
	}
	return os.Mkdir(dir, 0o700)
}

// unasked is an error about the questions for which there was no database.
func (q *questions) unasked() error {
	for i, c := range q.checks {
		if !q.asked[i] {
			return fault.New("drill", fault.ErrInvalid, fmt.Sprintf("there was no database to ask %.100q", c.Query),
				"name its part without databases/; `backstay show POINT` lists the parts")
		}
	}
	return nil
}
