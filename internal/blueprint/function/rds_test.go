package function

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

// ask runs a function on a fake RDS.
func (f *fakeRDS) ask(ctx context.Context, o Options, name string, c blueprint.Call) (map[string]any, error) {
	for _, function := range (databases{o: o, endpoint: f.URL, poll: time.Millisecond}).functions() {
		if function.Name == name {
			return function.Run(ctx, c)
		}
	}
	return nil, fmt.Errorf("there is no function %s", name)
}

// shop is the database of the tests.
func shop() *fakeDatabase {
	return &fakeDatabase{state: "available", class: "db.t3.small", subnetGroup: "private", groups: []string{"sg-1", "sg-2"}}
}

func TestCreateAndDeleteRDSSnapshot(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"", "aurora-postgresql"} {
		f := newFakeRDS(t)
		f.databases["shop"] = shop()
		f.databases["shop"].isCluster = engine != ""
		want := map[string]any{
			"snapshotID": "shop-abcde12345", "instanceID": "shop", "securityGroupID": "- sg-1\n- sg-2\n", "allocatedStorage": "20GiB", "dbSubnetGroup": "private",
		}
		for range 2 { // the second takes up the first
			output, err := f.ask(t.Context(), Options{}, "CreateRDSSnapshot", stored(t, "", "b", map[string]any{"instanceID": "shop", "dbEngine": engine}))
			if err != nil || !maps.Equal(output, want) {
				t.Errorf("%q: %v, %v; want %v", engine, output, err, want)
			}
		}
		for range 2 { // what is gone is deleted
			c := stored(t, "", "b", map[string]any{"snapshotID": "shop-abcde12345", "dbEngine": engine})
			if _, err := f.ask(t.Context(), Options{}, "DeleteRDSSnapshot", c); err != nil {
				t.Errorf("%q: delete: %v", engine, err)
			}
			if f.snapshots["shop-abcde12345"] == "gone" {
				delete(f.snapshots, "shop-abcde12345")
			}
		}
	}
}

func TestRestoreRDSSnapshot(t *testing.T) {
	t.Parallel()
	restore := func(f *fakeRDS, engine string, saved map[string]any) (map[string]any, map[string]any, error) {
		c := stored(t, "", "b", map[string]any{"instanceID": "shop", "snapshotID": "snap", "dbEngine": engine})
		var kept map[string]any
		c.Saved, c.Save = saved, func(_ context.Context, output map[string]any) error {
			kept = output
			return nil
		}
		output, err := f.ask(t.Context(), Options{}, "RestoreRDSSnapshot", c)
		return output, kept, err
	}
	t.Run("in place", func(t *testing.T) {
		f := newFakeRDS(t)
		f.databases["shop"], f.snapshots["snap"] = shop(), "available"
		output, saved, err := restore(f, "", nil)
		must(t, err)
		now := f.databases["shop"]
		if now.phase != "abcde12345" || now.subnetGroup != "private" || !slices.Equal(now.groups, []string{"sg-1", "sg-2"}) || output["endpoint"] != "shop.lab.local" {
			t.Errorf("database %+v, output %v", now, output)
		}
		calls := slices.Clone(f.calls)
		_, _, err = restore(f, "", saved)
		must(t, err)
		if want := []string{"DeleteDBInstance shop", "RestoreDBInstanceFromDBSnapshot shop"}; !slices.Equal(calls, want) {
			t.Errorf("calls %q, want %q", calls, want)
		}
		if slices.Contains(f.calls[len(calls):], "DeleteDBInstance shop") {
			t.Error("a run that took up an interrupted one deleted what that restored")
		}
		t.Run("interrupted after the old one was deleted", func(t *testing.T) {
			delete(f.databases, "shop")
			_, _, err := restore(f, "", saved)
			must(t, err)
			if now := f.databases["shop"]; now.subnetGroup != "private" || len(now.groups) != 2 {
				t.Errorf("database %+v", now)
			}
		})
	})
	t.Run("a snapshot that is not there deletes nothing", func(t *testing.T) {
		for _, state := range []string{"", "creating"} {
			f := newFakeRDS(t)
			f.databases["shop"], f.snapshots["snap"] = shop(), state
			_, _, err := restore(f, "", nil)
			if err == nil || len(f.calls) != 0 || f.databases["shop"].state != "available" {
				t.Errorf("snapshot %q: %v, calls %q", state, err, f.calls)
			}
		}
	})
	t.Run("a cluster of Aurora", func(t *testing.T) {
		f := newFakeRDS(t)
		cluster, member := shop(), shop()
		cluster.isCluster, member.cluster = true, "shop"
		f.databases["shop"], f.databases["shop-1"], f.snapshots["snap"] = cluster, member, "available"
		_, saved, err := restore(f, "aurora-mysql", nil)
		must(t, err)
		want := []string{
			"DeleteDBInstance shop-1", "DeleteDBCluster shop", "RestoreDBClusterFromSnapshot shop", "CreateDBInstance shop-instance-1",
		}
		if !slices.Equal(f.calls, want) {
			t.Errorf("calls %q, want %q", f.calls, want)
		}
		if now := f.databases["shop-instance-1"]; now.class != "db.t3.small" || now.cluster != "shop" || saved["instanceClass"] != "db.t3.small" {
			t.Errorf("instance %+v, saved %v", now, saved)
		}
	})
	t.Run("a state that leads nowhere", func(t *testing.T) {
		f := newFakeRDS(t)
		f.snapshots["snap"], f.stuck = "available", "incompatible-restore"
		if _, _, err := restore(f, "", nil); !errors.Is(err, fault.ErrRefused) || !strings.Contains(err.Error(), "incompatible-restore") {
			t.Errorf("%v, want refused with the state", err)
		}
	})
}

func TestCredentialsOfAWS(t *testing.T) {
	t.Parallel()
	ask := func(t *testing.T, args map[string]any, change func(*blueprint.Call)) ([]string, error) {
		t.Helper()
		f := newFakeRDS(t)
		args["snapshotID"] = "none"
		c := stored(t, "", "b", args)
		change(&c)
		_, err := f.ask(t.Context(), Options{System: "backstay"}, "DeleteRDSSnapshot", c)
		return f.keys, err
	}
	secret := corev1.Secret{Data: map[string][]byte{"aws_access_key_id": []byte("AKIDSECRET"), "aws_secret_access_key": []byte("s")}}
	role := corev1.Secret{Data: maps.Clone(secret.Data)}
	role.Data["role"] = []byte("arn:aws:iam::123456789012:role/backup")
	for _, test := range []struct {
		what   string
		args   map[string]any
		change func(*blueprint.Call)
		keys   []string
		want   error
	}{
		{"profile", map[string]any{}, func(*blueprint.Call) {}, []string{s3Key}, nil},
		{
			"secret of the action",
			map[string]any{"credentialsSource": "secret", "credentialsSecret": "aws", "region": "eu-west-1"},
			func(c *blueprint.Call) { c.Params.Secrets = map[string]corev1.Secret{"aws": secret} },
			[]string{"AKIDSECRET"},
			nil,
		},
		{
			"secret of the phase, with a role",
			map[string]any{"credentialsSource": "secret", "credentialsSecret": "aws", "region": "eu-west-1"},
			func(c *blueprint.Call) {
				c.Params.CurrentPhase = &blueprint.PhaseParams{Secrets: map[string]corev1.Secret{"aws": role}}
			},
			[]string{"AKIDSECRET", "assumed"},
			nil,
		},
		{"no secret", map[string]any{"credentialsSource": "secret", "credentialsSecret": "aws", "region": "r"}, func(*blueprint.Call) {}, nil, fault.ErrInvalid},
		{"no region", map[string]any{}, func(c *blueprint.Call) { c.Params.Profile.Location.Region = "" }, nil, fault.ErrInvalid},
		{"no profile", map[string]any{}, func(c *blueprint.Call) { c.Params.Profile = nil }, nil, fault.ErrInvalid},
		{"another source", map[string]any{"credentialsSource": "guess"}, func(*blueprint.Call) {}, nil, fault.ErrInvalid},
		{"the account of another namespace", map[string]any{"credentialsSource": "eks_service_account"}, func(*blueprint.Call) {}, nil, fault.ErrDenied},
		{
			"an account without a role",
			map[string]any{"credentialsSource": "eks_service_account"},
			func(c *blueprint.Call) { c.Namespace = "backstay" }, nil, fault.ErrInvalid,
		},
	} {
		keys, err := ask(t, test.args, test.change)
		if !slices.Equal(keys, test.keys) || !errors.Is(err, test.want) {
			t.Errorf("%s: keys %q, %v; want %q, %v", test.what, keys, err, test.keys, test.want)
		}
	}
}

func TestAnswersOfAWSAreClassed(t *testing.T) {
	t.Parallel()
	f := newFakeRDS(t)
	_, err := f.ask(t.Context(), Options{}, "CreateRDSSnapshot", stored(t, "", "b", map[string]any{"instanceID": "none"}))
	if !errors.Is(err, fault.ErrNotFound) || !strings.Contains(err.Error(), "DBInstanceNotFound") {
		t.Errorf("%v, want not found", err)
	}
}

func TestExportRDSSnapshotToLocation(t *testing.T) {
	l := newLab(t)
	f := newFakeRDS(t)
	f.databases["shop"], f.snapshots["snap"] = shop(), "available"
	var pod corev1.Pod
	var login, profile corev1.Secret
	l.kubelet(node{
		status: func(p *corev1.Pod) *corev1.PodStatus {
			if p.Status.Phase == corev1.PodPending {
				pod = *p
				l.ok(l.cluster.Client.Get(l.Context(), client.ObjectKey{Namespace: l.ns, Name: p.Name + "-login"}, &login))
				l.ok(l.cluster.Client.Get(l.Context(), client.ObjectKey{Namespace: l.ns, Name: p.Name}, &profile))
			}
			return &corev1.PodStatus{Phase: corev1.PodSucceeded, ContainerStatuses: []corev1.ContainerStatus{{
				Name: container, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}},
			}}}
		},
		log: func(w io.Writer, _, _ string, _ bool) { fmt.Fprintln(w, "database shop") },
	})
	c := l.call(map[string]any{
		"namespace": l.ns, "instanceID": "shop", "snapshotID": "snap", "dbEngine": "PostgreSQL", "username": "admin\n", "password": "hidden-word\n",
		"backupArtifactPrefix": "dumps/shop", "databases": []any{"orders", "host=evil"}, "image": "tools",
	})
	c.Params.Profile = stored(t, "", "b", nil).Params.Profile
	output, err := f.ask(t.Context(), l.options, "ExportRDSSnapshotToLocation", c)
	l.ok(err)
	want := map[string]any{"snapshotID": "snap", "instanceID": "shop", "securityGroupID": "- sg-1\n- sg-2\n", "backupID": "backup-abcde12345.tar.gz"}
	if !maps.Equal(output, want) {
		t.Errorf("output %v, want %v", output, want)
	}
	if string(login.Data["PGUSER"]) != "admin" || string(login.Data["PGPASSWORD"]) != "hidden-word" || !strings.Contains(string(profile.Data["profile.json"]), s3Secret) {
		t.Errorf("login %v, profile %d bytes", login.Data, len(profile.Data["profile.json"]))
	}
	text := fmt.Sprint(pod.Spec)
	for _, secret := range []string{"hidden-word", s3Secret} {
		if strings.Contains(text, secret) {
			t.Errorf("the pod shows %q", secret)
		}
	}
	main := pod.Spec.Containers[0]
	if !slices.Contains(main.Env, corev1.EnvVar{Name: "PGHOST", Value: "shop-abcde12345.lab.local"}) ||
		!slices.Contains(main.Env, corev1.EnvVar{Name: "TARGET", Value: "dumps/shop/backup-abcde12345.tar.gz"}) ||
		!slices.Equal(main.Command[len(main.Command)-2:], []string{"orders", "host=evil"}) {
		t.Errorf("container %+v", main)
	}
	if temporary := f.databases["shop-abcde12345"]; temporary.state != "deleting" || f.databases["shop"].state != "available" {
		t.Errorf("left %+v", f.databases)
	}
	if err := l.cluster.Client.Get(t.Context(), client.ObjectKeyFromObject(&login), &login); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("the login is there: %v", err)
	}
}

func TestRestoreRDSOfDumpIsRefused(t *testing.T) {
	t.Parallel()
	f := newFakeRDS(t)
	f.databases["shop"] = shop()
	good := map[string]any{
		"instanceID": "shop", "dbEngine": "PostgreSQL", "backupArtifactPrefix": "p", "backupID": "b", "username": "u", "password": "p", "namespace": "n", "image": "tools",
	}
	for _, test := range []struct {
		change map[string]any
		want   error
	}{
		{map[string]any{"password": ""}, fault.ErrInvalid},
		{map[string]any{"image": ""}, fault.ErrInvalid},
		{map[string]any{"dbEngine": "mysql"}, fault.ErrUnsupported},
		{map[string]any{"backupArtifactPrefix": "../../other"}, fault.ErrInvalid},
	} {
		args := maps.Clone(good)
		maps.Copy(args, test.change)
		if _, err := f.ask(t.Context(), Options{}, "RestoreRDSSnapshot", stored(t, "", "b", args)); !errors.Is(err, test.want) {
			t.Errorf("%v: %v, want %v", test.change, err, test.want)
		}
	}
	c := stored(t, "", "b", good)
	c.Params.Profile.Location.Type = blueprint.LocationKopia
	if _, err := f.ask(t.Context(), Options{}, "RestoreRDSSnapshot", c); !errors.Is(err, fault.ErrUnsupported) {
		t.Errorf("a vault: %v, want not supported", err)
	}
}
