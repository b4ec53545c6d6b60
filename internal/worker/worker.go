// Package worker is what runs in the Jobs that the controller starts: it works on Backups, Restores and Locations, with the cluster on
// one side and a vault on the other. Killed at any instant, it takes the work up again.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/database"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/gitops"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/volume"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/policy"
	"github.com/backstay/backstay/internal/protect"
)

// Options are what a worker needs.
type Options struct {
	Cluster *kube.Cluster
	System  string         // Backstay's own namespace, in which Jobs run
	Name    string         // of the cluster, in points
	Volumes volume.Options // of movers; what belongs to one Backup or Restore is filled in
	// Open opens the vault at a location. With create it is made where there is none.
	Open func(ctx context.Context, l volume.Location, create bool) (Store, error)
	// Signs says why statements of evidence cannot be signed; nil where they can.
	Signs func(ctx context.Context) error
	// Rotate gives the vault at a location the location's other password, unless it has it, and ends a change that was cut short. It
	// reports whether anything was to be done.
	Rotate func(ctx context.Context, l volume.Location) (changed bool, err error)
	// Maintain frees space at an open location and extends locks.
	Maintain func(ctx context.Context, s Store) error
	// Functions are what phases of Blueprints may call, with the rights to act with.
	Functions func(rights *kube.Cluster) []blueprint.Function
	// Repositories backs up the sources of a policy, all of which are repositories or accounts of forges. The report is nil where it did
	// not come to one.
	Repositories func(
		ctx context.Context, p v1alpha1.Policy, s Store, secret func(context.Context, v1alpha1.SecretKeyRef) ([]byte, error), shared *protect.Shared,
	) (*point.Run, error)
	Share Share // of runs
	// Deployment finds what deploys an application out of git; nil for gitops.Open.
	Deployment func(name string) (gitops.Deployment, error)
	// Git fetches a repository, with revisions that no branch reaches where the server has them; StoredGit takes the copy in a point.
	Git       func(ctx context.Context, r Repository, revisions ...string) (History, error)
	StoredGit func(ctx context.Context, stored point.Reader) (History, error)
	// Repository makes the source of a git repository that an application is deployed from; nil to capture none.
	Repository func(r Repository) (RepositorySource, error)
	// Tools run the tools of database servers here; InPod in a container of a pod, with some rights.
	Tools database.Runner
	InPod func(rights *kube.Cluster, namespace, pod, container string) database.Runner
	// Retention reads what a policy says of it.
	Retention func(r *v1alpha1.Retention) (policy.Retention, error)
	Now       protect.Clock
	Log       *slog.Logger
}

// Store is an open vault.
type Store interface {
	protect.Store
	Close(ctx context.Context) error
}

// Worker works on the objects of one cluster.
type Worker struct {
	Options
}

// New makes a worker.
func New(o Options) *Worker { return &Worker{o} }

// keeper makes and removes what an owner's volumes need, for an object of namespace home. series is what the points of one application
// and policy have in common.
func (w *Worker) keeper(home, owner, series string) *volume.Keeper {
	o := w.Volumes
	o.Cluster, o.System, o.Owner, o.Now = w.Cluster, w.System, owner, w.Now
	o.Series = home + " " + series // another's policy of the same name has snapshots of its own
	if home != w.System {
		o.Within = home
	}
	o.Note = func(text string) { w.Log.Info("volumes", "note", text, "owner", owner) }
	return volume.New(o)
}

// Bounds.
const (
	defaultDeadline       = 4 * time.Hour
	defaultServiceAccount = "backstay"
	tidyTime              = 2 * time.Minute // for putting right what a failure left, after the time for the work itself is over
	volumesAtOnce         = 4               // movers of one application
	applicationsAtOnce    = 4               // of one run, unless its policy says otherwise
	maxProblems           = 10              // in a status
	maxProblem            = 1000            // bytes of one
)

// tenant is the cluster with the rights that an object of a namespace gives: the worker's own in Backstay's namespace, else those of a
// service account of that namespace.
func (w *Worker) tenant(namespace, serviceAccount string) (*kube.Cluster, error) {
	if namespace == w.System {
		return w.Cluster, nil
	}
	if serviceAccount == "" {
		serviceAccount = defaultServiceAccount
	}
	return w.Cluster.As(namespace, serviceAccount)
}

// ownVolumes refuses the status of a tenant's object that names claims of other namespaces. Statuses are the worker's alone, but who has
// all rights in a namespace can write them, and claims are captured with the worker's rights.
func (w *Worker) ownVolumes(home string, volumes []v1alpha1.VolumeStatus) error {
	for _, v := range volumes {
		if home != w.System && v.Namespace != home {
			return fault.New("read the status", fault.ErrDenied, fmt.Sprintf("it names claim %s/%s, which is not of namespace %s", v.Namespace, v.Claim, home), "")
		}
	}
	return nil
}

// open opens the vault of a Location. Only the worker reads its secrets, and only for the time of the work.
func (w *Worker) open(ctx context.Context, namespace, name string, create bool) (Store, volume.Location, error) {
	op := fmt.Sprintf("open location %s/%s", namespace, name)
	var l v1alpha1.Location
	if err := w.Cluster.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &l); err != nil {
		return nil, volume.Location{}, fault.Wrap(op, kube.ClassOf(err), err, "create it with `kubectl apply`; docs/kubernetes.md has an example")
	}
	location, err := w.secrets(ctx, &l)
	if err != nil {
		return nil, volume.Location{}, fault.Wrap(op, nil, err, "")
	}
	if namespace != w.System {
		if err := ownCredentials(location); err != nil {
			return nil, volume.Location{}, fault.Wrap(op, nil, err, "")
		}
	}
	store, err := w.Open(ctx, location, create)
	if errors.Is(err, fault.ErrDenied) && location.OtherPassword != "" {
		location.Password, location.OtherPassword = location.OtherPassword, location.Password
		store, err = w.Open(ctx, location, false)
	}
	if errors.Is(err, fault.ErrCorrupt) && location.OtherPassword != "" { // between its two blobs; the location's Job ends the change
		err = fault.New("", fault.ErrUnavailable, "its password is being changed: "+err.Error(), "")
	}
	if err != nil {
		return nil, volume.Location{}, fault.Wrap(op, nil, w.renewed(ctx, &l, location, err), "")
	}
	return store, location, nil
}

// ownCredentials refuses a tenant's location that would be opened with what Backstay's pods themselves are given: the role of a node or
// of a service account, or a file.
func ownCredentials(l volume.Location) error {
	const hint = "locations outside Backstay's own namespace bring credentials of their own: for s3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
	for _, name := range []string{
		"HOME", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_FEDERATED_TOKEN_FILE",
		"BACKSTAY_SFTP_KEYFILE", "BACKSTAY_SFTP_KNOWN_HOSTS",
	} {
		if _, said := l.Credentials[name]; said {
			return fault.New("credential "+name, fault.ErrDenied, "it names a file of Backstay's pods", hint)
		}
	}
	scheme, _, _ := strings.Cut(l.URL, ":")
	switch {
	case scheme == "gs", scheme == "s3" && (l.Credentials["AWS_ACCESS_KEY_ID"] == "" || l.Credentials["AWS_SECRET_ACCESS_KEY"] == ""):
		return fault.New("credentials", fault.ErrDenied, "it brings none, and would be opened with those of Backstay's pods", hint)
	}
	return nil
}

// secrets reads what opens a location.
func (w *Worker) secrets(ctx context.Context, l *v1alpha1.Location) (volume.Location, error) {
	password, err := w.secret(ctx, l.Namespace, l.Spec.Password)
	if err != nil {
		return volume.Location{}, err
	}
	location := volume.Location{URL: l.Spec.URL, Password: password, Credentials: map[string]string{}}
	if l.Spec.NewPassword != nil {
		if location.OtherPassword, err = w.secret(ctx, l.Namespace, *l.Spec.NewPassword); err != nil {
			return volume.Location{}, err
		}
	}
	for name, s := range l.Spec.Credentials {
		if location.Credentials[name], err = w.secret(ctx, l.Namespace, s); err != nil {
			return volume.Location{}, err
		}
	}
	return location, nil
}

func (w *Worker) secret(ctx context.Context, namespace string, s v1alpha1.Secret) (string, error) {
	if s.SecretKeyRef == nil {
		return "", fault.New("read secret", fault.ErrInvalid, "on a cluster secrets are in Secrets", "say secretKeyRef: {name: NAME, key: KEY}")
	}
	op := fmt.Sprintf("read key %s of secret %s/%s", s.SecretKeyRef.Key, namespace, s.SecretKeyRef.Name)
	var secret corev1.Secret
	if err := w.Cluster.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: s.SecretKeyRef.Name}, &secret); err != nil {
		return "", fault.Wrap(op, kube.ClassOf(err), err, "")
	}
	value, found := secret.Data[s.SecretKeyRef.Key]
	if !found {
		return "", fault.New(op, fault.ErrNotFound, "the secret has no such key", "")
	}
	return string(value), nil
}

// persist writes an object's status, and goes on trying while the API server is away: what the status says must not be lost. change is
// made anew on what is there, so that others may write beside; its error ends the attempt.
func (w *Worker) persist(ctx context.Context, o client.Object, change func() error) error {
	if err := change(); err != nil {
		return err
	}
	op := "write status of " + o.GetName()
	for wait := 500 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		err := w.Cluster.Client.Status().Update(ctx, o)
		if apierrors.IsConflict(err) {
			if err = kube.Refresh(ctx, w.Cluster.Client, o); err == nil {
				if err := change(); err != nil {
					return err
				}
				continue
			}
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !kube.Transient(err):
			return fault.Wrap(op, kube.ClassOf(err), err, "")
		}
		w.Log.Warn("the API server does not answer; trying again", "error", err.Error())
		if err := kube.Pause(ctx, wait); err != nil {
			return context.Cause(ctx)
		}
	}
}

// limit is the time that work may take, counted from its first process.
func (w *Worker) limit(ctx context.Context, op string, started *metav1.Time, span string) (context.Context, context.CancelFunc) {
	deadline, begun := defaultDeadline, w.Now()
	if d, err := time.ParseDuration(span); err == nil && d > 0 {
		deadline = d
	}
	if started != nil {
		begun = started.Time
	}
	return context.WithDeadlineCause(ctx, begun.Add(deadline), &tooLong{op, deadline})
}

func sortedKeys(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }
