package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/blueprint/function"
	"github.com/backstay/backstay/internal/database"
	"github.com/backstay/backstay/internal/evidence"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/kando"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/volume"
	"github.com/backstay/backstay/internal/notify"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
	"github.com/backstay/backstay/internal/vault"
	"github.com/backstay/backstay/internal/worker"
)

// actionsAccount is the service account of pods that phases of Blueprints make in Backstay's own namespace. It has no rights but those that
// the administrator gives it.
const actionsAccount = "backstay-actions"

// workerOptions are the flags of the Jobs that the controller starts.
type workerOptions struct {
	cluster     clusterOptions // whose namespace is that of the objects worked on
	run         string
	system      string
	clusterName string
	image       string
	pullPolicy  string
	pullSecrets []string
	memory      string
	kubeletDir  string
	shards      int
	job         string
}

func newWorkerCommand(a *app) *cobra.Command {
	var o workerOptions
	cmd := &cobra.Command{
		Use:    "worker",
		Short:  "Work on objects of the cluster; the controller starts it in Jobs",
		Hidden: true,
		Args:   subcommandOnly,
		RunE:   showHelp,
	}
	flags := cmd.PersistentFlags()
	o.cluster.bind(flags)
	flags.StringVar(&o.system, "system-namespace", defaultNamespace, "`NAMESPACE` that Jobs run in")
	flags.StringVar(&o.clusterName, "cluster-name", "", "`NAME` of the cluster in points (default: from the uid of kube-system)")
	flags.StringVar(&o.image, "image", "", "`IMAGE` of the pods that read and fill volumes")
	flags.StringVar(&o.pullPolicy, "image-pull-policy", "", "when it is pulled: Always, IfNotPresent or Never")
	flags.StringArrayVar(&o.pullSecrets, "image-pull-secret", nil, "`NAME` of a Secret for pulling it; may be repeated")
	flags.StringVar(&o.memory, "mover-memory", "512Mi", "the most memory that such a pod may take")
	flags.StringVar(&o.kubeletDir, "kubelet-dir", "", "`DIR` of the kubelet on the nodes, for volumes that are read live (default /var/lib/kubelet)")
	add := func(use, short string, args cobra.PositionalArgs, run func(ctx context.Context, w *worker.Worker, args []string) error) *cobra.Command {
		sub := &cobra.Command{Use: use, Short: short, Args: args, RunE: a.runs(func(ctx context.Context, args []string) error {
			w, err := a.newWorker(ctx, o)
			if err != nil {
				return err
			}
			return run(ctx, w, args)
		})}
		cmd.AddCommand(sub)
		return sub
	}
	backup := add("backup", "Work on the Backups of a run", takes(0, 0), func(ctx context.Context, w *worker.Worker, _ []string) error {
		return w.Backup(ctx, o.cluster.namespace, o.run)
	})
	backup.Flags().StringVar(&o.run, "run", "", "the `RUN` that the Backups are labelled with")
	backup.Flags().StringVar(&o.job, "job", "", "the `JOB` that this is a pod of: it is told there when others wait")
	backup.Flags().IntVar(&o.shards, "shards", 0, "how many such processes there are, told apart by $"+envIndex)
	add("restore NAMESPACE/NAME", "Work on a Restore", takes(1, 1), func(ctx context.Context, w *worker.Worker, args []string) error {
		namespace, name, err := namespaced(args[0])
		if err != nil {
			return err
		}
		return w.Restore(ctx, namespace, name)
	})
	add("drill NAMESPACE/NAME", "Work on a Drill", takes(1, 1), func(ctx context.Context, w *worker.Worker, args []string) error {
		namespace, name, err := namespaced(args[0])
		if err != nil {
			return err
		}
		return w.Drill(ctx, namespace, name)
	})
	var force bool
	release := add("release NAMESPACE/NAME", "Let syncs go that a Restore holds off", takes(1, 1), func(ctx context.Context, w *worker.Worker, args []string) error {
		namespace, name, err := namespaced(args[0])
		if err != nil {
			return err
		}
		return w.Release(ctx, namespace, name, force)
	})
	release.Flags().BoolVar(&force, "force", false, "whatever git has")
	add("location NAMESPACE/NAME", "Bring a Location and its RestorePoints in line", takes(1, 1), func(ctx context.Context, w *worker.Worker, args []string) error {
		namespace, name, err := namespaced(args[0])
		if err != nil {
			return err
		}
		return w.Location(ctx, namespace, name)
	})
	add("actions NAMESPACE/NAME", "Run the actions of an ActionSet", takes(1, 1), func(ctx context.Context, w *worker.Worker, args []string) error {
		namespace, name, err := namespaced(args[0])
		if err != nil {
			return err
		}
		return w.Actions(ctx, namespace, name)
	})
	add("tidy", "Remove what ended work left", takes(0, 0), func(ctx context.Context, w *worker.Worker, _ []string) error { return w.Tidy(ctx) })
	return cmd
}

// namespaced splits NAMESPACE/NAME.
func namespaced(argument string) (namespace, name string, err error) {
	namespace, name, found := strings.Cut(argument, "/")
	if !found || namespace == "" || name == "" {
		return "", "", fault.New("arguments", fault.ErrInvalid, argument+" is no NAMESPACE/NAME", "")
	}
	return namespace, name, nil
}

// envIndex is where Kubernetes tells the pods of an Indexed Job apart.
const envIndex = "JOB_COMPLETION_INDEX"

// share is the share of this process in the work.
func (a *app) share(o workerOptions) (worker.Share, error) {
	if o.shards <= 1 {
		return worker.Share{Job: o.job}, nil
	}
	index, err := strconv.Atoi(a.Getenv(envIndex))
	if err != nil || index < 0 || index >= o.shards {
		return worker.Share{}, fault.New("$"+envIndex, fault.ErrInvalid, fmt.Sprintf("%q is none of %d shards", a.Getenv(envIndex), o.shards), "")
	}
	return worker.Share{Index: index, Of: o.shards, Job: o.job}, nil
}

func (a *app) newWorker(ctx context.Context, o workerOptions) (*worker.Worker, error) {
	share, err := a.share(o)
	if err != nil {
		return nil, err
	}
	cluster, err := kube.Connect(o.cluster.kubeconfig, o.cluster.context, blueprint.AddToScheme)
	if err != nil {
		return nil, err
	}
	if o.clusterName == "" {
		if o.clusterName, err = cluster.Name(ctx); err != nil {
			return nil, answer("name the cluster", err)
		}
	}
	memory, err := resource.ParseQuantity(o.memory)
	if err != nil {
		return nil, fault.Wrap("--mover-memory", fault.ErrInvalid, err, "")
	}
	movers := volume.Options{
		Image: o.image, PullPolicy: corev1.PullPolicy(o.pullPolicy), KubeletDir: o.kubeletDir,
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceMemory: memory},
		},
	}
	for _, name := range o.pullSecrets {
		movers.PullSecrets = append(movers.PullSecrets, corev1.LocalObjectReference{Name: name})
	}
	secrets := &notify.Secrets{}
	sign := once(func(ctx context.Context) (*evidence.Key, error) {
		return clusterEvidenceKey(ctx, cluster.Client, o.system)
	})
	log := notify.NewLogger(a.Stderr, notify.LogOptions{JSON: a.told.json, Level: slog.LevelInfo, Secrets: secrets})
	return worker.New(worker.Options{
		Cluster: cluster, System: o.system, Name: o.clusterName, Volumes: movers, Now: a.Clock, Log: log, Retention: retention,
		Share: share,
		Tools: database.Local{}, InPod: worker.InPod,
		Functions: func(rights *kube.Cluster) []blueprint.Function {
			return function.All(function.Options{
				Cluster: rights, System: o.system, ServiceAccount: actionsAccount, Image: o.image, Location: openProfile, Now: a.Clock,
			})
		},
		Open: func(ctx context.Context, l volume.Location, create bool) (worker.Store, error) {
			return a.openCarried(ctx, l, secrets, sign, create)
		},
		Signs: func(ctx context.Context) error { _, err := sign(ctx); return err },
		Rotate: func(ctx context.Context, l volume.Location) (bool, error) {
			location, err := vault.ParseLocation(l.URL)
			if err != nil {
				return false, err
			}
			old, fresh := fault.Secret(l.Password), fault.Secret(l.OtherPassword)
			secrets.Add(old)
			secrets.Add(fresh)
			options := a.vaultOptions()
			options.Env = func(name string) string { return l.Credentials[name] }
			return vault.Rotate(ctx, location, old, fresh, options)
		},
		Repositories: func(
			ctx context.Context, p v1alpha1.Policy, s worker.Store, secret func(context.Context, v1alpha1.SecretKeyRef) ([]byte, error),
			shared *protect.Shared,
		) (*point.Run, error) {
			b := &builder{
				app: a, secrets: secrets, budget: &forge.Budget{}, observe: func(point.Event) {}, key: secret,
				warn: func(message string) { tell(log, slog.LevelWarn, message) },
			}
			return b.run(ctx, p, s, shared, log)
		},
		Git: func(ctx context.Context, r worker.Repository, revisions ...string) (worker.History, error) {
			return a.fetch(ctx, r, secrets, revisions)
		},
		StoredGit: func(ctx context.Context, stored point.Reader) (worker.History, error) {
			h, err := git.OpenHistory(ctx, stored, "", git.Limits{})
			if err != nil {
				return nil, err
			}
			return history{History: h, remove: func() error { return nil }}, nil
		},
		Repository: func(r worker.Repository) (worker.RepositorySource, error) { return a.deployedRepository(r, secrets) },
		Maintain: func(ctx context.Context, s worker.Store) error {
			v, is := s.(*vault.Vault)
			if !is {
				return nil
			}
			if _, err := protect.Compact(ctx, v, compactors(), false); err != nil {
				return err
			}
			_, err := v.Maintain(ctx, vault.MaintainOptions{})
			return err
		},
	}), nil
}

// openCarried opens the vault at a location that comes with its secrets. With create it is made where there is none.
func (a *app) openCarried(
	ctx context.Context, l volume.Location, secrets *notify.Secrets, sign func(context.Context) (*evidence.Key, error), create bool,
) (store, error) {
	location, err := vault.ParseLocation(l.URL)
	if err != nil {
		return nil, err
	}
	password := fault.Secret(l.Password)
	secrets.Add(password)
	for _, value := range l.Credentials {
		secrets.Add(fault.Secret(value))
	}
	o := a.vaultOptions()
	o.Evidence = sign
	o.Env = func(name string) string { return l.Credentials[name] } // nothing of the process's own: it may be another's
	v, err := vault.Open(ctx, location, password, o)
	if err == nil {
		return v, nil
	}
	if !create || !errors.Is(err, fault.ErrNotFound) {
		return nil, err
	}
	if err := vault.Create(ctx, location, password, o); err != nil && !errors.Is(err, fault.ErrExists) { // another may have been first
		return nil, err
	}
	if v, err = vault.Open(ctx, location, password, o); err != nil {
		return nil, err
	}
	return v, nil
}

// openProfile opens the place of a profile. The worker's environment is none of its credentials.
func openProfile(profile []byte) (function.Store, error) {
	var d kando.Document
	if err := json.Unmarshal(profile, &d); err != nil {
		return nil, fault.New("read the profile", fault.ErrInvalid, "it is no profile", "") // the cause might show a secret
	}
	return kando.Open(d, func(string) string { return "" })
}
