package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// LocationList is what the API server answers a list with.
//
// +kubebuilder:object:root=true
type LocationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []Location `json:"items"`
}

// PolicyList is what the API server answers a list with.
//
// +kubebuilder:object:root=true
type PolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []Policy `json:"items"`
}

// BackupList is what the API server answers a list with.
//
// +kubebuilder:object:root=true
type BackupList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []Backup `json:"items"`
}

// RestorePointList is what the API server answers a list with.
//
// +kubebuilder:object:root=true
type RestorePointList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []RestorePoint `json:"items"`
}

// RestoreList is what the API server answers a list with.
//
// +kubebuilder:object:root=true
type RestoreList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []Restore `json:"items"`
}

// GateList is what the API server answers a list with.
//
// +kubebuilder:object:root=true
type GateList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []Gate `json:"items"`
}

// DrillList is what the API server answers a list with.
//
// +kubebuilder:object:root=true
type DrillList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []Drill `json:"items"`
}
