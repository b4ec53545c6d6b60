package forge

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// fileClient is a client for files of the forge at base, which tells where it is asked as "token".
func fileClient(t *testing.T, base string, h FileHosts, transport http.RoundTripper) *FileClient {
	t.Helper()
	stand := newStand()
	c, err := NewClient(ClientOptions{
		Base: base, Secrets: []fault.Secret{"token-of-the-forge"}, Clock: stand.clock, Sleep: stand.sleep, Transport: transport,
		Authorize: func(_ context.Context, h http.Header) error {
			h.Set("Authorization", "Bearer token-of-the-forge")
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Files(h)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// fetchFile downloads a file whole.
func fetchFile(t *testing.T, f *FileClient, address string, limit int64) (string, error) {
	t.Helper()
	r, err := f.Get(t.Context(), address, http.Header{"Accept": {"application/octet-stream"}}, limit)
	if err != nil {
		return "", err
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	return string(got), err
}

func TestCredentialsStayAtTheForge(t *testing.T) {
	store := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
			t.Errorf("the store is sent %v", r.Header)
		}
		io.WriteString(w, "content")
	}))
	defer store.Close()
	at := strings.TrimPrefix(store.URL, "https://")
	forge := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer token-of-the-forge" || r.Header.Get("Accept") != "application/octet-stream" {
			t.Errorf("the forge is sent %v", r.Header)
		}
		http.Redirect(w, r, "https://"+at+"/x?signature=s", http.StatusFound)
	})
	f := fileClient(t, forge.URL, FileHosts{Stores: []string{at}}, store.Client().Transport)

	if _, err := fetchFile(t, f, forge.URL+"/asset", 100); !errors.Is(err, fault.ErrRefused) || !strings.Contains(err.Error(), "not public") {
		t.Errorf("a store on this machine: %v, want it refused", err)
	}
	f.public = func(netip.Addr) bool { return true }
	got, err := fetchFile(t, f, forge.URL+"/asset", 100)
	if err != nil || got != "content" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAStoreThatTheUserNamesMayBeAnywhere(t *testing.T) {
	store := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("the store is sent %v", r.Header)
		}
		io.WriteString(w, "content")
	}))
	defer store.Close()
	c, err := NewClient(ClientOptions{
		Base: "https://git.example.com", FileHosts: []string{strings.TrimPrefix(store.URL, "https://")}, Transport: store.Client().Transport,
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Files(FileHosts{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := fetchFile(t, f, store.URL+"/x", 100); err != nil || got != "content" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAddressesThatAreNotTheForgesAreNeverAsked(t *testing.T) {
	inside := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a server inside is asked for %s", r.URL)
	}))
	defer inside.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(inside.URL, "http://"), ":")
	var to string
	forge := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusTemporaryRedirect) })
	f := fileClient(t, forge.URL, FileHosts{
		Own: []string{"https://git.example.com"}, Stores: []string{"store.example.com", "*.files.example.com", "localhost:" + port, "127.0.0.1:" + port},
	}, nil)
	for _, address := range []string{
		inside.URL + "/x", "http://169.254.169.254/latest/meta-data/", "http://[::1]:" + port + "/", "http://2130706433:" + port + "/",
		"https://localhost:" + port + "/", "https://127.0.0.1:" + port + "/",
		"http://store.example.com/x", "https://store.example.com:8443/x", "https://user@store.example.com/x", "https://files.example.com/",
		"https://evilfiles.example.com/", "https://store.example.com.evil.example/", "http://git.example.com/", "https://git.example.com:444/",
		"https://token@git.example.com/", "file:///etc/passwd", "//" + strings.TrimPrefix(inside.URL, "http://") + "/x", "gopher://store.example.com/",
	} {
		if _, err := fetchFile(t, f, address, 100); !errors.Is(err, fault.ErrRefused) {
			t.Errorf("%s: %v, want it refused", address, err)
		}
		if strings.HasPrefix(address, "//") {
			address = "http:" + address
		}
		to = address
		if _, err := fetchFile(t, f, forge.URL+"/asset", 100); !errors.Is(err, fault.ErrRefused) {
			t.Errorf("redirected to %s: %v, want it refused", address, err)
		}
	}
	to = forge.URL + "/again"
	before := forge.asked()
	if _, err := fetchFile(t, f, forge.URL+"/asset", 100); !errors.Is(err, fault.ErrRefused) || forge.asked()-before != maxRedirects+1 {
		t.Errorf("redirected in circles: %v after %d requests", err, forge.asked()-before)
	}
}

func TestWhichAddressesAreTheForges(t *testing.T) {
	f := fileClient(t, "https://api.example.com", FileHosts{Own: []string{"https://example.com"}, Stores: []string{"store.example.com", "*.files.example.com"}}, nil)
	for address, want := range map[string]bool{
		"https://api.example.com/x": true, "https://example.com/x": true, "https://EXAMPLE.com:443/x": true, "https://store.example.com/x": true,
		"https://a.b.files.example.com/": true, "https://store.example.com:443/": true,
		"https://www.example.com/x": false, "/x": false, "": false, "https://": false, "%": false, "https://.files.example.com": false,
	} {
		if got := f.Allows(address); got != want {
			t.Errorf("%s: %v, want %v", address, got, want)
		}
	}
}

func TestPublicAddresses(t *testing.T) {
	for address, want := range map[string]bool{
		"140.82.121.4": true, "2606:50c0:8000::154": true, "64:ff9b::8c52:7904": true,
		"127.0.0.1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false, "169.254.169.254": false, "100.64.0.1": false, "0.0.0.0": false,
		"255.255.255.255": false, "224.0.0.1": false, "198.18.0.1": false, "::1": false, "::": false, "fe80::1": false, "fd00::1": false, "fec0::1": false,
		"::7f00:1": false, "2002:7f00:1::": false, "64:ff9b::7f00:1": false, "64:ff9b:1::1": false, "2001:0:7f00:1::": false,
	} {
		if got := isPublic(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %v, want %v", address, got, want)
		}
	}
}

func TestFilesThatAreNotWhole(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	if _, err := z.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	z.Close()
	forever := func(w http.ResponseWriter, _ *http.Request) {
		for piece := make([]byte, 32<<10); ; {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	}
	tests := map[string]struct {
		answer http.HandlerFunc
		class  error
		says   string
	}{
		"broken off":        {say(200, "half", "Content-Length: 8"), fault.ErrUnavailable, "broke off after 4 bytes of 8"},
		"too large, said":   {say(200, "", "Content-Length: 10737418240"), fault.ErrRefused, "10737418240 bytes, and at most 1000"},
		"too large, unsaid": {forever, fault.ErrRefused, "more than 1000 bytes"},
		"packed":            {say(200, bomb.String(), "Content-Encoding: gzip"), fault.ErrRefused, "packed (gzip)"},
		"a page to log in":  {say(200, "<html>", "Content-Type: text/html; charset=utf-8"), fault.ErrDenied, "a page"},
		"not there":         {say(404, ""), fault.ErrNotFound, "404"},
		"not to be seen":    {say(403, ""), fault.ErrDenied, "403"},
		"a piece of it":     {say(206, "x"), fault.ErrInvalid, "206"},
		"nowhere":           {say(302, ""), fault.ErrUnavailable, "nowhere"},
		"a broken forge":    {say(500, ""), fault.ErrUnavailable, "500"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			forge := serve(t, test.answer)
			got, err := fetchFile(t, fileClient(t, forge.URL, FileHosts{}, nil), forge.URL+"/asset", 1000)
			if !errors.Is(err, test.class) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want %v: %s", err, test.class, test.says)
			}
			if len(got) > 1000 {
				t.Errorf("got %d bytes of at most 1000", len(got))
			}
		})
	}
}

func TestAFileMayBeAPage(t *testing.T) {
	forge := serve(t, say(200, "<html>", "Content-Type: text/html"))
	f := fileClient(t, forge.URL, FileHosts{}, nil)
	if got, err := fetchFile(t, f, forge.URL+"/uploads/report.HTML", 100); err != nil || got != "<html>" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestFilesWaitAsTheForgeAsks(t *testing.T) {
	forge := serve(t, say(429, "", "Retry-After: 30"), say(503, ""), say(200, "content", "Content-Type: text/plain"))
	if got, err := fetchFile(t, fileClient(t, forge.URL, FileHosts{}, nil), forge.URL+"/asset", 100); err != nil || got != "content" {
		t.Errorf("got %q, %v", got, err)
	}
	if forge.asked() != 3 {
		t.Errorf("%d requests, want 3", forge.asked())
	}
}

func TestADownloadThatBringsNothingEnds(t *testing.T) {
	for name, first := range map[string]string{"at all": "", "any more": "a"} {
		t.Run(name, func(t *testing.T) {
			forge := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", strconv.Itoa(10))
				if first != "" {
					io.WriteString(w, first)
					w.(http.Flusher).Flush()
				}
				<-r.Context().Done()
			})
			f := fileClient(t, forge.URL, FileHosts{}, nil)
			f.idle = 20 * time.Millisecond
			if _, err := fetchFile(t, f, forge.URL+"/asset", 100); !errors.Is(err, fault.ErrUnavailable) || !strings.Contains(err.Error(), "sent nothing for") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestFilesThroughAProxy(t *testing.T) {
	asked := ""
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.String()
		io.WriteString(w, "content")
	})
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	f := fileClient(t, "http://forge.example", FileHosts{}, &http.Transport{Proxy: http.ProxyURL(at)})
	if got, err := fetchFile(t, f, "http://forge.example/asset", 100); err != nil || got != "content" || asked != "http://forge.example/asset" {
		t.Errorf("got %q, %v; the proxy is asked for %s", got, err, asked)
	}
}

func TestNoFileHostsThatAreNoAddresses(t *testing.T) {
	c, err := NewClient(ClientOptions{Base: "https://api.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	for _, own := range []string{"", "example.com", "ftp://example.com", "https://token@example.com"} {
		if _, err := c.Files(FileHosts{Own: []string{own}}); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%q: %v", own, err)
		}
	}
}
