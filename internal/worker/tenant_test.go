package worker

import (
	"errors"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube/volume"
	"github.com/backstay/backstay/internal/point"
)

func TestStatusesOfTenantsNameTheirOwnClaims(t *testing.T) {
	w := New(Options{System: "backstay-system"})
	own, other := v1alpha1.VolumeStatus{Namespace: "a", Claim: "data"}, v1alpha1.VolumeStatus{Namespace: "b", Claim: "data"}
	for _, test := range []struct {
		home    string
		volumes []v1alpha1.VolumeStatus
		denied  bool
	}{
		{"a", nil, false},
		{"a", []v1alpha1.VolumeStatus{own}, false},
		{"a", []v1alpha1.VolumeStatus{own, other}, true},
		{"backstay-system", []v1alpha1.VolumeStatus{own, other}, false},
	} {
		if err := w.ownVolumes(test.home, test.volumes); errors.Is(err, fault.ErrDenied) != test.denied {
			t.Errorf("%s, %v: %v", test.home, test.volumes, err)
		}
	}
}

func TestTenantsBringTheirOwnCredentials(t *testing.T) {
	pair := map[string]string{"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}
	for _, test := range []struct {
		name   string
		url    string
		values map[string]string
		denied bool
	}{
		{"their own", "s3://bucket?endpoint=s3.example", pair, false},
		{"none: the role of Backstay's pod", "s3://bucket", nil, true},
		{"empty ones", "s3://bucket", map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, true},
		{"Google's default chain", "gs://bucket", nil, true},
		{"a file of Backstay's pods", "gs://bucket", map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": "/var/run/key.json"}, true},
		{"its token", "azblob://box?account=x", map[string]string{"AZURE_FEDERATED_TOKEN_FILE": "/var/run/token"}, true},
		{"a server that asks for none", "webdavs://files.example/vault", nil, false},
	} {
		if err := ownCredentials(volume.Location{URL: test.url, Credentials: test.values}); errors.Is(err, fault.ErrDenied) != test.denied {
			t.Errorf("%s: %v, want denied %v", test.name, err, test.denied)
		}
	}
}

func TestTenantsHoldNobodyElsesNamespace(t *testing.T) {
	record := &point.Record{Point: point.Point{Parts: []point.Part{{Name: "kubernetes/b"}, {Name: "volumes/c/data"}}}}
	for home, want := range map[string][]string{"a": {"a"}, "backstay-system": {"b", "c"}} {
		object := &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Namespace: home}}
		r := &restoration{Worker: New(Options{System: "backstay-system"}), object: object, record: record}
		if got := r.targets(); !slices.Equal(got, want) {
			t.Errorf("a Restore in %s holds %v, want %v", home, got, want)
		}
	}
}
