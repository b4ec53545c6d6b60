package worker

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/database"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/protect"
)

const (
	checkTime   = time.Minute // until a check that does not pass is taken at its word: what is ready may still be warming up
	checkLook   = 2 * time.Second
	askTime     = 10 * time.Second // for one answer over http
	execTime    = time.Minute      // for one command, unless it says otherwise
	mostAnswer  = 1 << 20          // bytes of an answer that are looked at
	mostFinding = 200              // bytes of an answer that are shown
)

// look asks what was restored what the drill is told to ask.
func (d *drill) look(ctx context.Context) error {
	for _, c := range d.object.Spec.HTTP {
		of := fmt.Sprintf("%s:%s%s", c.Service, c.Port, cmp.Or(c.Path, "/"))
		if err := d.check(ctx, "http "+of, func(ctx context.Context) (string, error) { return d.ask(ctx, c) }); err != nil {
			return err
		}
	}
	for _, c := range d.object.Spec.SQL {
		if err := d.check(ctx, strings.TrimSpace("sql "+c.Database), func(ctx context.Context) (string, error) { return d.query(ctx, c) }); err != nil {
			return err
		}
	}
	for _, c := range d.object.Spec.Exec {
		if err := d.check(ctx, "exec "+strings.Join(c.Command[:min(len(c.Command), 1)], ""), func(ctx context.Context) (string, error) { return d.exec(ctx, c) }); err != nil {
			return err
		}
	}
	return nil
}

// check makes one check, again for a while where it does not pass. do returns what it found, or why it did not pass.
func (d *drill) check(ctx context.Context, what string, do func(context.Context) (string, error)) error {
	for until := d.Now().Add(checkTime); ; {
		found, err := do(ctx)
		switch {
		case err == nil:
			d.found(what, "", true, found)
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !d.Now().Before(until):
			d.found(what, "", false, err.Error())
			return nil
		}
		if err := kube.Pause(ctx, checkLook); err != nil {
			return context.Cause(ctx)
		}
	}
}

// in is the scratch namespace that stands for one of the point; without a name for its only one.
func (d *drill) in(namespace string) (string, error) {
	all := d.restoration.object.Spec.Namespaces
	if namespace == "" && len(all) == 1 {
		for _, to := range all {
			return to, nil
		}
	}
	if to := all[namespace]; to != "" {
		return to, nil
	}
	return "", fault.New("", fault.ErrInvalid, fmt.Sprintf("the point has %d namespaces, and none is meant by %q", len(all), namespace), "")
}

// ask asks a service over http, by way of the node of one of its pods: the drill's network policy lets nobody else in.
func (d *drill) ask(ctx context.Context, c v1alpha1.HTTPCheck) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	namespace, err := d.in(c.Namespace)
	if err != nil {
		return "", err
	}
	at, err := d.Cluster.ServiceEndpoint(ctx, namespace, c.Service, c.Port)
	if err != nil {
		return "", err
	}
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return d.Cluster.Dial(ctx, at) },
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ServerName: c.Service}, //nolint:gosec // documented: it is of another name
	}
	scheme := "http"
	if c.TLS {
		scheme = "https"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+c.Service+"/"+strings.TrimPrefix(c.Path, "/"), nil)
	if err != nil {
		return "", fault.Wrap("", fault.ErrInvalid, err, "")
	}
	asIs := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // elsewhere nothing is to be had
	answer, err := (&http.Client{Transport: transport, CheckRedirect: asIs}).Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, mostAnswer))
	if err != nil {
		return "", err
	}
	good := answer.StatusCode == c.Status || c.Status == 0 && answer.StatusCode >= http.StatusOK && answer.StatusCode < http.StatusMultipleChoices
	switch {
	case !good:
		return "", fmt.Errorf("it answers %s: %s", answer.Status, finding(body))
	case !strings.Contains(string(body), c.Contains):
		return "", fmt.Errorf("it answers %s, without %q", answer.Status, c.Contains)
	}
	return answer.Status, nil
}

// query asks a database of the point, where it was loaded in scratch.
func (d *drill) query(ctx context.Context, c v1alpha1.SQLCheck) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, execTime)
	defer cancel()
	of, err := d.loaded(c.Database)
	if err != nil {
		return "", err
	}
	r := d.restoration
	server, err := d.reach(ctx, d.object.Namespace, r.rights, of.to)
	if err != nil {
		return "", err
	}
	defer server.close()
	check, err := database.Ask(ctx, protect.Within(r.tree, of.part), server.server, server.runner,
		database.Question{Database: c.Schema, Query: c.Query, Want: c.Want})
	switch {
	case err != nil:
		return "", err
	case !check.OK:
		return "", errors.New(check.Detail)
	}
	return check.Detail, nil
}

// loaded is the database server of a name that was loaded in scratch; without a name the only one.
func (d *drill) loaded(name string) (returning, error) {
	var all []returning
	for _, one := range d.restoration.databases {
		switch {
		case name != "" && one.to.Name != name, name == "" && one.left != "":
		case one.left != "":
			return one, fault.New("", fault.ErrUnsupported, one.String()+" is not in scratch: "+one.left, "")
		default:
			all = append(all, one)
		}
	}
	if len(all) != 1 {
		return returning{}, fault.New("", fault.ErrInvalid, fmt.Sprintf("the point has %d dumps of databases that %q may mean", len(all), name), "")
	}
	return all[0], nil
}

// exec runs a command in a pod.
func (d *drill) exec(ctx context.Context, c v1alpha1.ExecCheck) (string, error) {
	span := execTime
	if said, err := time.ParseDuration(c.Timeout); err == nil && said > 0 {
		span = said
	}
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	namespace, err := d.in(c.Namespace)
	if err != nil {
		return "", err
	}
	pod, container, err := d.Cluster.ReadyPod(ctx, namespace, c.Selector, c.Container)
	if err != nil {
		return "", err
	}
	out := &firstOf{most: mostAnswer}
	if err := d.Cluster.Exec(ctx, kube.Command{Namespace: namespace, Pod: pod, Container: container, Args: c.Command, Stdout: out}); err != nil {
		return "", err
	}
	said := strings.TrimSpace(out.String())
	switch {
	case c.Want != nil && said != strings.TrimSpace(*c.Want):
		return "", fmt.Errorf("it prints %q, and not %q", finding([]byte(said)), *c.Want)
	case !strings.Contains(said, c.Contains):
		return "", fmt.Errorf("it prints %q, without %q", finding([]byte(said)), c.Contains)
	}
	return finding([]byte(said)), nil
}

// finding is the beginning of an answer, in one line.
func finding(answer []byte) string {
	text := strings.ToValidUTF8(string(answer[:min(len(answer), mostFinding)]), "?")
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	return strings.Join(strings.Fields(text), " ")
}

// firstOf keeps the first bytes of what is written to it.
type firstOf struct {
	bytes.Buffer
	most int
}

func (f *firstOf) Write(p []byte) (int, error) {
	f.Buffer.Write(p[:min(len(p), max(0, f.most-f.Len()))])
	return len(p), nil
}
