package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DrillPlan says how points are proven: restored into scratch, and looked at. What every kind of part is looked at for is in
// docs/drills.md; checks are what is asked beside that.
type DrillPlan struct {
	// When the newest point of each subject is drilled; without a schedule only by hand. Those whose proof is oldest come first.
	Schedule *Schedule `json:"schedule,omitempty"`
	// So many of them at most each time; 0 is all.
	Limit int `json:"limit,omitempty" check:"count"`
	// Each subject must have a point that is at most so old and proven: 7d. Where it has none, the policy says so.
	ProvenWithin string `json:"provenWithin,omitempty" check:"duration"`
	DrillChecks  `json:",inline"`
	DrillScratch `json:",inline"`
}

// DrillChecks are what a drill asks of that which was restored.
type DrillChecks struct {
	// Of the restored application's services; on a cluster only.
	HTTP []HTTPCheck `json:"http,omitempty"`
	// Of restored databases.
	SQL []SQLCheck `json:"sql,omitempty"`
	// Commands in pods of the restored application; on a cluster only.
	Exec []ExecCheck `json:"exec,omitempty"`
}

// ExecCheck runs a command in a pod of a restored application, and looks at what it prints. It must end well.
type ExecCheck struct {
	// The pod, by its labels: the first that runs.
	Selector metav1.LabelSelector `json:"selector"`
	// Its namespace in the point. Default: the application's, where it has one.
	Namespace string `json:"namespace,omitempty" check:"name"`
	// Default: the pod's default container, or its first.
	Container string `json:"container,omitempty"`
	// What is run, without a shell: [mariadb, -NBe, "SELECT count(*) FROM shop.orders"].
	Command []string `json:"command" max:"65536"`
	// What it prints, without blanks around it. Default: anything.
	Want *string `json:"want,omitempty"`
	// A text that the first MiB of what it prints holds.
	Contains string `json:"contains,omitempty"`
	// Default 1m.
	Timeout string `json:"timeout,omitempty" check:"span"`
}

// HTTPCheck asks a service of a restored application, and looks at the answer.
type HTTPCheck struct {
	// The service's name.
	Service string `json:"service" check:"name"`
	// Its namespace in the point. Default: the application's, where it has one.
	Namespace string `json:"namespace,omitempty" check:"name"`
	// Its name or number. Default: the service's only one.
	Port string `json:"port,omitempty"`
	// Default /.
	Path string `json:"path,omitempty"`
	// That the answer has. Default: any from 200 to 299.
	Status int `json:"status,omitempty" check:"count"`
	// A text that the first MiB of the answer holds.
	Contains string `json:"contains,omitempty"`
	// The service speaks https; its certificate is not checked.
	TLS bool `json:"tls,omitempty"`
}

// SQLCheck is a question to a restored database, and what it must answer.
type SQLCheck struct {
	// The part, databases/NAME, by its NAME. Default: the only one of the point.
	Database string `json:"database,omitempty" check:"name"`
	// The database on that server which is asked. Default: its only one.
	Schema string `json:"schema,omitempty"`
	// One statement: SELECT count(*) > 0 FROM orders.
	Query string `json:"query" max:"4096"`
	// The first value of the first row that it answers with. Default: anything but nothing, NULL, 0, false, f and the empty text.
	Want *string `json:"want,omitempty"`
}
