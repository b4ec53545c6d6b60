package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ConditionProven is on RestorePoints: True after a drill whose every check passed, False after one of which one did not, and absent
// before the first. On Policies it says whether each application has a point that is as lately proven as drill.provenWithin asks for.
const ConditionProven = "Proven"

// ScratchPrefix begins the names of namespaces that drills make and remove.
const ScratchPrefix = "backstay-drill-"

// Drill proves a point of an application: it is restored into namespaces made for that, which have no way out, looked at, and removed.
// What is live is not touched. It goes on in Backstay's own namespace only.
//
// +kubebuilder:object:root=true
type Drill struct {
	metav1.TypeMeta `json:",inline"`
	// Its name and namespace.
	metav1.ObjectMeta `json:"metadata"`
	// What is asked for; it does not change.
	Spec DrillSpec `json:"spec"`
	// What became of it; the controller's alone.
	Status DrillStatus `json:"status,omitzero" file:"-"`
}

// DrillSpec says which point is proven, and how.
type DrillSpec struct {
	// RestorePoint of the same namespace.
	RestorePoint string `json:"restorePoint,omitempty" oneof:"what"`
	// The newest complete point of an application, by its name, in a location of the same namespace.
	Latest       *LatestPoint `json:"latest,omitempty" oneof:"what"`
	DrillChecks  `json:",inline"`
	DrillScratch `json:",inline"`
	// It fails, and proves nothing, when it has taken so long. Default 4h.
	Deadline string `json:"deadline,omitempty" check:"span"`
}

// DrillScratch says how an application is restored for a drill; on a cluster only.
type DrillScratch struct {
	// Storage classes in the point to those that scratch volumes are of.
	StorageClasses map[string]string `json:"storageClasses,omitempty"`
	// Kinds that are left out, as PLURAL.GROUP or *.GROUP, beside those that docs/drills.md lists: routes into the cluster, what deploys,
	// what backs up.
	ExcludeKinds []string `json:"excludeKinds,omitempty" check:"kinds"`
	// Pod Security level of the scratch namespaces: baseline (default) refuses pods that reach into their node, restricted more of them,
	// and privileged none.
	PodSecurity string `json:"podSecurity,omitempty" enum:"privileged,baseline,restricted"`
	// Names of databases outside of the application's namespaces that need not be looked at: nothing is loaded there, so without their names
	// here a point that has them is not proven. The proof says that they are excepted.
	ExceptDatabases []string `json:"exceptDatabases,omitempty"`
	// How long the application may take until it runs. Default 15m.
	ReadyWithin string `json:"readyWithin,omitempty" check:"span"`
}

// DrillStatus is how a Drill stands.
type DrillStatus struct {
	// Ready (every check passed), Reconciling, Stalled.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Generation of the spec that the status is of.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Where it stands. Complete: the point is proven. Incomplete: a check did not pass. Failed: the drill could not be made, which says
	// nothing of the point.
	Phase Phase `json:"phase,omitempty"`
	// When its Job began.
	Started *metav1.Time `json:"started,omitempty"`
	// When it ended; by then what it made is removed.
	Finished *metav1.Time `json:"finished,omitempty"`
	// The Job that works on it, in Backstay's namespace.
	Job string `json:"job,omitempty"`
	// The point that is restored.
	Point string `json:"point,omitempty"`
	// The object that stands for it.
	RestorePoint string `json:"restorePoint,omitempty"`
	// Namespaces that were made for it.
	Namespaces []string `json:"namespaces,omitempty"`
	// How long it took from the first byte until everything ran: 43s. Empty where it never came to that.
	RestoreTook string `json:"restoreTook,omitempty"`
	// What was looked at.
	Checks []DrillCheck `json:"checks,omitempty"`
	// What did not pass, or went wrong, the first few.
	Problems []string `json:"problems,omitempty"`
}

// DrillCheck is one thing that a drill looked at.
type DrillCheck struct {
	// What was looked at: objects, volume, ready, http web:80/health, sql.
	What string `json:"what"`
	// Of what it is: a part of the point, or an object.
	Of string `json:"of,omitempty"`
	// It is as it should be.
	OK bool `json:"ok"`
	// Nobody looked at it, as the drill was told not to.
	Excepted bool `json:"excepted,omitempty"`
	// What was found.
	Detail string `json:"detail,omitempty"`
}

// PointProof is what the newest drill of a point found.
type PointProof struct {
	// When the drill ended.
	Time metav1.Time `json:"time"`
	// Every check passed.
	Proven bool `json:"proven"`
	// Parts at which nobody looked, as the drill was told not to.
	Excepted []string `json:"excepted,omitempty"`
	// How long it took until what was restored could be used: 43s.
	RestoreTook string `json:"restoreTook,omitempty"`
	// What did not pass, the first few.
	Problems []string `json:"problems,omitempty"`
}
