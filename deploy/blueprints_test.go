package deploy_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/blueprint/function"
)

// TestBlueprintsAreValid holds the ready Blueprints to what `backstay blueprint validate` tells. Those that no test runs have only this.
func TestBlueprintsAreValid(t *testing.T) {
	files, err := filepath.Glob("blueprints/*.yaml")
	if err != nil || len(files) < 6 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		documents, err := blueprint.Parse(f)
		if err != nil || len(documents.Blueprints) != 1 || len(documents.Unknown) > 0 {
			t.Errorf("%s: %+v, %v", file, documents, err)
			continue
		}
		b := documents.Blueprints[0]
		for _, fault := range blueprint.Validate(b, function.All(function.Options{})) {
			t.Errorf("%s: %v", file, fault)
		}
		for _, action := range []string{"backup", "restore", "delete"} {
			if b.Actions[action] == nil {
				t.Errorf("%s has no action %s", file, action)
			}
		}
		if b.Annotations[blueprint.AnnotationProfile] != blueprint.CredentialFile {
			t.Errorf("%s shows credentials on command lines", file)
		}
	}
}
