//go:build e2e

package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/api/v1alpha1"
)

// TestClusterApplicationIsLostAndComesBack backs up an application while it is written to, deletes its namespace, and restores it.
func TestClusterApplicationIsLostAndComesBack(t *testing.T) {
	c := startCluster(t, "backstay")
	i := install(t, c, t.TempDir())
	const ns = "shop"
	c.shop(t, ns, fullSize)
	mariadb, postgresql := c.shopData(t, ns)
	before := c.state(t, ns)

	var backup struct {
		Status v1alpha1.BackupStatus `json:"status"`
	}
	decode(t, i.backstay(t, "backup", "app/"+ns, "--json"), &backup)
	at := backup.Status.Instant
	if backup.Status.Parts.Stored != 6 || backup.Status.Parts.Expected != 6 || at == nil {
		t.Fatalf("parts %+v, instant %+v", backup.Status.Parts, at)
	}
	c.settled(t)
	c.noLeftovers(t)
	last, _ := c.counters(t, ns)
	c.deleteNamespace(t, ns)

	i.backstay(t, "restore", "app/"+ns, "--yes")
	c.shopReady(t, ns)
	if lost := missing(c.state(t, ns), before); len(lost) > 0 {
		t.Errorf("not as it was: %s", strings.Join(lost, "\n"))
	}
	gotMariaDB, gotPostgreSQL := c.shopData(t, ns)
	if gotMariaDB != mariadb || gotPostgreSQL != postgresql {
		t.Errorf("databases hold %q and %q, want %q and %q", gotMariaDB, gotPostgreSQL, mariadb, postgresql)
	}
	// The counters are of one instant, the one that was recorded: no further apart, and no further on, than a snapshot of both can see.
	first, second := c.countersFound(t, ns)
	if first.Count < 1 || first.Count < second.Count || first.Count-second.Count > 1 || first.Count >= last.Count {
		t.Errorf("counters came back as %d and %d; the last before the loss was %d", first.Count, second.Count, last.Count)
	}
	if taken := at.LastSnapshot.Time.Add(time.Second); first.At.After(taken) || first.At.Before(at.Begun.Add(-2*time.Second)) {
		t.Errorf("the counter is of %s; the instant recorded is %s to %s", first.At, at.Begun, taken)
	}
	c.settled(t)
	c.noLeftovers(t)
}

// claimAsGitHasIt is what a comparison with git sees of a claim.
func (c *cluster) claimAsGitHasIt(t *testing.T, namespace, name string) string {
	t.Helper()
	var claim struct {
		Metadata struct {
			Name        string            `json:"name"`
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
		Spec map[string]any `json:"spec"`
	}
	decode(t, c.kubectl(t, "-n", namespace, "get", "pvc", name, "-o", "json"), &claim)
	delete(claim.Spec, "volumeName")
	text, err := json.Marshal(claim)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestClusterDataGoesBackInPlace exchanges the volumes under a running application, and undoes that.
func TestClusterDataGoesBackInPlace(t *testing.T) {
	c := startCluster(t, "backstay")
	i := install(t, c, t.TempDir())
	const ns = "shop"
	c.shop(t, ns, 2000)
	older, _ := c.shopData(t, ns)
	i.backstay(t, "backup", "app/"+ns)
	c.exec(t, ns, "statefulset/mariadb", "mariadb", "-e", "UPDATE shop.data SET payload = 'migrated by mistake' WHERE id < 100")
	newer, _ := c.shopData(t, ns)
	if older == newer {
		t.Fatal("the data did not change")
	}
	claims := []string{"data-mariadb-0", "postgresql", "counter-a", "counter-b"}
	before, state := map[string]string{}, c.state(t, ns)
	for _, claim := range claims {
		before[claim] = c.claimAsGitHasIt(t, ns, claim)
	}

	asItWas := func(after string) {
		t.Helper()
		c.shopReady(t, ns)
		for _, claim := range claims {
			if got := c.claimAsGitHasIt(t, ns, claim); got != before[claim] {
				t.Errorf("%s: claim %s is\n%s\nwant\n%s", after, claim, got, before[claim])
			}
		}
		now := c.state(t, ns)
		if changed := append(missing(now, state), missing(state, now)...); len(changed) > 0 {
			t.Errorf("%s: other than it was: %s", after, strings.Join(changed, "\n"))
		}
	}
	var restored struct {
		Name   string                 `json:"name"`
		Status v1alpha1.RestoreStatus `json:"status"`
	}
	decode(t, i.backstay(t, "restore", "app/"+ns, "--only", "data", "--yes", "--json"), &restored)
	asItWas("restore")
	if got, _ := c.shopData(t, ns); got != older {
		t.Errorf("the database holds %q, want %q", got, older)
	}
	if restored.Status.UndoUntil == nil || len(restored.Status.Stopped) == 0 {
		t.Errorf("status %+v", restored.Status)
	}
	if r := i.run(t, "restore", "app/"+ns, "--undo", restored.Name); r.exit != 6 || !strings.Contains(r.stderr, ns+"/counter-a") {
		t.Errorf("undo without a yes: exit %d, %s", r.exit, r.stderr)
	}
	i.backstay(t, "restore", "app/"+ns, "--undo", restored.Name, "--yes")
	asItWas("undo")
	if got, _ := c.shopData(t, ns); got != newer {
		t.Errorf("after the undo the database holds %q, want %q", got, newer)
	}
	c.settled(t)
	c.noLeftovers(t)
}
