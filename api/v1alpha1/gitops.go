package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Annotations and labels by which Argo CD, Flux and their users speak to Backstay.
const (
	// AnnotationBreakGlass on an Application or Kustomization lets its syncs through gates without a point. Its value is the reason,
	// which is recorded with who wrote it, and told, at each sync.
	AnnotationBreakGlass = Group + "/break-glass"
	// LabelGate is on the hook Jobs whose pods wait at a gate.
	LabelGate = Group + "/gate"
	// AnnotationOnlyHook on such a Job says "true" where the application has no other hook. Argo CD does not say what hooks come, so only
	// with it does GitOps.SkipKinds skip.
	AnnotationOnlyHook = Group + "/only-hook"
	// AnnotationRestore on what a Restore suspended names it: RESTORE-UID.
	AnnotationRestore = Group + "/restore"
	// AnnotationRelease on a Restore that holds syncs off has it looked at whether they may go, or has them go. It is taken off when that
	// was done.
	AnnotationRelease = Group + "/release"
)

// Values of AnnotationRelease.
const (
	ReleaseMended = "mended" // if git has been mended
	ReleaseForce  = "force"  // whatever git has
)

// Engines that deploy applications out of git.
const (
	EngineArgoCD = "argocd"
	EngineFlux   = "flux"
)

// GitOps has each sync of an application wait until a point of it is made. Which: those whose objects are in the policy's applications.
type GitOps struct {
	// What a sync waits for: Snapshot (default), where data goes to the location while the sync goes on, or Stored.
	WaitFor string `json:"waitFor,omitempty" enum:"Snapshot,Stored"`
	// How long it waits; then the gate has failed. Default 15m.
	Deadline string `json:"deadline,omitempty" check:"span"`
	// What becomes of a sync before which no point could be made: Block (default) has it fail, Proceed lets it through.
	OnFailure string `json:"onFailure,omitempty" enum:"Block,Proceed"`
	// A complete point of the revisions that are live, at most so old, is good enough. Default 0s: each sync has a point of its own.
	FreshFor string `json:"freshFor,omitempty" check:"span"`
	// A sync that changes objects of these kinds only, and runs no hook but the gate, needs no point: configmaps, ingresses.networking.k8s.io.
	SkipKinds []string `json:"skipKinds,omitempty" check:"kinds"`
	// Syncs that run no hooks (self-heal, selected resources, Argo CD's rollback), or have no gate: Point (default) makes a point as early
	// as can be, Record only says so, Hold has the API server refuse them until there is a point; that needs the webhook.
	Ungated string `json:"ungated,omitempty" enum:"Point,Record,Hold"`
	// After a sync that failed behind an open gate: Nothing (default), Propose makes a Restore that plans only, RollBack a Restore to the
	// point of that sync.
	AfterFailure string `json:"afterFailure,omitempty" enum:"Nothing,Propose,RollBack"`
}

// Values of GitOps.
const (
	WaitForSnapshot = "Snapshot"
	WaitForStored   = "Stored"

	OnFailureBlock   = "Block"
	OnFailureProceed = "Proceed"

	UngatedPoint  = "Point"
	UngatedRecord = "Record"
	UngatedHold   = "Hold"

	AfterFailureNothing  = "Nothing"
	AfterFailurePropose  = "Propose"
	AfterFailureRollBack = "RollBack"
)

// Sync is one time that an engine deploys an application.
type Sync struct {
	// What deploys it, as ENGINE/NAMESPACE/NAME: argocd/argocd/shop, flux/apps/shop.
	Deployment string `json:"deployment"`
	// Revisions that were live, of each source; none at the first sync.
	From []string `json:"from,omitempty"`
	// Revisions that come, of each source.
	To []string `json:"to,omitempty"`
	// When it began, as the engine says.
	Started *metav1.Time `json:"started,omitempty"`
	// Who asked for it: automated, a user's name, or nothing where the engine does not say.
	By string `json:"by,omitempty"`
}

// Gate is one sync before Backstay, and what became of it. A hook's pod makes it and waits for it; for a sync that no hook waits with the
// controller makes it. It goes a week after it has ended.
//
// +kubebuilder:object:root=true
type Gate struct {
	metav1.TypeMeta `json:",inline"`
	// Its name and namespace.
	metav1.ObjectMeta `json:"metadata"`
	// Whose sync it is; it does not change.
	Spec GateSpec `json:"spec"`
	// What became of it; the controller's alone.
	Status GateStatus `json:"status,omitzero" file:"-"`
}

// GateSpec says whose sync it is.
type GateSpec struct {
	// Pod of the same namespace that waits. Its Job is the hook, by which the Application is found.
	Pod string `json:"pod,omitempty" check:"name"`
	// What deploys, as ENGINE/NAMESPACE/NAME. Default: that of which the pod's Job is.
	Deployment string `json:"deployment,omitempty"`
}

// GatePhase is where a Gate stands.
type GatePhase string

// Phases of a Gate. All but the first are final.
const (
	GateWaiting GatePhase = "Waiting" // for the point
	GateOpen    GatePhase = "Open"    // the sync may go on
	GateClosed  GatePhase = "Closed"  // the sync fails
	GateUngated GatePhase = "Ungated" // the sync went on without asking
)

// Final reports whether nothing more happens in a phase.
func (p GatePhase) Final() bool { return p == GateOpen || p == GateClosed || p == GateUngated }

// Reasons of a Gate.
const (
	GateFirstSync   = "FirstSync"   // open: there is nothing to protect yet
	GateFresh       = "FreshPoint"  // open: a point that is there is good enough
	GateSkipped     = "Skipped"     // open: nothing changes that a point would bring back
	GateBrokenGlass = "BreakGlass"  // open: somebody said so
	GateSnapshot    = "Snapshot"    // open: all snapshots are taken; data is on its way
	GateStored      = "Stored"      // open: the point is complete
	GateUnprotected = "Unprotected" // open or closed: no policy asks for points of it
	GateProceed     = "Proceed"     // open: no point could be made, and the policy lets it through
	GateFailed      = "BackupFailed"
	GateDeadline    = "DeadlineExceeded"
	GateNotStarted  = "HookNotStarted" // closed: the hook's pod does not start
	GateSuperseded  = "Superseded"     // closed: another revision came while it waited
	GateSelfHeal    = "SelfHeal"       // ungated, as the next ones
	GateSelective   = "Selective"
	GateRollback    = "Rollback"
	GateNoHook      = "NoGate" // it runs hooks, and none of them waits at a gate
)

// GateStatus is what became of a sync.
type GateStatus struct {
	// Ready (open), Reconciling, Stalled.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Generation of the spec that the status is of.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Where it stands.
	Phase GatePhase `json:"phase,omitempty"`
	// Why, in one word.
	Reason string `json:"reason,omitempty"`
	// Why, in a sentence; while it waits, what for.
	Message string `json:"message,omitempty"`
	// The sync.
	Sync *Sync `json:"sync,omitempty"`
	// NAMESPACE/NAME of the Policy that asks for points.
	Policy string `json:"policy,omitempty"`
	// The Backup, of the Policy's namespace.
	Backup string `json:"backup,omitempty"`
	// Id of the point, once there is one.
	Point string `json:"point,omitempty"`
	// The Restore of the Policy's namespace that was made after the sync had failed.
	Restore string `json:"restore,omitempty"`
	// When it began to wait.
	Begun *metav1.MicroTime `json:"begun,omitempty"`
	// When it ended.
	Ended *metav1.MicroTime `json:"ended,omitempty"`
}

// Transaction has the engine stand still while data comes back, and deploy the revisions that go with the data.
type Transaction struct {
	// What deploys the application, as ENGINE/NAMESPACE/NAME. Default: what the point says.
	Deployment string `json:"deployment,omitempty"`
	// Automated syncs afterwards: AsItWas (default) resumes them, but holds them while git has what was rolled back, or Hold.
	Resume string `json:"resume,omitempty" enum:"AsItWas,Hold"`
	// How long the application may take to be synced and healthy. Default 10m.
	Settle string `json:"settle,omitempty" check:"span"`
	// No point is made of the application as it is before anything is touched.
	NoUndoPoint bool `json:"noUndoPoint,omitempty"`
	// A commit that takes back in git what was rolled back is pushed as a branch of its own, backstay/revert-COMMIT. Merging it is left to
	// people.
	Revert bool `json:"revert,omitempty"`
}

// Values of Transaction.
const (
	ResumeAsItWas = "AsItWas"
	ResumeHold    = "Hold"
)

// TransactionStatus is the journal of a transaction: what was changed, before it is.
type TransactionStatus struct {
	// What deploys the application, as ENGINE/NAMESPACE/NAME.
	Deployment string `json:"deployment"`
	// The Backup of the application as it was.
	UndoBackup string `json:"undoBackup,omitempty"`
	// Its point.
	UndoPoint string `json:"undoPoint,omitempty"`
	// Revisions that were live when it began.
	From []string `json:"from,omitempty"`
	// Revisions that it deploys.
	To []string `json:"to,omitempty"`
	// Revisions that it rolls back: of the last sync, though it may have failed. None where those are the ones that it deploys.
	RolledBack []string `json:"rolledBack,omitempty"`
	// What holds syncs off, and has to be taken back.
	Suspensions []Suspension `json:"suspensions,omitempty"`
	// When syncs were held off.
	Suspended *metav1.MicroTime `json:"suspended,omitempty"`
	// When data was back.
	DataBack *metav1.MicroTime `json:"dataBack,omitempty"`
	// When the application was synced to the revisions, and healthy.
	Settled *metav1.MicroTime `json:"settled,omitempty"`
	// When syncs were let go again.
	Resumed *metav1.MicroTime `json:"resumed,omitempty"`
	// Why syncs are still held off; empty where they are not.
	Held string `json:"held,omitempty"`
	// Revisions in git for which that was found.
	HeldAt []string `json:"heldAt,omitempty"`
	// Configuration came out of the point, as git did not have the revisions any more.
	FromPoint bool `json:"fromPoint,omitempty"`
	// Branches that were pushed, of each source: REPOSITORY BRANCH.
	Reverts []string `json:"reverts,omitempty"`
	// From the beginning of the Job until the application was settled: 41s.
	Took string `json:"took,omitempty"`
}

// Suspension is what holds syncs of one thing off.
type Suspension struct {
	// Kind of the object that was changed: AppProject, Kustomization, HelmRelease.
	Kind string `json:"kind"`
	// Of the object.
	Namespace string `json:"namespace"`
	// Its name.
	Name string `json:"name"`
	// What is held off by it: names of Applications.
	Of []string `json:"of,omitempty"`
	// It was held off before, and stays so.
	Before bool `json:"before,omitempty"`
}
