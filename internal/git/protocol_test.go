package git

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
)

func FuzzPackets(f *testing.F) {
	f.Add([]byte(pkts("version 2", "ls-refs", delimPkt, flushPkt) + "0002"))
	f.Add([]byte("0003"))
	f.Add([]byte("FFFFxxxx"))
	f.Add([]byte(pkts("ERR no")))
	f.Add([]byte("0004"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newPktReader(bytes.NewReader(b))
		read := 0
		for {
			data, kind, err := r.next()
			if err != nil {
				var said *remoteError
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, fault.ErrCorrupt) && !errors.As(err, &said) {
					t.Errorf("error of another kind: %v", err)
				}
				return
			}
			if kind != pktData && data != nil || len(data) > pktMax-4 {
				t.Errorf("packet %d with %d bytes", kind, len(data))
			}
			if read += 4 + len(data); read > len(b) {
				t.Fatal("more was read than there is")
			}
		}
	})
}

// FuzzGreeting reads any bytes as greeting and list of refs; what is accepted must be fit for a bare repository.
func FuzzGreeting(f *testing.F) {
	f.Add([]byte(greetingV2 + pkts(testOID+" HEAD symref-target:refs/heads/x", testOID+" refs/tags/y peeled:"+testOID, flushPkt)))
	f.Add([]byte(greetingV2 + pkts("unborn HEAD symref-target:refs/heads/x", flushPkt)))
	f.Add([]byte(pkts("# service=git-upload-pack", flushPkt, "version 1", testOID+" HEAD\x00symref=HEAD:refs/heads/x", testOID+" refs/heads/x", flushPkt)))
	f.Add([]byte(pkts(testOID+" refs/tags/y\x00object-format=sha1", testOID+" refs/tags/y^{}", "shallow "+testOID, flushPkt)))
	f.Add([]byte(pkts(strings.Repeat("0", 40)+" capabilities^{}\x00side-band-64k", flushPkt)))
	f.Fuzz(func(t *testing.T, b []byte) {
		refs := &refCollector{maxRefs: 100, maxBytes: 10_000}
		r := newPktReader(bytes.NewReader(b))
		s, err := parseGreeting(r, refs)
		if err != nil {
			return
		}
		if s.version == 2 {
			refs.format = s.format
			if parseLsRefs(r, refs) != nil {
				return
			}
		}
		list, err := refs.list()
		if err != nil {
			return
		}
		for i, ref := range list.Refs {
			if !validRefName(ref.Name) || (ref.OID != "" && len(ref.OID) != oidLength(list.Format)) || strings.ContainsAny(ref.Name+ref.Target, " \n\x00") {
				t.Errorf("ref %+v", ref)
			}
			if i > 1 && list.Refs[i-1].Name >= ref.Name {
				t.Errorf("%s comes after %s", ref.Name, list.Refs[i-1].Name)
			}
		}
	})
}

// FuzzFetchAnswer reads any bytes as the answer to a fetch; whatever comes out begins as a pack does.
func FuzzFetchAnswer(f *testing.F) {
	f.Add([]byte(pkts("packfile")+band(1, "PACK\x00\x00\x00\x02")+band(2, "x")+band(1, "rest")+flushPkt), true)
	f.Add([]byte(pkts("NAK")+band(1, "PACK\x00\x00\x00\x02")+band(3, "no")), false)
	f.Add([]byte(pkts("ACK "+testOID, "ACK "+testOID)+"PACK\x00\x00\x00\x02"), false)
	f.Fuzz(func(t *testing.T, b []byte, v2 bool) {
		s, parse := &server{version: 0, caps: map[string]string{"side-band-64k": ""}}, parseFetchV0
		if v2 {
			parse = parseFetchV2
		}
		answer, err := parse(s, newPktReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		var pack bytes.Buffer
		io.Copy(&packWriter{w: &pack}, answer)
		if pack.Len() > len(b) || !strings.HasPrefix("PACK\x00\x00\x00", pack.String()[:min(7, pack.Len())]) {
			t.Errorf("pack of %d bytes: %.20q", pack.Len(), pack.String())
		}
	})
}

func TestValidRefNameAgreesWithGit(t *testing.T) {
	dir := sampleRepo(t)
	for _, name := range []string{
		"refs/heads/x", "refs/heads/x/y", "refs/heads/ä\xff", "refs/x", "refs/heads/@", "refs/heads/x@y", "refs/heads/-x",
		"refs/heads/", "refs/heads//x", "refs/heads/.x", "refs/heads/x.", "refs/heads/x.lock", "refs/x.lock/y", "refs/heads/x..y", "refs/heads/x y",
		"refs/heads/x~1", "refs/heads/x^", "refs/heads/x:y", "refs/heads/x?", "refs/heads/*", "refs/heads/[x", "refs/heads/x\\y", "refs/heads/x@{y", "refs/heads/x\x7f",
		"refs/heads/x\x01",
	} {
		err := run(gitCommand(t.Context(), dir+"/.git", "check-ref-format", name), 0)
		if valid := err == nil; valid != validRefName(name) {
			t.Errorf("%q: git says %v", name, valid)
		}
	}
}
