//go:build e2e && long

package e2e

import (
	"testing"
)

// TestClusterActionsKilledEverywhere kills worker and controller inside each kind of phase, at its boundaries, and in the deferPhase.
func TestClusterActionsKilledEverywhere(t *testing.T) {
	c := newTheatre(t, "acts")
	c.apply(t, system, slow)
	c.storageFaults(t, "CreateSnapshot acts/* unready 3s")
	for _, victim := range []string{"worker", "controller"} {
		for kind := range slowPhases {
			c.killed(t, kind, victim, "inside")
		}
		for _, when := range []string{"before", "after", "deferred"} {
			c.killed(t, "task", victim, when)
			c.killed(t, "exec", victim, when)
		}
	}
	c.settled(t)
	c.cleared(t)
}
