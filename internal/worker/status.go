package worker

import (
	"fmt"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
)

// endBackup sets a final phase and the conditions that go with it.
func endBackup(s *v1alpha1.BackupStatus, generation int64, phase v1alpha1.Phase, reason, message string, now time.Time) {
	at := metav1.NewTime(now)
	s.Phase, s.Finished, s.ObservedGeneration = phase, &at, generation
	s.Conditions = conditions(s.Conditions, generation, standingOf(phase), reason, message, now)
}

// endRestore sets a final phase and the conditions that go with it.
func endRestore(s *v1alpha1.RestoreStatus, generation int64, phase v1alpha1.Phase, reason, message string, now time.Time) {
	at := metav1.NewTime(now)
	s.Phase, s.Finished, s.ObservedGeneration = phase, &at, generation
	s.Conditions = conditions(s.Conditions, generation, standingOf(phase), reason, message, now)
}

// standing is how work stands, as conditions tell it.
type standing int

const (
	stalled standing = iota // nothing more will happen, and it is not complete
	retried                 // it failed, and is tried again
	good                    // it is complete
)

func standingOf(phase v1alpha1.Phase) standing {
	if phase == v1alpha1.PhaseComplete || phase == v1alpha1.PhasePlanned {
		return good
	}
	return stalled
}

// conditions are old ones, changed to tell how work stands.
func conditions(old []metav1.Condition, generation int64, is standing, reason, message string, now time.Time) []metav1.Condition {
	set := func(kind string, so bool) {
		status := metav1.ConditionFalse
		if so {
			status = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&old, metav1.Condition{
			Type: kind, Status: status, Reason: reason, Message: shorten(message), ObservedGeneration: generation, LastTransitionTime: metav1.NewTime(now),
		})
	}
	set(v1alpha1.ConditionReady, is == good)
	set(v1alpha1.ConditionReconciling, is == retried)
	set(v1alpha1.ConditionStalled, is == stalled)
	return old
}

// listed is the first few of problems, fit for a status.
func listed(problems []string) []string {
	var all []string
	for i, p := range problems {
		if i == maxProblems {
			return append(all, fmt.Sprintf("and %d more", len(problems)-i))
		}
		all = append(all, shorten(p))
	}
	return all
}

// shorten cuts text to what a status takes.
func shorten(text string) string {
	if len(text) <= maxProblem {
		return text
	}
	cut := maxProblem
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
