package git

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// plainFile is a small file of a repository, with its path below the git directory.
type plainFile struct {
	path string
	data string
}

// bareFiles are the files that make a bare repository of l, beside its objects: HEAD, config, packed-refs, and a file for
// every other symbolic ref.
func bareFiles(l *RefList) []plainFile {
	files := []plainFile{
		{"HEAD", headFile(l)},
		{"config", configFile(l.Format, true)},
		{"packed-refs", string(packedRefs(l))},
	}
	for _, r := range l.Refs {
		if r.Target != "" && r.Name != head {
			files = append(files, plainFile{r.Name, "ref: " + r.Target + "\n"})
		}
	}
	return files
}

// bareDirs are the directories that a repository needs to be one, even when they are empty.
func bareDirs() []string { return []string{"objects", "objects/pack", "refs"} }

// headFile is the content of HEAD. Where the source told none, it names a branch that is not there, as the source's did.
func headFile(l *RefList) string {
	h := l.find(head)
	if h != nil && h.Target != "" {
		return "ref: " + h.Target + "\n"
	}
	if h != nil {
		return h.OID + "\n"
	}
	for _, name := range []string{"refs/heads/main", "refs/heads/master"} {
		if l.find(name) == nil {
			return "ref: " + name + "\n"
		}
	}
	return "ref: refs/heads/.invalid\n" // what git itself writes where a HEAD must not name a branch
}

func configFile(format string, bare bool) string {
	version, extensions := "0", ""
	if format != "sha1" {
		version, extensions = "1", "[extensions]\n\tobjectFormat = "+format+"\n"
	}
	kind := "true"
	if !bare {
		kind = "false"
	}
	return "[core]\n\trepositoryformatversion = " + version + "\n\tfilemode = true\n\tbare = " + kind + "\n" + extensions
}

// packedRefs is the list as git's packed-refs file. It leaves out HEAD and symbolic refs, which are files of their own.
func packedRefs(l *RefList) []byte {
	var b bytes.Buffer
	b.WriteString("# pack-refs with: peeled fully-peeled sorted \n")
	for _, r := range l.Refs {
		if r.Name == head || r.Target != "" || r.OID == "" {
			continue
		}
		b.WriteString(r.OID + " " + r.Name + "\n")
		if r.Peeled != "" {
			b.WriteString("^" + r.Peeled + "\n")
		}
	}
	return b.Bytes()
}

// writeBare makes dir, which exists and is empty, a bare repository of l without objects.
func writeBare(dir string, l *RefList) error {
	for _, name := range bareDirs() {
		if err := os.MkdirAll(filepath.Join(dir, filepath.FromSlash(name)), 0o755); err != nil {
			return err
		}
	}
	for _, f := range bareFiles(l) {
		if err := writePlain(dir, f); err != nil {
			return err
		}
	}
	return nil
}

func writePlain(dir string, f plainFile) error {
	dest := filepath.Join(dir, filepath.FromSlash(f.path))
	if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
		return err
	}
	return os.WriteFile(dest, []byte(f.data), 0o644)
}

// storable tells whether the vault can have a file of that name: it keeps names in UTF-8 only.
func storable(name string) bool { return utf8.ValidString(name) && !strings.Contains(name, "\\") }
