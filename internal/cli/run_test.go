package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/notify"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/vault"
)

// directoryPolicy declares a vault inside the directory that is backed up.
func directoryPolicy(t *testing.T) (file, location string) {
	t.Helper()
	dir := t.TempDir()
	location = filepath.Join(dir, "data", "vault")
	if err := os.MkdirAll(filepath.Join(dir, "data", "kept"), 0o700); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "policy.yaml")
	text := fmt.Sprintf(`apiVersion: backstay.io/v1alpha1
kind: Location
metadata: {name: main}
spec: {url: %s, password: {env: PASSWORD}}
---
apiVersion: backstay.io/v1alpha1
kind: Policy
metadata: {name: data}
spec:
  location: main
  sources: [{directory: %s, name: all}]
`, location, filepath.Join(dir, "data"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, location
}

const password = "correct horse battery"

func TestRunOfADirectoryLeavesTheVaultOut(t *testing.T) {
	file, location := directoryPolicy(t)
	f := fixture{env: map[string]string{"PASSWORD": password, "HOME": t.TempDir(), "BACKSTAY_HOSTNAME": "here"}}
	if exit := f.run(t.Context(), "run", "--once", "--dry-run", "-f", file); exit != 0 || !strings.Contains(f.stderr.String(), "would be backed up") {
		t.Fatalf("dry run: exit %d: %s", exit, f.stderr.String())
	}
	at, err := vault.ParseLocation(location)
	if err != nil {
		t.Fatal(err)
	}
	if err := vault.Create(t.Context(), at, password, vault.Options{}); err != nil {
		t.Fatal(err)
	}
	if exit := f.run(t.Context(), "run", "--once", "--quiet", "-f", file); exit != 0 {
		t.Fatalf("exit %d: %s", exit, f.stderr.String())
	}
	v, err := vault.Open(t.Context(), at, password, vault.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close(t.Context())
	points, err := v.Points(t.Context(), point.Filter{Policy: "data"})
	if err != nil || len(points) != 1 || points[0].Subject.Name != "all" {
		t.Fatalf("points: %+v, %v", points, err)
	}
	_, tree, err := v.Open(t.Context(), points[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := tree.List(t.Context(), "directory/here"+filepath.Dir(location))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(kept, named("kept")) || slices.ContainsFunc(kept, named("vault")) {
		t.Errorf("the point has %v", kept)
	}
}

func TestRunOfNothingIsAnError(t *testing.T) {
	f := fixture{env: map[string]string{"HOME": t.TempDir()}}
	if exit := f.run(t.Context(), "run", "--once", "-f", t.TempDir()); exit != 2 || !strings.Contains(f.stderr.String(), "no policy is declared") {
		t.Errorf("exit %d: %s", exit, f.stderr.String())
	}
}

func TestAnAccountIsAUserOrAnOrganization(t *testing.T) {
	f := newFixture(t)
	exit := f.run(t.Context(), "backup", "--forge", "gitea", "--user", "ann", "--organization", "acme", "http://127.0.0.1:1")
	if exit != 2 || !strings.Contains(f.stderr.String(), "--user and --organization are given") {
		t.Errorf("exit %d: %s", exit, f.stderr.String())
	}
}

func named(name string) func(point.Entry) bool {
	return func(e point.Entry) bool { return e.Name == name }
}

func TestJobKeepsItsKeyUntilItsDeclarationChanges(t *testing.T) {
	declare := func(token string) declared {
		credentials := map[string]v1alpha1.Secret{}
		for _, name := range strings.Fields("A B C D E F G H") {
			credentials[name] = v1alpha1.Secret{Env: name}
		}
		source := v1alpha1.Source{GitHub: &v1alpha1.Forge{Access: v1alpha1.Access{Token: &v1alpha1.Secret{Value: token}}}}
		return declared{
			policies:  []v1alpha1.Policy{{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: v1alpha1.PolicySpec{Sources: []v1alpha1.Source{source}}}},
			locations: []v1alpha1.Location{{Spec: v1alpha1.LocationSpec{Credentials: credentials}}},
		}
	}
	d := &daemon{metrics: notify.NewMetrics("test"), last: map[string]declaration{}}
	key := func(token string) string {
		d.load = func() (declared, error) { return declare(token), nil }
		jobs, err := d.jobs(t.Context())
		if err != nil || len(jobs) != 1 {
			t.Fatalf("%d jobs: %v", len(jobs), err)
		}
		return jobs[0].Key
	}
	first := key("one")
	for range 20 { // maps come in another order each time
		if again := key("one"); again != first {
			t.Fatalf("the key went from %s to %s, and nothing had changed", first, again)
		}
	}
	if key("another") == first {
		t.Error("another token has the same key")
	}
}
