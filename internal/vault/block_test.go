package vault

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

// blockPoint makes a point of an image and returns how many bytes the location grew, and a reader of its part.
func blockPoint(t *testing.T, v *Vault, path string) (stored int64, from *reader) {
	t.Helper()
	const part = "volumes/shop/disk"
	subject := point.Subject{Kind: point.SubjectApplication, Name: "cluster/shop"}
	receipt, err := protect.Backup(t.Context(), v, NewVolumes(subject, []Volume{{Part: part, Kind: point.KindBlock, Path: path}}), "")
	must(t, err)
	_, r, err := v.Open(t.Context(), receipt.Point.ID)
	must(t, err)
	whole, ok := r.(*reader)
	if !ok {
		t.Fatalf("a %T", r)
	}
	n, err := whole.find(t.Context(), part)
	must(t, err)
	return receipt.StoredBytes, &reader{v, n}
}

// TestImageComesBackAndOnlyChangesAreStored goes through ranges, some of which are holes.
func TestImageComesBackAndOnlyChangesAreStored(t *testing.T) {
	dir := t.TempDir()
	image, v := filepath.Join(dir, "image"), newVault(t, filepath.Join(dir, "vault"), Options{})
	f, err := os.Create(image)
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(4*blockRange+12345))
	write := func(at int64, b []byte) {
		_, err := f.WriteAt(b, at)
		must(t, err)
	}
	write(0, noise(1, 10<<20))
	write(2*blockRange, noise(2, 5<<20))
	write(4*blockRange+12340, []byte("end"))
	first, r := blockPoint(t, v, image)
	if first < 15<<20 || first > 17<<20 { // a megabyte of zeros among them
		t.Errorf("%d bytes were stored of 15 MiB and holes", first)
	}
	write(5<<20, noise(3, 1000))
	second, r2 := blockPoint(t, v, image)
	if second > 5<<19 {
		t.Errorf("%d bytes were stored of a change of 1000", second)
	}
	want, err := os.ReadFile(image)
	must(t, err)
	for name, before := range map[string][]byte{"full of something else": bytes.Repeat([]byte{7}, len(want)+5000), "blank": make([]byte, len(want))} {
		device := filepath.Join(dir, name)
		must(t, os.WriteFile(device, before, 0o600))
		onto(t, r2, device, nil)
		got, err := os.ReadFile(device)
		must(t, err)
		if !bytes.Equal(got[:len(want)], want) || !bytes.Equal(got[len(want):], before[len(want):]) {
			t.Errorf("%s: another image came back", name)
		}
	}
	small := filepath.Join(dir, "small")
	must(t, os.WriteFile(small, make([]byte, 1000), 0o600))
	onto(t, r, small, fault.ErrInvalid)
	if err := RestoreBlock(t.Context(), r, filepath.Join(dir, "new")); err != nil {
		t.Error(err)
	}
}

// onto restores onto a file that stands for a device.
func onto(t *testing.T, r *reader, device string, want error) {
	t.Helper()
	n, err := r.find(t.Context(), ImageFile)
	must(t, err)
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	if err := r.fill(t.Context(), n, f); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func TestDeviceThatIsNoneIsAFailedPart(t *testing.T) {
	v := vaultIn(t, newLockStore(newHandClock()), Options{})
	subject := point.Subject{Kind: point.SubjectApplication, Name: "cluster/shop"}
	for _, path := range []string{"/dev/null", t.TempDir(), "/no/such/device"} {
		parts, err := protect.WriteShard(t.Context(), v, NewVolumes(subject, []Volume{{Part: "volumes/x", Kind: point.KindBlock, Path: path}}), "")
		if err != nil || len(parts) != 1 || parts[0].State != point.Failed || parts[0].Reason == "" {
			t.Errorf("%s: %+v, %v", path, parts, err)
		}
	}
}
