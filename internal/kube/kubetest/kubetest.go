// Package kubetest gives tests a real kube-apiserver with its etcd, and nothing else: no controllers, no kubelet. A test plays their
// part. Custom resources of Backstay, of Kanister and of CSI snapshots are installed, and authorization is by RBAC.
package kubetest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// variable names the directory that holds kube-apiserver and etcd.
const variable = "BACKSTAY_TEST_KUBERNETES"

// startDeadline is generous: a machine that runs all the tests at once is slow, and one that cannot start it never gets there.
const startDeadline = 2 * time.Minute

// shared is the one server of a test binary: to start one a test would take seconds each time.
var shared struct {
	sync.Mutex
	server *server
	err    error // of the first attempt; the next test must not wait for it again
}

// Main runs the tests of a package and stops the server that they started. A package whose tests call Start has
//
//	func TestMain(m *testing.M) { kubetest.Main(m) }
//
// Without it the processes still end with the test binary, but their files stay in the temporary directory.
func Main(m *testing.M) {
	m.Run() // its result is the exit status of the test binary
	shared.Lock()
	defer shared.Unlock()
	if shared.server != nil {
		shared.server.stop()
		shared.server = nil
	}
}

// Start returns a connection with all rights to the API server that the tests of this binary share, and starts it for the first one.
// Each caller has a copy of its own. Without the programs the test fails where CI is "true", and is skipped elsewhere.
func Start(t testing.TB) *rest.Config {
	t.Helper()
	programs := os.Getenv(variable)
	if programs == "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s must name the directory of kube-apiserver and etcd", variable)
		}
		t.Skipf("set %s to the directory of kube-apiserver and etcd: test/servers/build.sh kubernetes", variable)
	}
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = begin(t, programs)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return rest.CopyConfig(shared.server.config)
}

// begin starts a server and installs the custom resources. The port that was free may be taken by another test binary before the
// server has it, so it tries again.
func begin(t testing.TB, programs string) (*server, error) {
	t.Helper()
	files, err := definitions(t.Context())
	if err != nil {
		return nil, err
	}
	var failures []error
	for range 3 {
		s, err := start(t.Context(), programs, startDeadline)
		if err == nil {
			err = install(t.Context(), s.config, files)
		}
		if err == nil {
			return s, nil
		}
		s.stop()
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}

// Namespace makes a namespace whose name begins with the test's and is new.
func Namespace(t testing.TB, config *rest.Config) string {
	t.Helper()
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: prefix(t.Name())}}
	ns, err = clients.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{})
	if err != nil {
		t.Fatal("create a namespace: ", err)
	}
	return ns.Name
}

// prefix makes a test's name one that a namespace's name can begin with.
func prefix(test string) string {
	const longest = 40
	letters := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(strings.TrimPrefix(test, "Test")))
	return strings.Trim(letters[:min(len(letters), longest)], "-") + "-"
}

// moduleRoot is the directory of Backstay's go.mod: tests run in the directory of their package.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, missing := os.Stat(filepath.Join(dir, "go.mod")); missing == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}
