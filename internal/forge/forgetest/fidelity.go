package forgetest

import (
	"reflect"
	"slices"
	"time"

	"github.com/backstay/backstay/internal/forge/neutral"
)

// Unplanned are the fields of the model of which a target does not say what becomes of them: a plan calls them lost, for no reason
// that is its own.
func Unplanned(keeps neutral.Fidelity) (fields []string) {
	for sort, thing := range map[string]any{
		"settings": &neutral.Settings{}, "label": &neutral.Label{}, "milestone": &neutral.Milestone{}, "item": &neutral.Item{}, "pull": &neutral.Pull{},
		neutral.SortComment: &neutral.Comment{}, neutral.SortReview: &neutral.Review{}, neutral.SortReviewComment: &neutral.Comment{},
		neutral.SortRelease: &neutral.Release{}, "asset": &neutral.Asset{}, "file": &neutral.File{}, "rule": &neutral.Rule{}, "hook": &neutral.Hook{},
		"key": &neutral.DeployKey{}, "collaborator": &neutral.Collaborator{}, "project": &neutral.Project{}, "project-item": &neutral.ProjectItem{},
	} {
		fill(reflect.ValueOf(thing).Elem())
		all := map[string]bool{"item.number": true, neutral.SortReviewComment + ".code": true}
		neutral.Fields(sort, thing, func(field string, _ any) { all[field] = true })
		for field := range all {
			if keeps.Of(field) == (neutral.Fidelity{}).Of(field) && !slices.Contains(fields, field) {
				fields = append(fields, field)
			}
		}
	}
	slices.Sort(fields)
	return fields
}

// fill gives every field of a struct a value.
func fill(v reflect.Value) {
	for i := range v.NumField() {
		f := v.Field(i)
		switch {
		case !f.CanSet():
		case f.Type() == reflect.TypeFor[time.Time]():
			f.Set(reflect.ValueOf(time.Unix(1, 0)))
		case f.Kind() == reflect.Struct:
			fill(f)
		case f.Kind() == reflect.String:
			f.SetString("x")
		case f.Kind() == reflect.Bool:
			f.SetBool(true)
		case f.CanInt():
			f.SetInt(1)
		case f.Kind() == reflect.Slice:
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
		}
	}
}
