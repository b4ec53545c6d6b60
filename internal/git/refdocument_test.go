package git

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func someRefs() *RefList {
	one, two := strings.Repeat("1", 40), strings.Repeat("2", 40)
	return &RefList{Format: "sha1", Refs: []Ref{
		{Name: head, OID: one, Target: "refs/heads/main"},
		{Name: "refs/heads/caf\xe9", OID: two},
		{Name: "refs/heads/main", OID: one},
		{Name: "refs/remotes/origin/HEAD", OID: one, Target: "refs/heads/main"},
		{Name: "refs/tags/v1", OID: two, Peeled: one},
	}}
}

func TestRefsDocument(t *testing.T) {
	lists := map[string]*RefList{
		"some":   someRefs(),
		"none":   {Format: "sha256"},
		"unborn": {Format: "sha1", Refs: []Ref{{Name: head, Target: "refs/heads/main"}}},
	}
	for name, l := range lists {
		got, err := decodeRefs(bytes.NewReader(encodeRefs(l)))
		if err != nil || !reflect.DeepEqual(got, l) {
			t.Errorf("%s: read back as %+v, %v", name, got, err)
		}
	}
}

func TestRefsDocumentRefusesWhatItNeverWrites(t *testing.T) {
	oid := strings.Repeat("1", 40)
	for name, lines := range map[string]string{
		"nothing":              "",
		"another version":      "backstay-refs 2 sha1\n",
		"another format":       "backstay-refs 1 md5\n",
		"a path out":           refsHeader + "sha1\n" + oid + " refs/heads/../../../../etc/passwd\n",
		"not a ref":            refsHeader + "sha1\n" + oid + " config\n",
		"a hook":               refsHeader + "sha1\n" + oid + " hooks/post-checkout >refs/heads/main\n",
		"a target out":         refsHeader + "sha1\n" + oid + " refs/heads/a >../../x\n",
		"a short id":           refsHeader + "sha1\n1111 refs/heads/a\n",
		"no id":                refsHeader + "sha1\n- refs/heads/a\n",
		"no name":              refsHeader + "sha1\n" + oid + "\n",
		"an unknown field":     refsHeader + "sha1\n" + oid + " refs/heads/a ?x\n",
		"out of order":         refsHeader + "sha1\n" + oid + " refs/heads/b\n" + oid + " refs/heads/a\n",
		"twice":                refsHeader + "sha1\n" + oid + " refs/heads/a\n" + oid + " refs/heads/a\n",
		"a ref below another":  refsHeader + "sha1\n" + oid + " refs/heads/a\n" + oid + " refs/heads/a/b\n",
		"a symbolic HEAD ring": refsHeader + "sha1\n" + oid + " refs/heads/a >HEAD\n",
	} {
		if l, err := decodeRefs(strings.NewReader(lines)); err == nil {
			t.Errorf("%s is read as %+v", name, l)
		}
	}
}

func TestDiffRefs(t *testing.T) {
	a, b := someRefs(), someRefs()
	if changes := DiffRefs(a, b); len(changes) != 0 {
		t.Errorf("equal lists differ: %+v", changes)
	}
	b.Refs[0].Target = "refs/heads/caf\xe9"                                          // HEAD
	b.Refs[2].OID = strings.Repeat("3", 40)                                          // main
	b.Refs = append(b.Refs[:3], b.Refs[4:]...)                                       // origin/HEAD
	b.Refs = append(b.Refs, Ref{Name: "refs/tags/v2", OID: strings.Repeat("2", 40)}) // new
	var got []string
	for _, c := range DiffRefs(a, b) {
		what := "changed "
		if c.Old == nil {
			what = "new "
		} else if c.New == nil {
			what = "gone "
		}
		got = append(got, what+c.Name)
	}
	want := []string{"changed HEAD", "changed refs/heads/main", "gone refs/remotes/origin/HEAD", "new refs/tags/v2"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("changes are %q, want %q", got, want)
	}
	if n := len(DiffRefs(nil, a)); n != len(a.Refs) {
		t.Errorf("%d refs are new of %d", n, len(a.Refs))
	}
}

func FuzzRefsDocument(f *testing.F) {
	f.Add(encodeRefs(someRefs()))
	f.Add([]byte(refsHeader + "sha256\n"))
	f.Add([]byte(refsHeader + "sha1\n" + strings.Repeat("1", 40) + " refs/heads/\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := decodeRefs(bytes.NewReader(raw))
		if err != nil {
			return
		}
		for _, r := range l.Refs {
			if strings.Contains(r.Name, "..") || (r.Name != head && !strings.HasPrefix(r.Name, "refs/")) {
				t.Errorf("%q is taken for a ref", r.Name)
			}
		}
		again, err := decodeRefs(bytes.NewReader(encodeRefs(l)))
		if err != nil || !reflect.DeepEqual(again, l) {
			t.Errorf("%+v is read back as %+v, %v", l, again, err)
		}
	})
}

func FuzzTips(f *testing.F) {
	f.Add([]byte(encodeTips([]string{strings.Repeat("1", 40)})))
	f.Add([]byte(tipsHeader))
	f.Fuzz(func(t *testing.T, raw []byte) {
		tips, err := decodeTips("sha1", raw)
		if err == nil && (len(tips) > maxTips || !strings.HasPrefix(encodeTips(tips), tipsHeader)) {
			t.Errorf("%d tips", len(tips))
		}
	})
}

func FuzzPointerList(f *testing.F) {
	f.Add([]byte(encodePointers([]Pointer{{OID: strings.Repeat("1", 64), Size: 5}}, map[string]bool{strings.Repeat("1", 64): true})))
	f.Add([]byte(pointersHeader + "x"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		ps, missing, err := decodePointers(raw)
		if err != nil {
			return
		}
		again, missingAgain, err := decodePointers([]byte(encodePointers(ps, missing)))
		if err != nil || !reflect.DeepEqual(again, ps) || !reflect.DeepEqual(missingAgain, missing) {
			t.Errorf("%+v is read back as %+v, %v", ps, again, err)
		}
	})
}

func FuzzFindings(f *testing.F) {
	f.Add([]byte("warning: object 2ab04b24f0d3c8a6d8d31f8357c4b5a3d4adb425: zeroPaddedFilemode: contains zero-padded file modes\nfatal: x"))
	f.Add([]byte("error in tree 2ab04b24f0d3c8a6d8d31f8357c4b5a3d4adb425: hasDotgit: contains '.git'\n\x1b[31m"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		found := &findings{}
		for len(raw) > 0 {
			n := min(7, len(raw))
			if wrote, err := found.Write(raw[:n]); wrote != n || err != nil {
				t.Fatal(wrote, err)
			}
			raw = raw[n:]
		}
		notes := append(found.notes(), found.said())
		for _, n := range notes {
			if strings.ContainsAny(n, "\x1b\n\r\x00") {
				t.Errorf("note %q acts on a terminal", n)
			}
		}
		if len(notes) > notesKept+2 {
			t.Errorf("%d notes", len(notes))
		}
	})
}
