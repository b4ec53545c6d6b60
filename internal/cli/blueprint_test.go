package cli

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/blueprint/function"
	"github.com/backstay/backstay/internal/fault"
)

// TestExampleOfBlueprints validates the page's example as a user's file.
func TestExampleOfBlueprints(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "blueprints.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(page), "\n```yaml\n")
	example, _, _ = strings.Cut(example, "\n```\n")
	documents, err := blueprint.Parse(strings.NewReader(example))
	if err != nil || len(documents.Blueprints) != 1 {
		t.Fatalf("%+v, %v", documents, err)
	}
	if faults := documents.Validate(function.All(function.Options{})); len(faults) > 0 {
		t.Error(errors.Join(faults...))
	}
}

func TestObjectReference(t *testing.T) {
	tests := []struct {
		text string
		want blueprint.ObjectReference // zero: refused
	}{
		{"statefulset/shop/db", blueprint.ObjectReference{Kind: "statefulset", Namespace: "shop", Name: "db"}},
		{"PVC/shop/data", blueprint.ObjectReference{Kind: "PVC", Namespace: "shop", Name: "data"}},
		{"namespace/shop", blueprint.ObjectReference{Kind: "Namespace", Namespace: "shop", Name: "shop"}},
		{
			"clusters.v1.postgresql.cnpg.io/shop/db",
			blueprint.ObjectReference{Group: "postgresql.cnpg.io", APIVersion: "v1", Resource: "clusters", Namespace: "shop", Name: "db"},
		},
		{"deployment/shop", blueprint.ObjectReference{}},
		{"deployment/shop/a/b", blueprint.ObjectReference{}},
		{"namespace/shop/x", blueprint.ObjectReference{}},
		{"pod/shop/x", blueprint.ObjectReference{}},
		{"", blueprint.ObjectReference{}},
	}
	for _, test := range tests {
		got, err := objectReference(test.text)
		if wrong := test.want == (blueprint.ObjectReference{}); wrong != errors.Is(err, fault.ErrInvalid) || !wrong && got != test.want {
			t.Errorf("%s: %+v, %v", test.text, got, err)
		}
	}
}

func TestArtifactsOf(t *testing.T) {
	got, err := artifactsOf([]string{"dump:path=/a=b", "dump:size=1", "snap=k1"})
	want := map[string]blueprint.Artifact{"dump": {KeyValue: map[string]string{"path": "/a=b", "size": "1"}}, "snap": {KopiaSnapshot: "k1"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"dump", "dump:=x", "=x"} {
		if _, err := artifactsOf([]string{bad}); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
