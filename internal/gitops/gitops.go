package gitops

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// Deployment is what deploys one application out of git: an Application of Argo CD, a Kustomization or HelmRelease of Flux. by is the
// Restore on whose behalf something is changed; doing a thing twice for the same one is doing it once.
type Deployment interface {
	// State reads how it stands.
	State(ctx context.Context) (State, error)
	// Suspensions lists what has to be held off so that no sync touches the application, whoever would ask for it: in this order.
	// Nothing is changed yet.
	Suspensions(ctx context.Context) ([]v1alpha1.Suspension, error)
	// Suspend holds one of them off.
	Suspend(ctx context.Context, s v1alpha1.Suspension, by string) error
	// Resume takes that back. What is not there any more is resumed.
	Resume(ctx context.Context, s v1alpha1.Suspension, by string) error
	// Stop ends a sync that is under way, and waits until it has ended: with ctx, fault.ErrUnavailable. Until Deploy nobody can begin another,
	// where the engine can refuse that. One that was asked for by by goes on.
	Stop(ctx context.Context, by string) error
	// Deploy asks for a sync of the revisions, one for each source, without hooks. It does not wait. Revisions that the engine cannot
	// deploy are fault.ErrNotFound or ErrUnsupported where that is known at once; else State says so.
	Deploy(ctx context.Context, revisions []string, by string) error
}

// State is how a deployment stands.
type State struct {
	Name      string // ENGINE/NAMESPACE/NAME
	UID       string
	Namespace string   // where its objects go that name none
	Sources   []Source // in its order
	Live      []string // revisions that are deployed, of each source; none before the first sync has ended well
	Head      []string // revisions that git has, as the engine saw them last
	Automated bool     // it syncs by itself
	Synced    bool     // the cluster is as Head says; a sync of Head may have hooks all the same, and Argo CD begin one at the next drift
	Healthy   bool
	Message   string // why it is not Synced or Healthy, and what the engine complains of
	Lost      bool   // the engine cannot read its sources, or what a Restore asked for: the repository is gone, or lacks the revision
	HeadLost  bool   // the engine cannot read what its sources follow; Head is of before
	// The sync that is asked for, under way, or ended last; nil before the first.
	Operation *Operation
}

// Open takes a name, ENGINE/NAMESPACE/NAME, for what it stands for, without asking whether that is there.
func Open(c client.Client, name string) (Deployment, error) {
	op := "deployment " + name
	engine, rest, _ := strings.Cut(name, "/")
	namespace, of, found := strings.Cut(rest, "/")
	if !found || namespace == "" || of == "" || strings.Contains(of, "/") {
		return nil, fault.New(op, fault.ErrInvalid, "ENGINE/NAMESPACE/NAME is expected: argocd/argocd/shop", "")
	}
	switch engine {
	case v1alpha1.EngineArgoCD:
		return argoCD{c, types.NamespacedName{Namespace: namespace, Name: of}}, nil
	case v1alpha1.EngineFlux:
		return flux{c, types.NamespacedName{Namespace: namespace, Name: of}}, nil
	}
	return nil, fault.New(op, fault.ErrUnsupported, fmt.Sprintf("no engine is called %q", engine), "argocd and flux are known")
}

// Find is the whole name of a deployment that a user may call NAME, NAMESPACE/NAME or ENGINE/NAMESPACE/NAME. One that is not there is
// fault.ErrNotFound, one that has several meanings fault.ErrInvalid.
func Find(ctx context.Context, r client.Reader, name string) (string, error) {
	op := "find what deploys " + name
	parts := strings.Split(name, "/")
	key := types.NamespacedName{Name: parts[len(parts)-1]}
	engine := ""
	switch len(parts) {
	case 3:
		engine = parts[0]
		fallthrough
	case 2:
		key.Namespace = parts[len(parts)-2]
	}
	if len(parts) > 3 || slices.Contains(parts, "") {
		return "", fault.New(op, fault.ErrInvalid, "NAME, NAMESPACE/NAME or ENGINE/NAMESPACE/NAME is expected", "")
	}
	var found []string
	for _, kind := range deployingKinds() {
		if engine != "" && engine != kind.engine {
			continue
		}
		names, err := kind.called(ctx, r, key)
		if err != nil {
			return "", fault.Wrap(op, kube.ClassOf(err), err, "")
		}
		found = append(found, names...)
	}
	slices.Sort(found)
	switch found = slices.Compact(found); len(found) {
	case 0:
		return "", fault.New(op, fault.ErrNotFound, "no Application, Kustomization or HelmRelease is called so", "")
	case 1:
		return found[0], nil
	}
	return "", fault.New(op, fault.ErrInvalid, "it may be "+strings.Join(found, " or "), "give the whole name")
}

// deployingKind is a kind of object that stands for a deployment.
type deployingKind struct {
	engine string
	kind   schema.GroupVersionKind
}

func deployingKinds() []deployingKind {
	return []deployingKind{
		{v1alpha1.EngineArgoCD, argoKind("Application")},
		{v1alpha1.EngineFlux, schema.GroupVersionKind{Group: "kustomize.toolkit.fluxcd.io", Version: "v1", Kind: "Kustomization"}},
		{v1alpha1.EngineFlux, schema.GroupVersionKind{Group: "helm.toolkit.fluxcd.io", Version: "v2", Kind: "HelmRelease"}},
	}
}

// called lists the deployments of a name, of all namespaces where it says none. A cluster without the engine has none.
func (k deployingKind) called(ctx context.Context, r client.Reader, name types.NamespacedName) ([]string, error) {
	all := &metav1.PartialObjectMetadataList{}
	all.SetGroupVersionKind(k.kind.GroupVersion().WithKind(k.kind.Kind + "List"))
	err := r.List(ctx, all, client.InNamespace(name.Namespace), client.MatchingFields{metav1.ObjectNameField: name.Name})
	if meta.IsNoMatchError(err) {
		return nil, nil
	}
	var names []string
	for i := range all.Items {
		names = append(names, k.engine+"/"+client.ObjectKeyFromObject(&all.Items[i]).String())
	}
	return names, err
}
