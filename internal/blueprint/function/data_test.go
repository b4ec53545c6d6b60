package function

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

// machine is a cluster whose containers are all this machine.
type machine struct {
	data

	mu    sync.Mutex
	shell shell
	in    []string // containers that a shell was asked for
	own   []ownPod
}

func newMachine(t *testing.T) *machine {
	m := &machine{shell: local(t)}
	m.data = data{image: "toolbox"}
	m.data.in = func(namespace, pod, container string) shell {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.in = append(m.in, namespace+"/"+pod+"/"+container)
		return m.shell
	}
	m.data.own = func(ctx context.Context, _ blueprint.Call, p ownPod, do func(context.Context, shell) error) error {
		m.mu.Lock()
		m.own = append(m.own, p)
		m.mu.Unlock()
		return do(ctx, m.shell)
	}
	return m
}

// run runs a function by its name.
func (m *machine) run(t *testing.T, name string, c blueprint.Call) (map[string]any, error) {
	t.Helper()
	for _, f := range m.functions() {
		if f.Name == name {
			for _, required := range f.Required {
				if c.Args[required] == nil {
					t.Fatalf("%s: argument %s is missing", name, required)
				}
			}
			for given := range c.Args {
				if !slices.Contains(append(f.Required, f.Optional...), given) {
					t.Fatalf("%s: there is no argument %s", name, given)
				}
			}
			return f.Run(t.Context(), c)
		}
	}
	t.Fatalf("there is no function %s", name)
	return nil, nil
}

// stored is a call whose profile is an S3 server.
func stored(t *testing.T, endpoint, bucket string, args map[string]any) blueprint.Call {
	return blueprint.Call{
		Args: args, ID: "abcde12345", Namespace: "shop",
		Params: &blueprint.Params{Profile: &blueprint.ProfileParams{
			Location: blueprint.ProfileLocation{Type: blueprint.LocationS3, Bucket: bucket, Endpoint: endpoint, Region: "us-east-1"},
			Credential: blueprint.CredentialParams{
				Type: blueprint.CredentialKeyPair, KeyPair: &blueprint.KeyPairParams{ID: s3Key, Secret: s3Secret},
			},
		}},
		Log:  func(line string) { t.Log(line) },
		Save: func(context.Context, map[string]any) error { return nil },
	}
}

// files makes a directory of files by their names.
func files(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

func TestDataIsBackedUpRestoredAndDeleted(t *testing.T) {
	t.Parallel()
	const bucket = "data"
	m, endpoint := newMachine(t), s3Server(t, bucket)
	from := files(t, map[string]string{"a": "one", "b": strings.Repeat("two", 1000)})
	call := func(args map[string]any) blueprint.Call {
		args["encryptionKey"] = "a key\n" // as Secrets have it
		return stored(t, endpoint, bucket, args)
	}
	output, err := m.run(t, "BackupData", call(map[string]any{
		"namespace": "shop", "pod": "web-0", "container": "web", "includePath": from, "backupArtifactPrefix": bucket + "/apps/web",
	}))
	must(t, err)
	if output["backupTag"] != "abcde12345" || output["fileCount"] != "2" || output["size"] != "2.933 KiB" || output["version"] != "v0.0.0" ||
		output["phySize"] == "" || !snapshotID.MatchString(output["backupID"].(string)) {
		t.Errorf("output %v", output)
	}
	if want := []string{"shop/web-0/web"}; !slices.Equal(m.in, want) {
		t.Errorf("ran in %v, want %v", m.in, want)
	}

	t.Run("the profile may come by file", func(t *testing.T) {
		to := t.TempDir()
		c := call(map[string]any{
			"namespace": "shop", "image": "tools", "backupArtifactPrefix": "apps/web", "backupTag": output["backupTag"],
			"restorePath": to, "volumes": map[string]any{"data-web-0": "/data"},
		})
		file, err := blueprint.ProfileDocument{ProfileParams: *c.Params.Profile}.File("/dev/shm/profile.json")
		must(t, err)
		c.Params.ProfileFile, c.Params.Profile.Credential = file, blueprint.CredentialParams{Type: blueprint.CredentialFile, Path: file.Path}
		_, err = m.run(t, "RestoreData", c)
		must(t, err)
		got, err := os.ReadFile(filepath.Join(to, from, "a"))
		must(t, err)
		if string(got) != "one" {
			t.Errorf("came back as %q", got)
		}
		pod := m.own[len(m.own)-1]
		if pod.image != "tools" || pod.namespace != "shop" || !maps.Equal(pod.volumes, map[string]string{"data-web-0": "/data"}) {
			t.Errorf("pod %+v", pod)
		}
	})
	t.Run("stats", func(t *testing.T) {
		got, err := m.run(t, "BackupDataStats", call(map[string]any{
			"namespace": "shop", "backupArtifactPrefix": "apps/web", "backupID": output["backupID"],
		}))
		if err != nil || got["size"] != "2.933 KiB" || got["mode"] != "restore-size" {
			t.Errorf("%v, %v", got, err)
		}
	})
	t.Run("check", func(t *testing.T) {
		for _, test := range []struct{ prefix, key, incorrect, missing string }{
			{"apps/web", "a key", "false", "false"}, {"apps/web", "another", "true", "false"}, {"apps/none", "a key", "false", "true"},
		} {
			c := call(map[string]any{"backupArtifactPrefix": test.prefix})
			c.Args["encryptionKey"] = test.key
			got, err := m.run(t, "CheckRepository", c)
			if err != nil || got["passwordIncorrect"] != test.incorrect || got["repoUnavailable"] != test.missing {
				t.Errorf("%+v: %v, %v", test, got, err)
			}
		}
		if pod := m.own[len(m.own)-1]; pod.image != "toolbox" || pod.namespace != "shop" {
			t.Errorf("pod %+v", pod)
		}
	})
	t.Run("delete", func(t *testing.T) {
		args := map[string]any{
			"namespace": "shop", "backupArtifactPrefix": "apps/web", "backupTag": output["backupTag"], "reclaimSpace": true,
		}
		got, err := m.run(t, "DeleteData", call(args))
		if err != nil || got["spaceFreed"] == "0 B" || !strings.HasSuffix(got["spaceFreed"].(string), " B") {
			t.Errorf("%v, %v", got, err)
		}
		_, err = m.run(t, "RestoreData", call(map[string]any{
			"namespace": "shop", "image": "tools", "backupArtifactPrefix": "apps/web", "backupIdentifier": output["backupID"],
			"volumes": map[string]any{"data-web-0": "/data"}, "restorePath": t.TempDir(),
		}))
		if err == nil {
			t.Error("what was deleted is restored")
		}
	})
}

// fakeRestic keeps each snapshot as a file that holds its tag, below $HOME.
const fakeRestic = `#!/bin/sh
for last; do :; done
for arg; do case $arg in --tag=*) tag=${arg#--tag=} ;; --target=*) target=${arg#--target=} ;; esac; done
repository=$HOME/$(echo "$RESTIC_REPOSITORY" | tr / _)
[ "$1" != init ] || exec mkdir "$repository"
cd "$repository" 2>/dev/null || { echo 'Is there a repository at the following location?' >&2; exit 1; }
case $1 in
backup)
	id=$(printf %08x $(($(cat count 2>/dev/null || echo 0) + 1)))
	echo $((0x$id)) >count
	echo "$tag" >"snapshot-$id"
	[ ! -e "$last/unreadable" ] || exit 3
	echo "{\"snapshot_id\":\"$id\",\"total_files_processed\":1}" ;;
snapshots)
	list=
	for s in snapshot-*; do [ "$(cat "$s" 2>/dev/null)" != "$tag" ] || list="$list${list:+,}{\"id\":\"${s#snapshot-}\"}"; done
	echo "[$list]" ;;
restore) cp "snapshot-$last" "$target/" ;;
forget) rm -f "snapshot-$last" ;;
esac
`

// withFakeRestic is a machine that has another restic.
func withFakeRestic(t *testing.T) (m *machine, home string) {
	m, home = newMachine(t), t.TempDir()
	must(t, os.WriteFile(filepath.Join(home, "restic"), []byte(fakeRestic), 0o755))
	m.shell = shellAt(home, home+":"+os.Getenv("PATH"))
	return m, home
}

func TestDataOfAllPods(t *testing.T) {
	t.Parallel()
	m, _ := withFakeRestic(t)
	set := &blueprint.WorkloadParams{Name: "web", Namespace: "shop", Pods: []string{"web-0", "web-1"}, PersistentVolumeClaims: map[string]map[string]string{
		"web-0": {"data-web-0": "/data"}, "web-1": {"data-web-1": "/data"},
	}}
	call := func(args map[string]any) blueprint.Call {
		c := stored(t, "", "bucket", args)
		c.Params.StatefulSet = set
		return c
	}
	args := map[string]any{"namespace": "shop", "container": "web", "includePath": "/data", "backupArtifactPrefix": "all"}
	var saved map[string]any
	c := call(args)
	c.Save = func(_ context.Context, output map[string]any) error {
		saved = output
		return nil
	}
	output, err := m.run(t, "BackupDataAll", c)
	must(t, err)
	var info map[string]podBackup
	must(t, json.Unmarshal([]byte(output["BackupAllInfo"].(string)), &info))
	want := map[string]podBackup{
		"web-0": {PodName: "web-0", BackupID: "00000001", BackupTag: c.ID}, "web-1": {PodName: "web-1", BackupID: "00000001", BackupTag: c.ID},
	}
	if !maps.Equal(info, want) || saved["BackupAllInfo"] != output["BackupAllInfo"] {
		t.Errorf("info %v, saved %v; want %v", info, saved, want)
	}

	t.Run("what an interrupted run did is not done again", func(t *testing.T) {
		first, err := json.Marshal(map[string]podBackup{"web-0": info["web-0"]})
		must(t, err)
		c := call(args)
		c.Saved = map[string]any{"BackupAllInfo": string(first)}
		m.in = nil
		output, err = m.run(t, "BackupDataAll", c)
		must(t, err)
		if want := []string{"shop/web-1/web"}; !slices.Equal(m.in, want) {
			t.Errorf("ran in %v, want %v", m.in, want)
		}
	})
	t.Run("restore", func(t *testing.T) {
		to := t.TempDir()
		c := call(map[string]any{
			"namespace": "shop", "image": "tools", "backupArtifactPrefix": "all", "backupInfo": output["BackupAllInfo"], "restorePath": to,
		})
		_, err := m.run(t, "RestoreDataAll", c)
		must(t, err)
		for _, name := range []string{"snapshot-00000001", "snapshot-00000002"} { // the second run of web-1 dropped its first
			if _, err := os.Stat(filepath.Join(to, name)); err != nil {
				t.Error(err)
			}
		}
		if len(m.own) != 2 || m.own[0].suffix == m.own[1].suffix || len(m.own[0].volumes) != 1 {
			t.Errorf("pods %+v", m.own)
		}
		set.Pods = append(set.Pods, "web-2")
		if _, err = m.run(t, "RestoreDataAll", c); err == nil || !strings.Contains(err.Error(), "web-2") {
			t.Errorf("a pod without a backup: %v", err)
		}
	})
	t.Run("delete", func(t *testing.T) {
		args := map[string]any{"namespace": "shop", "backupArtifactPrefix": "all", "backupInfo": output["BackupAllInfo"]}
		for range 2 {
			got, err := m.run(t, "DeleteDataAll", call(args))
			if err != nil || got["spaceFreed"] != "0 B" {
				t.Errorf("%v, %v", got, err)
			}
		}
	})
	t.Run("hostile info", func(t *testing.T) {
		for _, text := range []string{
			`[]`, `{"../../other":{"BackupID":"0123456789abcdef"}}`, `{"web-0":{"BackupID":"--all"}}`, `{"web-0":{}}`, `{"":{"BackupID":"01234567"}}`,
		} {
			_, err := m.run(t, "DeleteDataAll", call(map[string]any{"namespace": "shop", "backupArtifactPrefix": "all", "backupInfo": text}))
			if !errors.Is(err, fault.ErrInvalid) {
				t.Errorf("%s: %v, want invalid", text, err)
			}
		}
	})
}

func TestBackupThatLacksFilesIsNotKept(t *testing.T) {
	t.Parallel()
	m, home := withFakeRestic(t)
	_, err := m.run(t, "BackupData", stored(t, "", "bucket", map[string]any{
		"namespace": "shop", "pod": "web-0", "container": "web", "backupArtifactPrefix": "p",
		"includePath": files(t, map[string]string{"unreadable": ""}),
	}))
	if !errors.Is(err, fault.ErrIncomplete) {
		t.Errorf("error %v, want incomplete", err)
	}
	if left, _ := filepath.Glob(filepath.Join(home, "*", "snapshot-*")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestCopyVolumeData(t *testing.T) {
	t.Parallel()
	m, _ := withFakeRestic(t)
	output, err := m.run(t, "CopyVolumeData", stored(t, "", "bucket", map[string]any{
		"namespace": "shop", "volume": "claim", "dataArtifactPrefix": "volumes/claim",
	}))
	must(t, err)
	if output["backupRoot"] != "/mnt/vol_data/claim" || output["backupArtifactLocation"] != "bucket/volumes/claim" || output["fileCount"] != "1" {
		t.Errorf("output %v", output)
	}
	if want := map[string]string{"claim": "/mnt/vol_data/claim"}; !maps.Equal(m.own[0].volumes, want) {
		t.Errorf("volumes %v, want %v", m.own[0].volumes, want)
	}
}

func TestDataArgumentsAreRefused(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.shell = func(context.Context, string, io.Writer, io.Writer) (int, error) {
		t.Error("something ran")
		return 1, nil
	}
	restore := map[string]any{"namespace": "n", "image": "i", "backupArtifactPrefix": "p", "backupTag": "t", "volumes": map[string]any{"c": "/d"}}
	remove := map[string]any{"namespace": "n", "backupArtifactPrefix": "p", "backupTag": "t"}
	for _, test := range []struct {
		what, function string
		args           map[string]any
		change         map[string]any
	}{
		{"no backup", "RestoreData", restore, map[string]any{"backupTag": ""}},
		{"two backups", "RestoreData", restore, map[string]any{"backupIdentifier": "0123456789"}},
		{"an option for an id", "RestoreData", restore, map[string]any{"backupTag": "", "backupIdentifier": "--all"}},
		{"no volumes", "RestoreData", restore, map[string]any{"volumes": nil}},
		{"volumes of no workload", "RestoreData", restore, map[string]any{"volumes": nil, "pod": "web-0"}},
		{"volumes of another form", "RestoreData", restore, map[string]any{"volumes": []any{"a"}}},
		{"another bucket", "RestoreData", restore, map[string]any{"backupArtifactPrefix": "../other"}},
		{"a flag of another form", "RestoreData", restore, map[string]any{"insecureTLS": "perhaps"}},
		{"nothing to delete", "DeleteData", remove, map[string]any{"backupTag": ""}},
		{"an id and a tag", "DeleteData", remove, map[string]any{"backupID": "0123456789"}},
		{"prefixes without backups", "DeleteData", remove, map[string]any{"backupArtifactPrefix": "p q", "backupTag": "t u v"}},
		{"an option for an id to delete", "DeleteData", remove, map[string]any{"backupTag": "", "backupID": "--keep-last=1"}},
	} {
		args := maps.Clone(test.args)
		maps.Copy(args, test.change)
		if _, err := m.run(t, test.function, stored(t, "http://127.0.0.1:1", "b", args)); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%s: %v, want invalid", test.what, err)
		}
	}
	c := stored(t, "", "", remove)
	c.Params.Profile = nil
	if _, err := m.run(t, "DeleteData", c); !errors.Is(err, fault.ErrInvalid) {
		t.Errorf("no profile: %v, want invalid", err)
	}
	c = stored(t, "", "b", remove)
	c.Params.Profile.Location.Type = blueprint.LocationKopia
	if _, err := m.run(t, "DeleteData", c); !errors.Is(err, fault.ErrUnsupported) {
		t.Errorf("a vault: %v, want not supported", err)
	}
}

func TestRepositoryOfProfile(t *testing.T) {
	t.Parallel()
	secret := func(of map[string]string) blueprint.CredentialParams {
		s := &corev1.Secret{Data: map[string][]byte{}}
		for name, value := range of {
			s.Data[name] = []byte(value)
		}
		return blueprint.CredentialParams{Type: blueprint.CredentialSecret, Secret: s}
	}
	pair := blueprint.CredentialParams{Type: blueprint.CredentialKeyPair, KeyPair: &blueprint.KeyPairParams{ID: "id", Secret: "hidden"}}
	for _, test := range []struct {
		kind       string
		credential blueprint.CredentialParams
		want       string
	}{
		{"s3Compliant", pair, "AWS_ACCESS_KEY_ID=id AWS_SECRET_ACCESS_KEY=hidden"},
		{
			"s3Compliant", secret(map[string]string{"aws_access_key_id": "id", "aws_secret_access_key": "hidden", "aws_session_token": "token"}),
			"AWS_ACCESS_KEY_ID=id AWS_SECRET_ACCESS_KEY=hidden AWS_SESSION_TOKEN=token",
		},
		{"azure", pair, "AZURE_ACCOUNT_NAME=id AZURE_ACCOUNT_KEY=hidden"},
		{
			"azure", secret(map[string]string{"azure_storage_account_id": "id", "azure_storage_key": "hidden"}),
			"AZURE_ACCOUNT_NAME=id AZURE_ACCOUNT_KEY=hidden",
		},
		{"gcs", pair, "GOOGLE_PROJECT_ID=id file=hidden"},
		{"gcs", secret(map[string]string{"gcp_project_id": "id", "service-account.json": "hidden"}), "GOOGLE_PROJECT_ID=id file=hidden"},
		{"s3Compliant", secret(nil), ""},
		{"s3Compliant", secret(map[string]string{"aws_access_key_id": "id", "aws_secret_access_key": "hidden", "role": "arn"}), ""},
		{"s3Compliant", blueprint.CredentialParams{Type: blueprint.CredentialKeyPair}, ""},
	} {
		p := &blueprint.Params{Profile: &blueprint.ProfileParams{
			Location: blueprint.ProfileLocation{Type: test.kind, Bucket: "b"}, Credential: test.credential,
		}}
		r, err := repositoryOf(p, "p", "key", false)
		var got []string
		for _, v := range slices.Concat(r.credentials, r.settings) {
			got = append(got, v.name+"="+v.value)
		}
		if r.googleFile != "" {
			got = append(got, "file="+r.googleFile.Reveal())
		}
		if text := strings.Join(got, " "); text != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s, %s: %q, %v; want %q", test.kind, test.credential.Type, text, err, test.want)
		}
	}
}

func TestClaimsOfPodThatIsScaledDown(t *testing.T) {
	t.Parallel()
	var set map[string]any
	must(t, json.Unmarshal([]byte(`{"kind":"StatefulSet","spec":{
		"volumeClaimTemplates":[{"metadata":{"name":"data"}}],
		"template":{"spec":{
			"volumes":[{"name":"shared","persistentVolumeClaim":{"claimName":"common"}},{"name":"tmp","emptyDir":{}}],
			"containers":[{"name":"web","volumeMounts":[{"name":"data","mountPath":"/data"},{"name":"shared","mountPath":"/shared"},{"name":"tmp","mountPath":"/tmp"}]}]
		}}}}`), &set))
	p := &blueprint.Params{StatefulSet: &blueprint.WorkloadParams{Name: "web"}, Object: set}
	got, err := claimsOf(p, "web-3")
	if want := map[string]string{"data-web-3": "/data", "common": "/shared"}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	p.Object = map[string]any{"spec": "hostile"}
	if _, err := claimsOf(p, "web-3"); !errors.Is(err, fault.ErrInvalid) {
		t.Errorf("%v, want invalid", err)
	}
}
