//go:build e2e && long

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// The walkthrough of docs/walkthrough-gitops.md comes to the same, however Argo CD is set up. The page itself has it with automated syncs and
// annotations.
func TestClusterGitOpsVariants(t *testing.T) {
	c := startCluster(t, "backstay")
	i := install(t, c, t.TempDir())
	a := c.argo(t)
	c.apply(t, system, block(t, gitopsWalkthrough, "yaml policy.yaml"))
	for _, o := range []applicationOptions{
		{tracking: "annotation"},
		{tracking: "label"},
		{tracking: "label", automated: true, selfHeal: true, prune: true},
	} {
		t.Run(fmt.Sprintf("%s, automated %v", o.tracking, o.automated), func(t *testing.T) { walkPipeline(t, i, a, o) })
	}
}

func walkPipeline(t *testing.T, i *installed, a *argo, o applicationOptions) {
	files := filesOfGitOps(t)
	app := a.newApplication(t, "mysql", map[string]string{"database.yaml": files["database.yaml"], "gate.yaml": gateOf(t)}, o)
	deployed := func(revision string, ask bool) string {
		t.Helper()
		if ask || !o.automated {
			app.seen(t, revision)
			app.sync(t, revision)
		}
		if op := app.ended(t, revision); op.Phase != "Succeeded" {
			t.Fatalf("the sync to %s: %s: %s", revision, op.Phase, op.Message)
		}
		app.well(t, revision)
		return revision
	}
	mariadb := func(script string) string {
		return a.kubectlWith(t, script, "-n", "mysql", "exec", "-i", "deployment/mysql", "--", "mariadb", "--skip-column-names", "test")
	}
	pets := func(want int, when string) {
		t.Helper()
		if got := strings.TrimSpace(mariadb("SELECT COUNT(*) FROM pets")); got != fmt.Sprint(want) {
			t.Fatalf("%s there are %s pets, not %d", when, got, want)
		}
	}

	deployed(app.head(t), false)
	mariadb(files["pets.sql"])
	before := deployed(app.commit(t, "Add forbidden species", map[string]string{"forbidden-species.yaml": files["forbidden-species.yaml"]}), false)
	bad := deployed(app.commit(t, "Delete forbidden species", map[string]string{"migration.yaml": files["migration-bad.yaml"]}), true)
	pets(0, "after the bad migration")

	if r := a.cli(t, "app", "rollback", "mysql"); (r.exit != 0) != o.automated {
		t.Fatalf("Argo CD's rollback: exit %d\n%s", r.exit, r.stderr)
	}
	if !o.automated {
		app.ended(t, before)
	}
	app.well(t, bad) // as git has it but for hooks
	pets(0, "after Argo CD's rollback")
	i.backstay(t, "backup", "app/mysql") // without the pets; after Argo CD's rollback it is of the revision that is live again

	i.backstay(t, "rollback", "mysql", "--to", before, "--yes")
	pets(7, "after the rollback")
	a.kubectl(t, "-n", "mysql", "get", "configmap", "forbidden-species")
	app.calm(t, bad)
	pets(7, "some time after the rollback")

	good := deployed(app.commit(t, "Delete forbidden species only", map[string]string{"migration.yaml": files["migration-good.yaml"]}), true)
	if got := mariadb("SELECT name FROM pets WHERE species IN ('crocodile', 'hamster')"); got != "" {
		t.Fatalf("there are still\n%s", got)
	}
	pets(5, "after the good migration")
	app.calm(t, good)
}
