// Package restore brings the objects of an application back: Build plans what is to happen to each, beside what the cluster has;
// Apply does it; Ready waits until it runs.
package restore

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/kube"
)

// Options are what a plan is made from.
type Options struct {
	// Cluster with the rights of the one who restores.
	Cluster *kube.Cluster
	Spec    v1alpha1.RestoreSpec
	// Tenant is the only namespace that may be reached; objects of the cluster may not. Empty: all may.
	Tenant string
	// System is Backstay's own namespace, which is a target only where Spec.Namespaces names it.
	System string

	// Objects of the point by their namespace, as they were captured, and those of the cluster. They may be hostile.
	Objects        map[string][]unstructured.Unstructured
	ClusterObjects []unstructured.Unstructured
	// Data is the content of claims that the point holds.
	Data []Data

	Taken time.Time // the moment that the point is of
	Now   time.Time
	// Scratch has it restored only to look at it; nil for good.
	Scratch *Scratch
	// Begun says that this restore has changed the cluster before: what it finds there may be its own, so that existing: fail no longer
	// refuses it.
	Begun bool
}

// Data is the content of one claim in a point.
type Data struct {
	Namespace string // in the point
	Claim     string
	Part      string
	Block     bool
	Bytes     int64
	Missing   string // why the point does not hold it; empty where it does
	// LeftOut says that this is on purpose: the claim comes back as an object.
	LeftOut bool
}

// Action is what happens to an object.
type Action string

// Actions on objects.
const (
	Create   Action = "create"
	Replace  Action = "replace"
	Keep     Action = "keep"     // there, differs, and stays
	Same     Action = "same"     // there as in the point
	Conflict Action = "conflict" // cannot come back; Why says what is in the way
	Skip     Action = "skip"     // does not come back on purpose
	// Exchange is for volumes: a claim that is there gets another volume.
	Exchange Action = "exchange"
)

// Ref names an object on the cluster.
type Ref struct {
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// Item is what happens to one object.
type Item struct {
	Ref
	// From is the namespace in the point, where it is another.
	From   string `json:"from,omitempty"`
	Action Action `json:"action"`
	Why    string `json:"why,omitempty"`
	// Fields that differ between point and cluster, the first few; never what is in them. + is in the point alone, - on the cluster
	// alone, ~ on both.
	Fields []string `json:"fields,omitempty"`
	// Git names who brings the object to what git says: "Argo CD application shop".
	Git string `json:"git,omitempty"`

	object    *unstructured.Unstructured // as it is to be; nil where nothing is to be done
	live      *unstructured.Unstructured // as the cluster had it when the plan was made; nil where it had none
	uid       string                     // of the object in the point
	owners    []owner                    // that it is to have
	refused   error                      // why it cannot be changed into what it is to be
	recreate  bool                       // to replace it, it is deleted and made again
	cluster   bool                       // it has no namespace
	unchosen  bool                       // the spec does not ask for it
	namespace string                     // in the point
	original  *unstructured.Unstructured // in the point; nil for what is no object
	made      types.UID                  // once it was applied
}

// Volume is what happens to the data of one claim.
type Volume struct {
	Namespace string `json:"namespace"` // on the cluster
	Claim     string `json:"claim"`
	From      string `json:"from,omitempty"` // namespace in the point, where it is another
	Part      string `json:"part,omitempty"`
	Action    Action `json:"action"` // create, exchange, conflict or skip
	Block     bool   `json:"block,omitempty"`
	Bytes     int64  `json:"bytes"`
	Class     string `json:"class,omitempty"` // StorageClass
	// Size is what the new volume must have at least.
	Size resource.Quantity `json:"size,omitzero"`
	Why  string            `json:"why,omitempty"`

	// Wanted is the claim as it is to be: the live one's form where there is one, else the point's. Without volume and status.
	Wanted *corev1.PersistentVolumeClaim `json:"-"`
	// Live is the claim on the cluster; nil where there is none.
	Live *corev1.PersistentVolumeClaim `json:"-"`
}

// Lack is something that the application needs and the cluster does not have.
type Lack struct {
	Kind     string `json:"kind"`
	Name     string `json:"name"`
	Why      string `json:"why"`
	NeededBy string `json:"neededBy,omitempty"` // the first that does
}

// PlanVersion is the version of Plan as JSON that this build writes.
const PlanVersion = 1

// Plan is what a restore does, object by object. The same input gives the same plan.
type Plan struct {
	Version int       `json:"version"`
	Taken   time.Time `json:"taken"` // the moment that the point is of
	Made    time.Time `json:"made"`
	// Lost is how long a time is undone where data is exchanged, in seconds: from Taken to Made.
	Lost    int64    `json:"lost"`
	Items   []*Item  `json:"items,omitempty"`
	Volumes []Volume `json:"volumes,omitempty"`
	// NotChosen counts objects and claims of the point that the Restore does not ask for.
	NotChosen int    `json:"notChosen,omitempty"`
	Missing   []Lack `json:"missing,omitempty"`
	// Actions are what is done besides, when all else is; they are not Apply's.
	Actions []string `json:"actions,omitempty"`
	// Warnings are what somebody should read before it is done.
	Warnings []string `json:"warnings,omitempty"`

	options Options
	watched []*Item // what Ready looks at
}

// Status counts what a plan does.
func (p *Plan) Status() v1alpha1.PlanStatus {
	var s v1alpha1.PlanStatus
	for _, i := range p.Items {
		switch i.Action {
		case Create:
			s.Create++
		case Replace:
			s.Replace++
		case Keep:
			s.Keep++
		case Same:
			s.Same++
		case Conflict:
			s.Conflict++
		default:
			s.Skip++
		}
	}
	for _, v := range p.Volumes {
		switch v.Action {
		case Create, Exchange:
			s.Volumes++
		case Conflict:
			s.Conflict++
		default:
			s.Skip++
		}
	}
	return s
}
