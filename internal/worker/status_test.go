package worker

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
)

func TestConditionsOfAnEnd(t *testing.T) {
	tests := []struct {
		phase          v1alpha1.Phase
		ready, stalled metav1.ConditionStatus
	}{
		{v1alpha1.PhaseComplete, metav1.ConditionTrue, metav1.ConditionFalse},
		{v1alpha1.PhasePlanned, metav1.ConditionTrue, metav1.ConditionFalse},
		{v1alpha1.PhaseIncomplete, metav1.ConditionFalse, metav1.ConditionTrue}, // never green
		{v1alpha1.PhaseFailed, metav1.ConditionFalse, metav1.ConditionTrue},
	}
	for _, test := range tests {
		var s v1alpha1.BackupStatus
		endBackup(&s, 3, test.phase, string(test.phase), "why", time.Unix(1, 0))
		for kind, want := range map[string]metav1.ConditionStatus{
			v1alpha1.ConditionReady: test.ready, v1alpha1.ConditionStalled: test.stalled, v1alpha1.ConditionReconciling: metav1.ConditionFalse,
		} {
			c := meta.FindStatusCondition(s.Conditions, kind)
			if c == nil || c.Status != want || c.ObservedGeneration != 3 || c.Message != "why" {
				t.Errorf("%s: %s is %+v, want %s", test.phase, kind, c, want)
			}
		}
		if s.Finished == nil || s.Phase != test.phase {
			t.Errorf("%s: status %+v", test.phase, s)
		}
	}
}

func TestProblemsFitAStatus(t *testing.T) {
	var many []string
	for i := range 25 {
		many = append(many, fmt.Sprint(i, strings.Repeat("ä", maxProblem)))
	}
	got := listed(many)
	if len(got) != maxProblems+1 || got[maxProblems] != "and 15 more" {
		t.Errorf("%d lines, the last %q", len(got), got[len(got)-1])
	}
	for _, line := range got {
		if len(line) > maxProblem+len("…") || !utf8.ValidString(line) {
			t.Errorf("line of %d bytes, valid %v", len(line), utf8.ValidString(line))
		}
	}
}
