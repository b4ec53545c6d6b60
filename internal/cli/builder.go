package cli

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/config"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/notify"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/policy"
	"github.com/backstay/backstay/internal/protect"
	"github.com/backstay/backstay/internal/vault"
)

// maxCache bounds the answers of forges kept for conditional requests, in bytes.
const maxCache = 256 << 20

// builder makes what is declared: plans, vaults, messengers. Secrets are read when they are needed, each time anew.
type builder struct {
	app     *app
	secrets *notify.Secrets // learns every secret that was read
	budget  *forge.Budget   // of all runs together
	cache   *forge.Cache    // nil for none
	observe point.Observer
	warn    func(message string)
	vaults  []v1alpha1.Location // which no directory is to hold
	// key reads a key of a Kubernetes Secret; nil off a cluster. With it, nothing of the process's own is read: environment, files.
	key func(ctx context.Context, ref v1alpha1.SecretKeyRef) ([]byte, error)
}

// forRun is the builder for one run, whose progress is observed.
func (b *builder) forRun(observe point.Observer, vaults []v1alpha1.Location) *builder {
	c := *b
	c.observe, c.vaults = observe, vaults
	return &c
}

// secret reads a secret; a nil one is empty.
func (b *builder) secret(ctx context.Context, s *v1alpha1.Secret) (fault.Secret, error) {
	if s == nil {
		return "", nil
	}
	if b.key != nil && s.SecretKeyRef == nil {
		return "", fault.New("read a secret", fault.ErrDenied, "on a cluster secrets are in Secrets", "say secretKeyRef: {name: NAME, key: KEY}")
	}
	value, err := config.Resolve(ctx, *s, config.Lookups{
		Key: b.key,
		Env: func(name string) (string, bool) {
			value := b.app.Getenv(name)
			return value, value != ""
		},
		Home: b.app.Getenv("HOME"),
		Run: func(ctx context.Context, command string) ([]byte, error) {
			value, err := b.app.passwordOf(ctx, command)
			return []byte(value.Reveal()), err
		},
		Warn: b.warn,
	})
	if err != nil {
		return "", err
	}
	b.secrets.Add(value)
	return value, nil
}

// home puts the home directory in the place of a leading ~.
func (b *builder) home(p string) string {
	if rest, ok := strings.CutPrefix(p, "~/"); ok {
		return filepath.Join(b.app.Getenv("HOME"), rest)
	}
	return p
}

// run backs up what a policy declares into an open vault, with others where it is shared.
func (b *builder) run(
	ctx context.Context, p v1alpha1.Policy, s protect.Store, shared *protect.Shared, log *slog.Logger,
) (*point.Run, error) {
	plan, err := b.plan(ctx, p)
	if err != nil {
		return nil, err
	}
	plan.Store, plan.Location, plan.Shared = s, p.Spec.Location, shared
	plan.Tell = func(r protect.Remark) { remark(log, r) }
	report, err := protect.Run(ctx, plan)
	if report == nil {
		return nil, err
	}
	masked := b.secrets.MaskRun(*report)
	return &masked, err
}

// plan is what a run of a policy does, but for the vault.
func (b *builder) plan(ctx context.Context, p v1alpha1.Policy) (protect.Plan, error) {
	plan := protect.Plan{
		Policy: p.Name, Clock: b.app.Clock, Observe: b.observe, Parallel: p.Spec.Parallel, Zone: time.Local,
	}
	var err error
	if plan.Retention, err = retention(p.Spec.Retention); err != nil {
		return plan, err
	}
	if s := p.Spec.Schedule; s != nil && s.TimeZone != "" {
		if plan.Zone, err = policy.ParseZone(s.TimeZone); err != nil {
			return plan, err
		}
	}
	names := map[string]bool{}
	for i, s := range p.Spec.Sources {
		source, err := b.source(ctx, s, p.Spec)
		if ctx.Err() != nil {
			return plan, ctx.Err()
		}
		if err != nil {
			kind, _ := forgeOf(s)
			source = unready(cmp.Or(kind, "git"), cmp.Or(s.Name, fmt.Sprintf("source %d", i+1)), err)
		}
		name := source.Subject().Name
		if names[name] && p.Spec.Location != "" {
			return plan, fault.New(fmt.Sprintf("source %d of policy %s", i+1, p.Name), fault.ErrInvalid,
				"another source is "+name+", too", "give it a name of its own with name:")
		}
		names[name] = true
		plan.Sources = append(plan.Sources, source)
	}
	for i, e := range p.Spec.Exports {
		destination, err := b.export(ctx, e, p.Name)
		if err != nil {
			return plan, fault.Wrap(fmt.Sprintf("export %d of policy %s", i+1, p.Name), nil, err, "")
		}
		plan.Destinations = append(plan.Destinations, destination)
	}
	for i, m := range p.Spec.Mirrors {
		destination, err := b.mirror(ctx, m)
		if err != nil {
			return plan, fault.Wrap(fmt.Sprintf("mirror %d of policy %s", i+1, p.Name), nil, err, "")
		}
		plan.Destinations = append(plan.Destinations, destination)
	}
	return plan, nil
}

// unready is a source that is known beforehand to fail: its token cannot be read, say. The others of its policy go on.
func unready(kind, name string, err error) protect.PlannedSource {
	return protect.PlannedSource{
		Source: failing{point.Subject{Kind: point.SubjectAccount, Name: name}, err}, Type: kind,
		Repositories: func(context.Context) ([]protect.Repository, error) { return nil, err },
	}
}

type failing struct {
	subject point.Subject
	err     error
}

func (f failing) Subject() point.Subject { return f.subject }

func (f failing) Capture(context.Context, point.Sink) error { return f.err }

func retention(r *v1alpha1.Retention) (policy.Retention, error) {
	if r == nil {
		return policy.Retention{}, nil
	}
	kept := policy.Retention{Last: r.Last, Hourly: r.Hourly, Daily: r.Daily, Weekly: r.Weekly, Monthly: r.Monthly, Yearly: r.Yearly}
	if r.Within == "" {
		return kept, nil
	}
	var err error
	kept.Within, err = policy.ParseDuration(r.Within)
	return kept, err
}

// all reads several secrets.
func (b *builder) all(ctx context.Context, secrets ...*v1alpha1.Secret) ([]fault.Secret, error) {
	values := make([]fault.Secret, len(secrets))
	for i, s := range secrets {
		var err error
		if values[i], err = b.secret(ctx, s); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// openVault opens the vault at a declared location.
func (b *builder) openVault(ctx context.Context, l v1alpha1.LocationSpec) (store, string, error) {
	location, err := vault.ParseLocation(b.home(l.URL))
	if err != nil {
		return nil, "", err
	}
	password, err := b.secret(ctx, &l.Password)
	if err != nil {
		return nil, "", err
	}
	credentials := map[string]string{}
	for name, s := range l.Credentials {
		value, err := b.secret(ctx, &s)
		if err != nil {
			return nil, "", err
		}
		credentials[name] = value.Reveal()
	}
	o := b.app.vaultOptions()
	o.Env = func(name string) string {
		if value, ok := credentials[name]; ok {
			return value
		}
		return b.app.Getenv(name)
	}
	other, err := b.secret(ctx, l.NewPassword)
	if err != nil {
		return nil, "", err
	}
	v, err := vault.OpenEither(ctx, location, []fault.Secret{password, other}, o)
	if err != nil {
		return nil, "", err
	}
	return v, location.String(), nil
}

// cacheDir is where answers of forges are kept; "" where there is no home.
func (a *app) cacheDir() string {
	if dir := a.Getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "backstay", "forges")
	}
	if home := a.Getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".cache", "backstay", "forges")
	}
	return ""
}
