package kube

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/fault"
)

// Endpoint is a port of a pod.
type Endpoint struct {
	Namespace, Pod string
	Port           int
}

// ServiceEndpoint is a pod that is ready behind a service, and its port, by the name or number of the service's; empty for its only one.
// fault.ErrNotFound where there is none.
func (c *Cluster) ServiceEndpoint(ctx context.Context, namespace, service, port string) (Endpoint, error) {
	op := fmt.Sprintf("find a pod of service %s/%s", namespace, service)
	var s corev1.Service
	if err := c.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: service}, &s); err != nil {
		return Endpoint{}, fault.Wrap(op, ClassOf(err), err, "")
	}
	at := slices.IndexFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
		return port == "" && len(s.Spec.Ports) == 1 || port != "" && (p.Name == port || strconv.Itoa(int(p.Port)) == port)
	})
	if at < 0 {
		return Endpoint{}, fault.New(op, fault.ErrInvalid, fmt.Sprintf("of its %d ports none is meant by %q", len(s.Spec.Ports), port), "")
	}
	var slicesOf discoveryv1.EndpointSliceList
	err := c.Client.List(ctx, &slicesOf, client.InNamespace(namespace), client.MatchingLabels{discoveryv1.LabelServiceName: service})
	if err != nil {
		return Endpoint{}, fault.Wrap(op, ClassOf(err), err, "")
	}
	for _, slice := range slicesOf.Items {
		number := 0
		for _, p := range slice.Ports {
			if p.Port != nil && (p.Name == nil && s.Spec.Ports[at].Name == "" || p.Name != nil && *p.Name == s.Spec.Ports[at].Name) {
				number = int(*p.Port)
			}
		}
		for _, e := range slice.Endpoints {
			ready := e.Conditions.Ready == nil || *e.Conditions.Ready
			if number > 0 && ready && e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
				return Endpoint{namespace, e.TargetRef.Name, number}, nil
			}
		}
	}
	return Endpoint{}, fault.New(op, fault.ErrNotFound, "no pod behind it is ready", "")
}

// Dial connects to a port of a pod by way of its node, which network policies do not concern.
func (c *Cluster) Dial(ctx context.Context, to Endpoint) (net.Conn, error) {
	op := fmt.Sprintf("connect to port %d of pod %s/%s", to.Port, to.Namespace, to.Pod)
	config, core, err := c.core()
	if err != nil {
		return nil, fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	url := core.Post().Namespace(to.Namespace).Resource("pods").Name(to.Pod).SubResource("portforward").URL()
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	socket, err := portforward.NewSPDYOverWebsocketDialer(url, config)
	if err != nil {
		return nil, fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	dialer := portforward.NewFallbackDialer(socket, spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, url),
		func(err error) bool { return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err) })
	connection, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, fault.Wrap(op, ClassOf(err), err, "")
	}
	stop := context.AfterFunc(ctx, func() { _ = connection.Close() })
	conn, err := forwarded(connection, to, stop)
	if err != nil {
		stop()
		return nil, fault.Wrap(op, fault.ErrUnavailable, err, "")
	}
	return conn, nil
}

// forwarded opens the two streams of one connection: first that on which the node says what is wrong, then that of the bytes.
func forwarded(connection httpstream.Connection, to Endpoint, stop func() bool) (net.Conn, error) {
	headers := http.Header{}
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	headers.Set(corev1.PortHeader, strconv.Itoa(to.Port))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	problems, err := connection.CreateStream(headers)
	if err != nil {
		_ = connection.Close()
		return nil, err
	}
	if err := problems.Close(); err != nil { // nothing is written to it
		_ = connection.Close()
		return nil, err
	}
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := connection.CreateStream(headers)
	if err != nil {
		_ = connection.Close()
		return nil, err
	}
	return &forward{Stream: data, connection: connection, problems: problems, stop: stop}, nil
}

// forward is a connection by way of a node. It has no deadlines: who dials ends its context.
type forward struct {
	httpstream.Stream
	connection httpstream.Connection
	problems   io.Reader
	stop       func() bool
}

// mostProblem is how much a node may say of a connection that failed, in bytes.
const mostProblem = 512

func (f *forward) Read(p []byte) (int, error) {
	n, err := f.Stream.Read(p)
	if n > 0 || err == nil {
		return n, err
	}
	said, _ := io.ReadAll(io.LimitReader(f.problems, mostProblem)) // it ends with the data
	if text := strings.TrimSpace(string(said)); text != "" {
		return 0, fault.New("", fault.ErrUnavailable, strings.ToValidUTF8(text, "?"), "")
	}
	return 0, err
}

func (f *forward) Close() error {
	f.stop()
	return f.connection.Close()
}

func (f *forward) LocalAddr() net.Addr              { return forwardAddr{} }
func (f *forward) RemoteAddr() net.Addr             { return forwardAddr{} }
func (f *forward) SetDeadline(time.Time) error      { return nil }
func (f *forward) SetReadDeadline(time.Time) error  { return nil }
func (f *forward) SetWriteDeadline(time.Time) error { return nil }

type forwardAddr struct{}

func (forwardAddr) Network() string { return "portforward" }
func (forwardAddr) String() string  { return "portforward" }
