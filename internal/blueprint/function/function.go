// Package function has the functions that phases of Blueprints call.
package function

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// Options are what the functions need besides their calls.
type Options struct {
	// Cluster has the rights that the functions act with.
	Cluster *kube.Cluster
	// System is Backstay's own namespace, and ServiceAccount the account there that pods of phases get in it, as Kanister gives them its
	// own: many Blueprints run kubectl. Pods elsewhere have their namespace's default.
	System, ServiceAccount string
	// Image is Backstay's own, for functions whose image is optional: it has sh and restic.
	Image string
	// Location opens the place of a profile, which comes as the document that kando reads.
	Location func(profile []byte) (Store, error)
	// Now is the clock, Poll how often objects are looked at that are waited for: 1 s where 0.
	Now  func() time.Time
	Poll time.Duration
}

// All are the functions that there are.
func All(o Options) []blueprint.Function {
	if o.Poll == 0 {
		o.Poll = time.Second
	}
	return slices.Concat(o.podFunctions(), o.dataFunctions(), o.locationFunctions(), o.snapshotFunctions(), o.rdsFunctions())
}

// podFunctions are those that run commands and wait for objects.
func (o Options) podFunctions() []blueprint.Function {
	functions := []blueprint.Function{
		{
			Name: "KubeExec", Interrupted: blueprint.Fails, Run: o.kubeExec,
			Required: []string{"namespace", "pod", "command"}, Optional: []string{"container"},
		},
		{
			Name: "KubeExecAll", Interrupted: blueprint.Fails, Run: o.kubeExecAll,
			Required: []string{"namespace", "pods", "containers", "command"},
		},
		{
			Name: "KubeTask", Interrupted: blueprint.Attaches, Run: o.kubeTask,
			Required: []string{"image", "command"}, Optional: argsOfPods("namespace"),
		},
		o.containersFunction(), o.prepareFunction(), o.scaleFunction(), o.kubeOpsFunction(),
	}
	return append(functions, o.waitFunctions()...)
}

// patience is how long an API server may be away before what waits for it gives up.
const patience = 2 * time.Minute

// await looks again and again until it is done, there is an error that will not pass, or ctx ends, whose error it is then.
func (o Options) await(ctx context.Context, done func(context.Context) (bool, error)) error {
	var away time.Time // since when there is no answer
	for {
		ended, err := done(ctx)
		switch {
		case ctx.Err() != nil:
			return fault.Wrap("", nil, ctx.Err(), "")
		case err == nil:
			away = time.Time{}
		case kube.ClassOf(err) == nil || meta.IsNoMatchError(err) || !kube.Transient(err):
			return fault.Wrap("", kube.ClassOf(err), err, "")
		case away.IsZero():
			away = o.Now()
		case o.Now().Sub(away) > patience:
			return fault.Wrap("", kube.ClassOf(err), err, "")
		}
		if ended && err == nil {
			return nil
		}
		if err := kube.Pause(ctx, o.Poll); err != nil {
			return fault.Wrap("", nil, err, "")
		}
	}
}

// call makes one call, again while the API server is away.
func (o Options) call(ctx context.Context, f func(context.Context) error) error {
	return o.await(ctx, func(ctx context.Context) (bool, error) { return true, f(ctx) })
}

// arguments are a phase's, rendered.
type arguments map[string]any

// text is one that is a string; "" if it is not there.
func (a arguments) text(name string) (string, error) {
	switch v := a[name].(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case bool, int, int32, int64, float64:
		return fmt.Sprint(v), nil
	}
	return "", a.wrong(name, "a string")
}

// list is one that is a list of strings, or YAML of one; nil if it is not there.
func (a arguments) list(name string) ([]string, error) {
	var words []string
	switch v := a[name].(type) {
	case nil:
		return nil, nil
	case []string:
		return slices.Clone(v), nil
	case []any:
		for i := range v {
			word, err := arguments{name: v[i]}.text(name)
			if err != nil {
				return nil, a.wrong(name, "a list of strings")
			}
			words = append(words, word)
		}
		return words, nil
	case string:
		if err := yaml.Unmarshal([]byte(v), &words); err == nil {
			return words, nil
		}
	}
	return nil, a.wrong(name, "a list of strings")
}

// command is one that is a list of strings and not empty.
func (a arguments) command(name string) ([]string, error) {
	words, err := a.list(name)
	if err == nil && len(words) == 0 {
		err = fault.New("argument "+name, fault.ErrInvalid, "it is empty", "")
	}
	return words, err
}

// flag is one that is true or false; otherwise if it is not there.
func (a arguments) flag(name string, otherwise bool) (bool, error) {
	text, err := a.text(name)
	if err != nil || text == "" {
		return otherwise, err
	}
	is, err := strconv.ParseBool(strings.TrimSpace(text))
	if err != nil {
		return false, a.wrong(name, "true or false")
	}
	return is, nil
}

// table is one that is a map of strings, or YAML of one; nil if it is not there.
func (a arguments) table(name string) (map[string]string, error) {
	var table map[string]string
	if err := a.into(name, &table); err != nil {
		return nil, a.wrong(name, "a map of strings")
	}
	return table, nil
}

// into decodes one as JSON, or as YAML where it is a string.
func (a arguments) into(name string, to any) error {
	switch v := a[name].(type) {
	case nil:
		return nil
	case string:
		return yaml.Unmarshal([]byte(v), to)
	default:
		content, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return json.Unmarshal(content, to)
	}
}

func (a arguments) wrong(name, want string) error {
	return fault.New("argument "+name, fault.ErrInvalid, "it is not "+want, "")
}
