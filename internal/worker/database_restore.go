package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/database"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/volume"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

const databaseLook = time.Second // between two attempts to reach a server

// returning is a database server of a point, as it comes back.
type returning struct {
	part string
	to   v1alpha1.Database
	left string // why it does not, on purpose; empty where it does
}

// String is the server as plans and problems have it.
func (d returning) String() string {
	if d.to.Pod != nil {
		return fmt.Sprintf("database %s, %s in a pod of namespace %s", d.to.Name, d.to.Engine, d.to.Pod.Namespace)
	}
	return fmt.Sprintf("database %s, %s at %s", d.to.Name, d.to.Engine, net.JoinHostPort(d.to.Host, strconv.Itoa(cmp.Or(d.to.Port, defaultPort(d.to.Engine)))))
}

// returns are the databases that a Restore brings back out of a point, in the point's order.
func (r *restoration) returns(ctx context.Context, record *point.Record, tree point.Reader) ([]returning, error) {
	spec := &r.object.Spec
	if spec.Only == v1alpha1.OnlyConfig || len(spec.Claims)+len(spec.Objects) > 0 {
		return nil, nil // as with Blueprints: what is not all of the application is asked for by claim
	}
	var all []returning
	for _, p := range record.Point.Parts {
		if p.Kind != point.KindDatabase || p.State != point.Stored && p.State != point.Carried {
			continue
		}
		was, err := readServer(ctx, protect.Within(tree, p.Name))
		if err != nil {
			return nil, fault.Wrap("read "+p.Name, nil, err, "")
		}
		all = append(all, r.returned(p.Name, *was, outsideOf(&record.Point, *was)))
	}
	return all, nil
}

// outsideOf reports whether a server is not in the namespaces of a point: nothing of it moves when they go elsewhere.
func outsideOf(p *point.Point, d v1alpha1.Database) bool {
	if d.Pod == nil || !strings.HasPrefix(cmp.Or(d.Host, "/"), "/") && d.Host != "localhost" && !net.ParseIP(d.Host).IsLoopback() {
		return true // also where the pod lends its tools alone
	}
	return !slices.ContainsFunc(p.Parts, func(part point.Part) bool {
		namespace, is := kube.NamespaceOf(part.Name)
		if !is {
			namespace, _, is = volume.ClaimOf(part.Name)
		}
		return is && namespace == d.Pod.Namespace
	})
}

// returned is where the database of a server comes back.
func (r *restoration) returned(part string, was v1alpha1.Database, outside bool) returning {
	if was.Pod != nil {
		was.Pod.Namespace = r.to(was.Pod.Namespace)
	}
	spec := &r.object.Spec
	i := slices.IndexFunc(spec.Databases, func(d v1alpha1.Database) bool { return nameOfDatabase(d) == was.Name })
	if i < 0 {
		d := returning{part: part, to: was}
		if outside && len(spec.Namespaces) > 0 {
			d.left = "the application goes to other namespaces, and the server is outside of them; databases can name another one"
		}
		return d
	}
	to := *spec.Databases[i].DeepCopy()
	to.Name = was.Name
	if to.Pod != nil && to.Pod.Namespace == "" && was.Pod != nil {
		to.Pod.Namespace = was.Pod.Namespace
	}
	return returning{part: part, to: to}
}

// replaces reports whether databases that are not empty are replaced.
func (r *restoration) replaces() bool {
	return r.object.Spec.Existing == v1alpha1.ExistingReplace || r.object.Spec.GitOps != nil || r.scratch != nil
}

// planDatabases has the plan say what happens to databases.
func (r *restoration) planDatabases(ctx context.Context) (err error) {
	if r.databases, err = r.returns(ctx, r.record, r.tree); err != nil {
		return err
	}
	how := "is loaded where it is empty"
	if r.replaces() {
		how = "is replaced; what was written since the point is lost, but for the point that is made before"
		if r.object.Spec.GitOps == nil || r.object.Spec.GitOps.NoUndoPoint {
			how = "is replaced; what was written since the point is lost"
		}
	}
	for _, d := range r.databases {
		line := d.String() + " " + how
		if d.left != "" {
			line = d.String() + " is left as it is: " + d.left
		}
		r.plan.Actions = append(r.plan.Actions, line)
	}
	return nil
}

// vacant refuses a Restore that is to fail where anything is there, before anything is touched. A server that cannot be reached comes with
// the application.
func (r *restoration) vacant(ctx context.Context) error {
	if r.object.Spec.Existing != v1alpha1.ExistingFail || r.begun() {
		return nil
	}
	for _, d := range r.databases {
		if d.left != "" {
			continue
		}
		server, err := r.reach(ctx, r.object.Namespace, r.rights, d.to)
		if err != nil {
			continue
		}
		untouched := errors.New("it is empty")
		_, err = database.Restore(ctx, protect.Within(r.tree, d.part), server.server, server.runner,
			database.RestoreOptions{Changing: func() error { return untouched }})
		server.close()
		if errors.Is(err, fault.ErrRefused) && !errors.Is(err, untouched) {
			return fault.Wrap(d.String(), nil, err, "")
		}
	}
	return nil
}

// load brings databases back: those in pods, or those outside the cluster. What fails is a problem of its database, and of a transaction
// as a whole, which takes back what it did.
func (r *restoration) load(ctx context.Context, inPods bool) (problems []string, _ error) {
	err := r.save(ctx, func(s *v1alpha1.RestoreStatus) {
		for i := len(s.Databases); i < len(r.databases); i++ {
			s.Databases = append(s.Databases, v1alpha1.DatabaseStatus{Name: r.databases[i].to.Name, Engine: r.databases[i].to.Engine})
		}
	})
	if err != nil {
		return nil, err
	}
	for i, d := range r.databases {
		if d.left != "" || (d.to.Pod != nil) != inPods {
			continue
		}
		if is := r.object.Status.Databases[i]; !is.Stored && is.Problem == "" {
			if err := r.loaded(ctx, i, d); err != nil {
				return nil, err
			}
		}
		if is := r.object.Status.Databases[i]; is.Problem != "" {
			if r.object.Spec.GitOps != nil {
				return nil, fault.New(d.String(), fault.ErrRefused, is.Problem, "")
			}
			problems = append(problems, d.String()+": "+is.Problem)
		}
	}
	return problems, nil
}

// loaded brings one database back, and writes down what became of it.
func (r *restoration) loaded(ctx context.Context, i int, d returning) error {
	if err := r.phase(ctx, v1alpha1.PhaseActing); err != nil {
		return err
	}
	err := r.loadOne(ctx, d, r.tree, r.replaces() || r.object.Status.Databases[i].Begun != nil, func(at string) error {
		return r.save(ctx, func(s *v1alpha1.RestoreStatus) { s.Databases[i].At, s.Databases[i].Begun = at, r.micro() })
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, errEnded) {
		return err
	}
	return r.save(ctx, func(s *v1alpha1.RestoreStatus) {
		if s.Databases[i].Stored = err == nil; err != nil {
			s.Databases[i].Problem = shorten(err.Error())
		}
	})
}

// loadOne loads what a point has of a server into it, and waits for the server as long as pods may take. Before anything is changed
// changing is told; what is found there afterwards is this load's own.
func (r *restoration) loadOne(ctx context.Context, d returning, tree point.Reader, replace bool, changing func(at string) error) error {
	patience, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for {
		server, err := r.reach(ctx, r.object.Namespace, r.rights, d.to)
		away := d.to.Pod != nil && errors.Is(err, fault.ErrNotFound) // it may be on its way
		if err == nil {
			_, err = database.Restore(ctx, protect.Within(tree, d.part), server.server, server.runner, database.RestoreOptions{
				Replace: replace,
				Changing: func() error {
					replace = true
					return changing(server.at)
				},
			})
			server.close()
			away = errors.Is(err, fault.ErrUnavailable)
		}
		if !away {
			return err
		}
		if kube.Pause(patience, databaseLook) != nil {
			return cmp.Or(ctx.Err(), err)
		}
	}
}
