package v1alpha1_test

import (
	"testing"

	"github.com/backstay/backstay/internal/kube/kubetest"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

func TestInstall(t *testing.T) {
	kubetest.Start(t)
}
