//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

const ungatedPolicy = `
apiVersion: backstay.io/v1alpha1
kind: Policy
metadata: {name: loose, namespace: backstay-system}
spec:
  location: main
  suspend: true
  sources: [{applications: {argocd: [loose]}}]
  gitops: {ungated: %s}
`

// looseFiles are an application with data whose syncs have no gate.
func looseFiles(t *testing.T, version string) map[string]string {
	t.Helper()
	files := gatedFiles(t, version)
	delete(files, "gate.yaml")
	return files
}

// recorded waits for the Gate of the sync that began last for a reason, and for its point.
func (a *application) recorded(t *testing.T, reason string) *v1alpha1.Gate {
	t.Helper()
	var found *v1alpha1.Gate
	a.wait(t, "a "+reason+" is recorded with a point", patience, func() (bool, string) {
		var all v1alpha1.GateList
		if err := a.api.List(t.Context(), &all, client.InNamespace(a.namespace)); err != nil {
			return false, err.Error()
		}
		var says []string
		for i := range all.Items {
			g := &all.Items[i]
			says = append(says, fmt.Sprintf("%s/%s %q %s", g.Status.Phase, g.Status.Reason, g.Status.Point, g.Status.Message))
			if g.Status.Reason == reason && g.Status.Point != "" {
				found = g
			}
		}
		return found != nil, strings.Join(says, "\n")
	})
	return found
}

// settings is what the ConfigMap says.
func (a *application) settings(t *testing.T) string {
	t.Helper()
	return a.kubectl(t, "-n", a.namespace, "get", "configmap", "settings", "--ignore-not-found", "-o", "jsonpath={.data.version}")
}

// meddle changes the ConfigMap on the cluster.
func (a *application) meddle(t *testing.T) {
	t.Helper()
	a.kubectl(t, "-n", a.namespace, "patch", "configmap", "settings", "--type=merge", "-p", `{"data":{"version":"meddled"}}`)
}

const onlySettings = `{"operation":{"initiatedBy":{"username":"ada"},"sync":{"revision":%q,"resources":[{"kind":"ConfigMap","name":"settings"}]}},"status":{"operationState":null}}`

// TestClusterUngated: syncs that ask at no gate are recorded, and have a point of what was there when they began.
func TestClusterUngated(t *testing.T) {
	c := startCluster(t, "backstay")
	a := c.argo(t)
	i := install(t, c, t.TempDir())
	i.kubectlWith(t, fmt.Sprintf(ungatedPolicy, "Point"), "apply", "-f", "-")
	app := a.newApplication(t, "loose", looseFiles(t, "one"), applicationOptions{automated: true, selfHeal: true})
	first := app.head(t)
	app.well(t, first)

	app.meddle(t)
	app.wait(t, "Argo CD puts it right", patience, func() (bool, string) { return app.settings(t) == "one", app.settings(t) })
	g := app.recorded(t, v1alpha1.GateSelfHeal)
	if s := g.Status.Sync; s.By != "automated" || s.From[0] != first || s.To[0] != first {
		t.Errorf("the self-heal is %+v", s)
	}

	app.patch(t, `{"spec":{"syncPolicy":{"automated":null}}}`)
	second := app.commit(t, "second", map[string]string{"settings.yaml": looseFiles(t, "two")["settings.yaml"]})
	app.sync(t, second)
	app.well(t, second)
	g = app.recorded(t, v1alpha1.GateNoHook)
	if s := g.Status.Sync; s.From[0] != first || s.To[0] != second {
		t.Errorf("the sync without a gate is %+v", s)
	}

	app.meddle(t)
	app.patch(t, fmt.Sprintf(onlySettings, second))
	app.ended(t, second)
	g = app.recorded(t, v1alpha1.GateSelective)
	if s := g.Status.Sync; s.By != "ada" || s.To[0] != second {
		t.Errorf("the selective sync is %+v", s)
	}

	app.well(t, second)
	if r := a.cli(t, "app", "rollback", "loose", "0"); r.exit != 0 {
		t.Fatalf("rollback: %d %s", r.exit, r.stderr)
	}
	g = app.recorded(t, v1alpha1.GateRollback)
	if s := g.Status.Sync; s.From[0] != second || s.To[0] != first || g.Status.Phase != v1alpha1.GateUngated {
		t.Errorf("the rollback is %+v", s)
	}
	if got := app.settings(t); got != "one" {
		t.Errorf("after Argo CD's rollback settings are %q", got)
	}
	for _, want := range []string{"put right", "some resources", "own rollback", "waited at a gate"} {
		c.wait(t, "events say "+want, time.Minute, func() (bool, string) { // the last of them a moment later
			said := c.kubectl(t, "-n", argoNamespace, "get", "events", "--field-selector", "involvedObject.name=loose,reason=SyncUngated", "-o", "jsonpath={.items[*].message}")
			return strings.Contains(said, want), said
		})
	}
}
