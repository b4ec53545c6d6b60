//go:build e2e && long

package e2e

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

// hold has the API server ask Backstay before syncs, as the chart does with gate.webhook.enabled.
func (i *installed) hold(t *testing.T) {
	t.Helper()
	r := finish(t, exec.CommandContext(t.Context(), "go", "tool", "-modfile=../../tools/helm.mod", "helm", "template", "backstay", "../../deploy/chart/backstay",
		"--namespace", system, "--kube-version", "1.34.4", "--set", "gate.webhook.enabled=true,image.repository=lab.local/backstay,image.tag=dev"))
	if r.exit != 0 {
		t.Fatalf("helm: %d %s", r.exit, r.stderr)
	}
	for _, what := range []string{"validatingwebhookconfiguration/backstay-gate", "clusterrole/backstay-webhook", "clusterrolebinding/backstay-webhook"} {
		i.clean(t, "delete", what, "--ignore-not-found") // the next test has none
	}
	i.kubectlWith(t, r.stdout, "apply", "--server-side", "--force-conflicts", "-f", "-")
	i.kubectl(t, "-n", system, "rollout", "status", "--timeout=120s", "deployment/backstay-controller")
	i.wait(t, "the API server trusts the webhook", time.Minute, func() (bool, string) {
		said := i.kubectl(t, "get", "validatingwebhookconfiguration", "backstay-gate", "-o", "jsonpath={.webhooks[0].clientConfig.caBundle}")
		return said != "", said
	})
}

// held is the Gate of the last sync that was held, which began when its point was there.
func (a *application) held(t *testing.T, to string) *v1alpha1.Gate {
	t.Helper()
	var newest *v1alpha1.Gate
	a.wait(t, "the gate of a sync that was held is used", patience, func() (bool, string) {
		var all v1alpha1.GateList
		if err := a.api.List(t.Context(), &all, client.InNamespace(a.namespace), client.HasLabels{"backstay.io/held"}); err != nil {
			return false, err.Error()
		}
		newest = nil
		for i := range all.Items {
			if g := &all.Items[i]; newest == nil || newest.CreationTimestamp.Before(&g.CreationTimestamp) {
				newest = g
			}
		}
		if newest == nil {
			return false, "there is none"
		}
		return newest.Status.Sync.Started != nil, fmt.Sprintf("%+v", newest.Status)
	})
	if s := newest.Status; s.Phase != v1alpha1.GateOpen || s.Reason != v1alpha1.GateSnapshot && s.Reason != v1alpha1.GateStored || !slices.Equal(s.Sync.To, []string{to}) ||
		s.Sync.Started.Time.Before(s.Ended.Time.Truncate(time.Second)) {
		t.Errorf("the gate is %+v of %+v", s, s.Sync)
	}
	return newest
}

// TestClusterHeld: where a policy says so, syncs that run no hooks wait for a point, too: the API server refuses them until then.
func TestClusterHeld(t *testing.T) {
	c := startCluster(t, "backstay")
	a := c.argo(t)
	i := install(t, c, t.TempDir())
	i.hold(t)
	i.kubectlWith(t, fmt.Sprintf(ungatedPolicy, "Hold"), "apply", "-f", "-")
	app := a.newApplication(t, "loose", looseFiles(t, "one"), applicationOptions{})
	first := app.head(t)
	app.sync(t, first)
	app.well(t, first)

	// Argo CD's rollback.
	second := app.commit(t, "second", map[string]string{"settings.yaml": looseFiles(t, "two")["settings.yaml"]})
	denials := 0
	ask := func(what string, ask func() result) {
		t.Helper()
		denials = 0
		app.wait(t, what, patience, func() (bool, string) {
			r := ask()
			said := r.stdout + r.stderr
			if r.exit != 0 && !strings.Contains(said, "backstay: a point is being made first") {
				t.Fatalf("%s: %s", what, said)
			}
			if r.exit != 0 {
				denials++
			}
			return r.exit == 0, said
		})
		if denials == 0 {
			t.Errorf("%s was not held", what)
		}
		t.Logf("%s was refused %d times", what, denials)
	}
	patch := func(operation string) func() result {
		return func() result {
			return app.try(t, "", "-n", argoNamespace, "patch", "applications.argoproj.io", "loose", "--type=merge", "-p", operation)
		}
	}
	// The first sync had no gate among its hooks: the next is held, too.
	ask("a sync without a gate", patch(fmt.Sprintf(`{"operation":{"sync":{"revision":%q}},"status":{"operationState":null}}`, second)))
	app.well(t, second)
	app.held(t, second)
	ask("Argo CD's rollback", func() result { return a.cli(t, "app", "rollback", "loose", "0") })
	app.ended(t, first)
	if g := app.held(t, first); g.Status.Sync.From[0] != second {
		t.Errorf("the rollback was from %v", g.Status.Sync.From)
	}
	if got := app.settings(t); got != "one" {
		t.Errorf("after the rollback settings are %q", got)
	}

	// Some resources.
	ask("a selective sync", patch(fmt.Sprintf(onlySettings, second)))
	app.ended(t, second)
	app.held(t, second)

	// Self-heal: Argo CD's controller is refused, and asked to try again when the point is there.
	app.patch(t, `{"spec":{"syncPolicy":{"automated":{"selfHeal":true}}}}`)
	app.well(t, second)
	app.meddle(t)
	began := time.Now()
	app.wait(t, "Argo CD puts it right", patience, func() (bool, string) { return app.settings(t) == "two", app.stands(t).String() })
	t.Logf("self-heal took %v", time.Since(began).Round(time.Second))
	if g := app.held(t, second); g.Status.Sync.By != "automated" {
		t.Errorf("the self-heal was asked for by %q", g.Status.Sync.By)
	}

	app.wait(t, "all points are complete", patience, func() (bool, string) {
		said := c.kubectl(t, "-n", system, "get", "backups.backstay.io", "-o", `jsonpath={range .items[*]}{.status.phase} {end}`)
		return strings.TrimSpace(strings.ReplaceAll(said, "Complete", "")) == "", said
	})
	var all v1alpha1.GateList
	if err := a.api.List(t.Context(), &all, client.InNamespace(app.namespace)); err != nil {
		t.Fatal(err)
	}
	for _, g := range all.Items {
		if g.Status.Phase == v1alpha1.GateUngated && g.Status.Sync.From != nil {
			t.Errorf("a sync went ungated: %+v of %+v", g.Status, g.Status.Sync)
		}
	}
}
