package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/database"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// reached is a database server, and how its tools are run: in its own pod, or here.
type reached struct {
	server database.Server
	runner database.Runner
	at     string // for people: HOST:PORT, or NAMESPACE/POD
	ca     string // file with the authorities that it is checked against; empty for none
}

// close removes what was made to reach the server.
func (r *reached) close() {
	if r.ca != "" {
		_ = os.Remove(r.ca) // of the pod, and gone with it
	}
}

// reach finds a database server for an object of namespace home. Whatever is done in a pod is done with rights. Secrets are of home.
func (w *Worker) reach(ctx context.Context, home string, rights *kube.Cluster, d v1alpha1.Database) (*reached, error) {
	op := "reach database " + d.Name
	if d.Engine == v1alpha1.EngineSQLite { // it has no server that could be asked, in a pod or out of it
		return nil, fault.New(op, fault.ErrUnsupported, "a file of SQLite is in a volume", "back up the volume: SQLite opens what a snapshot has of it")
	}
	r := &reached{server: serverOf(d)}
	if d.TLS != nil {
		r.server.TLS = cmp.Or(d.TLS.Mode, database.TLSVerify)
	}
	if d.Password != nil {
		password, err := w.secret(ctx, home, *d.Password)
		if err != nil {
			return nil, fault.Wrap(op, nil, err, "")
		}
		r.server.Password = fault.Secret(password)
	}
	var err error
	if d.Pod != nil {
		err = w.inPod(ctx, r, home, rights, d)
	} else {
		err = w.outside(ctx, r, home, d)
	}
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	return r, nil
}

func serverOf(d v1alpha1.Database) database.Server {
	return database.Server{
		Name: d.Name, Engine: d.Engine, Host: d.Host, Port: d.Port, Username: d.Username, Databases: d.Databases, Exclude: d.ExcludeDatabases, File: d.File,
	}
}

// nameOfDatabase is the name of a server, and of its part.
func nameOfDatabase(d v1alpha1.Database) string {
	return strings.TrimPrefix(serverOf(d).PartName(), partDatabases+"/")
}

// inPod reaches a server by the tools in its pod.
func (w *Worker) inPod(ctx context.Context, r *reached, home string, rights *kube.Cluster, d v1alpha1.Database) error {
	namespace := d.Pod.Namespace
	switch {
	case namespace == "":
		return fault.New("", fault.ErrInvalid, "the application has several namespaces", "say pod.namespace")
	case home != w.System && namespace != home:
		return fault.New("", fault.ErrDenied, "its pod is of namespace "+namespace+", not of "+home, "")
	case d.TLS != nil && d.TLS.CA != nil:
		return fault.New("", fault.ErrUnsupported, "a server's own tools check no certificate of an authority from outside", "leave tls.ca out, or pod")
	}
	pod, container, err := rights.ReadyPod(ctx, namespace, d.Pod.Selector, d.Pod.Container)
	if err != nil {
		return err
	}
	r.at, r.runner = namespace+"/"+pod, w.InPod(rights, namespace, pod, container)
	return nil
}

// outside reaches a server over the network, by the tools in Backstay's own image.
func (w *Worker) outside(ctx context.Context, r *reached, home string, d v1alpha1.Database) error {
	switch {
	case d.Host == "" || strings.HasPrefix(d.Host, "/"):
		return fault.New("", fault.ErrInvalid, "it says neither host nor pod", "")
	case home != w.System: // a dump can be a program to the tools that load it, and a server may ask them for files
		return fault.New("", fault.ErrDenied, "only policies in Backstay's own namespace reach servers from Backstay's own pods", "say pod: any of the namespace that has the server's tools")
	}
	r.at, r.runner = net.JoinHostPort(d.Host, strconv.Itoa(cmp.Or(d.Port, defaultPort(d.Engine)))), w.Tools
	if d.TLS == nil || d.TLS.CA == nil {
		return nil
	}
	authority, err := w.secret(ctx, home, *d.TLS.CA)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp("", "authority")
	if err != nil {
		return err
	}
	r.ca, r.server.CAFile = f.Name(), f.Name()
	_, err = f.WriteString(authority)
	if err = errors.Join(err, f.Close()); err != nil {
		r.close()
	}
	return err
}

func defaultPort(engine string) int {
	switch engine {
	case v1alpha1.EnginePostgres:
		return 5432
	case v1alpha1.EngineRedis:
		return 6379
	}
	return 3306
}

// podRunner runs tools in a container of a pod.
type podRunner struct {
	rights                    *kube.Cluster
	namespace, pod, container string
}

// InPod runs tools in a container of a pod, with some rights.
func InPod(rights *kube.Cluster, namespace, pod, container string) database.Runner {
	return podRunner{rights, namespace, pod, container}
}

// handedOver has a shell take the environment of a program from its input, so that no secret is in a command line: a line for each
// variable, and an empty one. What follows is the program's.
const handedOver = `while IFS= read -r v && [ -n "$v" ]; do export "$v"; done; exec "$@"`

// notFound is the status of a shell whose program is not there.
const notFound = 127

// Run satisfies database.Runner.
func (p podRunner) Run(ctx context.Context, c database.Command) error {
	if len(c.Argv) == 0 {
		return fault.New("run a program", fault.ErrInvalid, "none is named", "")
	}
	var environment strings.Builder
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		if strings.ContainsAny(c.Env[name], "\n\x00") {
			return fault.New("run "+c.Argv[0], fault.ErrUnsupported, name+" has several lines", "")
		}
		environment.WriteString(name + "=" + c.Env[name] + "\n")
	}
	environment.WriteString("\n")
	var input io.Reader = strings.NewReader(environment.String())
	if c.Stdin != nil {
		input = io.MultiReader(input, c.Stdin)
	}
	err := p.rights.Exec(ctx, kube.Command{
		Namespace: p.namespace, Pod: p.pod, Container: p.container, Args: append([]string{"sh", "-c", handedOver, "sh"}, c.Argv...),
		Stdin: input, Stdout: c.Stdout,
	})
	var ended *kube.Ended
	switch {
	case !errors.As(err, &ended):
		return err
	case ended.Status == notFound:
		return fault.New("", fault.ErrNotFound, fmt.Sprintf("%s is not in container %s of pod %s/%s", c.Argv[0], p.container, p.namespace, p.pod), "")
	}
	return &database.Ended{Program: c.Argv[0], Status: ended.Status, Said: ended.Said}
}
