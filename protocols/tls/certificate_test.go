package tls

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline/lineartest"
)

// newCertificate returns a self-signed certificate with names and extensions of every kind.
func newCertificate(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		Subject: pkix.Name{
			CommonName: "www.example.com", Organization: []string{"Shop, Inc.", "Ünïcode"}, Country: []string{"DE"},
			ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, Value: "a@example.com"}},
		},
		NotBefore: time.Unix(1_600_000_000, 0), NotAfter: time.Unix(1_900_000_000, 0),
		DNSNames: []string{"www.example.com", "*.example.com"}, EmailAddresses: []string{"b@example.com"},
		IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1).To4(), net.ParseIP("2001:db8::1")},
		URIs:        []*url.URL{{Scheme: "https", Host: "example.com"}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// checkAgainstLibrary checks that a certificate that crypto/x509 takes is read with the same values. The library
// ignores the extensions of old versions, and bytes behind the public key that are no extensions, so that such a
// certificate is not read as whole.
func checkAgainstLibrary(t *testing.T, der []byte) {
	t.Helper()
	want, err := x509.ParseCertificate(der)
	if err != nil {
		return
	}
	got, whole := readCertificate(der)
	var addresses []netip.Addr
	for _, ip := range want.IPAddresses {
		address, _ := netip.AddrFromSlice(ip)
		addresses = append(addresses, address)
	}
	if got.subject != want.Subject.String() || got.issuer != want.Issuer.String() || !got.notAfter.Equal(want.NotAfter) ||
		len(want.Extensions) > 0 && (!slices.Equal(got.dnsNames, want.DNSNames[:min(len(want.DNSNames), maxNames)]) ||
			!slices.Equal(got.addresses, addresses[:min(len(addresses), maxNames)])) {
		t.Errorf("%x:\n%v %+v\nwant %s, %s, %v, %q, %v", der, whole, got, want.Subject, want.Issuer, want.NotAfter, want.DNSNames, addresses)
	}
}

func TestCertificatesAreReadAsTheLibraryReadsThem(t *testing.T) {
	for _, der := range [][]byte{newCertificate(t, newKey(t)), serverCert().Certificate[0]} {
		checkAgainstLibrary(t, der)
		if _, whole := readCertificate(der); !whole {
			t.Errorf("%x is not read as whole", der)
		}
	}
}

// TestDamagedCertificatesAreReadAsTheLibraryReadsThem changes some bytes of a certificate.
func TestDamagedCertificatesAreReadAsTheLibraryReadsThem(t *testing.T) {
	original := newCertificate(t, newKey(t))
	random := mathrand.New(mathrand.NewPCG(1, 1))
	for range 5000 {
		der := bytes.Clone(original)
		for range 1 + random.IntN(4) {
			der[random.IntN(len(der))] = byte(random.Uint32())
		}
		checkAgainstLibrary(t, der)
	}
}

// TestCertificatesThatTheLibraryRefusesAreRead: who looks at other people's certificates reads what is there.
func TestCertificatesThatTheLibraryRefusesAreRead(t *testing.T) {
	original := newCertificate(t, newKey(t))
	want, _ := readCertificate(original)
	check := func(name, old, replacement string, wantWhole bool, dnsNames ...string) {
		t.Helper()
		der := bytes.Replace(original, []byte(old), []byte(replacement), 1)
		if bytes.Equal(der, original) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := x509.ParseCertificate(der); err == nil {
			t.Fatalf("%s: the library takes it", name)
		}
		got, whole := readCertificate(der)
		if whole != wantWhole || got.subject != want.subject || got.issuer != want.issuer || !got.notAfter.Equal(want.notAfter) ||
			!slices.Equal(got.dnsNames, dnsNames) {
			t.Errorf("%s: %v %+v\nwant %+v", name, whole, got, want)
		}
	}
	check("negative serial number", "\x02\x01\x01", "\x02\x01\x81", true, want.dnsNames...)
	check("unknown curve", "\x2a\x86\x48\xce\x3d\x03\x01\x07", "\x2a\x86\x48\xce\x3d\x03\x01\x63", true, want.dnsNames...)
	check("bad URI", "https://example", "ht%ps://example", true, want.dnsNames...)
	check("UTF-8 in a dNSName", "\x82\x0fwww.example.com", "\x82\x0fwww.\xc3\xa4mple.com\x00"[:17], true, "www.\xc3\xa4mple.com\x00", "*.example.com")
	check("damaged extensions", "\x55\x1d\x11\x04", "\x55\x1d\x11\x05", false)
}

// TestCutCertificatesGiveNoWrongName: no prefix of a certificate causes a panic or a wrong name.
func TestCutCertificatesGiveNoWrongName(t *testing.T) {
	der := newCertificate(t, newKey(t))
	want, _ := readCertificate(der)
	for end := range der {
		got, whole := readCertificate(der[:end])
		if whole || got.subject != "" && got.subject != want.subject {
			t.Fatalf("%d of %d bytes: %v %+v", end, len(der), whole, got)
		}
	}
}

func TestTimesOfCertificates(t *testing.T) {
	check := func(tag int, text, want string) {
		t.Helper()
		got := ""
		if at, ok := readTime(asn1.RawValue{Tag: tag, Bytes: []byte(text)}); ok {
			got = at.UTC().Format(time.RFC3339)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	check(asn1.TagUTCTime, "491231235959Z", "2049-12-31T23:59:59Z")
	check(asn1.TagUTCTime, "500101000000Z", "1950-01-01T00:00:00Z")
	check(asn1.TagUTCTime, "681231235959Z", "1968-12-31T23:59:59Z")
	check(asn1.TagUTCTime, "690101000000Z", "1969-01-01T00:00:00Z")
	check(asn1.TagUTCTime, "2601020304Z", "2026-01-02T03:04:00Z")
	check(asn1.TagUTCTime, "260102030405+0100", "2026-01-02T02:04:05Z")
	check(asn1.TagGeneralizedTime, "99991231235959Z", "9999-12-31T23:59:59Z")
	check(asn1.TagGeneralizedTime, "202601020304Z", "2026-01-02T03:04:00Z")
	check(asn1.TagInteger, "260102030405Z", "")
}

func FuzzCertificate(f *testing.F) {
	// The seeds have to be the same in each process of the fuzzer.
	f.Add(newCertificate(f, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))))
	f.Add([]byte(strings.Repeat("\x30\x80", 100)))
	f.Fuzz(func(t *testing.T, der []byte) {
		lineartest.CheckRepeated(t, lineartest.Default, der, func(der []byte) {
			if len(der) > maxCertificate {
				return
			}
			got, _ := readCertificate(der)
			if len(got.dnsNames) > maxNames || len(got.addresses) > maxNames {
				t.Errorf("%d names and %d addresses", len(got.dnsNames), len(got.addresses))
			}
			checkAgainstLibrary(t, der)
		})
	})
}
