package controller

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
)

// TestGateWaitsForDumps: a sync's migration would break dumps that have not come to the tables that it changes.
func TestGateWaitsForDumps(t *testing.T) {
	now := metav1.NowMicro()
	instant := &v1alpha1.Instant{Listed: &now}
	for _, test := range []struct {
		name      string
		databases []v1alpha1.DatabaseStatus
		want      v1alpha1.GatePhase
	}{
		{"no database", nil, v1alpha1.GateOpen},
		{"all dumped", []v1alpha1.DatabaseStatus{{Name: "a", Stored: true}, {Name: "b", Stored: true}}, v1alpha1.GateOpen},
		{"one is being dumped", []v1alpha1.DatabaseStatus{{Name: "a", Stored: true}, {Name: "b"}}, v1alpha1.GateWaiting},
		{"one has failed", []v1alpha1.DatabaseStatus{{Name: "a", Stored: true}, {Name: "b", Problem: "it broke off"}}, v1alpha1.GateClosed},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := &gate{policy: &v1alpha1.Policy{Spec: v1alpha1.PolicySpec{GitOps: &v1alpha1.GitOps{}}}}
			b := &v1alpha1.Backup{Status: v1alpha1.BackupStatus{Phase: v1alpha1.PhaseMoving, Instant: instant, Databases: test.databases}}
			if got := g.after(b); got.phase != test.want {
				t.Errorf("phase %s, want %s: %s", got.phase, test.want, got.message)
			}
		})
	}
}
