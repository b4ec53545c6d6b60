package volume

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// Options of New. Cluster, System, Owner and Now must be said; without Image no mover can run.
type Options struct {
	Cluster *kube.Cluster // with the worker's own rights
	System  string        // Backstay's own namespace: clones, movers and their Secrets are there
	Owner   string        // uid of the Backup or Restore
	Series  string        // what the points of one application and policy have in common; KeepNewest counts within it
	Within  string        // the only namespace whose kept snapshots are seen; empty: all
	Now     func() time.Time
	Note    func(text string) // is told what is worth a line in a log and changes no result; nil: nobody is

	// Of mover pods.
	Image          string
	PullPolicy     corev1.PullPolicy
	PullSecrets    []corev1.LocalObjectReference
	ServiceAccount string                      // has no token in them; default: the namespace's default
	Resources      corev1.ResourceRequirements // default: 100m and 128Mi requested, at most 512Mi
	NodeSelector   map[string]string
	Tolerations    []corev1.Toleration
	KubeletDir     string // default /var/lib/kubelet

	CutDeadline   time.Duration // until all snapshots are cut, while the application is at rest; default 2m
	ReadyDeadline time.Duration // until a snapshot that is cut can be read, or one that is deleted is gone; default 2h
	StartDeadline time.Duration // until a mover whose claims are there runs; default 10m
	MoveDeadline  time.Duration // of a mover that reads a volume; default 24h
	Poll          time.Duration // how often the cluster is asked at first; default 200ms
}

// Keeper makes the snapshots, clones and movers of one Backup or Restore, and removes them. What it makes has names that follow from
// the owner's uid, and carries LabelOwner: a Keeper of the same owner in another process goes on where this one was killed, and Tidy
// finds what nobody goes on with. Safe for concurrent use.
type Keeper struct {
	Options

	mu      sync.Mutex
	planned map[claimKey]source // by Plan, for Snapshot
}

// claimKey names a claim.
type claimKey struct{ namespace, name string }

func keyOf(v v1alpha1.VolumeStatus) claimKey { return claimKey{v.Namespace, v.Claim} }

// Defaults of Options.
const (
	defaultCut     = 2 * time.Minute
	defaultReady   = 2 * time.Hour
	defaultStart   = 10 * time.Minute
	defaultMove    = 24 * time.Hour
	defaultPoll    = 200 * time.Millisecond
	defaultKubelet = "/var/lib/kubelet"
)

// New makes a Keeper and fills in the defaults of its options.
func New(o Options) *Keeper {
	for value, standard := range map[*time.Duration]time.Duration{
		&o.CutDeadline: defaultCut, &o.ReadyDeadline: defaultReady, &o.StartDeadline: defaultStart,
		&o.MoveDeadline: defaultMove, &o.Poll: defaultPoll,
	} {
		if *value == 0 {
			*value = standard
		}
	}
	if o.KubeletDir == "" {
		o.KubeletDir = defaultKubelet
	}
	if o.Note == nil {
		o.Note = func(string) {}
	}
	if o.Resources.Limits == nil && o.Resources.Requests == nil {
		o.Resources = defaultResources()
	}
	return &Keeper{Options: o, planned: map[claimKey]source{}}
}

// Name is the name of everything that is made for a claim: the same in every process that works for this owner.
func (k *Keeper) Name(namespace, claim string) string {
	return k.prefix() + digest(namespace+"/"+claim)
}

const uidDigits = 8

func (k *Keeper) prefix() string {
	return "backstay-" + k.Owner[:min(uidDigits, len(k.Owner))] + "-"
}

// digest is a short name of something whose own name is too long, or of the wrong letters.
func digest(text string) string {
	const length = 6 // bytes
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:length])
}

// labels of what is made for one claim of the owner.
func (k *Keeper) labels(namespace, claim string) map[string]string {
	return map[string]string{v1alpha1.LabelOwner: k.Owner, v1alpha1.LabelClaim: digest(namespace + "/" + claim)}
}

// meta of what is made for one claim in Backstay's own namespace.
func (k *Keeper) meta(namespace, claim string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: k.System, Name: k.Name(namespace, claim), Labels: k.labels(namespace, claim)}
}

// ensure creates an object, or finds the one that this owner made under its name before. One that is on its way out is waited for. An
// object of the name that is somebody else's is fault.ErrExists.
func ensure[T client.Object](ctx context.Context, k *Keeper, wanted T) (T, error) {
	var found T
	err := k.await(ctx, k.ReadyDeadline, "create "+describe(wanted), func(ctx context.Context) (bool, error) {
		fresh, ok := wanted.DeepCopyObject().(T)
		if !ok {
			return false, fault.New("", fault.ErrInvalid, "a copy of another type", "")
		}
		found = fresh
		err := k.Cluster.Client.Create(ctx, found)
		if !apierrors.IsAlreadyExists(err) {
			return err == nil, err
		}
		if err := k.Cluster.Client.Get(ctx, client.ObjectKeyFromObject(wanted), found); err != nil {
			return false, client.IgnoreNotFound(err)
		}
		if found.GetLabels()[v1alpha1.LabelOwner] != k.Owner {
			return false, fault.New("", fault.ErrExists, "there is one that belongs to somebody else", "")
		}
		return found.GetDeletionTimestamp() == nil, nil
	})
	return found, err
}
