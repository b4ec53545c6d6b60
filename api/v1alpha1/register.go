package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is that of every kind here.
var GroupVersion = schema.GroupVersion{Group: Group, Version: Version} //nolint:gochecknoglobals // a constant, but for its type

// AddToScheme makes the kinds known to a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&Location{}, &LocationList{}, &Policy{}, &PolicyList{}, &Backup{}, &BackupList{},
		&RestorePoint{}, &RestorePointList{}, &Restore{}, &RestoreList{}, &Gate{}, &GateList{}, &Drill{}, &DrillList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
