package convert_test

import (
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/internal/convert"
	"github.com/backstay/backstay/internal/kube/kubetest"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

// TestClusterTakesIt has the API server judge what is written.
func TestClusterTakesIt(t *testing.T) {
	cluster := kubetest.Start(t)
	server, err := client.New(cluster, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	namespace := kubetest.Namespace(t, cluster)
	for _, tool := range []string{convert.K10, convert.Velero} {
		text, err := os.ReadFile(filepath.Join("testdata", tool+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range converted(t, tool, string(text)).Documents {
			object := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(d.Text), object); err != nil {
				t.Fatal(err)
			}
			object.SetNamespace(namespace)
			if err := server.Create(t.Context(), object, client.DryRunAll, client.FieldValidation("Strict")); err != nil {
				t.Errorf("%s: %v\n%s", d.From, err, d.Text)
			}
		}
	}
}
