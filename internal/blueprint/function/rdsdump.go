package function

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

// dumpScript dumps the databases that are its arguments, or all, and stores them as one file. Names are handed over in the environment:
// as an argument a name may be a connection to somewhere else.
const dumpScript = `mkdir /tmp/backup
if [ $# = 0 ]; then
	psql -d postgres -Atc "select datname from pg_database where datallowconn and not datistemplate and datname <> 'rdsadmin'" >/tmp/names
	readarray -t names </tmp/names
	set -- "${names[@]}"
fi
n=0
for name; do
	n=$((n + 1))
	echo "database $name"
	PGDATABASE=$name pg_dump --create --clean --if-exists --inserts >"/tmp/backup/$n.sql"
done
tar -C /tmp -czf - backup | kando location push --path "$TARGET" -
`

// undumpScript puts such a file into databases. Dumps of the original have other names, and do not drop what is there.
const undumpScript = `mkdir /tmp/restore
kando location pull --path "$TARGET" - | tar -C /tmp/restore -xzf - --no-same-owner
for file in /tmp/restore/backup/*.sql; do
	psql -d template1 -q -v ON_ERROR_STOP=1 -f "$file"
done
`

const hintDump = "name an image that has PostgreSQL's clients, bash, tar and Backstay's kando"

// exportSnapshot dumps the databases of a snapshot to the profile's location, by way of a server that is made of it and lives only as
// long as that takes.
func (d databases) exportSnapshot(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	a := &reader{of: c.Args}
	id, snapshot, of := a.text("instanceID"), a.text("snapshotID"), a.text("dbEngine")
	names, groups, subnetGroup := a.list("databases"), a.list("securityGroupID"), a.text("dbSubnetGroup")
	prefix := a.textOr("backupArtifactPrefix", id)
	if err := errors.Join(a.err, onlyPostgres(of), withTools(a.text("image"))); err != nil {
		return nil, err
	}
	api, err := d.client(c, a)
	if err != nil {
		return nil, err
	}
	e := instances{api: api, poll: d.poll}
	like := server{groups: groups, subnetGroup: subnetGroup}
	if source, err := e.find(ctx, id); err == nil {
		like.subnetGroup = firstOf(like.subnetGroup, source.subnetGroup)
		if len(like.groups) == 0 {
			like.groups = source.groups
		}
	} else if ignoreNotFound(err) != nil {
		return nil, err
	}
	const most = 63 // characters of a name
	temporary, backup := id[:min(len(id), most-1-len(c.ID))]+"-"+c.ID, "backup-"+c.ID+".tar.gz"
	s, err := d.bring(ctx, c, e, temporary, snapshot, like)
	var output map[string]any
	if err == nil {
		output, err = d.runDump(ctx, c, a, s.endpoint, prefix+"/"+backup, dumpScript, names)
	}
	if err != nil && (resumed(ctx) || errors.Is(err, fault.ErrExists)) {
		return nil, err
	}
	remove := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
		defer cancel()
		return e.end(ctx, temporary)
	}
	if err != nil {
		return nil, errors.Join(err, remove(ctx))
	}
	text, err := yaml.Marshal(like.groups)
	if err != nil {
		return nil, fault.Wrap("write security groups", fault.ErrInvalid, err, "")
	}
	output["snapshotID"], output["instanceID"], output["securityGroupID"], output["backupID"] = snapshot, id, string(text), backup
	return output, afterwards(ctx, c, remove)
}

// restoreDump puts what an export dumped into the databases of a server.
func (d databases) restoreDump(ctx context.Context, c blueprint.Call, e engine, id string) (map[string]any, error) {
	a := &reader{of: c.Args}
	prefix, backup, of := a.text("backupArtifactPrefix"), a.text("backupID"), a.text("dbEngine")
	for _, name := range []string{"backupArtifactPrefix", "backupID", "username", "password", "namespace"} {
		if a.text(name) == "" {
			return nil, fault.New("restore database "+id, fault.ErrInvalid, fmt.Sprintf("neither snapshotID nor %s is given", name), "")
		}
	}
	if err := errors.Join(a.err, onlyPostgres(of), withTools(a.text("image"))); err != nil {
		return nil, err
	}
	s, err := e.find(ctx, id)
	if err != nil {
		return nil, err
	}
	if _, err := d.runDump(ctx, c, a, s.endpoint, prefix+"/"+backup, undumpScript, nil); err != nil {
		return nil, err
	}
	return map[string]any{"endpoint": s.endpoint}, nil
}

func onlyPostgres(engine string) error {
	if strings.EqualFold(engine, "PostgreSQL") {
		return nil
	}
	return fault.New("argument dbEngine", fault.ErrUnsupported, fmt.Sprintf("there are dumps of PostgreSQL, not of %.40q", engine), "")
}

// withTools refuses that no image is named: Backstay's own has no clients of databases.
func withTools(image string) error {
	if image != "" {
		return nil
	}
	return fault.New("argument image", fault.ErrInvalid, "it is missing", hintDump)
}

// runDump runs a script in a pod that reaches a server and the profile's location. Who logs in, and the location's credentials, come from
// Secrets that go with the pod.
func (d databases) runDump(
	ctx context.Context, c blueprint.Call, a *reader, host, target, script string, names []string,
) (map[string]any, error) {
	user, password, image := strings.TrimSpace(a.text("username")), strings.TrimSpace(a.text("password")), a.text("image")
	if a.err != nil {
		return nil, a.err
	}
	if slices.Contains(strings.Split(target, "/"), "..") {
		return nil, fault.New("argument backupArtifactPrefix", fault.ErrInvalid, fmt.Sprintf("%q leads elsewhere", target), "")
	}
	c, err := withProfileFile(c)
	if err != nil {
		return nil, err
	}
	login := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "backstay-" + c.ID + "-login"},
		Data:       map[string][]byte{"PGUSER": []byte(user), "PGPASSWORD": []byte(password)},
	}
	main := corev1.Container{
		Name: container, Image: image, Command: append([]string{"bash", "-o", "errexit", "-o", "pipefail", "-c", script, "dump"}, names...),
		Env: []corev1.EnvVar{
			{Name: "PGHOST", Value: host}, {Name: "TARGET", Value: target}, {Name: "KANDO_PROFILE_FILE", Value: c.Params.ProfileFile.Path},
		},
		EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: login.Name}}}},
	}
	pod, err := d.o.newPod(c, corev1.PodSpec{Containers: []corev1.Container{main}})
	if err != nil {
		return nil, err
	}
	login.Namespace = pod.Namespace
	mark(login, c)
	if err := d.o.writeSecret(ctx, c, login); err != nil {
		return nil, fault.Wrap("store the login for the pod", nil, err, "")
	}
	output, err := d.o.runPod(ctx, c, pod, container)
	remove := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
		defer cancel()
		return fault.Wrap("delete the login of the pod", nil, d.o.remove(ctx, login), "")
	}
	switch {
	case err == nil:
		return output, afterwards(ctx, c, remove)
	case resumed(ctx):
		return nil, err
	}
	return nil, fault.Wrap("", nil, errors.Join(err, remove(ctx)), hintDump)
}

// withProfileFile is a call whose profile comes by file, whether its templates see it or not.
func withProfileFile(c blueprint.Call) (blueprint.Call, error) {
	profile, err := profileOf(c.Params)
	if err != nil {
		return c, err
	}
	if profile.Location.Type == blueprint.LocationKopia {
		return c, fault.New("read the profile", fault.ErrUnsupported, "dumps are stored in buckets", "use a profile of type s3Compliant, gcs or azure")
	}
	if c.Params.ProfileFile != nil {
		return c, nil
	}
	file, err := blueprint.ProfileDocument{ProfileParams: profile}.File(path.Join("/dev/shm", "backstay-"+c.ID, "profile.json"))
	if err != nil {
		return c, fault.Wrap("write the profile", fault.ErrInvalid, err, "")
	}
	params := *c.Params
	params.ProfileFile = file
	c.Params = &params
	return c, nil
}

// afterwards has something done once the end of a call is saved.
func afterwards(ctx context.Context, c blueprint.Call, do func(context.Context) error) error {
	if c.After == nil {
		return do(ctx)
	}
	c.After(do)
	return nil
}
