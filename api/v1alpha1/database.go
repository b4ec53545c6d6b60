package v1alpha1

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Engines of databases.
const (
	EngineMySQL    = "mysql" // and MariaDB
	EnginePostgres = "postgres"
	EngineRedis    = "redis" // and Valkey
	EngineSQLite   = "sqlite"
)

// Database is a database server, or a file of SQLite, that is dumped by the server's own tools.
type Database struct {
	// Name of the part, databases/NAME. Default: the host, or the file's name.
	Name string `json:"name,omitempty" check:"name"`
	// mysql (and MariaDB), postgres, redis (and Valkey) or sqlite.
	Engine string `json:"engine" enum:"mysql,postgres,redis,sqlite"`
	// Name or address of the server. Default: this machine, or the pod itself.
	Host string `json:"host,omitempty"`
	// Default: the engine's own.
	Port int `json:"port,omitempty" check:"count"`
	// How the connection is protected. Default: as the server offers.
	TLS *DatabaseTLS `json:"tls,omitempty"`
	// Who signs in. Default: the engine's own, root or postgres; of Redis nobody.
	Username string `json:"username,omitempty"`
	// With it.
	Password *Secret `json:"password,omitempty"`
	// Globs over the databases of the server. Default: all that are not the server's own.
	Databases []string `json:"databases,omitempty" check:"glob"`
	// Globs over databases that are left out; exclude beats the others.
	ExcludeDatabases []string `json:"excludeDatabases,omitempty" check:"glob"`
	// SQLite: the file.
	File string `json:"file,omitempty"`
	// The pod of the application in which the server runs, and its tools with it. Default on a cluster: Backstay's own pod speaks to Host.
	Pod *DatabasePod `json:"pod,omitempty"`
}

// DatabaseTLS says how a connection to a database is protected.
type DatabaseTLS struct {
	// disable; require: encrypted, with whomever; verify: the server's certificate and name are checked. Default: verify.
	Mode string `json:"mode,omitempty" enum:"disable,require,verify"`
	// Who signs the server's certificate, PEM. Default: whom the machine trusts.
	CA *Secret `json:"ca,omitempty"`
}

// DatabasePod chooses the pod in which a server runs: one that is ready, the first by name.
type DatabasePod struct {
	// By its labels.
	Selector metav1.LabelSelector `json:"selector"`
	// Default: the namespace of the application, where it has one.
	Namespace string `json:"namespace,omitempty" check:"name"`
	// Default: its first.
	Container string `json:"container,omitempty"`
}

// DatabaseStatus is how the dump of one database server fares, or how it comes back.
type DatabaseStatus struct {
	// Of the server, and of its part.
	Name string `json:"name"`
	// Its engine.
	Engine string `json:"engine"`
	// Where it is: HOST:PORT, or NAMESPACE/POD.
	At string `json:"at,omitempty"`
	// The moment that the dump is of.
	Captured *metav1.MicroTime `json:"captured,omitempty"`
	// Of that moment, as the server counts: file and offset, GTID or LSN.
	Position string `json:"position,omitempty"`
	// A Restore: when it began to change the server.
	Begun *metav1.MicroTime `json:"begun,omitempty"`
	// The dump is in the location; of a Restore, its data is back in the server.
	Stored bool `json:"stored,omitempty"`
	// Why it is not.
	Problem string `json:"problem,omitempty"`
}

// Dumping reports whether a dump of the Backup is under way: what changes tables then, a sync's migration, breaks it.
func (s *BackupStatus) Dumping() bool {
	for _, d := range s.Databases {
		if !d.Stored && d.Problem == "" {
			return true
		}
	}
	return false
}

// LoadsBack reports whether the Restore has failed, and databases that it changed have not got back what they had.
func (s *RestoreStatus) LoadsBack() bool {
	return s.Phase == PhaseFailed && slices.ContainsFunc(s.Databases, func(d DatabaseStatus) bool { return d.Begun != nil })
}
