package function

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

// Store is the place of a profile.
type Store interface {
	// Delete deletes the object of a path, which is below the profile's prefix, and all below it. What is not there is deleted.
	Delete(ctx context.Context, path string) error
}

// locationFunctions are those on the profile's location.
func (o Options) locationFunctions() []blueprint.Function {
	return []blueprint.Function{
		{Name: "LocationDelete", Interrupted: blueprint.Repeats, Run: o.deleteLocation, Required: []string{"artifact"}},
	}
}

// deleteLocation deletes what is stored below a path. The bucket may stand before it, as published.
func (o Options) deleteLocation(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	a := &reader{of: c.Args}
	artifact := a.text("artifact")
	if a.err != nil {
		return nil, a.err
	}
	op := "delete " + artifact
	profile, err := profileOf(c.Params)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	document, err := json.Marshal(blueprint.ProfileDocument{ProfileParams: profile})
	if err != nil {
		return nil, fault.New(op, fault.ErrInvalid, "the profile cannot be written", "")
	}
	store, err := o.Location(document)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	path, _ := strings.CutPrefix(artifact, profile.Location.Bucket+"/")
	return nil, fault.Wrap(op, nil, store.Delete(ctx, path), "")
}
