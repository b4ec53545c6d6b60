package cli

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/backstay/backstay/internal/controller"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/notify"
)

const controllerHelp = `
Controller keeps what Locations, Policies, Backups, RestorePoints and Restores of a cluster ask for. It starts Jobs that do the work, and
moves no data itself. Of several, one leads and the others wait.`

const controllerExample = `  backstay controller --image registry.example/backstay:1.0
  backstay controller --image backstay:dev --kubeconfig ~/.kube/config --leader-elect=false`

// podNamespace is where a pod finds the name of its namespace.
const podNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

type controllerOptions struct {
	cluster     clusterOptions
	system      string
	pullPolicy  string
	pullSecrets []string
	clusterName string
	memory      string
	kubeletDir  string
	run         controller.Options
}

func newControllerCommand(a *app) *cobra.Command {
	var o controllerOptions
	cmd := &cobra.Command{
		Use:     "controller",
		Short:   "Keep what the objects of a cluster ask for",
		Long:    exits(controllerHelp),
		Example: controllerExample,
		GroupID: groupPolicies,
		Args:    takes(0, 0),
		RunE:    a.runs(func(ctx context.Context, _ []string) error { return a.controller(ctx, o) }),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&o.system, "system-namespace", "", "`NAMESPACE` of Backstay's own, in which Jobs run (default: the pod's, else "+defaultNamespace+")")
	flags.StringVar(&o.run.Image, "image", "", "`IMAGE` of the Jobs: this program's")
	flags.StringVar(&o.pullPolicy, "image-pull-policy", "", "when it is pulled: Always, IfNotPresent or Never")
	flags.StringArrayVar(&o.pullSecrets, "image-pull-secret", nil, "`NAME` of a Secret for pulling it; may be repeated")
	flags.StringVar(&o.run.ServiceAccount, "service-account", "backstay-worker", "`NAME` of the service account that the Jobs have")
	flags.StringVar(&o.clusterName, "cluster-name", "", "`NAME` of the cluster in points (default: from the uid of kube-system)")
	flags.IntVar(&o.run.JobsAtOnce, "parallel-jobs", 0, "Jobs of one kind (backup, restore, location) at once, and five times as many ActionSets (default 2)")
	flags.IntVar(&o.run.MaxJobs, "max-jobs", 0, "Jobs of all kinds at once, but for those that a sync waits for (default: no bound)")
	flags.IntVar(&o.run.JobsPerNamespace, "max-jobs-per-namespace", 0, "Jobs of one kind at once for one namespace beside Backstay's own (default: no bound)")
	flags.IntVar(&o.run.MaxShards, "max-shards", 0, "pods that share the work of a run whose policy says shards (default 8, at most 16)")
	flags.DurationVar(&o.run.LocationEvery, "location-every", 0, "`SPAN` between two looks at a location (default 1h)")
	flags.DurationVar(&o.run.TidyEvery, "tidy-every", 0, "`SPAN` between two searches for what ended work left (default 1h)")
	flags.StringSliceVar(&o.run.ForeignActionSets, "foreign-actionsets", []string{"kanister", "kasten-io"}, "`NAMESPACES` whose ActionSets another runs")
	flags.StringVar(&o.memory, "mover-memory", "", "the most `MEMORY` that a pod that moves data may take (default 512Mi)")
	flags.StringVar(&o.kubeletDir, "kubelet-dir", "", "`DIR` of the kubelet on the nodes, for volumes that are read live")
	flags.BoolVar(&o.run.LeaderElect, "leader-elect", true, "work only while holding the Lease backstay-controller")
	flags.StringVar(&o.run.Metrics, "metrics-listen", "", "serve metrics at http://`HOST:PORT`/metrics")
	flags.StringVar(&o.run.Health, "health-listen", "", "serve /healthz and /readyz at `HOST:PORT`")
	flags.StringVar(&o.run.Webhook, "webhook-listen", "", "answer the API server at https://`HOST:PORT` before syncs of Argo CD begin")
	flags.StringVar(&o.cluster.kubeconfig, "kubeconfig", "", "reach the cluster as `FILE` says (default $KUBECONFIG, then ~/.kube/config, then the pod's own)")
	flags.StringVar(&o.cluster.context, "context", "", "use the `CONTEXT` of that file")
	return cmd
}

func (a *app) controller(ctx context.Context, o controllerOptions) error {
	if o.run.Image == "" {
		return fault.New("controller", fault.ErrInvalid, "no image is said", "give --image, the one that this program is in")
	}
	cluster, err := kube.Connect(o.cluster.kubeconfig, o.cluster.context)
	if err != nil {
		return err
	}
	run := o.run
	run.Cluster, run.System, run.Now = cluster, cmp.Or(o.system, ownNamespace(podNamespace), defaultNamespace), a.Clock
	run.PullPolicy = corev1.PullPolicy(o.pullPolicy)
	for _, name := range o.pullSecrets {
		run.PullSecrets = append(run.PullSecrets, corev1.LocalObjectReference{Name: name})
	}
	run.WorkerFlags = o.workerFlags(run.System)
	level := slog.LevelInfo
	if a.global.quiet {
		level = slog.LevelWarn
	}
	run.Log = notify.NewLogger(a.Stderr, notify.LogOptions{JSON: a.told.json, Level: level, Secrets: &notify.Secrets{}})
	return controller.Run(ctx, run)
}

// workerFlags is what every worker is told beside its work.
func (o controllerOptions) workerFlags(system string) []string {
	var flags []string
	for _, name := range o.pullSecrets {
		flags = append(flags, "--image-pull-secret="+name)
	}
	for _, f := range [][2]string{
		{"system-namespace", system},
		{"image", o.run.Image},
		{"image-pull-policy", o.pullPolicy},
		{"cluster-name", o.clusterName},
		{"mover-memory", o.memory},
		{"kubelet-dir", o.kubeletDir},
	} {
		if f[1] != "" {
			flags = append(flags, "--"+f[0]+"="+f[1])
		}
	}
	return flags
}

// ownNamespace reads the name of the pod's namespace; empty outside a pod.
func ownNamespace(file string) string {
	name, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}
