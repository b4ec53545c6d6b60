package blueprint

import (
	"errors"
	"fmt"
	"slices"

	"github.com/backstay/backstay/internal/fault"
)

// Validate returns every fault of the documents that shows without a cluster, each with the class that Validate of a Blueprint gives it.
// ActionSets are held against the Blueprints of the same file.
func (d *Documents) Validate(fns []Function) []error {
	var faults []error
	invalid := func(op string, err error) { faults = append(faults, fault.Wrap(op, fault.ErrInvalid, err, "")) }
	for _, field := range d.Unknown {
		invalid("", errors.New(field))
	}
	for _, b := range d.Blueprints {
		faults = append(faults, Validate(b, fns)...)
	}
	for _, set := range d.ActionSets {
		for _, err := range d.actionSet(set) {
			invalid("ActionSet "+set.Name, err)
		}
	}
	for _, p := range d.Profiles {
		for _, err := range p.faults() {
			invalid("Profile "+p.Name, err)
		}
	}
	return faults
}

func (d *Documents) actionSet(set *ActionSet) []error {
	if set.Spec == nil || len(set.Spec.Actions) == 0 {
		return []error{errors.New("it asks for no action")}
	}
	var faults []error
	for _, spec := range set.Spec.Actions {
		_, err := resourceOf(spec.Object)
		found := []error{err}
		i := slices.IndexFunc(d.Blueprints, func(b *Blueprint) bool { return b.Name == spec.Blueprint })
		switch {
		case i < 0: // on the cluster
		case d.Blueprints[i].Actions[spec.Name] == nil:
			found = append(found, fmt.Errorf("Blueprint %s has no such action", spec.Blueprint))
		default:
			found = append(found, missing(d.Blueprints[i].Actions[spec.Name], spec)...)
		}
		for _, err := range found {
			if err != nil {
				faults = append(faults, fmt.Errorf("action %s: %w", spec.Name, err))
			}
		}
	}
	return faults
}

func (p *Profile) faults() []error {
	if p.Annotations[AnnotationLocation] != "" {
		return nil
	}
	var faults []error
	if !slices.Contains([]string{LocationGCS, LocationS3, LocationAzure, LocationKopia}, p.Location.Type) {
		faults = append(faults, fmt.Errorf("there is no type of location %q", p.Location.Type))
	}
	if !slices.Contains([]string{CredentialKeyPair, CredentialSecret, CredentialKopia}, p.Credential.Type) {
		faults = append(faults, fmt.Errorf("there is no type of credential %q", p.Credential.Type))
	}
	return faults
}
