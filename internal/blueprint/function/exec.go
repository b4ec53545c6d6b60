package function

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
	a := &reader{of: c.Args}
	command := kube.Command{Namespace: a.text("namespace"), Pod: a.text("pod"), Container: a.text("container"), Args: a.command("command")}
	if a.err != nil {
		return nil, a.err
	}
	return o.execIn(ctx, c, command)
}

// kubeExecAll runs a command in several containers at the same time. Of an output that several have, that of the last one named holds.
func (o Options) kubeExecAll(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	a := &reader{of: c.Args}
	namespace, args := a.text("namespace"), a.command("command")
	var commands []kube.Command
	for _, pod := range a.words("pods") {
		for _, container := range a.words("containers") {
			commands = append(commands, kube.Command{Namespace: namespace, Pod: pod, Container: container, Args: args})
		}
	}
	if a.err != nil {
		return nil, a.err
	}
	if len(commands) == 0 || len(commands) > mostContainers {
		return nil, fault.New("", fault.ErrInvalid, fmt.Sprintf("pods and containers name %d containers, not 1 to %d", len(commands), mostContainers), "")
	}
	return o.execIn(ctx, c, commands...)
}

// execIn runs commands at the same time, once all of their pods are ready, and returns what they put out. What they print goes into the
// log.
func (o Options) execIn(ctx context.Context, c blueprint.Call, commands ...kube.Command) (map[string]any, error) {
	for i, command := range commands {
		pod, err := o.readyPod(ctx, command.Namespace, command.Pod)
		if err != nil {
			return nil, fault.Wrap(describe(command), nil, err, "")
		}
		if command.Container == "" {
			commands[i].Container = mainContainer(pod)
		}
	}
	c.Log = oneAtATime(c.Log)
	if c.Deferred {
		var err error
		if commands, err = o.execOnce(ctx, c, commands); err != nil {
			return nil, err
		}
	}
	all := map[string]any{}
	err := o.withProfile(ctx, c, commands, func() error {
		results, failures := make([]map[string]any, len(commands)), make([]error, len(commands))
		var running sync.WaitGroup
		for i, command := range commands {
			running.Go(func() { results[i], failures[i] = o.exec(ctx, c, command) })
		}
		running.Wait()
		for _, result := range results {
			maps.Copy(all, result)
		}
		return errors.Join(failures...)
	})
	return all, err
}

func describe(command kube.Command) string {
	return fmt.Sprintf("run a command in pod %s/%s", command.Namespace, command.Pod)
}

// exec runs a command and returns what it put out.
func (o Options) exec(ctx context.Context, c blueprint.Call, command kube.Command) (map[string]any, error) {
	said := newOutputs(c.Log)
	printed, complaints := said.stream(), said.stream()
	complaints.plain = true
	command.Stdout, command.Stderr = printed, complaints
	err := o.Cluster.Exec(ctx, command)
	printed.close()
	complaints.close()
	result, wrong := said.result()
	if err == nil {
		err = wrong
	}
	return result, fault.Wrap(describe(command), nil, ofCommand(command.Args, err), "")
}

// readyPod waits until a pod is ready.
func (o Options) readyPod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	since := o.Now()
	return pod, o.await(ctx, func(ctx context.Context) (bool, error) {
		if err := kube.Refresh(ctx, o.Cluster.Client, pod); err != nil {
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
