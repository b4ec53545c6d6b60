package function

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// outputReplicas is how many pods a workload had before it was scaled.
const outputReplicas = "originalReplicaCount"

// scaleFunction is ScaleWorkload. What is saved before it scales lets it be run again.
func (o Options) scaleFunction() blueprint.Function {
	return blueprint.Function{
		Name: "ScaleWorkload", Interrupted: blueprint.Repeats, Run: o.scale,
		Required: []string{"replicas"}, Optional: []string{"namespace", "name", "kind", "waitForReady"},
	}
}

// scale gives a workload another number of pods: the one that is named, or the object of the action.
func (o Options) scale(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	args := arguments(c.Args)
	wait, err := args.flag("waitForReady", true)
	if err != nil {
		return nil, err
	}
	text, err := args.text("replicas")
	if err != nil {
		return nil, err
	}
	replicas, err := strconv.ParseInt(strings.TrimSpace(text), 10, 32)
	if err != nil || replicas < 0 {
		return nil, args.wrong("replicas", "a number of pods")
	}
	workload, err := workloadToScale(c)
	if err != nil {
		return nil, err
	}
	op := fmt.Sprintf("scale %s %s/%s", strings.ToLower(workload.GetKind()), workload.GetNamespace(), workload.GetName())
	output, err := o.replicasBefore(ctx, c, workload)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	if err := o.setReplicas(ctx, workload, replicas); err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	if wait {
		err = o.scaled(ctx, workload, replicas)
	}
	return output, fault.Wrap(op, nil, err, "")
}

// workloadToScale names the workload, not read yet.
func workloadToScale(c blueprint.Call) (*unstructured.Unstructured, error) {
	var kind string
	var defaults blueprint.WorkloadParams
	switch p := c.Params; {
	case p.StatefulSet != nil:
		kind, defaults = "statefulset", *p.StatefulSet
	case p.Deployment != nil:
		kind, defaults = "deployment", *p.Deployment
	case p.DeploymentConfig != nil:
		kind, defaults = "deploymentconfig", *p.DeploymentConfig
	}
	a := &reader{of: c.Args}
	kind = strings.ToLower(a.textOr("kind", kind))
	name, namespace := a.textOr("name", defaults.Name), a.textOr("namespace", defaults.Namespace)
	if a.err != nil {
		return nil, a.err
	}
	if kind == "" || name == "" || namespace == "" {
		return nil, fault.New("find the workload", fault.ErrInvalid, "the object of the action is none", "name it by the arguments kind, name and namespace")
	}
	u := &unstructured.Unstructured{}
	switch kind {
	case "statefulset":
		u.SetGroupVersionKind(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "StatefulSet"})
	case "deployment":
		u.SetGroupVersionKind(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"})
	case "deploymentconfig":
		u.SetGroupVersionKind(schema.GroupVersionKind{Group: "apps.openshift.io", Version: "v1", Kind: "DeploymentConfig"})
	default:
		return nil, fault.New("argument kind", fault.ErrInvalid, fmt.Sprintf("%.64q is not deployment, statefulset or deploymentconfig", kind), "")
	}
	u.SetName(name)
	u.SetNamespace(namespace)
	return u, nil
}

// replicasBefore is the output: what was saved by the run that was interrupted, for now the workload may be scaled already. Else it is
// saved here.
func (o Options) replicasBefore(ctx context.Context, c blueprint.Call, workload *unstructured.Unstructured) (map[string]any, error) {
	if before, there := c.Saved[outputReplicas]; there {
		return map[string]any{outputReplicas: before}, nil
	}
	err := o.call(ctx, func(ctx context.Context) error { return o.read(ctx, workload) })
	if err != nil {
		return nil, err
	}
	before, found, err := unstructured.NestedInt64(workload.Object, "spec", "replicas")
	if err != nil {
		return nil, fault.Wrap("read its replicas", fault.ErrInvalid, err, "")
	}
	if !found {
		before = 1 // as Kubernetes has it
	}
	output := map[string]any{outputReplicas: before}
	return output, c.Save(ctx, maps.Clone(output))
}

func (o Options) read(ctx context.Context, u *unstructured.Unstructured) error {
	return kube.Refresh(ctx, o.Cluster.Client, u)
}

func (o Options) setReplicas(ctx context.Context, workload *unstructured.Unstructured, replicas int64) error {
	scale := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": map[string]any{"replicas": replicas},
		"metadata": map[string]any{"namespace": workload.GetNamespace(), "name": workload.GetName()},
	}}
	return o.call(ctx, func(ctx context.Context) error {
		return o.Cluster.Client.SubResource("scale").Update(ctx, workload, client.WithSubResourceBody(scale.DeepCopy()))
	})
}

// scaled waits until a workload has its pods, all of them ready, and no others: also those that are about to end hold their volumes.
func (o Options) scaled(ctx context.Context, workload *unstructured.Unstructured, replicas int64) error {
	var state string
	err := o.await(ctx, func(ctx context.Context) (bool, error) {
		if err := o.read(ctx, workload); err != nil {
			return false, err
		}
		seen, _, _ := unstructured.NestedInt64(workload.Object, "status", "observedGeneration")
		there, _, _ := unstructured.NestedInt64(workload.Object, "status", "replicas")
		ready, _, _ := unstructured.NestedInt64(workload.Object, "status", "readyReplicas")
		state = fmt.Sprintf("%d pods, %d of them ready", there, ready)
		if seen < workload.GetGeneration() || there != replicas || ready != replicas {
			return false, nil
		}
		left, err := o.podsLeft(ctx, workload)
		state = fmt.Sprintf("%d pods are left", left)
		return err == nil && int64(left) <= replicas, err
	})
	if err != nil && ctx.Err() != nil {
		return fault.Wrap("", nil, fmt.Errorf("it has %s, and should have %d: %w", state, replicas, err), "")
	}
	return err
}

// podsLeft counts the pods of a workload that have not ended.
func (o Options) podsLeft(ctx context.Context, workload *unstructured.Unstructured) (int, error) {
	selector, err := podSelector(workload)
	if err != nil {
		return 0, err
	}
	var pods corev1.PodList
	err = o.Cluster.Client.List(ctx, &pods, client.InNamespace(workload.GetNamespace()), client.MatchingLabelsSelector{Selector: selector})
	if err != nil {
		return 0, err
	}
	count := 0
	for _, pod := range pods.Items {
		if !over(&pod) && belongs(&pod, workload) {
			count++
		}
	}
	return count, nil
}

// podSelector chooses a workload's pods. A DeploymentConfig's is labels alone.
func podSelector(workload *unstructured.Unstructured) (labels.Selector, error) {
	const op = "read its selector"
	fields, _, err := unstructured.NestedMap(workload.Object, "spec", "selector")
	if err != nil {
		return nil, fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	if workload.GetKind() == "DeploymentConfig" {
		fields = map[string]any{"matchLabels": fields}
	}
	var selector metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(fields, &selector); err != nil {
		return nil, fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	chosen, err := metav1.LabelSelectorAsSelector(&selector)
	return chosen, fault.Wrap(op, fault.ErrInvalid, err, "")
}

// belongs reports whether a pod was made for a workload, and not for another one with the same labels: by a set of its name, but for
// StatefulSets, which make theirs themselves.
func belongs(pod *corev1.Pod, workload *unstructured.Unstructured) bool {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return false
	}
	return owner.UID == workload.GetUID() ||
		(owner.Kind == "ReplicaSet" || owner.Kind == "ReplicationController") && strings.HasPrefix(owner.Name, workload.GetName()+"-")
}
