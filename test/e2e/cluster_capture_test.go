//go:build e2e

package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/point"
)

// TestClusterRevisions: points of an Application have its objects and no others of its namespace, its private repository, and the revision
// that was live, by which they are found on the cluster and off it.
func TestClusterRevisions(t *testing.T) {
	c := startCluster(t, "backstay")
	a := c.argo(t)
	i := install(t, c, t.TempDir())
	files := gatedFiles(t, "one")
	delete(files, "gate.yaml")
	shop := a.newApplication(t, "shop", files, applicationOptions{automated: true, namespace: "shared"})
	const password = "only Argo CD knows"
	shop.protect(t, password)
	other := a.newApplication(t, "other", map[string]string{
		"other.yaml": "{apiVersion: v1, kind: ConfigMap, metadata: {name: others}, data: {a: b}}\n",
	}, applicationOptions{automated: true, namespace: "shared"})
	first := shop.head(t)
	shop.well(t, first)
	other.well(t, other.head(t))
	i.apply(t, system, `
apiVersion: backstay.io/v1alpha1
kind: Policy
metadata: {name: deployed}
spec: {location: main, suspend: true, sources: [{applications: {argocd: ["*"]}}]}`)
	i.backstay(t, "backup", "app/shop", "--policy", "deployed")
	second := shop.commit(t, "second", map[string]string{"settings.yaml": gatedFiles(t, "two")["settings.yaml"]})
	shop.well(t, second)
	i.backstay(t, "backup", "app/shop", "--policy", "deployed")

	var onCluster struct {
		Points []struct {
			Point             string
			Deployment, State string
			Revisions         []string
		}
	}
	if err := json.Unmarshal([]byte(i.backstay(t, "points", "--app", "shop", "--revision", first[:8], "--json")), &onCluster); err != nil {
		t.Fatal(err)
	}
	if len(onCluster.Points) != 1 || !slices.Equal(onCluster.Points[0].Revisions, []string{first}) || onCluster.Points[0].Deployment != "argocd/argocd/shop" ||
		onCluster.Points[0].State != "complete" {
		t.Fatalf("points of %s: %+v", first, onCluster.Points)
	}
	vault := func(args ...string) string {
		t.Helper()
		cmd := i.command(t.Context(), i.binary(t), args...)
		cmd.Env = append(append(cmd.Env, i.env...), "BACKSTAY_LOCATION="+i.url, "BACKSTAY_PASSWORD="+vaultPassword, "KUBECONFIG=/nowhere")
		r := finish(t, cmd)
		if r.exit != 0 {
			t.Fatalf("backstay %s: exit %d\n%s%s", strings.Join(args, " "), r.exit, r.stdout, r.stderr)
		}
		return r.stdout
	}
	var offCluster struct{ Points []point.Point }
	if err := json.Unmarshal([]byte(vault("points", "--app", "shop", "--revision", second, "--json")), &offCluster); err != nil {
		t.Fatal(err)
	}
	if len(offCluster.Points) != 1 || offCluster.Points[0].ID == onCluster.Points[0].Point {
		t.Fatalf("points of %s: %+v", second, offCluster.Points)
	}
	var shown struct{ Point point.Point }
	if err := json.Unmarshal([]byte(vault("show", onCluster.Points[0].Point, "--json")), &shown); err != nil {
		t.Fatal(err)
	}
	d := shown.Point.Deployment
	if d == nil || len(d.Sources) != 1 || d.Sources[0].URL != shop.url || d.Sources[0].From != first || d.Sources[0].Part == "" || len(d.Images) == 0 || d.Manifests == "" {
		t.Fatalf("deployed %+v", d)
	}
	t.Log(vault("show", onCluster.Points[0].Point))
	for _, id := range []string{onCluster.Points[0].Point, offCluster.Points[0].ID} {
		if text := vault("show", id, "--json"); strings.Contains(text, password) {
			t.Errorf("the password of the repository is in point %s", id)
		}
	}
	to := t.TempDir() + "/point"
	vault("restore", onCluster.Points[0].Point, "--to", to)
	if got := strings.TrimSpace(git(t, to+strings.TrimPrefix(d.Sources[0].Part, "git"), "rev-parse", "refs/heads/main")); got != first {
		t.Errorf("the repository of the point is at %s, want %s", got, first)
	}
	for _, file := range []string{"configmaps/settings.yaml", "deployments.apps/web.yaml", "persistentvolumeclaims/data.yaml"} {
		if !exists(to + "/shared/" + file) {
			t.Errorf("the point lacks %s", file)
		}
	}
	if exists(to + "/shared/configmaps/others.yaml") {
		t.Error("the point has an object of the other application")
	}
}
