package kube

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/httpstream"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/backstay/backstay/internal/fault"
)

// mostOutput is how much of what a command says goes into an error, in bytes: enough for the reason, little of what may be secret.
const mostOutput = 512

// exec runs a command in a container and waits for its end. What it prints is dropped, but for the end of what it complained of, which
// is in the error. A command that ended badly is fault.ErrRefused; one that could not be run, or whose end was not seen, has the class
// of what came between. When ctx ends the command is left to itself: nothing can stop it from here.
func (c *Cluster) exec(ctx context.Context, namespace, pod, container string, command []string) error {
	run, err := c.executor(namespace, pod, container, command)
	if err != nil {
		return err
	}
	var said tail
	err = run.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: discard{}, Stderr: &said})
	var ended utilexec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fault.Wrap("", nil, ctx.Err(), "")
	case errors.As(err, &ended) && ended.Exited():
		text := fmt.Sprintf("%s ended with status %d", command[0], ended.ExitStatus())
		if s := said.String(); s != "" {
			text += ": " + s
		}
		return fault.New("", fault.ErrRefused, text, "")
	}
	return fault.Wrap("run "+command[0], ClassOf(err), err, "")
}

// executor speaks WebSocket, and SPDY to servers and proxies that do not.
func (c *Cluster) executor(namespace, pod, container string, command []string) (remotecommand.Executor, error) {
	const op = "run a command in a pod"
	config := rest.CopyConfig(c.Config)
	config.APIPath, config.GroupVersion = "/api", &schema.GroupVersion{Version: "v1"}
	config.NegotiatedSerializer = clientscheme.Codecs.WithoutConversion()
	core, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	url := core.Post().Namespace(namespace).Resource("pods").Name(pod).SubResource("exec").VersionedParams(
		&corev1.PodExecOptions{Container: container, Command: command, Stdout: true, Stderr: true}, clientscheme.ParameterCodec,
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

// discard takes a command's output. It is not nil, for then the command would have none to write to.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// tail keeps the last of what is written to it.
type tail struct{ kept []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p[max(0, len(p)-mostOutput):]...)
	t.kept = t.kept[max(0, len(t.kept)-mostOutput):]
	return len(p), nil
}

// String is what was kept in one line that a terminal can show.
func (t *tail) String() string {
	text := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(t.kept), "?"))
	return strings.Join(strings.Fields(text), " ")
}
