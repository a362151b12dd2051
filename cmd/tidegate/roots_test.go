package main

import (
	"crypto/x509"
	"os"
	"os/exec"
	"testing"
)

// TestBinaryBringsCertificatesOfAuthorities: a host without any, such as the image, verifies servers all the same.
func TestBinaryBringsCertificatesOfAuthorities(t *testing.T) {
	const inside = "TIDEGATE_WITHOUT_AUTHORITIES"
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), inside+"=1", "SSL_CERT_FILE="+t.TempDir()+"/none", "SSL_CERT_DIR="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	if pool, err := x509.SystemCertPool(); err != nil || pool.Equal(x509.NewCertPool()) {
		t.Errorf("no authority is known: %v", err)
	}
}
