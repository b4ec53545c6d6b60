package function

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

// awsPoll is how often RDS is asked how far it is: it takes minutes.
const awsPoll = 15 * time.Second

// databases are the functions on Amazon RDS.
type databases struct {
	o        Options
	endpoint string // of RDS and of STS; AWS's own where empty
	poll     time.Duration
}

// rdsFunctions are those on Amazon RDS. All of them find what an interrupted run began by its name or its tag.
func (o Options) rdsFunctions() []blueprint.Function {
	return databases{o: o, poll: awsPoll}.functions()
}

func (d databases) functions() []blueprint.Function {
	access := []string{"dbEngine", "credentialsSource", "credentialsSecret", "region"}
	return []blueprint.Function{
		{
			Name: "CreateRDSSnapshot", Interrupted: blueprint.Attaches, Run: d.createSnapshot,
			Required: []string{"instanceID"}, Optional: access,
		},
		{
			Name: "ExportRDSSnapshotToLocation", Interrupted: blueprint.Attaches, Run: d.exportSnapshot,
			Required: []string{"namespace", "instanceID", "snapshotID", "dbEngine"},
			Optional: append(argsOfPods("username", "password", "backupArtifactPrefix", "databases", "securityGroupID", "dbSubnetGroup", "image"),
				access[1:]...),
		},
		{
			Name: "RestoreRDSSnapshot", Interrupted: blueprint.Attaches, Run: d.restoreSnapshot,
			Required: []string{"instanceID"},
			Optional: append(argsOfPods("snapshotID", "securityGroupID", "dbSubnetGroup",
				"backupArtifactPrefix", "backupID", "username", "password", "namespace", "image"), access...),
		},
		{
			Name: "DeleteRDSSnapshot", Interrupted: blueprint.Repeats, Run: d.deleteSnapshot,
			Required: []string{"snapshotID"}, Optional: access,
		},
	}
}

// engine is the one that a call names, with its credentials.
func (d databases) engine(c blueprint.Call, a *reader) (engine, error) {
	name := a.text("dbEngine")
	api, err := d.client(c, a)
	if err != nil {
		return nil, err
	}
	of := instances{api: api, poll: d.poll}
	if slices.Contains([]string{"aurora", "aurora-mysql", "aurora-postgresql"}, name) {
		return clusters{of, name}, nil
	}
	return of, nil
}

func (d databases) createSnapshot(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	a := &reader{of: c.Args}
	id := a.text("instanceID")
	e, err := d.engine(c, a)
	if err != nil {
		return nil, err
	}
	of, err := e.find(ctx, id)
	if err != nil {
		return nil, err
	}
	groups, err := yaml.Marshal(of.groups)
	if err != nil {
		return nil, fault.Wrap("write security groups", fault.ErrInvalid, err, "")
	}
	snapshot := id + "-" + c.ID
	output := map[string]any{
		"snapshotID": snapshot, "instanceID": id, "securityGroupID": string(groups), "dbSubnetGroup": of.subnetGroup,
	}
	if err := e.snapshot(ctx, id, snapshot, c.ID); err != nil && !errors.Is(err, fault.ErrExists) {
		return nil, err
	}
	if err := c.Save(ctx, output); err != nil {
		return nil, err
	}
	var made copied
	if err := untilAvailable(ctx, d.poll, "take snapshot "+snapshot, func(ctx context.Context) (string, error) {
		made, err = e.findSnapshot(ctx, snapshot)
		return made.state, err
	}); err != nil {
		return nil, err
	}
	output["allocatedStorage"] = fmt.Sprintf("%dGiB", made.storage)
	return output, nil
}

func (d databases) deleteSnapshot(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	a := &reader{of: c.Args}
	snapshot := a.text("snapshotID")
	e, err := d.engine(c, a)
	if err != nil {
		return nil, err
	}
	if err := e.dropSnapshot(ctx, snapshot); err != nil {
		return nil, ignoreNotFound(err)
	}
	return nil, untilGone(ctx, d.poll, "delete snapshot "+snapshot, func(ctx context.Context) error {
		_, err := e.findSnapshot(ctx, snapshot)
		return err
	})
}

// restoreSnapshot puts a snapshot, or a dump, in the place of a database.
func (d databases) restoreSnapshot(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	a := &reader{of: c.Args}
	id, snapshot, groups, subnetGroup := a.text("instanceID"), a.text("snapshotID"), a.list("securityGroupID"), a.text("dbSubnetGroup")
	e, err := d.engine(c, a)
	if err != nil {
		return nil, err
	}
	if snapshot == "" {
		return d.restoreDump(ctx, c, e, id)
	}
	of, err := d.replace(ctx, c, e, id, snapshot, server{groups: groups, subnetGroup: subnetGroup})
	if err != nil {
		return nil, err
	}
	return map[string]any{"endpoint": of.endpoint}, nil
}

// replace puts a server made of a snapshot in the place of the one that has the id, if there is one. What like leaves open is as it was.
// The old one goes only when the snapshot is there.
func (d databases) replace(ctx context.Context, c blueprint.Call, e engine, id, snapshot string, like server) (server, error) {
	op := "restore database " + id
	old, err := e.find(ctx, id)
	there := err == nil
	if !there && ignoreNotFound(err) == nil { // an interrupted run may have deleted it
		old, err = readServer(c.Saved)
	}
	if err != nil {
		return server{}, fault.Wrap(op, nil, err, "")
	}
	like.class, like.subnetGroup = old.class, firstOf(like.subnetGroup, old.subnetGroup)
	if len(like.groups) == 0 {
		like.groups = old.groups
	}
	if there && old.madeBy != c.ID {
		of, err := e.findSnapshot(ctx, snapshot)
		if err == nil && of.state != "available" {
			err = fault.New("", fault.ErrRefused, fmt.Sprintf("snapshot %s is %s", snapshot, of.state), "")
		}
		if err == nil {
			err = saveServer(ctx, c, like)
		}
		if err != nil {
			return server{}, fault.Wrap(op, nil, err, "")
		}
		c.Log("deleting database " + id + ", which the snapshot replaces")
		if err := e.drop(ctx, id); err != nil {
			return server{}, err
		}
	}
	return d.bring(ctx, c, e, id, snapshot, like)
}

// bring makes a server of a snapshot, or finds the one that an interrupted run made, and returns it once it is available.
func (d databases) bring(ctx context.Context, c blueprint.Call, e engine, id, snapshot string, like server) (server, error) {
	op := "restore database " + id
	like.class, like.subnetGroup, like.madeBy = firstOf(like.class, auroraClass), firstOf(like.subnetGroup, "default"), c.ID
	if err := e.restore(ctx, id, snapshot, like); err != nil && !errors.Is(err, fault.ErrExists) {
		return server{}, err
	}
	var of server
	err := untilAvailable(ctx, d.poll, op, func(ctx context.Context) (string, error) {
		var err error
		if of, err = e.find(ctx, id); err == nil && of.madeBy != c.ID {
			err = fault.New("", fault.ErrExists, "there is a database of that name that is not of this phase", "")
		}
		return of.state, err
	})
	return of, fault.Wrap(op, nil, err, "")
}

// saveServer keeps what a server is like that is about to be deleted.
func saveServer(ctx context.Context, c blueprint.Call, s server) error {
	groups, err := yaml.Marshal(s.groups)
	if err != nil {
		return err
	}
	return c.Save(ctx, map[string]any{"instanceClass": s.class, "dbSubnetGroup": s.subnetGroup, "securityGroupID": string(groups)})
}

// readServer reads what was kept; nothing where nothing was.
func readServer(saved map[string]any) (server, error) {
	a := &reader{of: saved}
	s := server{class: a.text("instanceClass"), subnetGroup: a.text("dbSubnetGroup"), groups: a.list("securityGroupID")}
	return s, a.err
}
