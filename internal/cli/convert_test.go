package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

// TestExampleOfConvert runs the page's example as a user does.
func TestExampleOfConvert(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "convert.md"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string // what is read, what is written, what is told
	for _, fence := range []string{"\n```yaml\n", "\n```yaml\n", "\n```\n"} {
		_, rest, _ := strings.Cut(string(page), fence)
		block, after, found := strings.Cut(rest, "\n```\n")
		if !found {
			t.Fatalf("no block %q", fence)
		}
		blocks, page = append(blocks, block+"\n"), []byte("\n"+after)
	}
	file := filepath.Join(t.TempDir(), "k10.yaml")
	if err := os.WriteFile(file, []byte(blocks[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t)
	if exit := f.run(t.Context(), "convert", "k10", file); exit != 0 {
		t.Fatalf("exit %d: %s", exit, &f.stderr)
	}
	if got := f.stdout.String(); got != blocks[1] {
		t.Errorf("written:\n%s", got)
	}
	if got := f.stderr.String(); got != blocks[2] {
		t.Errorf("told:\n%s", got)
	}
}

// TestConvertReadsPages: all objects of a kind, however many, and the ConfigMaps that Restores name.
func TestConvertReadsPages(t *testing.T) {
	restores := schema.GroupVersionKind{Group: "velero.io", Version: "v1", Kind: "Restore"}
	object := func(kind schema.GroupVersionKind, name, modifier string) *unstructured.Unstructured {
		u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"resourceModifier": map[string]any{"name": modifier}}}}
		u.SetGroupVersionKind(kind)
		u.SetNamespace("velero")
		u.SetName(name)
		return u
	}
	scheme := runtime.NewScheme()
	scheme.AddKnownTypeWithName(restores, &unstructured.Unstructured{})
	scheme.AddKnownTypeWithName(restores.GroupVersion().WithKind("RestoreList"), &unstructured.UnstructuredList{})
	configMaps := schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}
	scheme.AddKnownTypeWithName(configMaps, &unstructured.Unstructured{})
	server := fake.NewClientBuilder().WithScheme(scheme).
		WithObjects(object(restores, "a", "rules"), object(restores, "b", "gone"), object(restores, "c", ""), object(configMaps, "rules", "")).Build()
	found, err := listObjects(t.Context(), server, restores)
	var got []string
	for _, o := range found {
		got = append(got, o.String())
	}
	if want := "Restore velero/a,ConfigMap velero/rules,Restore velero/b,Restore velero/c"; err != nil || strings.Join(got, ",") != want {
		t.Errorf("%q, %v", got, err)
	}
}
