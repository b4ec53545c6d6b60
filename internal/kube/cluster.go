// Package kube knows Kubernetes: how a cluster is reached, what an application on it is, and how its objects are captured.
package kube

import (
	"context"
	"fmt"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// Cluster is a connection to a cluster, with the rights of one user. Safe for concurrent use.
type Cluster struct {
	Config    *rest.Config
	Client    client.Client // reads and writes at the API server, without a cache; knows core kinds, snapshots and Backstay's own
	Discovery discovery.CachedDiscoveryInterface
	Clock     func() time.Time // time.Now where nil

	process *Cluster // the cluster with the process's own rights, where these are those of another
	known   []Kinds  // by Client, besides those of Scheme
}

// Kinds makes kinds known by their types.
type Kinds func(*runtime.Scheme) error

// own is the cluster with the process's own rights.
func (c *Cluster) own() *Cluster {
	if c.process != nil {
		return c.process
	}
	return c
}

func (c *Cluster) now() time.Time {
	if c.Clock != nil {
		return c.Clock()
	}
	return time.Now() //nolint:forbidigo // the default; tests give another
}

// Requests a second that one process may make, and how many at once, before it slows down by itself.
const (
	queriesPerSecond = 500
	burst            = 1000
)

// Scheme knows the kinds that Backstay uses by their types, and more.
func Scheme(more ...Kinds) (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, add := range append([]Kinds{clientscheme.AddToScheme, snapshotv1.AddToScheme, v1alpha1.AddToScheme}, more...) {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("build scheme: %w", err)
		}
	}
	return s, nil
}

// Connect reaches the cluster of a kubeconfig file and one of its contexts. With neither said it is the cluster that the process runs
// on, else what kubectl would take. An error is fault.ErrInvalid.
func Connect(kubeconfig, contextName string, more ...Kinds) (*Cluster, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: contextName}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
	if err != nil {
		return nil, fault.Wrap("connect to the cluster", fault.ErrInvalid, err, "name a kubeconfig file with --kubeconfig or KUBECONFIG")
	}
	config.Wrap(awaitStart)
	return New(config, more...)
}

// New reaches the cluster that config says. Its Client knows more kinds besides those of Scheme.
func New(config *rest.Config, more ...Kinds) (*Cluster, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = queriesPerSecond, burst
	config.WarningHandler = rest.NoWarnings{}
	scheme, err := Scheme(more...)
	if err != nil {
		return nil, err
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fault.Wrap("connect to the cluster", fault.ErrUnavailable, err, "")
	}
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fault.Wrap("connect to the cluster", fault.ErrInvalid, err, "")
	}
	return &Cluster{Config: config, Client: c, Discovery: memory.NewMemCacheClient(d), known: more}, nil
}

// As is the same cluster with the rights of a service account. The API server adds the groups of service accounts by itself; to name
// them would ask for the right to be any group.
func (c *Cluster) As(namespace, serviceAccount string) (*Cluster, error) {
	config := rest.CopyConfig(c.Config)
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + namespace + ":" + serviceAccount,
	}
	as, err := New(config, c.known...)
	if err != nil {
		return nil, err
	}
	as.Clock, as.process = c.Clock, c.own()
	return as, nil
}

// Name tells clusters apart that share a vault: the first eight digits of the uid of the namespace kube-system. Clusters that are
// given a name of their own do not ask.
func (c *Cluster) Name(ctx context.Context) (string, error) {
	var ns corev1.Namespace
	if err := c.Client.Get(ctx, client.ObjectKey{Name: "kube-system"}, &ns); err != nil {
		return "", fmt.Errorf("read namespace kube-system: %w", err)
	}
	const digits = 8
	return "cluster-" + string(ns.UID)[:min(digits, len(ns.UID))], nil
}
