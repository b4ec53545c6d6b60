package gitops

import (
	"context"
	"fmt"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
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
	// Stop ends a sync that is under way, and waits until it has ended. One that was asked for by by goes on.
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
	Synced    bool     // the cluster is as Head says
	Healthy   bool
	Message   string // why it is not Synced or Healthy, and what the engine complains of
	Lost      bool   // the engine cannot read its sources: the repository is gone, or does not have the revision
	// The sync that is asked for, under way, or ended last; nil before the first.
	Operation *Operation
}

// Open finds what a name, ENGINE/NAMESPACE/NAME, stands for. What is not there is fault.ErrNotFound.
func Open(_ client.Client, name string) (Deployment, error) {
	engine, rest, _ := strings.Cut(name, "/")
	namespace, of, found := strings.Cut(rest, "/")
	if !found || namespace == "" || of == "" {
		return nil, fault.New("deployment "+name, fault.ErrInvalid, "ENGINE/NAMESPACE/NAME is expected: argocd/argocd/shop", "")
	}
	return nil, fault.New("deployment "+name, fault.ErrUnsupported, fmt.Sprintf("no engine is called %q", engine), "argocd and flux are known")
}
