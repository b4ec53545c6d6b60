package function

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// awsPatience is how long one call may take.
const awsPatience = time.Minute

// server is a database server: an instance, or a cluster of Aurora's with its instances.
type server struct {
	state       string
	endpoint    string
	groups      []string // security groups
	subnetGroup string
	class       string // of its instances
	madeBy      string // the Call.ID of the phase that made it, if one did
}

// copied is a snapshot.
type copied struct {
	state   string
	storage int32 // GiB; 0 where it does not say
	version string
}

// engine is what differs between instances and clusters. Whatever is not there is fault.ErrNotFound.
type engine interface {
	find(ctx context.Context, id string) (server, error)
	snapshot(ctx context.Context, id, snapshot, phase string) error
	findSnapshot(ctx context.Context, snapshot string) (copied, error)
	dropSnapshot(ctx context.Context, snapshot string) error
	// restore begins a server like another one, of a snapshot, or goes on where an earlier call was interrupted.
	restore(ctx context.Context, id, snapshot string, like server) error
	// drop ends a server and what it stores, and returns when it is gone.
	drop(ctx context.Context, id string) error
}

// instances are servers that are no clusters.
type instances struct {
	api  *rds.Client
	poll time.Duration
}

func (i instances) find(ctx context.Context, id string) (server, error) {
	found, err := i.api.DescribeDBInstances(ctx, &rds.DescribeDBInstancesInput{DBInstanceIdentifier: &id})
	if err != nil {
		return server{}, ofAWS("find database "+id, err)
	}
	if len(found.DBInstances) == 0 {
		return server{}, fault.New("find database "+id, fault.ErrNotFound, "there is none", "")
	}
	of := found.DBInstances[0]
	s := server{state: aws.ToString(of.DBInstanceStatus), class: aws.ToString(of.DBInstanceClass), madeBy: madeBy(of.TagList)}
	if of.Endpoint != nil {
		s.endpoint = aws.ToString(of.Endpoint.Address)
	}
	if of.DBSubnetGroup != nil {
		s.subnetGroup = aws.ToString(of.DBSubnetGroup.DBSubnetGroupName)
	}
	s.groups = groupsOf(of.VpcSecurityGroups)
	return s, nil
}

func (i instances) snapshot(ctx context.Context, id, snapshot, phase string) error {
	_, err := i.api.CreateDBSnapshot(ctx, &rds.CreateDBSnapshotInput{
		DBInstanceIdentifier: &id, DBSnapshotIdentifier: &snapshot, Tags: tags(phase),
	})
	return ofAWS("take snapshot "+snapshot, err)
}

func (i instances) findSnapshot(ctx context.Context, snapshot string) (copied, error) {
	found, err := i.api.DescribeDBSnapshots(ctx, &rds.DescribeDBSnapshotsInput{DBSnapshotIdentifier: &snapshot})
	if err != nil {
		return copied{}, ofAWS("find snapshot "+snapshot, err)
	}
	if len(found.DBSnapshots) == 0 {
		return copied{}, fault.New("find snapshot "+snapshot, fault.ErrNotFound, "there is none", "")
	}
	of := found.DBSnapshots[0]
	return copied{state: aws.ToString(of.Status), storage: aws.ToInt32(of.AllocatedStorage), version: aws.ToString(of.EngineVersion)}, nil
}

func (i instances) dropSnapshot(ctx context.Context, snapshot string) error {
	_, err := i.api.DeleteDBSnapshot(ctx, &rds.DeleteDBSnapshotInput{DBSnapshotIdentifier: &snapshot})
	return ofAWS("delete snapshot "+snapshot, err)
}

func (i instances) restore(ctx context.Context, id, snapshot string, like server) error {
	_, err := i.api.RestoreDBInstanceFromDBSnapshot(ctx, &rds.RestoreDBInstanceFromDBSnapshotInput{
		DBInstanceIdentifier: &id, DBSnapshotIdentifier: &snapshot, DBSubnetGroupName: &like.subnetGroup, VpcSecurityGroupIds: like.groups,
		Tags: tags(like.madeBy),
	})
	return ofAWS("restore snapshot "+snapshot, err)
}

func (i instances) drop(ctx context.Context, id string) error {
	if err := i.end(ctx, id); err != nil {
		return err
	}
	return untilGone(ctx, i.poll, "delete database "+id, func(ctx context.Context) error {
		_, err := i.find(ctx, id)
		return err
	})
}

// end begins to delete an instance. One that is not there, or that an interrupted run began to delete, is no error.
func (i instances) end(ctx context.Context, id string) error {
	yes := true
	_, err := i.api.DeleteDBInstance(ctx, &rds.DeleteDBInstanceInput{DBInstanceIdentifier: &id, SkipFinalSnapshot: &yes})
	if err = ignoreNotFound(ofAWS("delete database "+id, err)); err == nil {
		return nil
	}
	if s, lost := i.find(ctx, id); ignoreNotFound(lost) == nil && (lost != nil || s.state == "deleting") {
		return nil
	}
	return err
}

// clusters are those of Aurora.
type clusters struct {
	instances

	engine string
}

// auroraClass is that of instances of clusters of which there is nothing to learn it from, as published.
const auroraClass = "db.r5.large"

func (c clusters) find(ctx context.Context, id string) (server, error) {
	of, err := c.cluster(ctx, id)
	if err != nil {
		return server{}, err
	}
	s := server{
		state: aws.ToString(of.Status), endpoint: aws.ToString(of.Endpoint), groups: groupsOf(of.VpcSecurityGroups),
		subnetGroup: aws.ToString(of.DBSubnetGroup), madeBy: madeBy(of.TagList), class: auroraClass,
	}
	if len(of.DBClusterMembers) > 0 {
		member, err := c.instances.find(ctx, aws.ToString(of.DBClusterMembers[0].DBInstanceIdentifier))
		if err != nil {
			return s, err
		}
		s.class = member.class
	}
	return s, nil
}

func (c clusters) cluster(ctx context.Context, id string) (types.DBCluster, error) {
	found, err := c.api.DescribeDBClusters(ctx, &rds.DescribeDBClustersInput{DBClusterIdentifier: &id})
	if err != nil {
		return types.DBCluster{}, ofAWS("find database "+id, err)
	}
	if len(found.DBClusters) == 0 {
		return types.DBCluster{}, fault.New("find database "+id, fault.ErrNotFound, "there is none", "")
	}
	return found.DBClusters[0], nil
}

func (c clusters) snapshot(ctx context.Context, id, snapshot, phase string) error {
	_, err := c.api.CreateDBClusterSnapshot(ctx, &rds.CreateDBClusterSnapshotInput{
		DBClusterIdentifier: &id, DBClusterSnapshotIdentifier: &snapshot, Tags: tags(phase),
	})
	return ofAWS("take snapshot "+snapshot, err)
}

func (c clusters) findSnapshot(ctx context.Context, snapshot string) (copied, error) {
	found, err := c.api.DescribeDBClusterSnapshots(ctx, &rds.DescribeDBClusterSnapshotsInput{DBClusterSnapshotIdentifier: &snapshot})
	if err != nil {
		return copied{}, ofAWS("find snapshot "+snapshot, err)
	}
	if len(found.DBClusterSnapshots) == 0 {
		return copied{}, fault.New("find snapshot "+snapshot, fault.ErrNotFound, "there is none", "")
	}
	of := found.DBClusterSnapshots[0]
	return copied{state: aws.ToString(of.Status), storage: aws.ToInt32(of.AllocatedStorage), version: aws.ToString(of.EngineVersion)}, nil
}

func (c clusters) dropSnapshot(ctx context.Context, snapshot string) error {
	_, err := c.api.DeleteDBClusterSnapshot(ctx, &rds.DeleteDBClusterSnapshotInput{DBClusterSnapshotIdentifier: &snapshot})
	return ofAWS("delete snapshot "+snapshot, err)
}

// restore makes the cluster, and then an instance in it, for a cluster comes back without any.
func (c clusters) restore(ctx context.Context, id, snapshot string, like server) error {
	of, err := c.findSnapshot(ctx, snapshot)
	if err != nil {
		return err
	}
	_, err = c.api.RestoreDBClusterFromSnapshot(ctx, &rds.RestoreDBClusterFromSnapshotInput{
		DBClusterIdentifier: &id, SnapshotIdentifier: &snapshot, Engine: &c.engine, EngineVersion: &of.version,
		DBSubnetGroupName: &like.subnetGroup, VpcSecurityGroupIds: like.groups, Tags: tags(like.madeBy),
	})
	if err = ofAWS("restore snapshot "+snapshot, err); err != nil && !errors.Is(err, fault.ErrExists) {
		return err
	}
	if err := untilAvailable(ctx, c.poll, "restore cluster "+id, func(ctx context.Context) (string, error) {
		s, err := c.cluster(ctx, id)
		return aws.ToString(s.Status), err
	}); err != nil {
		return err
	}
	member := id + "-instance-1"
	_, err = c.api.CreateDBInstance(ctx, &rds.CreateDBInstanceInput{
		DBInstanceIdentifier: &member, DBClusterIdentifier: &id, DBInstanceClass: &like.class, Engine: &c.engine,
		DBSubnetGroupName: &like.subnetGroup, Tags: tags(like.madeBy),
	})
	if err = ofAWS("make instance "+member, err); err != nil && !errors.Is(err, fault.ErrExists) {
		return err
	}
	return untilAvailable(ctx, c.poll, "make instance "+member, func(ctx context.Context) (string, error) {
		s, err := c.instances.find(ctx, member)
		return s.state, err
	})
}

// drop ends the instances first: a cluster that has any stays.
func (c clusters) drop(ctx context.Context, id string) error {
	of, err := c.cluster(ctx, id)
	if err != nil {
		return ignoreNotFound(err)
	}
	for _, member := range of.DBClusterMembers {
		if err := c.instances.drop(ctx, aws.ToString(member.DBInstanceIdentifier)); err != nil {
			return err
		}
	}
	yes := true
	_, err = c.api.DeleteDBCluster(ctx, &rds.DeleteDBClusterInput{DBClusterIdentifier: &id, SkipFinalSnapshot: &yes})
	if err = ofAWS("delete database "+id, err); err != nil && aws.ToString(of.Status) != "deleting" {
		return ignoreNotFound(err)
	}
	return untilGone(ctx, c.poll, "delete database "+id, func(ctx context.Context) error {
		_, err := c.cluster(ctx, id)
		return err
	})
}

// untilAvailable looks again and again until a state is "available", or one that does not lead there.
func untilAvailable(ctx context.Context, poll time.Duration, op string, look func(context.Context) (string, error)) error {
	for {
		state, err := look(ctx)
		switch {
		case err != nil:
			return fault.Wrap(op, nil, err, "")
		case state == "available":
			return nil
		case hopeless(state):
			return fault.New(op, fault.ErrRefused, "its state is "+state, "")
		}
		if err := kube.Pause(ctx, poll); err != nil {
			return fault.Wrap(op, nil, context.Cause(ctx), "")
		}
	}
}

// hopeless reports whether a state does not lead to "available" by itself.
func hopeless(state string) bool {
	switch state {
	case "failed", "restore-error", "storage-full", "deleting":
		return true
	}
	return strings.HasSuffix(state, "-failed") || strings.HasPrefix(state, "incompatible-") || strings.HasPrefix(state, "inaccessible-")
}

// untilGone looks again and again until what it looks for is not found.
func untilGone(ctx context.Context, poll time.Duration, op string, look func(context.Context) error) error {
	for {
		if err := look(ctx); err != nil {
			return fault.Wrap(op, nil, ignoreNotFound(err), "")
		}
		if err := kube.Pause(ctx, poll); err != nil {
			return fault.Wrap(op, nil, context.Cause(ctx), "")
		}
	}
}

func ignoreNotFound(err error) error {
	if errors.Is(err, fault.ErrNotFound) {
		return nil
	}
	return err
}

// tags mark what a phase makes.
func tags(phase string) []types.Tag {
	return []types.Tag{{Key: aws.String(annotationPhase), Value: &phase}}
}

// madeBy is the phase that made what has these tags.
func madeBy(tags []types.Tag) string {
	for _, t := range tags {
		if aws.ToString(t.Key) == annotationPhase {
			return aws.ToString(t.Value)
		}
	}
	return ""
}

func groupsOf(of []types.VpcSecurityGroupMembership) []string {
	var ids []string
	for _, g := range of {
		ids = append(ids, aws.ToString(g.VpcSecurityGroupId))
	}
	return ids
}

// ofAWS gives an answer of AWS its class.
func ofAWS(op string, err error) error {
	if err == nil {
		return nil
	}
	var answer smithy.APIError
	if !errors.As(err, &answer) {
		return fault.Wrap(op, fault.ErrUnavailable, err, "")
	}
	is := func(words ...string) bool {
		return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(answer.ErrorCode(), word) })
	}
	class := fault.ErrRefused
	switch {
	case is("NotFound"):
		class = fault.ErrNotFound
	case is("AlreadyExists"):
		class = fault.ErrExists
	case is("AccessDenied", "Unauthorized", "InvalidClientToken", "SignatureDoesNotMatch", "ExpiredToken", "AuthFailure", "OptInRequired"):
		class = fault.ErrDenied
	case is("Throttling", "RequestLimit", "TooManyRequests"):
		class = fault.ErrThrottled
	case is("ServiceUnavailable", "InternalFailure"):
		class = fault.ErrUnavailable
	case is("InvalidParameter", "ValidationError", "MissingParameter"):
		class = fault.ErrInvalid
	}
	// The library's own text has the request's id and what it tried, in many words.
	return fault.New(op, class, fmt.Sprintf("%s: %s", answer.ErrorCode(), answer.ErrorMessage()), "")
}
