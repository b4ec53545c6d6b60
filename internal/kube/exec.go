package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/httpstream"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/fault"
)

// mostOutput is how much of what a command says goes into an error, in bytes.
const mostOutput = 512

// Command is what Exec runs in a container of a pod.
type Command struct {
	Namespace, Pod, Container string
	Args                      []string
	Stdin                     io.Reader // none where nil
	Stdout, Stderr            io.Writer // dropped where nil; Exec writes to each from a goroutine of its own, and waits for both
}

// Ended is the end of a command that ended badly.
type Ended struct {
	Program string
	Status  int
	Said    string // the end of what it complained of
}

func (e *Ended) Error() string {
	text := fmt.Sprintf("%s ended with status %d", e.Program, e.Status)
	if e.Said != "" {
		text += ": " + e.Said
	}
	return text
}

// Exec runs a command in a container and waits for its end. A command that ended badly is fault.ErrRefused, and an Ended; one that could
// not be run, or whose end was not seen, has the class of what came between. When ctx ends the command is left to itself: nothing can
// stop it from here.
func (c *Cluster) Exec(ctx context.Context, command Command) error {
	if len(command.Args) == 0 {
		return fault.New("run a command in a pod", fault.ErrInvalid, "it is empty", "")
	}
	run, err := c.executor(command)
	if err != nil {
		return err
	}
	var said Tail
	options := remotecommand.StreamOptions{Stdin: command.Stdin, Stdout: discard{}, Stderr: &said}
	if command.Stdout != nil {
		options.Stdout = command.Stdout
	}
	if command.Stderr != nil {
		options.Stderr = io.MultiWriter(&said, command.Stderr)
	}
	err = run.StreamWithContext(ctx, options)
	var ended utilexec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fault.Wrap("", nil, ctx.Err(), "")
	case errors.As(err, &ended) && ended.Exited():
		return fault.Wrap("", fault.ErrRefused, &Ended{Program: command.Args[0], Status: ended.ExitStatus(), Said: said.String()}, "")
	}
	return fault.Wrap("run "+command.Args[0], ClassOf(err), err, "")
}

// executor speaks WebSocket, and SPDY to servers and proxies that do not.
func (c *Cluster) executor(command Command) (remotecommand.Executor, error) {
	const op = "run a command in a pod"
	config, core, err := c.core()
	if err != nil {
		return nil, fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	url := core.Post().Namespace(command.Namespace).Resource("pods").Name(command.Pod).SubResource("exec").VersionedParams(
		&corev1.PodExecOptions{Container: command.Container, Command: command.Args, Stdin: command.Stdin != nil, Stdout: true, Stderr: true},
		clientscheme.ParameterCodec,
	).URL()
	spdy, err := remotecommand.NewSPDYExecutor(config, "POST", url)
	if err != nil {
		return nil, fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	socket, err := remotecommand.NewWebSocketExecutor(config, "GET", url.String())
	if err != nil {
		return nil, fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	run, err := remotecommand.NewFallbackExecutor(socket, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	return run, fault.Wrap(op, fault.ErrInvalid, err, "")
}

// core is a client of Kubernetes' own first group, and its configuration.
func (c *Cluster) core() (*rest.Config, *rest.RESTClient, error) {
	config := rest.CopyConfig(c.Config)
	config.APIPath, config.GroupVersion = "/api", &schema.GroupVersion{Version: "v1"}
	config.NegotiatedSerializer = clientscheme.Codecs.WithoutConversion()
	core, err := rest.RESTClientFor(config)
	return config, core, err
}

// Log is what a container printed, from the beginning as far as the node keeps it. Followed, it goes on until the container has ended.
func (c *Cluster) Log(ctx context.Context, namespace, pod, container string, follow bool) (io.ReadCloser, error) {
	const op = "read the log of a pod"
	_, core, err := c.core()
	if err != nil {
		return nil, fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	log, err := core.Get().Namespace(namespace).Resource("pods").Name(pod).SubResource("log").VersionedParams(
		&corev1.PodLogOptions{Container: container, Follow: follow}, clientscheme.ParameterCodec,
	).Stream(ctx)
	return log, fault.Wrap(op, ClassOf(err), err, "")
}

// discard takes a command's output. It is not nil, for then the command would have none to write to.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// Tail keeps the end of what is written to it, for messages: enough for the reason, little of what may be secret.
type Tail struct {
	kept []byte
	cut  bool // something came before
}

func (t *Tail) Write(p []byte) (int, error) {
	t.cut = t.cut || len(t.kept)+len(p) > mostOutput
	t.kept = append(t.kept, p[max(0, len(p)-mostOutput):]...)
	t.kept = t.kept[max(0, len(t.kept)-mostOutput):]
	return len(p), nil
}

// String is what was kept, in one line that a terminal can show. It begins with a whole word: half a secret would not be known as one.
func (t *Tail) String() string {
	text := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(t.kept), "?"))
	if t.cut {
		_, text, _ = strings.Cut(text, " ")
	}
	return strings.Join(strings.Fields(text), " ")
}

// ReadyPod chooses a container by the labels of its pod: of the pods of a namespace that are ready the first by name. Without a name the
// container is the pod's default one, else its first.
func (c *Cluster) ReadyPod(ctx context.Context, namespace string, labels metav1.LabelSelector, named string) (pod, container string, err error) {
	op := "find a pod in namespace " + namespace
	selector, err := metav1.LabelSelectorAsSelector(&labels)
	if err != nil {
		return "", "", fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	if selector.Empty() {
		return "", "", fault.New(op, fault.ErrInvalid, "its selector names no label", "say matchLabels")
	}
	var pods corev1.PodList
	if err := c.Client.List(ctx, &pods, client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return "", "", fault.Wrap(op, ClassOf(err), err, "")
	}
	for _, p := range pods.Items {
		of := hookContainer(p, named)
		if unready(p) == 0 && running(p, of) && (pod == "" || p.Name < pod) {
			pod, container = p.Name, of
		}
	}
	if pod == "" {
		return "", "", fault.New(op, fault.ErrNotFound, fmt.Sprintf("no pod is ready that has labels %s", selector), "")
	}
	return pod, container, nil
}
