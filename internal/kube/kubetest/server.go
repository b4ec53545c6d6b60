package kubetest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
)

// server is a kube-apiserver with its etcd, in a directory of its own.
type server struct {
	dir       string
	config    *rest.Config
	processes []*process
}

// start returns a server that answers. With an error it is what there is of one, to be stopped.
func start(ctx context.Context, programs string, deadline time.Duration) (*server, error) {
	s := &server{}
	var err error
	if s.dir, err = os.MkdirTemp("", "kubetest-*"); err != nil {
		return s, err
	}
	token := rand.Text()
	keys, err := s.write("service-accounts.pem", privateKey)
	if err != nil {
		return s, err
	}
	users, err := s.write("users.csv", func() ([]byte, error) { return []byte(token + ",admin,admin,system:masters\n"), nil })
	if err != nil {
		return s, err
	}
	port, err := freePort(ctx)
	if err != nil {
		return s, err
	}
	// Through a socket, as ports are what other tests want too. Nothing here needs to survive the machine.
	etcd := "unix://" + filepath.Join(s.dir, "etcd.sock")
	err = s.run(filepath.Join(programs, "etcd"), "--name=test", "--data-dir="+filepath.Join(s.dir, "etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+etcd, "--advertise-client-urls=http://127.0.0.1:1", // which nobody asks
		"--listen-peer-urls=http://127.0.0.1:0")
	if err != nil {
		return s, err
	}
	certificates := filepath.Join(s.dir, "certificates")
	err = s.run(filepath.Join(programs, "kube-apiserver"), "--etcd-servers="+etcd, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
		"--secure-port="+strconv.Itoa(port), "--cert-dir="+certificates, "--token-auth-file="+users, "--authorization-mode=RBAC",
		"--service-account-key-file="+keys, "--service-account-signing-key-file="+keys, "--service-account-issuer=https://kubernetes.default.svc",
		"--service-cluster-ip-range=10.96.0.0/24", "--endpoint-reconciler-type=none", "--allow-privileged=true",
		// No controller makes the accounts that it would ask for, so no pod could be created.
		"--disable-admission-plugins=ServiceAccount")
	if err != nil {
		return s, err
	}
	s.config = &rest.Config{
		Host: "https://127.0.0.1:" + strconv.Itoa(port), BearerToken: token, QPS: -1, // no limit
		TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(certificates, "apiserver.crt")}, // written when it starts
	}
	return s, s.wait(ctx, deadline)
}

// wait returns once the server is ready, or says what its processes said.
func (s *server) wait(ctx context.Context, deadline time.Duration) error {
	const pause = 50 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	for {
		last := s.ready(ctx)
		if last == nil {
			return nil
		}
		for _, p := range s.processes {
			select {
			case <-p.ended:
				return fmt.Errorf("%s ended:\n%s", p.name, tail(p.log))
			default:
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the API server was not ready within %v: %w\n%s", deadline, last, tail(s.processes[len(s.processes)-1].log))
		case <-time.After(pause):
		}
	}
}

func (s *server) ready(ctx context.Context) error {
	const patience = 10 * time.Second // the port is open before anybody answers there, and a busy machine takes its time to shake hands
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := rest.HTTPClientFor(s.config)
	if err != nil {
		return err // the certificate is not there yet
	}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.config.Host+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New("readyz: " + response.Status)
	}
	return nil
}

// stop kills what runs, the last started first, and removes the directory.
func (s *server) stop() {
	for i := len(s.processes) - 1; i >= 0; i-- {
		s.processes[i].kill()
	}
	os.RemoveAll(s.dir)
}

// process is a child that dies with the test binary, however that ends.
type process struct {
	name, log string
	kill      func()
	ended     chan struct{} // closed
}

// run starts a program. The kernel kills a child with the thread that started it, so that thread is kept for it.
func (s *server) run(program string, args ...string) error {
	p := &process{name: filepath.Base(program), ended: make(chan struct{})}
	p.log = filepath.Join(s.dir, p.name+".log")
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine, after its child
		defer close(p.ended)
		out, err := os.Create(p.log)
		if err != nil {
			started <- err
			return
		}
		defer out.Close()
		cmd := exec.Command(program, args...) //nolint:noctx // it lives longer than the test that was the first to need it
		cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = out, out, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		err = cmd.Start()
		if err == nil {
			p.kill = func() { _ = cmd.Process.Kill(); <-p.ended }
		}
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	s.processes = append(s.processes, p)
	return nil
}

// write makes a file in the server's directory.
func (s *server) write(name string, content func() ([]byte, error)) (string, error) {
	path := filepath.Join(s.dir, name)
	data, err := content()
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, data, 0o600)
}

func privateKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), err
}

func freePort(ctx context.Context) (int, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}

// tail is the end of a log, where the reason stands.
func tail(log string) string {
	const most = 4 << 10
	content, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-most):])
}
