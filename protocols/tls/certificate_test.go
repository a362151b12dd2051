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

// tlv returns an element with its length in as few bytes as possible.
func tlv(tag byte, content ...string) string {
	all := strings.Join(content, "")
	switch {
	case len(all) < 0x80:
		return string([]byte{tag, byte(len(all))}) + all
	case len(all) < 0x100:
		return string([]byte{tag, 0x81, byte(len(all))}) + all
	}
	return string([]byte{tag, 0x82, byte(len(all) >> 8), byte(len(all))}) + all
}

// longTLV returns an element with its length in five bytes, openTLV one of indefinite length. Both are BER, not DER.
func longTLV(tag byte, content ...string) string {
	all := strings.Join(content, "")
	return string([]byte{tag, 0x85, 0, 0, 0, byte(len(all) >> 8), byte(len(all))}) + all
}

func openTLV(tag byte, content ...string) string {
	return string([]byte{tag, 0x80}) + strings.Join(content, "") + "\x00\x00"
}

// rdn returns an attribute of a distinguished name, in a set of its own.
func rdn(id, text string) string { return tlv(0x31, tlv(0x30, tlv(0x06, id), text)) }

// A rawCertificate holds elements of a certificate as they are sent.
type rawCertificate struct {
	version, serial, algorithm, issuer, notAfter, subject, key, ids, before, san, after string

	sequence func(tag byte, content ...string) string
}

func newRawCertificate() rawCertificate {
	const commonName, subjectAltName, basicConstraints = "\x55\x04\x03", "\x55\x1d\x11", "\x55\x1d\x13"
	name := tlv(0x30, rdn(commonName, tlv(0x0c, "www.example.com")))
	return rawCertificate{
		version: tlv(0xa0, tlv(0x02, "\x02")), serial: tlv(0x02, "\x01"), algorithm: tlv(0x30, tlv(0x06, "\x2b\x65\x70")),
		issuer: name, notAfter: tlv(0x17, "300102030405Z"), subject: name,
		key:    tlv(0x30, tlv(0x30, tlv(0x06, "\x2b\x65\x70")), tlv(0x03, "\x00"+strings.Repeat("k", 32))),
		before: tlv(0x30, tlv(0x06, basicConstraints), tlv(0x04, tlv(0x30))),
		san:    tlv(0x30, tlv(0x06, subjectAltName), tlv(0x04, tlv(0x30, tlv(0x82, "www.example.com"), tlv(0x87, "\xc0\x00\x02\x01")))),

		sequence: tlv,
	}
}

func (c rawCertificate) encode() []byte {
	validity := c.sequence(0x30, tlv(0x17, "200102030405Z"), c.notAfter)
	extensions := tlv(0xa3, c.sequence(0x30, c.before, c.san, c.after))
	body := c.sequence(0x30, c.version, c.serial, c.algorithm, c.issuer, validity, c.subject, c.key, c.ids, extensions)
	return []byte(c.sequence(0x30, body, c.algorithm, tlv(0x03, "\x00"+strings.Repeat("s", 64))))
}

// TestOddCertificatesAreReadAsFarAsTheyGo: a certificate of which crypto/x509 reads nothing has its names and its end.
func TestOddCertificatesAreReadAsFarAsTheyGo(t *testing.T) {
	// check compares what is read of a certificate with "subject|issuer|end|names", "*" for those of the plain one.
	check := func(name string, wantWhole bool, want string, change func(*rawCertificate)) {
		t.Helper()
		cert := newRawCertificate()
		change(&cert)
		der := cert.encode()
		if parsed, err := x509.ParseCertificate(der); err == nil && name != "plain" {
			t.Errorf("%s: the library takes it: %s", name, parsed.Subject)
		}
		read, whole := readCertificate(der)
		names := slices.Clone(read.dnsNames)
		for _, address := range read.addresses {
			names = append(names, address.String())
		}
		got := strings.Join([]string{
			read.subject, read.issuer, read.notAfter.UTC().Format(time.RFC3339), strings.Join(names, ","),
		}, "|")
		if want == "*" {
			want = "CN=www.example.com|CN=www.example.com|2030-01-02T03:04:05Z|www.example.com,192.0.2.1"
		}
		if got != want || whole != wantWhole {
			t.Errorf("%s: %q, %v; want %q, %v", name, got, whole, want, wantWhole)
		}
	}
	check("plain", true, "*", func(*rawCertificate) {})

	// What is not read may be anything.
	check("negative serial", true, "*", func(c *rawCertificate) { c.serial = tlv(0x02, "\x81") })
	check("empty serial", true, "*", func(c *rawCertificate) { c.serial = tlv(0x02) })
	check("serial of 200 bytes", true, "*", func(c *rawCertificate) { c.serial = tlv(0x02, strings.Repeat("\x00", 200)) })
	check("version 77", true, "*", func(c *rawCertificate) { c.version = tlv(0xa0, tlv(0x02, "\x4d")) })
	check("unknown curve", true, "*", func(c *rawCertificate) {
		c.key = tlv(0x30, tlv(0x30, tlv(0x06, "\x2a\x86\x48\xce\x3d\x02\x01"), tlv(0x06, "\x2b\x24\x03\x03\x02\x08\x01\x01\x07")),
			tlv(0x03, "\x00\x04"+strings.Repeat("k", 64)))
	})
	check("key without content", true, "*", func(c *rawCertificate) { c.key = tlv(0x30) })
	check("RSA with exponent 0", true, "*", func(c *rawCertificate) {
		c.key = tlv(0x30, tlv(0x30, tlv(0x06, "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01"), tlv(0x05)),
			tlv(0x03, "\x00"+tlv(0x30, tlv(0x02, "\x81"), tlv(0x02, "\x00"))))
	})
	check("twice the same extension", true, "*", func(c *rawCertificate) { c.after = c.before })
	check("bad basic constraints", true, "*", func(c *rawCertificate) {
		c.before = tlv(0x30, tlv(0x06, "\x55\x1d\x13"), tlv(0x04, "\xff\xff"))
	})
	check("bad name constraints", true, "*", func(c *rawCertificate) {
		c.before = tlv(0x30, tlv(0x06, "\x55\x1d\x1e"), tlv(0x01, "\xff"), tlv(0x04, tlv(0x02, "\x01")))
	})

	// Names: odd types of strings, and alternative names that the library refuses.
	subject := func(text string) func(*rawCertificate) {
		return func(c *rawCertificate) {
			c.subject, c.serial = tlv(0x30, rdn("\x55\x04\x03", text)), tlv(0x02, "\x81")
		}
	}
	const others = "|CN=www.example.com|2030-01-02T03:04:05Z|www.example.com,192.0.2.1"
	check("no printable string", true, "CN=*@b"+others, subject(tlv(0x13, "*@b")))
	check("universal string", true, "CN=aö"+others, subject(tlv(0x1c, "\x00\x00\x00a\x00\x00\x00\xf6")))
	check("visible string", true, "CN=a"+others, subject(tlv(0x1a, "a")))
	check("Latin-1", true, "CN=aö"+others, subject(tlv(0x14, "a\xf6")))
	check("odd UTF-16", true, "CN=a"+others, subject(tlv(0x1e, "\x00a\x00")))
	check("text of no known type", false, others, subject(tlv(0x0a, "\x01")))
	check("no name", true, others, func(c *rawCertificate) { c.subject, c.serial = tlv(0x30), tlv(0x02, "\x81") })
	check("a type of attribute that is no identifier", false, "CN=a"+others, func(c *rawCertificate) {
		c.subject = tlv(0x30, rdn("\x80\x80", tlv(0x0c, "x")), rdn("\x55\x04\x03", tlv(0x0c, "a")))
	})
	check("a type of attribute that is too large", false, "CN=a"+others, func(c *rawCertificate) {
		c.subject = tlv(0x30, rdn("\x69\xff\xff\xff\xff\xff\xff\xff\xff\x7f", tlv(0x0c, "x")), rdn("\x55\x04\x03", tlv(0x0c, "a")))
	})
	check("issuer that is no list of sets", false, "CN=www.example.com||2030-01-02T03:04:05Z|www.example.com,192.0.2.1",
		func(c *rawCertificate) { c.issuer = tlv(0x30, tlv(0x02, "\x01")) })
	altNames := func(names ...string) func(*rawCertificate) {
		return func(c *rawCertificate) {
			c.san = tlv(0x30, tlv(0x06, "\x55\x1d\x11"), tlv(0x04, tlv(0x30, names...)))
		}
	}
	const common = "CN=www.example.com|CN=www.example.com|2030-01-02T03:04:05Z|"
	check("address of five bytes", true, common+"a.example", altNames(tlv(0x87, "12345"), tlv(0x82, "a.example")))
	check("bad URI", true, common+"a.example", altNames(tlv(0x86, "ht%ps://x"), tlv(0x82, "a.example")))
	check("address of mail in UTF-8", true, common+"a.example", altNames(tlv(0x81, "ö@example"), tlv(0x82, "a.example")))
	check("name in UTF-8", true, common+"ö.example", altNames(tlv(0x82, "ö.example")))
	check("alternative names that are no list", false, common, func(c *rawCertificate) {
		c.san = tlv(0x30, tlv(0x06, "\x55\x1d\x11"), tlv(0x04, "\x02\x01\x01"))
	})
	check("a name that is longer than its list", false, common+"a.example", altNames(tlv(0x82, "a.example"), "\x82\x7fb"))

	// Times.
	end := func(element string) func(*rawCertificate) {
		return func(c *rawCertificate) { c.notAfter, c.serial = element, tlv(0x02, "\x81") }
	}
	const names, sans = "CN=www.example.com|CN=www.example.com|", "|www.example.com,192.0.2.1"
	check("fraction of a second", true, names+"2030-01-02T03:04:05Z"+sans, end(tlv(0x18, "20300102030405.123Z")))
	check("no zone", true, names+"2030-01-02T03:04:05Z"+sans, end(tlv(0x17, "300102030405")))
	check("a year of four digits in UTCTime", true, names+"2030-01-02T03:04:05Z"+sans, end(tlv(0x17, "20300102030405Z")))
	check("no end", true, names+"9999-12-31T23:59:59Z"+sans, end(tlv(0x18, "99991231235959Z")))
	check("month 13", false, names+"0001-01-01T00:00:00Z"+sans, end(tlv(0x17, "301302030405Z")))
	check("end that is a number", false, names+"0001-01-01T00:00:00Z"+sans, end(tlv(0x02, "\x01")))

	// BER.
	check("long lengths", true, "*", func(c *rawCertificate) { c.sequence = longTLV })
	check("indefinite lengths", true, "*", func(c *rawCertificate) { c.sequence = openTLV })
	check("unique identifiers", true, "*", func(c *rawCertificate) {
		c.ids, c.serial = tlv(0x81, "\x00x")+tlv(0x82, "\x00y"), tlv(0x02, "\x81")
	})
}

// TestCertificatesWithoutAnEndHaveOne: the year 9999 is beyond the times of the store.
func TestCertificatesWithoutAnEndHaveOne(t *testing.T) {
	check := func(at, want time.Time) {
		t.Helper()
		if got := time.Unix(0, unixNano(at)); !got.Equal(want) {
			t.Errorf("%v: %v, want %v", at, got, want)
		}
	}
	usual := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	check(usual, usual)
	check(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), time.Date(2262, 4, 11, 23, 47, 16, 0, time.UTC))
	check(time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC), time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC))
	check(time.Time{}, time.Unix(0, 0))
}

// TestHeadersOfElements: X.690 section 8.1. Tags and lengths may have several bytes.
func TestHeadersOfElements(t *testing.T) {
	check := func(data string, size, length int, ok bool) {
		t.Helper()
		if gotSize, gotLength, gotOK := readHeader([]byte(data)); gotOK != ok || ok && (gotSize != size || gotLength != length) {
			t.Errorf("%x: %d, %d, %t; want %d, %d, %t", data, gotSize, gotLength, gotOK, size, length, ok)
		}
	}
	check("", 0, 0, false)
	check("\x30", 0, 0, false)
	check("\x30\x00", 2, 0, true)
	check("\x30\x7f", 2, 127, true)
	check("\x30\x80", 2, indefinite, true)
	check("\x02\x80", 0, 0, false) // only constructed elements may have it
	check("\x30\x81\xff", 3, 255, true)
	check("\x30\x81", 0, 0, false)
	check("\x30\x82\x01\x02", 4, 0x102, true)
	check("\x30\x82\x01", 0, 0, false)
	check("\x30\x84\x7f\xff\xff\xff", 6, 1<<31-1, true)
	check("\x30\x85\x00\x00\x00\x01\x02", 7, 0x102, true)
	check("\x30\x85\x01\x00\x00\x00\x00", 0, 0, false)
	check("\x30\x86\x00\x80\x00\x00\x00\x00", 0, 0, false)
	check("\x1f\x01\x05", 3, 5, true)
	check("\x1f\x81\x01\x05", 4, 5, true)
	check("\x1f\x81\x01", 0, 0, false)
	check("\x1f\x81", 0, 0, false)
	check("\x1f\x01", 0, 0, false)

	indefinitely := func(data string, length, end int) {
		t.Helper()
		if gotLength, gotEnd := indefiniteLength([]byte(data)); gotLength != length || gotEnd != end {
			t.Errorf("%x: %d, %d; want %d, %d", data, gotLength, gotEnd, length, end)
		}
	}
	indefinitely("\x00\x00", 0, 2)
	indefinitely("\x02\x01\x00\x00\x00", 3, 2)
	indefinitely("\x30\x80\x02\x01\x00\x00\x00\x00\x00x", 7, 2)
	indefinitely("\x30\x80\x00\x00", 5, 0)
	indefinitely("\x02\x01\x00", 4, 0)
	indefinitely("\x02\x01\x00\x00", 5, 0)
	indefinitely("\x02", 2, 0)
	indefinitely("", 1, 0)
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
		if at, ok := readTime(tag, []byte(text)); ok {
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
