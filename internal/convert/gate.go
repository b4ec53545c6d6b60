package convert

import (
	_ "embed"
	"strings"
)

// gate is deploy/argocd/gate.yaml; a test holds the two to each other.
//
//go:embed gate.yaml
var gate string

// gateJob is the Job that waits at the gate, in a namespace; empty for where the Application deploys to.
func gateJob(namespace string) string {
	const name = "  name: backstay-gate\n"
	if namespace == "" {
		return gate
	}
	return strings.Replace(gate, name, name+"  namespace: "+namespace+"\n", 1)
}
