package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Labels and annotations on what Backstay makes or touches on a cluster.
const (
	// LabelOwner is on every object that a Backup or Restore makes, and holds that one's uid: what carries it, and whose owner has
	// ended, is tidied away.
	LabelOwner = Group + "/owner"
	// LabelClaim tells the claims of a Backup or Restore apart, on what was made for each.
	LabelClaim = Group + "/claim"
	// LabelPoint is on local snapshots that are kept, and holds the id of their point. They have no LabelOwner.
	LabelPoint = Group + "/point"
	// LabelUndo is on volumes that a Restore took out of use and keeps, and holds its uid.
	LabelUndo = Group + "/undo"
	// LabelApplication is the name of an application, where it is fit to be a label.
	LabelApplication = Group + "/application"
	// LabelPolicy is the name of the policy that made an object.
	LabelPolicy = Group + "/policy"
	// LabelRun holds together the Backups of one run of a policy.
	LabelRun = Group + "/run"
	// AnnotationScaled is on a workload that a Restore holds at zero, beside LabelOwner, and says how it was: replicas and the like.
	AnnotationScaled = Group + "/scaled"
	// AnnotationRunNow on a Policy has it run once for each new value, whatever its schedule says.
	AnnotationRunNow = Group + "/run-now"
	// AnnotationYield is on the Job of a run that is to begin no more Backups, for others wait.
	AnnotationYield = Group + "/yield"
	// FinalizerRunning is on Backups and Restores that are under way, so that what they touched is put right when they are deleted. It
	// goes with the run, at the latest when the deadline is over.
	FinalizerRunning = Group + "/running"
	// FinalizerPoint is on RestorePoints, whose deletion deletes the point. The controller gives up after an hour of failures.
	FinalizerPoint = Group + "/point"
)

// Applications selects applications: each namespace chosen is one, or, with a name, all that is chosen together.
type Applications struct {
	// Makes one application of all that is chosen, under this name. Default: one of each namespace, under the namespace's name.
	Name string `json:"name,omitempty" check:"name"`
	// Globs over names of namespaces: shop, team-*. Default in a Policy outside Backstay's own namespace: that of the Policy, the only
	// one allowed there.
	Namespaces []string `json:"namespaces,omitempty" check:"glob"`
	// Globs over namespaces that are not taken; exclude beats the others. kube-* and Backstay's own are never taken by a glob.
	ExcludeNamespaces []string `json:"excludeNamespaces,omitempty" check:"glob"`
	// Namespaces by their labels, beside those by name.
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	// Of the namespaces only the objects with such labels, and what they need: claims that chosen pods mount, service accounts.
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
	// Of the namespaces only these objects, as KIND.GROUP/NAME or KIND/NAME: deployment.apps/web, configmap/web; and what they need.
	Objects []string `json:"objects,omitempty" check:"object"`
	// Globs over Applications of Argo CD, as NAME or NAMESPACE/NAME, instead of namespaces: each is one application, of the objects that it
	// deploys in all their namespaces, of what those own, and of what they need.
	ArgoCD []string `json:"argocd,omitempty" check:"deployments"`
	// Globs over Kustomizations and HelmReleases of Flux, as NAME or NAMESPACE/NAME, in the same way.
	Flux    []string `json:"flux,omitempty" check:"deployments"`
	Capture `json:",inline"`
}

// Capture says how an application is captured.
type Capture struct {
	// Kinds that are left out, as PLURAL.GROUP: events.events.k8s.io. * stands for all of a group: *.metrics.k8s.io.
	ExcludeKinds []string `json:"excludeKinds,omitempty" check:"kinds"`
	// Objects of the cluster that the application needs (definitions of its kinds, cluster roles bound in it, storage classes) are
	// captured beside it: needed (default) or none.
	ClusterObjects string `json:"clusterObjects,omitempty" enum:"needed,none"`
	// Run in the application's pods around the snapshots.
	Hooks []Hook `json:"hooks,omitempty"`
	// How the data in claims is captured.
	Volumes VolumeCapture `json:"volumes,omitzero"`
	// Blueprints that capture data, beside those that workloads and namespaces name by the annotation kanister.kasten.io/blueprint.
	Blueprints []BlueprintBinding `json:"blueprints,omitempty"`
	// Database servers that belong to the application, in it or anywhere else: each is dumped as of the application's instant.
	Databases []Database `json:"databases,omitempty"`
	// The longest time between the first and the last thing captured of the application (volume or list of objects) for which a point
	// counts as complete: 2s. Default: any; the skew is recorded.
	MaxSkew string `json:"maxSkew,omitempty" check:"span"`
}

// ClusterObjects of Capture.
const (
	ClusterObjectsNeeded = "needed"
	ClusterObjectsNone   = "none"
)

// Hook is a pair of commands in a container: one that brings it to rest, and one that undoes that.
type Hook struct {
	// The pods, by their labels; the first that runs, or each.
	Selector metav1.LabelSelector `json:"selector"`
	// In every pod that is selected, not in the first alone.
	EachPod bool `json:"eachPod,omitempty"`
	// Default: the pod's default container, or its first.
	Container string `json:"container,omitempty"`
	// Brings to rest. A failure leaves the point incomplete.
	Before []string `json:"before" max:"65536"`
	// Undoes it; always run when Before was begun, whatever became of it.
	After []string `json:"after,omitempty" max:"65536"`
	// Of each command. Default 30s.
	Timeout string `json:"timeout,omitempty" check:"span"`
}

// BlueprintBinding has a Blueprint capture the data of objects: its action backup runs for a point, restore when the point comes back, and
// delete before it goes. Claims that their pods mount are left to it.
type BlueprintBinding struct {
	// Of the Blueprint, in the namespace of the Policy or Backup.
	Name string `json:"name" check:"name"`
	// Kind of the objects, as PLURAL.GROUP: statefulsets.apps, persistentvolumeclaims, kafkas.kafka.strimzi.io.
	Kind string `json:"kind" check:"kinds"`
	// Of them those with such labels. Default: all of the application.
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
	// Profile of the same namespace, for where the Blueprint's data goes. Default: the location of the point, and the data is in the
	// point itself.
	Profile string `json:"profile,omitempty" check:"name"`
	// Options of the action.
	Options map[string]string `json:"options,omitempty"`
}

// AnnotationBlueprint on a workload or a namespace names the Blueprint that captures its data, of the namespace of the Policy or Backup.
const AnnotationBlueprint = "kanister.kasten.io/blueprint"

// VolumeCapture says how the data in claims is captured.
type VolumeCapture struct {
	// Claims that are left out: names or globs.
	Exclude []string `json:"exclude,omitempty" check:"glob"`
	// VolumeSnapshotClass. Default: the driver's default, or its only one.
	SnapshotClass string `json:"snapshotClass,omitempty"`
	// What is done with a claim whose driver takes no snapshots: fail (default), skip, or live, which reads the volume where a running
	// pod has it mounted; such a copy is not consistent, and says so.
	WithoutSnapshot string `json:"withoutSnapshot,omitempty" enum:"fail,skip,live"`
	// Snapshots of the newest so many points are kept on the cluster for fast restores. Default 0: none is kept once its data is in
	// the location.
	KeepSnapshots int `json:"keepSnapshots,omitempty" check:"count"`
}

// WithoutSnapshot of VolumeCapture.
const (
	WithoutSnapshotFail = "fail"
	WithoutSnapshotSkip = "skip"
	WithoutSnapshotLive = "live"
)

// LocationStatus is what the controller found at a location.
type LocationStatus struct {
	// Ready, Reconciling, Stalled.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Generation of the spec that the status is of.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Points of applications that the location holds.
	Points int `json:"points,omitempty"`
	// When the catalogue was last read.
	Synced *metav1.Time `json:"synced,omitempty"`
	// When space was last freed and locks extended.
	Maintained *metav1.Time `json:"maintained,omitempty"`
	// When the vault had the new password, while the spec names one.
	PasswordChanged *metav1.Time `json:"passwordChanged,omitempty"`
}

// PolicyStatus is how a policy fares.
type PolicyStatus struct {
	// Ready, Reconciling, Stalled.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Generation of the spec that the status is of.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Applications that it selects at present.
	Applications int `json:"applications,omitempty"`
	// When it ran last.
	LastRun *metav1.Time `json:"lastRun,omitempty"`
	// When a run last ended with every point complete.
	LastGood *metav1.Time `json:"lastGood,omitempty"`
	// When it runs next.
	NextRun *metav1.Time `json:"nextRun,omitempty"`
	// Value of the annotation backstay.io/run-now that was obeyed last.
	RunNow string `json:"runNow,omitempty"`
	// When its points were drilled last.
	LastDrill *metav1.Time `json:"lastDrill,omitempty"`
	// When they are drilled next.
	NextDrill *metav1.Time `json:"nextDrill,omitempty"`
	// Applications that have no point that is proven as lately as drill.provenWithin asks for.
	Unproven int `json:"unproven,omitempty"`
}

// Types of conditions, as kstatus reads them.
const (
	ConditionReady       = "Ready"
	ConditionReconciling = "Reconciling"
	ConditionStalled     = "Stalled"
)

// Phase is where a Backup or Restore stands.
type Phase string

// Phases. The last four are final.
const (
	PhasePending    Phase = "Pending"    // waits for another of the same application, or for its Job
	PhasePlanning   Phase = "Planning"   // a Restore compares the point with what is there
	PhaseActing     Phase = "Acting"     // actions of Blueprints capture data, or bring it back
	PhaseQuiescing  Phase = "Quiescing"  // hooks and snapshots: the application may be at rest
	PhaseListing    Phase = "Listing"    // objects are captured; the application runs again
	PhaseMoving     Phase = "Moving"     // data goes to the location, or comes from it
	PhaseSuspending Phase = "Suspending" // a Restore holds syncs off
	PhaseSyncing    Phase = "Syncing"    // a Restore has the engine deploy the revisions that go with the data
	PhaseSwapping   Phase = "Swapping"   // a Restore exchanges the volumes behind claims; workloads are stopped
	PhaseApplying   Phase = "Applying"   // a Restore creates and replaces objects
	PhaseWaiting    Phase = "Waiting"    // a Restore waits until workloads are ready
	PhaseChecking   Phase = "Checking"   // a Drill asks what was restored
	PhaseTidying    Phase = "Tidying"    // what was made on the way is removed

	PhaseComplete   Phase = "Complete"
	PhaseIncomplete Phase = "Incomplete" // a point was made, or brought back, but something of it is missing
	PhaseFailed     Phase = "Failed"
	PhasePlanned    Phase = "Planned" // a Restore that was to plan only
)

// Final reports whether nothing more happens in a phase.
func (p Phase) Final() bool {
	return p == PhaseComplete || p == PhaseIncomplete || p == PhaseFailed || p == PhasePlanned
}

// Backup makes one restore point of one application.
//
// +kubebuilder:object:root=true
type Backup struct {
	metav1.TypeMeta `json:",inline"`
	// Its name and namespace.
	metav1.ObjectMeta `json:"metadata"`
	// What is asked for; it does not change.
	Spec BackupSpec `json:"spec"`
	// What became of it; the controller's alone.
	Status BackupStatus `json:"status,omitzero" file:"-"`
}

// BackupSpec asks for a point. Location and application are said, or a policy of the same namespace that knows both.
type BackupSpec struct {
	// Policy of the same namespace, for its location, its retention and the way it captures the application.
	Policy string `json:"policy,omitempty" check:"name"`
	// Location of the same namespace. Default: the policy's.
	Location string `json:"location,omitempty" check:"name"`
	// The application: of the policy by its name, or selected as in a policy's source.
	Application Applications `json:"application,omitzero"`
	// All sources of the policy that are no applications, instead of an application: each gets a point.
	Repositories bool `json:"repositories,omitempty"`
	// Service account that captures, of the application's namespace, for a Backup outside Backstay's own namespace. Default backstay.
	ServiceAccountName string `json:"serviceAccountName,omitempty" check:"name"`
	// It fails when it has taken so long. Default 4h.
	Deadline string `json:"deadline,omitempty" check:"span"`
	// The sync that it is made for. Such a Backup waits for no other but those of its application.
	Sync *Sync `json:"sync,omitempty"`
}

// BackupStatus is how a Backup stands.
type BackupStatus struct {
	// Ready, Reconciling, Stalled.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Generation of the spec that the status is of.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Where it stands.
	Phase Phase `json:"phase,omitempty"`
	// When its Job began.
	Started *metav1.Time `json:"started,omitempty"`
	// When it ended.
	Finished *metav1.Time `json:"finished,omitempty"`
	// The Job that works on it, in Backstay's namespace.
	Job string `json:"job,omitempty"`
	// The point made.
	Point string `json:"point,omitempty"`
	// The object that stands for it.
	RestorePoint string `json:"restorePoint,omitempty"`
	// The moment that the point is of; nil until all snapshots are taken.
	Instant *Instant `json:"instant,omitempty"`
	// Hooks that were begun and not undone yet. Who takes the work up undoes them first.
	Resting []RestingPod `json:"resting,omitempty"`
	// Why the application could not be brought to rest.
	HookProblem string `json:"hookProblem,omitempty"`
	// Claims of the application and how each fares.
	Volumes []VolumeStatus `json:"volumes,omitempty"`
	// Actions of Blueprints for it.
	Actions []ActionStatus `json:"actions,omitempty"`
	// Database servers of the application and how each fares.
	Databases []DatabaseStatus `json:"databases,omitempty"`
	// What GitOps engines had deployed of the application at the instant.
	Deployed []DeployedStatus `json:"deployed,omitempty"`
	// Sources of repositories and how each fares.
	Sources []SourceStatus `json:"sources,omitempty"`
	// Parts of the point by state.
	Parts *PartsStatus `json:"parts,omitempty"`
	// What went wrong, the first few.
	Problems []string `json:"problems,omitempty"`
}

// DeployedStatus is what a GitOps engine had deployed of an application.
type DeployedStatus struct {
	// What deploys it, as ENGINE/NAMESPACE/NAME.
	Deployment string `json:"deployment"`
	// Where its configuration came from.
	Sources []DeployedSource `json:"sources,omitempty"`
	// A sync had begun that had not ended well, so that the application was of neither revision.
	Between bool `json:"between,omitempty"`
	// Images that ran, by digest.
	Images []string `json:"images,omitempty"`
	// SHA-256 of the objects that it had applied.
	Manifests string `json:"manifests,omitempty"`
	// Why it is not known which revision was live.
	Problem string `json:"problem,omitempty"`
}

// DeployedSource is one source of a deployment.
type DeployedSource struct {
	// Of the repository, without credentials.
	URL string `json:"url"`
	// In it.
	Path string `json:"path,omitempty"`
	// Of Helm.
	Chart string `json:"chart,omitempty"`
	// The revision that was live.
	From string `json:"from,omitempty"`
	// The one that came.
	To string `json:"to,omitempty"`
}

// SourceStatus is how a source of repositories fared.
type SourceStatus struct {
	// Of the source, as in points: github.com/acme.
	Name string `json:"name"`
	// complete, incomplete or failed.
	State string `json:"state"`
	// The point made.
	Point string `json:"point,omitempty"`
	// Repositories that it has.
	Repositories int `json:"repositories"`
	// Of them, those that were not captured whole.
	Lacking int `json:"lacking,omitempty"`
}

// ActionStatus is how the action of a Blueprint for one object fares.
type ActionStatus struct {
	// Kind of the object, as PLURAL.GROUP.
	Kind string `json:"kind"`
	// Of the object; empty for a namespace itself.
	Namespace string `json:"namespace,omitempty"`
	// Its name.
	Name string `json:"name"`
	// The Blueprint.
	Blueprint string `json:"blueprint"`
	// Of the point, which says what the action made, and before whose name those are that hold its data.
	Part string `json:"part"`
	// The ActionSet, of the namespace of the Backup or Restore; it goes when that has ended.
	ActionSet string `json:"actionSet,omitempty"`
	// When the action began.
	Started *metav1.MicroTime `json:"started,omitempty"`
	// It ended well.
	Done bool `json:"done,omitempty"`
	// Why it did not.
	Problem string `json:"problem,omitempty"`
}

// Instant is the moment that a point is of.
type Instant struct {
	// When the first command that brings the application to rest began; the first snapshot where there are no hooks.
	Begun metav1.MicroTime `json:"begun"`
	// When the application ran again.
	Released metav1.MicroTime `json:"released"`
	// When the first snapshot was taken, as its driver says.
	FirstSnapshot *metav1.MicroTime `json:"firstSnapshot,omitempty"`
	// When the last one was.
	LastSnapshot *metav1.MicroTime `json:"lastSnapshot,omitempty"`
	// Version of the cluster's state right after the last snapshot, at which objects are listed.
	ResourceVersion string `json:"resourceVersion,omitempty"`
	// When that version was read.
	Versioned metav1.MicroTime `json:"versioned"`
	// The last moment that a list of objects is of; nil until they are listed.
	Listed *metav1.MicroTime `json:"listed,omitempty"`
}

// RestingPod is a container in which a hook's first command was begun.
type RestingPod struct {
	// Of the pod.
	Namespace string `json:"namespace"`
	// Its name.
	Pod string `json:"pod"`
	// Of the pod; empty for its default.
	Container string `json:"container,omitempty"`
	// Number of the hook, from 0.
	Hook int `json:"hook"`
}

// VolumeStatus is how one claim fares.
type VolumeStatus struct {
	// Of the claim.
	Namespace string `json:"namespace"`
	// Its name.
	Claim string `json:"claim"`
	// Name of its part in the point.
	Part string `json:"part"`
	// snapshot, group, live or none.
	Method string `json:"method"`
	// The VolumeSnapshot, of the claim's namespace.
	Snapshot string `json:"snapshot,omitempty"`
	// When it was taken, as its driver says.
	Taken *metav1.MicroTime `json:"taken,omitempty"`
	// The claim is a block device.
	Block bool `json:"block,omitempty"`
	// Its data is in the location.
	Stored bool `json:"stored,omitempty"`
	// Why it is not captured.
	Problem string `json:"problem,omitempty"`
	// It is left out on purpose, for the reason that Problem says.
	Skipped bool `json:"skipped,omitempty"`
	// A Restore: the volume that was behind the claim, and is kept.
	OldVolume string `json:"oldVolume,omitempty"`
	// A Restore: the volume that is now behind it.
	NewVolume string `json:"newVolume,omitempty"`
}

// Methods of VolumeStatus.
const (
	MethodSnapshot = "snapshot"
	MethodGroup    = "group"
	MethodLive     = "live"
	MethodNone     = "none"
)

// PartsStatus counts the parts of a point.
type PartsStatus struct {
	// All that the point should hold.
	Expected int `json:"expected"`
	// In the point, of this run.
	Stored int `json:"stored"`
	// In the point, as an older copy.
	Carried int `json:"carried,omitempty"`
	// Left out, as was asked for.
	Skipped int `json:"skipped,omitempty"`
	// Not in the point.
	Failed int `json:"failed,omitempty"`
	// Gone at the source.
	Vanished int `json:"vanished,omitempty"`
	// Of all files in the point.
	Bytes int64 `json:"bytes"`
	// Of those that the location did not have.
	NewBytes int64 `json:"newBytes"`
}

// RestorePoint stands for a point of an application in a location. The location is the truth: objects are made anew from it, and
// deleting one deletes the point.
//
// +kubebuilder:object:root=true
type RestorePoint struct {
	metav1.TypeMeta `json:",inline"`
	// Its name, and the namespace of its location.
	metav1.ObjectMeta `json:"metadata"`
	// What the location says of it.
	Spec RestorePointSpec `json:"spec"`
	// What the controller says of it.
	Status RestorePointStatus `json:"status,omitzero" file:"-"`
}

// RestorePointSpec is what a location says of a point.
type RestorePointSpec struct {
	// Location of the same namespace that holds it.
	Location string `json:"location" check:"name"`
	// Its id there.
	Point string `json:"point"`
	// The cluster that it was made on.
	Cluster string `json:"cluster"`
	// Name of the application.
	Application string `json:"application"`
	// Name of the policy that made it.
	Policy string `json:"policy,omitempty"`
	// When it was made.
	Time metav1.Time `json:"time"`
	// complete or incomplete.
	State string `json:"state"`
	// Of all files in it.
	Bytes int64 `json:"bytes"`
	// Why it is kept from expiring; empty for no hold.
	Holds []string `json:"holds,omitempty"`
	// What deployed the application, as ENGINE/NAMESPACE/NAME.
	Deployment string `json:"deployment,omitempty"`
	// Revisions that were live when it was made, of each source of the deployment.
	Revisions []string `json:"revisions,omitempty"`
	// Revisions that came after it, where it was made for a sync.
	NextRevisions []string `json:"nextRevisions,omitempty"`
	// What the newest drill found; none before the first.
	Proof *PointProof `json:"proof,omitempty"`
}

// RestorePointStatus is what the controller says of a point.
type RestorePointStatus struct {
	// Ready, Reconciling, Stalled; after a drill Proven.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Claims of which a local snapshot is kept.
	LocalSnapshots int `json:"localSnapshots,omitempty"`
}

// Restore brings a point of an application back, or undoes a Restore.
//
// +kubebuilder:object:root=true
type Restore struct {
	metav1.TypeMeta `json:",inline"`
	// Its name and namespace.
	metav1.ObjectMeta `json:"metadata"`
	// What is asked for; it does not change.
	Spec RestoreSpec `json:"spec"`
	// What became of it; the controller's alone.
	Status RestoreStatus `json:"status,omitzero" file:"-"`
}

// RestoreSpec says what is brought back, where, and what happens to what is there.
type RestoreSpec struct {
	// RestorePoint of the same namespace.
	RestorePoint string `json:"restorePoint,omitempty" oneof:"what"`
	// The newest complete point of an application, by its name, in a location of the same namespace.
	Latest *LatestPoint `json:"latest,omitempty" oneof:"what"`
	// Restore of the same namespace whose exchange of volumes is undone.
	Undo string `json:"undo,omitempty" oneof:"what"`

	// Namespaces in the point to namespaces on the cluster. Those not named go to their own.
	Namespaces map[string]string `json:"namespaces,omitempty"`
	// data: only what is in claims; config: only objects. Default both.
	Only string `json:"only,omitempty" enum:"data,config"`
	// Objects that are taken, as KIND.GROUP/NAME, or KIND.GROUP for all of a kind. Default all.
	Objects []string `json:"objects,omitempty" check:"objects"`
	// Claims whose data is taken, by name. Default all.
	Claims []string `json:"claims,omitempty"`
	// Servers that databases of the point come back into, by their names. Default: each where it was, and none outside the cluster where
	// the application goes to other namespaces.
	Databases []Database `json:"databases,omitempty"`
	// What happens to objects that are there and differ: keep (default), replace, or fail before anything is touched. Databases that are not
	// empty are replaced with replace alone, and by gitops.
	Existing string `json:"existing,omitempty" enum:"keep,replace,fail"`
	// Objects of the cluster that are missing are created: true (default where the Restore may) or false.
	ClusterObjects *bool `json:"clusterObjects,omitempty"`
	// Storage classes in the point to those on the cluster.
	StorageClasses map[string]string `json:"storageClasses,omitempty"`
	// Changes to objects before they are applied, in this order.
	Transforms []Transform `json:"transforms,omitempty"`
	// Syncs of the application stand still meanwhile, and the revisions that go with the data are deployed: a rollback.
	GitOps *Transaction `json:"gitops,omitempty"`
	// Nothing is done; the plan is in the status and in a ConfigMap.
	PlanOnly bool `json:"planOnly,omitempty"`
	// Volumes taken out of use are kept so long for undo. Default 24h; 0s deletes them at once.
	KeepOld string `json:"keepOld,omitempty" check:"span"`
	// Service account that restores, of the application's namespace, for a Restore outside Backstay's own namespace. Default backstay.
	ServiceAccountName string `json:"serviceAccountName,omitempty" check:"name"`
	// It fails, and puts workloads back as they were, when it has taken so long. Default 4h.
	Deadline string `json:"deadline,omitempty" check:"span"`
}

// LatestPoint names the newest complete point of an application.
type LatestPoint struct {
	// Location of the same namespace.
	Location string `json:"location" check:"name"`
	// Name of the application.
	Application string `json:"application"`
	// Cluster that it was made on. Default: this one, or the only one.
	Cluster string `json:"cluster,omitempty"`
	// Not newer than this.
	AsOf *metav1.Time `json:"asOf,omitempty"`
	// Made while this revision was live: a commit, or how it begins (7 digits at least), or a chart's version.
	Revision string `json:"revision,omitempty"`
}

// Values of RestoreSpec.
const (
	OnlyData   = "data"
	OnlyConfig = "config"

	ExistingKeep    = "keep"
	ExistingReplace = "replace"
	ExistingFail    = "fail"
)

// Transform changes objects before they are applied.
type Transform struct {
	// As KIND.GROUP/NAME, KIND.GROUP for all of a kind, or * for every object.
	Objects string `json:"objects" check:"every"`
	// JSON Patch (RFC 6902). An object it does not fit is left as it is and named, unless the patch has a test.
	Patch []PatchOperation `json:"patch"`
}

// PatchOperation is one operation of a JSON Patch.
type PatchOperation struct {
	// add, remove, replace, move, copy or test.
	Op string `json:"op" enum:"add,remove,replace,move,copy,test"`
	// A JSON Pointer: /spec/replicas, /metadata/labels/example.com~1tier.
	Path string `json:"path" check:"pointer"`
	// Of move and copy: a JSON Pointer.
	From string `json:"from,omitempty" check:"pointer"`
	// Of add, replace and test, as JSON text: "\"blue\"", "3", "{\"a\":1}".
	Value string `json:"value,omitempty" max:"65536"`
}

// RestoreStatus is how a Restore stands.
type RestoreStatus struct {
	// Ready, Reconciling, Stalled.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Generation of the spec that the status is of.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Where it stands.
	Phase Phase `json:"phase,omitempty"`
	// When its Job began.
	Started *metav1.Time `json:"started,omitempty"`
	// When it ended.
	Finished *metav1.Time `json:"finished,omitempty"`
	// The Job that works on it, in Backstay's namespace.
	Job string `json:"job,omitempty"`
	// The point that is brought back.
	Point string `json:"point,omitempty"`
	// What was planned, counted; the whole plan is in the ConfigMap PlanName of the same namespace.
	Plan *PlanStatus `json:"plan,omitempty"`
	// See Plan.
	PlanName string `json:"planName,omitempty"`
	// Claims whose volume is exchanged or made, and how far each is.
	Volumes []VolumeStatus `json:"volumes,omitempty"`
	// Workloads that were stopped.
	Stopped []string `json:"stopped,omitempty"`
	// Actions of Blueprints that bring data back.
	Actions []ActionStatus `json:"actions,omitempty"`
	// Database servers whose data is brought back.
	Databases []DatabaseStatus `json:"databases,omitempty"`
	// Until when the volumes taken out of use are kept.
	UndoUntil *metav1.Time `json:"undoUntil,omitempty"`
	// How the transaction stands.
	GitOps *TransactionStatus `json:"gitops,omitempty"`
	// What went wrong, the first few.
	Problems []string `json:"problems,omitempty"`
}

// PlanText is the key of a plan's ConfigMap that holds it as people read it; PlanJSON holds it for programs.
const (
	PlanText = "plan.txt"
	PlanJSON = "plan.json"
)

// PlanStatus counts what a plan does.
type PlanStatus struct {
	// Objects that are missing.
	Create int `json:"create"`
	// Objects that differ, and become as in the point.
	Replace int `json:"replace"`
	// Objects that differ, and stay.
	Keep int `json:"keep"`
	// Objects that are as in the point.
	Same int `json:"same"`
	// Objects that differ, where existing is fail.
	Conflict int `json:"conflict"`
	// Objects that are not brought back, each with a reason in the plan.
	Skip int `json:"skip"`
	// Volumes that are filled.
	Volumes int `json:"volumes"`
}
