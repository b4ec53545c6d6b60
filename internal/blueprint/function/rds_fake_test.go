package function

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// fakeRDS answers RDS's query API, and STS's AssumeRole, in the form that AWS documents. What is made is "creating" when it is looked at
// first, and "available" then; what is deleted is "deleting" once.
type fakeRDS struct {
	*httptest.Server

	mu        sync.Mutex
	databases map[string]*fakeDatabase // clusters' too
	snapshots map[string]string        // states
	calls     []string                 // that change something: action and name
	keys      []string                 // that requests were signed by
	stuck     string                   // a state that restored databases keep
}

type fakeDatabase struct {
	state, class, subnetGroup, cluster, phase string
	groups                                    []string
	isCluster                                 bool
}

func newFakeRDS(t *testing.T) *fakeRDS {
	f := &fakeRDS{databases: map[string]*fakeDatabase{}, snapshots: map[string]string{}}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

// of escapes a text for XML.
func of(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text))
	return b.String()
}

func (f *fakeRDS) serve(response http.ResponseWriter, request *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := request.ParseForm(); err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	form := request.PostForm
	action := form.Get("Action")
	_, credential, _ := strings.Cut(request.Header.Get("Authorization"), "Credential=")
	key, _, _ := strings.Cut(credential, "/")
	if !slices.Contains(f.keys, key) {
		f.keys = append(f.keys, key)
	}
	result, code := f.act(action, form)
	if code != "" {
		response.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(response, `<ErrorResponse xmlns="http://rds.amazonaws.com/doc/2014-10-31/"><Error><Type>Sender</Type><Code>%s</Code>`+
			`<Message>the fake says so</Message></Error><RequestId>523e3218-afc7-11c3-90f5-f90431260ab4</RequestId></ErrorResponse>`, code)
		return
	}
	fmt.Fprintf(response, `<%[1]sResponse xmlns="http://rds.amazonaws.com/doc/2014-10-31/"><%[1]sResult>%[2]s</%[1]sResult>`+
		`<ResponseMetadata><RequestId>523e3218-afc7-11c3-90f5-f90431260ab4</RequestId></ResponseMetadata></%[1]sResponse>`, action, result)
}

func (f *fakeRDS) act(action string, form url.Values) (result, code string) {
	database := firstOf(form.Get("DBInstanceIdentifier"), form.Get("DBClusterIdentifier"))
	snapshot := firstOf(firstOf(form.Get("DBSnapshotIdentifier"), form.Get("DBClusterSnapshotIdentifier")), form.Get("SnapshotIdentifier"))
	if !strings.HasPrefix(action, "Describe") && action != "AssumeRole" {
		f.calls = append(f.calls, strings.TrimSpace(action+" "+firstOf(database, snapshot)))
	}
	kind := "DBInstance"
	if strings.Contains(action, "Cluster") {
		kind = "DBCluster"
	}
	there := f.databases[database]
	switch action {
	case "AssumeRole":
		return `<Credentials><AccessKeyId>assumed</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>` +
			`<Expiration>2100-01-01T00:00:00Z</Expiration></Credentials>`, ""
	case "CreateDBSnapshot", "CreateDBClusterSnapshot":
		switch {
		case there == nil:
			return "", kind + "NotFoundFault"
		case f.snapshots[snapshot] != "":
			return "", strings.TrimPrefix(action, "Create") + "AlreadyExists"
		}
		f.snapshots[snapshot] = "creating"
		return "", ""
	case "DescribeDBSnapshots", "DescribeDBClusterSnapshots":
		element := strings.TrimSuffix(strings.TrimPrefix(action, "Describe"), "s")
		state := f.snapshots[snapshot]
		f.snapshots[snapshot] = after(state)
		if state == "" || state == "gone" {
			return "", element + "NotFound"
		}
		return fmt.Sprintf(`<%[1]ss><%[1]s><Status>%[2]s</Status><AllocatedStorage>20</AllocatedStorage><EngineVersion>15.4</EngineVersion></%[1]s></%[1]ss>`,
			element, state), ""
	case "DeleteDBSnapshot", "DeleteDBClusterSnapshot":
		if f.snapshots[snapshot] == "" {
			return "", strings.TrimPrefix(action, "Delete") + "NotFound"
		}
		f.snapshots[snapshot] = "deleting"
		return "", ""
	case "DescribeDBInstances", "DescribeDBClusters":
		if there == nil || there.state == "gone" || there.isCluster != (kind == "DBCluster") {
			delete(f.databases, database)
			return "", kind + "NotFound"
		}
		text := f.describe(database, there)
		there.state = after(there.state)
		return text, ""
	case "RestoreDBInstanceFromDBSnapshot", "RestoreDBClusterFromSnapshot", "CreateDBInstance":
		switch {
		case there != nil && (kind == "DBCluster" || action != "CreateDBInstance" || !there.isCluster):
			return "", kind + "AlreadyExists"
		case action != "CreateDBInstance" && f.snapshots[snapshot] != "available":
			return "", "InvalidDBSnapshotState"
		}
		made := &fakeDatabase{
			state: firstOf(f.stuck, "creating"), class: form.Get("DBInstanceClass"), subnetGroup: form.Get("DBSubnetGroupName"),
			phase: form.Get("Tags.Tag.1.Value"), isCluster: kind == "DBCluster",
		}
		for n := 1; form.Has(fmt.Sprintf("VpcSecurityGroupIds.VpcSecurityGroupId.%d", n)); n++ {
			made.groups = append(made.groups, form.Get(fmt.Sprintf("VpcSecurityGroupIds.VpcSecurityGroupId.%d", n)))
		}
		if action == "CreateDBInstance" {
			made.cluster = form.Get("DBClusterIdentifier")
		}
		f.databases[database] = made
		return "", ""
	case "DeleteDBInstance", "DeleteDBCluster":
		switch {
		case there == nil:
			return "", kind + "NotFound"
		case there.state == "deleting" || kind == "DBCluster" && len(f.members(database)) > 0:
			return "", "Invalid" + kind + "State"
		}
		there.state = "deleting"
		return "", ""
	}
	return "", "InvalidAction"
}

// after is the state that follows one by itself.
func after(state string) string {
	switch state {
	case "creating":
		return "available"
	case "deleting":
		return "gone"
	}
	return state
}

func (f *fakeRDS) members(cluster string) []string {
	var names []string
	for name, d := range f.databases {
		if d.cluster == cluster {
			names = append(names, name)
		}
	}
	return names
}

func (f *fakeRDS) describe(name string, d *fakeDatabase) string {
	var groups, members string
	for _, g := range d.groups {
		groups += "<VpcSecurityGroupMembership><VpcSecurityGroupId>" + of(g) + "</VpcSecurityGroupId><Status>active</Status></VpcSecurityGroupMembership>"
	}
	common := fmt.Sprintf(`<VpcSecurityGroups>%s</VpcSecurityGroups><TagList><Tag><Key>backstay.io/phase</Key><Value>%s</Value></Tag></TagList>`, groups, of(d.phase))
	if !d.isCluster {
		return fmt.Sprintf(`<DBInstances><DBInstance><DBInstanceIdentifier>%s</DBInstanceIdentifier><DBInstanceStatus>%s</DBInstanceStatus>`+
			`<DBInstanceClass>%s</DBInstanceClass><Endpoint><Address>%s.lab.local</Address><Port>5432</Port></Endpoint>`+
			`<DBSubnetGroup><DBSubnetGroupName>%s</DBSubnetGroupName></DBSubnetGroup>%s</DBInstance></DBInstances>`,
			of(name), d.state, of(d.class), of(name), of(d.subnetGroup), common)
	}
	for _, m := range f.members(name) {
		members += "<DBClusterMember><DBInstanceIdentifier>" + of(m) + "</DBInstanceIdentifier></DBClusterMember>"
	}
	return fmt.Sprintf(`<DBClusters><DBCluster><DBClusterIdentifier>%s</DBClusterIdentifier><Status>%s</Status><Endpoint>%s.lab.local</Endpoint>`+
		`<DBSubnetGroup>%s</DBSubnetGroup><DBClusterMembers>%s</DBClusterMembers>%s</DBCluster></DBClusters>`,
		of(name), d.state, of(name), of(d.subnetGroup), members, common)
}
