package git

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// connectTimeout bounds the making of a connection.
const connectTimeout = 30 * time.Second

// addressGuard makes connections and refuses addresses where no repository lives but secrets may: link-local ones, among them the metadata
// services of clouds, always; those of this machine and of private networks where a server on neither names them.
type addressGuard struct {
	host    string      // the source's own host, which the user named
	near    atomic.Bool // the source itself is on this machine or a private network
	proxies sync.Map    // host:port of the proxies that the user named
}

// newAddressGuard makes the guard of a source at host.
func newAddressGuard(host string) *addressGuard {
	g := &addressGuard{host: host}
	addr, err := netip.ParseAddr(host)
	g.near.Store(host == "localhost" || (err == nil && isNear(addr)))
	return g
}

// dial connects to address, host:port.
func (g *addressGuard) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: connectTimeout, KeepAlive: connectTimeout}
	if _, ok := g.proxies.Load(address); !ok {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		own := strings.EqualFold(host, g.host)
		d.Control = func(_, resolved string, _ syscall.RawConn) error { return g.check(resolved, own) }
	}
	return d.DialContext(ctx, network, address)
}

// look finds out where a source is to which others connect for us. A name that cannot be resolved here is taken to be far away.
func (g *addressGuard) look(ctx context.Context) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", g.host)
	if err == nil && slices.ContainsFunc(addrs, isNear) {
		g.near.Store(true)
	}
}

// allowProxy lets connections to a proxy through, wherever it is.
func (g *addressGuard) allowProxy(proxy *url.URL) {
	port := proxy.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[proxy.Scheme]
	}
	g.proxies.Store(net.JoinHostPort(proxy.Hostname(), port), true)
}

// check decides about a resolved address, host:port; own means that the source's own host resolved to it.
func (g *addressGuard) check(resolved string, own bool) error {
	ap, err := netip.ParseAddrPort(resolved)
	if err != nil {
		return err
	}
	addr := ap.Addr()
	switch {
	case isForbidden(addr):
		return errForbidden(addr.String())
	case own && isNear(addr):
		g.near.Store(true)
	case !own && isNear(addr) && !g.near.Load():
		return fault.New("", fault.ErrRefused, "the server sends us to "+addr.String()+", an address on this machine or a private network", "")
	}
	return nil
}

func errForbidden(address string) error {
	return fault.New("", fault.ErrRefused, "address "+address+" is link-local or a metadata service", "")
}

// refuseLiteral checks a host that is an address as it stands. Names are checked when they are resolved, where we resolve them.
func refuseLiteral(host string) error {
	if addr, err := netip.ParseAddr(host); err == nil && isForbidden(addr) {
		return errForbidden(host)
	}
	return nil
}

// Ranges with a meaning, beyond those that netip knows.
var (
	nat64     = netip.MustParsePrefix("64:ff9b::/96") // ends in an IPv4 address
	shared    = netip.MustParsePrefix("100.64.0.0/10")
	thisHost  = netip.MustParsePrefix("0.0.0.0/8")
	metadata6 = netip.MustParseAddr("fd00:ec2::254")
	metadata4 = netip.MustParseAddr("100.100.100.200")
)

// plainAddr takes an IPv4 address out of its IPv6 clothes, and drops a zone.
func plainAddr(a netip.Addr) netip.Addr {
	a = a.WithZone("").Unmap()
	if nat64.Contains(a) {
		b := a.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return a
}

func isForbidden(a netip.Addr) bool {
	a = plainAddr(a)
	return a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a.IsMulticast() || a == metadata6 || a == metadata4
}

func isNear(a netip.Addr) bool {
	a = plainAddr(a)
	return a.IsLoopback() || a.IsPrivate() || a.IsUnspecified() || shared.Contains(a) || thisHost.Contains(a)
}
