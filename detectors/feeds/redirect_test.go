package feeds

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/config"
)

// TestSpecialNetworks: an address of each network that is none of the Internet, and those beside it.
func TestSpecialNetworks(t *testing.T) {
	check := func(want string, addrs ...string) {
		t.Helper()
		for _, addr := range addrs {
			if got := specialNetwork(netip.MustParseAddr(addr)); got != want {
				t.Errorf("%s is %q, want %q", addr, got, want)
			}
		}
	}
	check("", "8.8.8.8", "172.32.0.1", "172.15.255.255", "100.128.0.1", "169.253.0.1", "198.20.0.1", "2a00::1", "64:ff9b::8.8.8.8", "2002:808:808::1",
		"::ffff:8.8.8.8")
	check("loopback", "127.0.0.1", "127.9.9.9", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::1")
	check("private", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd12::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::")
	check("link-local", "169.254.169.254", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "64:ff9b::169.254.169.254")
	check("loopback or unspecified", "::1", "::")
	check("unspecified", "0.0.0.0", "0.1.2.3")
	check("multicast", "224.0.0.1", "ff02::1")
	check("reserved", "255.255.255.255", "240.0.0.1", "192.0.0.192", "198.18.0.1", "::7f00:1", "64:ff9b:1::1", "fec0::1")
	check("shared by customers of a provider", "100.64.0.1", "100.100.100.200")
}

// listen serves at an address of this host and returns its port.
func listen(t *testing.T, address string, handler http.HandlerFunc) (port int) {
	t.Helper()
	listener, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return listener.Addr().(*net.TCPAddr).Port
}

// TestRedirectDoesNotLeadIntoTheOwnNetwork: not by an address, not by a name, which is checked where it is connected to, and
// not in a second step; but where the configured host is of the same kind, it does.
func TestRedirectDoesNotLeadIntoTheOwnNetwork(t *testing.T) {
	asked := 0
	inside := listen(t, "127.0.0.1", func(w http.ResponseWriter, _ *http.Request) {
		asked++
		_, _ = w.Write([]byte(names("a", 3)))
	})
	target := ""
	redirect := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/again" {
			http.Redirect(w, r, target, http.StatusTemporaryRedirect)
			return
		}
		http.Redirect(w, r, strings.TrimPrefix(r.URL.RawQuery, "to="), http.StatusFound)
	}
	outside := listen(t, "127.0.0.2", redirect)
	// The server at 127.0.0.2 stands for one of the Internet, that at 127.0.0.3 for one of the private network.
	networkOf := func(addr netip.Addr) string {
		switch addr.Unmap().String() {
		case "127.0.0.2":
			return ""
		case "127.0.0.3":
			return "private"
		}
		return specialNetwork(addr)
	}
	private := listen(t, "127.0.0.3", redirect)
	check := func(address, to, wantErr string) {
		t.Helper()
		asked = 0
		d := download{
			cfg: Config{Name: "f", URL: address + "?to=" + to, Path: filepath.Join(t.TempDir(), "f.feed")}, networkOf: networkOf,
			log: slog.New(slog.DiscardHandler), metrics: NewMetrics(prometheus.NewRegistry()),
		}
		err := d.update(t.Context())
		switch {
		case wantErr == "" && (err != nil || asked != 1):
			t.Errorf("%s to %s: %v, asked %d times", address, to, err, asked)
		case wantErr != "" && (err == nil || !strings.Contains(err.Error(), wantErr) || asked != 0):
			t.Errorf("%s to %s: %v, asked %d times; want %s", address, to, err, asked, wantErr)
		}
	}
	const refused = "which is not on the Internet"
	from := fmt.Sprintf("http://127.0.0.2:%d/", outside)
	insides := []string{fmt.Sprintf("http://127.0.0.1:%d/", inside), fmt.Sprintf("http://localhost:%d/", inside), fmt.Sprintf("http://[::ffff:127.0.0.1]:%d/", inside)}
	for _, to := range insides {
		target = to
		check(from, to, refused)
		check(from, from+"again", refused)
		check(fmt.Sprintf("http://127.0.0.3:%d/", private), to, refused)
	}
	check(from, fmt.Sprintf("http://127.0.0.3:%d/", private), refused)
	check(from, "http://169.254.169.254/latest/meta-data", "169.254.169.254, which is not on the Internet: link-local")
	check(from, "http://0.0.0.0/", refused)

	other := listen(t, "127.0.0.4", redirect)
	for _, to := range insides {
		check(fmt.Sprintf("http://127.0.0.4:%d/", other), to, "")
	}
}

// clientCertificate writes a certificate of a client and its key.
func clientCertificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "engine"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))),
		write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}

// TestOtherHostsGetNoSecrets: the configured host gets the user of the URL and the client certificate, also after a redirect to
// itself; another host does not, nor the configured one when another leads back to it. No host gets a Referer.
func TestOtherHostsGetNoSecrets(t *testing.T) {
	var seen []string
	steps := map[string]string{}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _, _ := r.BasicAuth()
		seen = append(seen, fmt.Sprintf("%s user=%s certificates=%d referer=%s", r.URL.Path, user, len(r.TLS.PeerCertificates), r.Referer()))
		if to := steps[r.URL.Path]; to != "" {
			http.Redirect(w, r, to, http.StatusFound)
			return
		}
		_, _ = w.Write([]byte(names("a", 3)))
	})
	start := func() *httptest.Server {
		server := httptest.NewUnstartedServer(handler)
		server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		server.StartTLS()
		t.Cleanup(server.Close)
		return server
	}
	own, other := start(), start()
	steps["/list"], steps["/moved"] = "/moved", own.URL+"/absolute"
	steps["/absolute"] = strings.Replace(other.URL, "https://", "https://evil:x@", 1) + "/other"
	steps["/other"] = own.URL + "/back"

	var settings config.TLS
	settings.CertFile, settings.KeyFile = clientCertificate(t)
	settings.InsecureSkipVerify = true
	d := download{
		cfg: Config{
			Name: "f", URL: strings.Replace(own.URL, "https://", "https://reader:secret@", 1) + "/list?key=secret",
			Path: filepath.Join(t.TempDir(), "f.feed"), TLS: settings,
		},
		log: slog.New(slog.DiscardHandler), metrics: NewMetrics(prometheus.NewRegistry()),
	}
	if err := d.update(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"/list user=reader certificates=1 referer=", "/moved user=reader certificates=1 referer=", "/absolute user=reader certificates=1 referer=",
		"/other user= certificates=0 referer=", "/back user= certificates=0 referer=",
	}
	if !slices.Equal(seen, want) {
		t.Errorf("requests\n%s\nwant\n%s", strings.Join(seen, "\n"), strings.Join(want, "\n"))
	}
}
