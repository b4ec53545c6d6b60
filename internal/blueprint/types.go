package blueprint

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Group and Version are of every kind here. They are Kanister's, and so are the names of all fields in JSON, misspelt ones included.
const (
	Group   = "cr.kanister.io"
	Version = "v1alpha1"
)

// Extensions of ours, by annotation.
const (
	// AnnotationRepeat, on a Blueprint, names phases that may be run again, by commas: they are after an interruption, and
	// three times more after a failure.
	AnnotationRepeat = "backstay.io/repeat"
	// AnnotationDeadline, on a Blueprint, is how long each of its phases may take, such as 2h.
	AnnotationDeadline = "backstay.io/deadline"
	// AnnotationProfile, on a Blueprint, is "file" where its images have a kando that takes credentials from a file.
	AnnotationProfile = "backstay.io/profile"
	// AnnotationLocation, on a Profile, names the Location of its namespace that it stands for.
	AnnotationLocation = "backstay.io/location"
	// LabelActionSet, on what is made for a phase, is the uid of its ActionSet.
	LabelActionSet = "backstay.io/actionset"
)

// GroupVersion is that of every kind here.
var GroupVersion = schema.GroupVersion{Group: Group, Version: Version} //nolint:gochecknoglobals // a constant, but for its type

// AddToScheme makes the kinds known to a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &Blueprint{}, &BlueprintList{}, &ActionSet{}, &ActionSetList{}, &Profile{}, &ProfileList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}

// Blueprint says how an application is backed up, restored and so on. It has no spec.
type Blueprint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Actions map[string]*Action `json:"actions,omitempty"`
}

// Action is what an ActionSet may ask for: phases in their order.
type Action struct {
	Name               string   `json:"name,omitempty"`
	Kind               string   `json:"kind,omitempty"` // of the object that it is for; not enforced
	ConfigMapNames     []string `json:"configMapNames,omitempty"`
	SecretNames        []string `json:"secretNames,omitempty"`
	InputArtifactNames []string `json:"inputArtifactNames,omitempty"`
	// OutputArtifacts are templates, by name.
	OutputArtifacts map[string]Artifact `json:"outputArtifacts,omitempty"`
	Phases          []Phase             `json:"phases,omitempty"`
	// DeferPhase runs once after the phases, whether they passed or failed.
	DeferPhase *Phase `json:"deferPhase,omitempty"`
}

// Phase is one call of a function.
type Phase struct {
	Func string `json:"func"`
	Name string `json:"name"`
	// Objects are Secrets and ConfigMaps that templates see, by name. Their fields may be templates.
	Objects map[string]ObjectReference `json:"objects,omitempty"`
	// Args are templates, in lists and maps of any depth.
	Args map[string]any `json:"args,omitempty"`
}

// ObjectReference names an object: by kind, or by group, apiVersion (its version) and resource.
type ObjectReference struct {
	APIVersion string `json:"apiVersion,omitempty"`
	Group      string `json:"group,omitempty"`
	Resource   string `json:"resource,omitempty"`
	Kind       string `json:"kind,omitempty"`
	Name       string `json:"name,omitempty"`
	Namespace  string `json:"namespace,omitempty"`
}

// Artifact is what one action makes and another takes.
type Artifact struct {
	KeyValue      map[string]string `json:"keyValue,omitempty"`
	KopiaSnapshot string            `json:"kopiaSnapshot,omitempty"`
}

// BlueprintList is what the API server answers a list with.
type BlueprintList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Blueprint `json:"items"`
}

// ActionSet asks for actions. They run side by side.
type ActionSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   *ActionSetSpec   `json:"spec,omitempty"`
	Status *ActionSetStatus `json:"status,omitempty"`
}

// ActionSetSpec is what is asked for.
type ActionSetSpec struct {
	Actions []ActionSpec `json:"actions"`
}

// ActionSpec asks for one action of a Blueprint on one object.
type ActionSpec struct {
	Name      string          `json:"name"`
	Object    ObjectReference `json:"object"`
	Blueprint string          `json:"blueprint,omitempty"`
	// Artifacts are what templates see as ArtifactsIn.
	Artifacts  map[string]Artifact        `json:"artifacts,omitempty"`
	ConfigMaps map[string]ObjectReference `json:"configMaps,omitempty"`
	Secrets    map[string]ObjectReference `json:"secrets,omitempty"`
	Profile    *ObjectReference           `json:"profile,omitempty"`
	// PodOverride is merged into the pods that functions make.
	PodOverride      map[string]any    `json:"podOverride,omitempty"`
	Options          map[string]string `json:"options,omitempty"`
	PreferredVersion string            `json:"preferredVersion,omitempty"` // of functions; ours have one
	PodLabels        map[string]string `json:"podLabels,omitempty"`
	PodAnnotations   map[string]string `json:"podAnnotations,omitempty"`
}

// State is how far a phase, or a whole ActionSet, is.
type State string

// The states.
const (
	StatePending  State = "pending"
	StateRunning  State = "running"
	StateFailed   State = "failed"
	StateComplete State = "complete"
)

// Final reports whether the state is one that stays.
func (s State) Final() bool { return s == StateFailed || s == StateComplete }

// ActionSetStatus is how far an ActionSet is.
type ActionSetStatus struct {
	State    State          `json:"state"`
	Actions  []ActionStatus `json:"actions,omitempty"`
	Error    Error          `json:"error,omitempty"`
	Progress ActionProgress `json:"progress,omitempty"`
}

// Error says why an ActionSet failed.
type Error struct {
	Message string `json:"message,omitempty"`
}

// ActionProgress is the progress of an ActionSet.
type ActionProgress struct {
	RunningPhase           string       `json:"runningPhase,omitempty"` // several where actions run side by side, by commas
	PercentCompleted       string       `json:"percentCompleted,omitempty"`
	SizeDownloadedB        int64        `json:"sizeDownloadedB,omitempty"`
	SizeUploadedB          int64        `json:"sizeUploadedB,omitempty"`
	EstimatedDownloadSizeB int64        `json:"estimatedDownloadSizeB,omitempty"`
	EstimatedUploadSizeB   int64        `json:"estimatedUploadSizeB,omitempty"`
	LastTransitionTime     *metav1.Time `json:"lastTransitionTime,omitempty"`
}

// ActionStatus is how far one action is.
type ActionStatus struct {
	Name       string              `json:"name"`
	Object     ObjectReference     `json:"object"`
	Blueprint  string              `json:"blueprint,omitempty"`
	Phases     []PhaseStatus       `json:"phases,omitempty"`
	Artifacts  map[string]Artifact `json:"artifacts,omitempty"`
	DeferPhase PhaseStatus         `json:"deferPhase,omitempty"`
}

// PhaseStatus is how far a phase is, and what it put out.
type PhaseStatus struct {
	Name     string         `json:"name,omitempty"`
	State    State          `json:"state,omitempty"`
	Output   map[string]any `json:"output,omitempty"`
	Progress PhaseProgress  `json:"progress,omitempty"`
}

// PhaseProgress is the progress of a phase.
type PhaseProgress struct {
	ProgressPercent        string       `json:"progressPercent,omitempty"`
	SizeDownloadedB        int64        `json:"sizeDownloadedB,omitempty"`
	SizeUploadedB          int64        `json:"sizeUploadedB,omitempty"`
	EstimatedDownloadSizeB int64        `json:"estimatedDownloadSizeB,omitempty"`
	EstimatedUploadSizeB   int64        `json:"estimatedUploadSizeB,omitempty"`
	EstimatedTimeSeconds   int64        `json:"estinatedTimeSeconds,omitempty"` // as published
	LastTransitionTime     *metav1.Time `json:"lastTransitionTime,omitempty"`
}

// ActionSetList is what the API server answers a list with.
type ActionSetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []ActionSet `json:"items"`
}

// Profile says where artifacts are stored, and how they are reached. It has no spec.
type Profile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Location      ProfileLocation `json:"location"`
	Credential    Credential      `json:"credential"`
	SkipSSLVerify bool            `json:"skipSSLVerify,omitempty"`
}

// Types of a Profile's location.
const (
	LocationGCS   = "gcs"
	LocationS3    = "s3Compliant"
	LocationAzure = "azure"
	LocationKopia = "kopia"
)

// ProfileLocation is where artifacts are stored.
type ProfileLocation struct {
	Type     string `json:"type"`
	Bucket   string `json:"bucket"`
	Endpoint string `json:"endpoint"`
	Prefix   string `json:"prefix"`
	Region   string `json:"region"`
}

// Types of a Profile's credential.
const (
	CredentialKeyPair = "keyPair"
	CredentialSecret  = "secret"
	CredentialKopia   = "kopia"
	CredentialFile    = "file"  // ours, in templates only: it is in a file
	CredentialVault   = "vault" // ours, in that file only: Backstay's own vault
)

// Credential names the Secrets by which a location is reached.
type Credential struct {
	Type              string             `json:"type"`
	KeyPair           *KeyPair           `json:"keyPair,omitempty"`
	Secret            *ObjectReference   `json:"secret,omitempty"`
	KopiaServerSecret *KopiaServerSecret `json:"kopiaServerSecret,omitempty"`
}

// KeyPair names the fields of a Secret that hold an ID and what proves it.
type KeyPair struct {
	IDField     string          `json:"idField"`
	SecretField string          `json:"secretField"`
	Secret      ObjectReference `json:"secret"`
}

// KopiaServerSecret says how a kopia server is reached.
type KopiaServerSecret struct {
	Username       string            `json:"username,omitempty"`
	Hostname       string            `json:"hostname,omitempty"`
	UserPassphrase *KopiaServerField `json:"userPassphrase,omitempty"`
	TLSCert        *KopiaServerField `json:"tlsCert,omitempty"`
	ConnectOptions map[string]int    `json:"connectOptions,omitempty"`
}

// KopiaServerField is a field of a Secret.
type KopiaServerField struct {
	Key    string           `json:"key,omitempty"`
	Secret *ObjectReference `json:"secret,omitempty"`
}

// ProfileList is what the API server answers a list with.
type ProfileList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Profile `json:"items"`
}
