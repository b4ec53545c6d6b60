package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// applicationDrill is how an application is drilled.
type applicationDrill struct {
	cluster        clusterOptions
	policy         string
	http           []string
	storageClasses map[string]string
	readyWithin    string
}

// applicationDrillFlags are those that mean nothing for what is not on a cluster.
func applicationDrillFlags() []string {
	return []string{"http", "checks-of", "storage-class", "ready-within", "kubeconfig", "context", "namespace"}
}

func (o *applicationDrill) bind(flags *pflag.FlagSet) {
	flags.StringArrayVar(&o.http, "http", nil, "for an application: ask the service at `SERVICE[:PORT][/PATH]`, which must answer with 200 to 299; repeat for more")
	flags.StringVar(&o.policy, "checks-of", "", "for an application: the checks, and the way of restoring, that the `POLICY` on the cluster says")
	flags.StringToStringVar(&o.storageClasses, "storage-class", nil, "for an application: `OLD=NEW`, the storage class to take instead; repeat for more")
	flags.StringVar(&o.readyWithin, "ready-within", "", "for an application: how long a `SPAN` it may take until it runs (default 15m)")
	o.cluster.bind(flags)
}

// drillApplication makes a Drill on the cluster and waits for it.
func (a *app) drillApplication(ctx context.Context, application, point string, o drillOptions) error {
	s, err := a.site(o.application.cluster)
	if err != nil {
		return err
	}
	spec, err := s.drillSpec(ctx, application, point, o)
	if err != nil {
		return err
	}
	d := &v1alpha1.Drill{
		ObjectMeta: metav1.ObjectMeta{GenerateName: nameFrom(application), Namespace: s.namespace, Labels: labelled(application)}, Spec: spec,
	}
	op := "drill " + application
	if err := s.client.Create(ctx, d); err != nil {
		return answer(op, err)
	}
	if err := s.follow(ctx, d, "drill", func() (v1alpha1.Phase, string) { return d.Status.Phase, "" }); err != nil {
		return err
	}
	return errors.Join(s.tellApplicationDrill(d, application), outcome(op, d.Status.Phase, d.Status.Conditions, d.Status.Problems))
}

func (s *site) drillSpec(ctx context.Context, application, point string, all drillOptions) (v1alpha1.DrillSpec, error) {
	var spec v1alpha1.DrillSpec
	o := all.application
	if o.policy != "" {
		var p v1alpha1.Policy
		if err := s.client.Get(ctx, types.NamespacedName{Namespace: s.namespace, Name: o.policy}, &p); err != nil {
			return spec, answer("read policy "+o.policy, err)
		}
		if p.Spec.Drill == nil {
			return spec, fault.New("drill "+application, fault.ErrNotFound, "policy "+o.policy+" says nothing of drills", "")
		}
		spec.DrillChecks, spec.DrillScratch = p.Spec.Drill.DrillChecks, p.Spec.Drill.DrillScratch
	}
	for _, text := range o.http {
		c, err := httpCheck(text)
		if err != nil {
			return spec, err
		}
		spec.HTTP = append(spec.HTTP, c)
	}
	spec.SQL = append(spec.SQL, all.checks()...)
	if len(o.storageClasses) > 0 {
		spec.StorageClasses = o.storageClasses
	}
	if o.readyWithin != "" {
		spec.ReadyWithin = o.readyWithin
	}
	which, err := s.restoreSpec(ctx, application, point, restoreOptions{asOf: all.asOf})
	spec.RestorePoint, spec.Latest = which.RestorePoint, which.Latest
	return spec, err
}

// httpCheck reads SERVICE[:PORT][/PATH].
func httpCheck(text string) (v1alpha1.HTTPCheck, error) {
	at, path, asks := strings.Cut(text, "/")
	service, port, _ := strings.Cut(at, ":")
	if service == "" {
		return v1alpha1.HTTPCheck{}, fault.New("--http "+text, fault.ErrInvalid, "it names no service", "web, web:80 or web:http/health")
	}
	c := v1alpha1.HTTPCheck{Service: service, Port: port}
	if asks {
		c.Path = "/" + path
	}
	return c, nil
}

func (s *site) tellApplicationDrill(d *v1alpha1.Drill, application string) error {
	if s.global.json {
		return s.document(applicationDocument[v1alpha1.DrillStatus]{documentVersion, application, d.Name, d.Status})
	}
	for _, c := range d.Status.Checks {
		mark := "ok    "
		switch {
		case c.Excepted:
			mark = "left  "
		case !c.OK:
			mark = "failed"
		}
		s.say("%s  %s  %s", mark, strings.TrimSpace(c.What+" "+c.Of), printable(c.Detail))
	}
	switch d.Status.Phase {
	case v1alpha1.PhaseComplete:
		s.say("proven: point %s of %s ran %s after its first byte", d.Status.Point, application, d.Status.RestoreTook)
	case v1alpha1.PhaseIncomplete:
		s.say("not proven: point %s of %s", d.Status.Point, application)
	default:
		s.say("%s", fmt.Sprintf("no drill could be made of %s", application))
	}
	return nil
}
