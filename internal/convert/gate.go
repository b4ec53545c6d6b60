package convert

import (
	"strings"

	"github.com/backstay/backstay/deploy/argocd"
)

// gateJob is the Job that waits at the gate, in a namespace; empty for where the Application deploys to.
func gateJob(namespace string) string {
	const name = "  name: backstay-gate\n"
	if namespace == "" {
		return argocd.Gate
	}
	return strings.Replace(argocd.Gate, name, name+"  namespace: "+namespace+"\n", 1)
}
