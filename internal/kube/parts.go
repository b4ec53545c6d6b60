package kube

import "strings"

// NamespaceOf is the namespace whose objects a part holds: "" for those of the cluster. Other parts have none.
func NamespaceOf(part string) (namespace string, is bool) {
	if part == clusterPart {
		return "", true
	}
	return strings.CutPrefix(part, partPrefix)
}
