package function

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

const (
	// readyPatience is how long a pod may take to be ready for a command.
	readyPatience = 5 * time.Minute
	// mostContainers is how many containers one command runs in.
	mostContainers = 500

	defaultContainer = "kubectl.kubernetes.io/default-container"
)

// kubeExec runs a command in a container that is there.
func (o Options) kubeExec(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	args := arguments(c.Args)
	where, err := args.texts("namespace", "pod", "container")
	if err != nil {
		return nil, err
	}
	command, err := args.list("command")
	if err != nil {
		return nil, err
	}
	return o.execIn(ctx, c, kube.Command{Namespace: where[0], Pod: where[1], Container: where[2], Args: command})
}

// kubeExecAll runs a command in several containers at the same time. Of an output that several have, that of the last one named holds.
func (o Options) kubeExecAll(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	args := arguments(c.Args)
	where, err := args.texts("namespace", "pods", "containers")
	if err != nil {
		return nil, err
	}
	command, err := args.list("command")
	if err != nil {
		return nil, err
	}
	var commands []kube.Command
	for _, pod := range strings.Fields(where[1]) {
		for _, container := range strings.Fields(where[2]) {
			commands = append(commands, kube.Command{Namespace: where[0], Pod: pod, Container: container, Args: command})
		}
	}
	if len(commands) == 0 || len(commands) > mostContainers {
		return nil, fault.New("", fault.ErrInvalid, fmt.Sprintf("pods and containers name %d containers, not 1 to %d", len(commands), mostContainers), "")
	}
	var logging sync.Mutex
	log := c.Log
	c.Log = func(line string) {
		logging.Lock()
		defer logging.Unlock()
		log(line)
	}
	results, failures := make([]map[string]any, len(commands)), make([]error, len(commands))
	var running sync.WaitGroup
	for i, command := range commands {
		running.Go(func() { results[i], failures[i] = o.execIn(ctx, c, command) })
	}
	running.Wait()
	all := map[string]any{}
	for _, result := range results {
		maps.Copy(all, result)
	}
	return all, errors.Join(failures...)
}

// execIn runs a command once its pod is ready, and returns what it put out. What it prints goes into the log.
func (o Options) execIn(ctx context.Context, c blueprint.Call, command kube.Command) (map[string]any, error) {
	op := fmt.Sprintf("run a command in pod %s/%s", command.Namespace, command.Pod)
	if len(command.Args) == 0 {
		return nil, fault.New(op, fault.ErrInvalid, "it is empty", "")
	}
	pod, err := o.readyPod(ctx, command.Namespace, command.Pod)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	if command.Container == "" {
		command.Container = mainContainer(pod)
	}
	said := newOutputs(c.Log)
	printed, complaints := said.stream(), said.stream()
	complaints.plain = true
	command.Stdout, command.Stderr = printed, complaints
	err = o.Cluster.Exec(ctx, command)
	printed.Close()
	complaints.Close()
	result, wrong := said.result()
	if err == nil {
		err = wrong
	}
	return result, fault.Wrap(op, nil, err, "")
}

// readyPod waits until a pod is ready.
func (o Options) readyPod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	since := o.Now()
	return pod, o.await(ctx, func(ctx context.Context) (bool, error) {
		if err := o.Cluster.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, pod); err != nil {
			return false, err
		}
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				return true, nil
			}
		}
		switch waited := o.Now().Sub(since); {
		case over(pod):
			return false, fault.New("", fault.ErrRefused, "the pod has ended: it is "+string(pod.Status.Phase), "")
		case waited >= readyPatience:
			return false, fault.New("", fault.ErrUnavailable, fmt.Sprintf("the pod was not ready within %s", readyPatience), "")
		}
		return false, nil
	})
}

// over reports whether a pod has ended.
func over(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// mainContainer is the one that is meant where none is named.
func mainContainer(pod *corev1.Pod) string {
	if name := pod.Annotations[defaultContainer]; name != "" {
		return name
	}
	return pod.Spec.Containers[0].Name
}
