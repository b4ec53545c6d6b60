package blueprint

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

const defaultDeadline = 24 * time.Hour

var versionPattern = regexp.MustCompile(`^v?[0-9]+\.[0-9]+\.[0-9]+`) //nolint:gochecknoglobals // a constant

// repeats are the phases that the Blueprint lets run again.
func (b *Blueprint) repeats() []string {
	return strings.FieldsFunc(b.Annotations[AnnotationRepeat], func(r rune) bool { return r == ',' || r == ' ' })
}

// deadline is how long a phase may take; zero where the Blueprint does not say.
func (b *Blueprint) deadline() (time.Duration, error) {
	text := b.Annotations[AnnotationDeadline]
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err == nil && d <= 0 {
		err = fmt.Errorf("%s is no time to do anything", text)
	}
	return d, err
}

// validateExtensions returns what is wrong with the annotations of ours.
func validateExtensions(b *Blueprint) []error {
	var faults []error
	for _, name := range b.repeats() {
		if !slices.Contains(b.phaseNames(), name) {
			faults = append(faults, fmt.Errorf("annotation %s: there is no phase %q", AnnotationRepeat, name))
		}
	}
	if _, err := b.deadline(); err != nil {
		faults = append(faults, fmt.Errorf("annotation %s: %w", AnnotationDeadline, err))
	}
	if how := b.Annotations[AnnotationProfile]; how != "" && how != CredentialFile {
		faults = append(faults, fmt.Errorf("annotation %s: %q is none; it is %q or not there", AnnotationProfile, how, CredentialFile))
	}
	return faults
}

func (b *Blueprint) phaseNames() []string {
	var names []string
	for _, action := range b.Actions {
		if action == nil {
			continue
		}
		for _, p := range action.all() {
			names = append(names, p.Name)
		}
	}
	return names
}

// all are the phases of an action, deferPhase last; published ones may be without a name.
func (a *Action) all() []Phase {
	if a.DeferPhase == nil {
		return a.Phases
	}
	last := *a.DeferPhase
	last.Name = cmp.Or(last.Name, "deferPhase")
	return append(slices.Clone(a.Phases), last)
}
