// csihost is a CSI driver for a cluster of one node, for tests. Its volumes are directories, or files behind loop devices for block
// volumes, in one btrfs subvolume; a snapshot is a snapshot of that subvolume, so one of a group of volumes is of one instant. It
// registers itself with the kubelet. Failures can be ordered; see faults.go.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// driver serves all of CSI.
type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedGroupControllerServer
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer

	name, node, endpoint string
	snapshots            bool
	store                *store
	faults               faults
	loops                loops
}

func main() {
	d := &driver{}
	flag.StringVar(&d.name, "name", "", "the driver's name")
	flag.StringVar(&d.node, "node", "", "the node's name")
	flag.StringVar(&d.endpoint, "endpoint", "", "path of the socket it serves")
	flag.BoolVar(&d.snapshots, "snapshots", true, "it can make snapshots, of groups too")
	flag.StringVar((*string)(&d.faults), "faults", "", "file of the failures that are wanted")
	data := flag.String("data", "", "directory on btrfs for volumes and snapshots")
	registrations := flag.String("registrations", "", "the kubelet's plugins_registry")
	flag.Parse()
	var err error
	if d.store, err = openStore(*data); err != nil {
		log.Fatal(err)
	}
	log.Fatal(d.serve(*registrations))
}

// serve returns when one of the sockets fails.
func (d *driver) serve(registrations string) error {
	plugin := grpc.NewServer(grpc.UnaryInterceptor(logged))
	csi.RegisterIdentityServer(plugin, d)
	csi.RegisterControllerServer(plugin, d)
	csi.RegisterGroupControllerServer(plugin, d)
	csi.RegisterNodeServer(plugin, d)
	register := grpc.NewServer()
	registration.RegisterRegistrationServer(register, d)
	ended := make(chan error)
	for path, server := range map[string]*grpc.Server{
		d.endpoint: plugin, filepath.Join(registrations, d.name+"-reg.sock"): register,
	} {
		listener, err := listen(path)
		if err != nil {
			return err
		}
		go func() { ended <- server.Serve(listener) }()
	}
	return <-ended
}

func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(path); err != nil {
		return nil, err
	}
	return net.Listen("unix", path)
}

func logged(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	answer, err := handle(ctx, request)
	if !strings.HasSuffix(info.FullMethod, "/Probe") {
		log.Printf("%s: %v", info.FullMethod, err)
	}
	return answer, err
}

// GetPluginInfo is CSI's.
func (d *driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: d.name, VendorVersion: "1"}, nil
}

// GetPluginCapabilities is CSI's.
func (d *driver) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	services := []csi.PluginCapability_Service_Type{csi.PluginCapability_Service_CONTROLLER_SERVICE}
	if d.snapshots {
		services = append(services, csi.PluginCapability_Service_GROUP_CONTROLLER_SERVICE)
	}
	answer := &csi.GetPluginCapabilitiesResponse{}
	for _, s := range services {
		answer.Capabilities = append(answer.Capabilities, &csi.PluginCapability{
			Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: s}},
		})
	}
	return answer, nil
}

// Probe is CSI's.
func (d *driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}

// GetInfo is the kubelet's.
func (d *driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: d.name, Endpoint: d.endpoint, SupportedVersions: []string{"1.0.0"}}, nil
}

// NotifyRegistrationStatus is the kubelet's.
func (d *driver) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	log.Printf("registered: %v %s", s.PluginRegistered, s.Error)
	return &registration.RegistrationStatusResponse{}, nil
}
