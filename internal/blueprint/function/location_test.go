package function

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

// deleted is a Store that remembers what it was told to delete.
type deleted []string

func (d *deleted) Delete(_ context.Context, path string) error {
	*d = append(*d, path)
	return nil
}

func TestLocationDelete(t *testing.T) {
	t.Parallel()
	var gone deleted
	o := Options{Location: func(profile []byte) (Store, error) {
		var d blueprint.ProfileDocument
		if err := json.Unmarshal(profile, &d); err != nil || d.Credential.KeyPair.Secret != s3Secret || d.Location.Bucket != "bucket" {
			t.Errorf("profile %+v, %v", d.Location, err)
		}
		return &gone, nil
	}}
	for _, artifact := range []string{"dumps/1.gz", "bucket/dumps/2.gz", "buckets/3.gz"} {
		c := stored(t, "", "bucket", map[string]any{"artifact": artifact})
		file, err := blueprint.ProfileDocument{ProfileParams: *c.Params.Profile}.File("/dev/shm/profile.json")
		must(t, err)
		c.Params.ProfileFile, c.Params.Profile.Credential = file, blueprint.CredentialParams{Type: blueprint.CredentialFile, Path: file.Path}
		_, err = o.deleteLocation(t.Context(), c)
		must(t, err)
	}
	if want := []string{"dumps/1.gz", "dumps/2.gz", "buckets/3.gz"}; !slices.Equal(gone, want) {
		t.Errorf("deleted %q, want %q", gone, want)
	}
	c := stored(t, "", "bucket", map[string]any{"artifact": "a"})
	c.Params.Profile = nil
	if _, err := o.deleteLocation(t.Context(), c); !errors.Is(err, fault.ErrInvalid) {
		t.Errorf("no profile: %v, want invalid", err)
	}
}
