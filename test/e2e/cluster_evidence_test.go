//go:build e2e

package e2e

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// testimony is what `evidence verify` says of a document.
type testimony struct {
	Statements int
	Deleted    int
	Unsigned   []string
	Signers    map[string]int // by the ids of keys
	Faults     []struct{ What string }
	exit       int
}

// evidenceKeys are the public keys that a cluster has published.
func (c *cluster) evidenceKeys(t *testing.T) string {
	t.Helper()
	return c.kubectl(t, "-n", system, "get", "configmap", "backstay-evidence", "-o", `jsonpath={.data.public\.pem}`)
}

// evidence exports what the location's vault says of its points, and checks the document as an auditor does: with the public keys of the
// cluster and those that others gave him, and no network.
func (i *installed) evidence(t *testing.T, given ...string) (found testimony) {
	t.Helper()
	home, auditor := t.TempDir(), t.TempDir()
	own := i.off(t, home, "evidence", "key").stdout // of who exports: it signs the document's end
	var keys []string
	for n, public := range append(given, own, i.evidenceKeys(t)) {
		file := filepath.Join(auditor, strconv.Itoa(n)+".pub")
		if err := os.WriteFile(file, []byte(public), 0o600); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, "--key", file)
	}
	document := filepath.Join(auditor, "evidence.ndjson")
	exported := i.off(t, home, append([]string{"evidence", "export", "--to", document}, keys...)...)
	args := append([]string{"--net", i.binary(t), "evidence", "verify", document, "--json"}, keys...)
	verify := exec.CommandContext(t.Context(), "unshare", args...)
	verify.Env = append(cleanEnv(), "HOME="+auditor)
	said := finish(t, verify)
	if said.exit != exported.exit {
		t.Errorf("export ends with %d and %s, verify with %d and %s", exported.exit, exported.stderr, said.exit, said.stderr)
	}
	decode(t, said.stdout, &found)
	found.exit = said.exit
	return found
}

// off runs backstay on the vault itself, as somebody who has nothing but location and password.
func (i *installed) off(t *testing.T, home string, args ...string) result {
	t.Helper()
	return i.offWith(t, vaultPassword, home, args...)
}

func (i *installed) offWith(t *testing.T, password, home string, args ...string) result {
	t.Helper()
	cmd := i.command(t.Context(), i.binary(t), append(args, "--location", i.url)...)
	cmd.Env = append(append(cmd.Env, i.env...), "BACKSTAY_PASSWORD="+password, "HOME="+home)
	return finish(t, cmd)
}

// evidenceSecret is the key of a cluster, as its Secret has it, and its id.
func (c *cluster) evidenceSecret(t *testing.T) (key, id string) {
	t.Helper()
	key = c.kubectl(t, "-n", system, "get", "secret", "backstay-evidence", "-o", `jsonpath={.data.key\.pem}`)
	text, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatal("the Secret has no key")
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(private.(interface{ Public() crypto.PublicKey }).Public())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return key, hex.EncodeToString(sum[:])
}
