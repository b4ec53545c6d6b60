package blueprint

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// Params are what templates see. The names of fields are Kanister's: Blueprints write them.
type Params struct {
	// Of these, only the one of the object's kind is set.
	StatefulSet      *WorkloadParams
	Deployment       *WorkloadParams
	DeploymentConfig *WorkloadParams
	PVC              *ObjectParams
	Namespace        *ObjectParams

	Object         map[string]any // the whole object
	ArtifactsIn    map[string]Artifact
	ConfigMaps     map[string]corev1.ConfigMap
	Secrets        map[string]corev1.Secret
	Profile        *ProfileParams // nil if the ActionSet names none
	Options        map[string]string
	Time           string // when the action began, RFC 3339 with nanoseconds, UTC
	Phases         map[string]*PhaseParams
	DeferPhase     *PhaseParams
	CurrentPhase   *PhaseParams
	PodOverride    map[string]any
	PodLabels      map[string]string
	PodAnnotations map[string]string

	// ProfileFile is what has to be brought to where Profile.Credential.Path says, for containers to read; nil where templates show
	// credentials in clear, as published. Templates see its path only.
	ProfileFile *ProfileFile
}

// WorkloadParams are a workload's ready pods and what is in them.
type WorkloadParams struct {
	Name, Namespace        string
	Pods                   []string                     // ready ones, by name
	Containers             [][]string                   // of each of Pods
	PersistentVolumeClaims map[string]map[string]string // pod → claim → where it is mounted
}

// ObjectParams name an object.
type ObjectParams struct {
	Name, Namespace string
}

// PhaseParams are what later phases, and output artifacts, see of a phase.
type PhaseParams struct {
	Output     map[string]any
	Secrets    map[string]corev1.Secret
	ConfigMaps map[string]corev1.ConfigMap
}

// ProfileParams is a Profile with its credentials. As JSON it is what kando reads as --profile.
type ProfileParams struct {
	Location      ProfileLocation
	Credential    CredentialParams
	SkipSSLVerify bool
}

// CredentialParams are the credentials themselves, or where they are.
type CredentialParams struct {
	Type              string // one of Credential…
	KeyPair           *KeyPairParams
	Secret            *corev1.Secret
	KopiaServerSecret *KopiaServerParams
	Path              string `json:",omitempty"` // of type "file": where it is in the containers that a phase runs in
}

// KeyPairParams are an ID and what proves it.
type KeyPairParams struct {
	ID, Secret string
}

// KopiaServerParams are how a kopia server is reached.
type KopiaServerParams struct {
	Username, Hostname, Password, Cert string
	ConnectOptions                     map[string]int
}

// ProfileFile is the document that kando reads in place of an argument: a ProfileDocument.
type ProfileFile struct {
	Path    string // absolute
	Content []byte `json:"-"`
}

// String shows no credentials.
func (ProfileFile) String() string { return "[secret]" }

// ProfileDocument is what a ProfileFile holds: a Profile as kando reads it, or a vault.
type ProfileDocument struct {
	ProfileParams

	Vault *VaultDocument `json:"vault,omitempty"`
}

// VaultDocument is how kando reaches a vault of Backstay's, and what it writes there.
type VaultDocument struct {
	URL           string            `json:"url"`
	Password      string            `json:"password"`
	OtherPassword string            `json:"otherPassword,omitempty"` // while the password is being changed
	Credentials   map[string]string `json:"credentials,omitempty"`   // by names of environment variables
	Subject       VaultSubject      `json:"subject"`
	Policy        string            `json:"policy,omitempty"`
	// Part begins the names of parts, Mark is the mark of the point being made that they are for. Without a mark, each push is a point.
	Part string `json:"part,omitempty"`
	Mark string `json:"mark,omitempty"`
	// Point is the id of the point that is being restored; parts are looked for in it.
	Point string `json:"point,omitempty"`
}

// VaultSubject is what points are of.
type VaultSubject struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// File makes of a document the file that is brought to path.
func (d ProfileDocument) File(path string) (*ProfileFile, error) {
	content, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	return &ProfileFile{Path: path, Content: content}, nil
}

// ProfileDocument is the profile with its credentials, wherever they are. Nil where there is no profile.
func (p *Params) ProfileDocument() (*ProfileDocument, error) {
	switch {
	case p.ProfileFile != nil:
		var d ProfileDocument
		if err := json.Unmarshal(p.ProfileFile.Content, &d); err != nil {
			return nil, fmt.Errorf("read profile: %w", err)
		}
		return &d, nil
	case p.Profile != nil:
		return &ProfileDocument{ProfileParams: *p.Profile}, nil
	}
	return nil, nil
}
