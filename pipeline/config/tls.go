package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
)

// TLS holds the certificates that a connection accepts, and the one that it presents. Kafka, ClickHouse and
// every destination of alerts have one.
type TLS struct {
	// PEM file of the certificate authorities that are trusted; empty: those of the system.
	CAFile string `yaml:"ca_file"`
	// PEM file of the client certificate, for mutual TLS; needs key_file.
	CertFile string `yaml:"cert_file"`
	// PEM file of the private key of cert_file.
	KeyFile string `yaml:"key_file"`
	// Host name that the server's certificate must carry; empty: the host that is dialled.
	ServerName string `yaml:"server_name"`
	// Accept any certificate. For tests only.
	InsecureSkipVerify bool `yaml:"insecure_skip_verify"`
}

// OptionalTLS is TLS for a protocol whose address does not determine whether it is encrypted.
type OptionalTLS struct {
	// Encrypt connections with TLS.
	Enabled bool `yaml:"enabled"`
	TLS     `yaml:",inline"`
}

// Check returns every problem of t. Keys without enabled are one: passwords would be sent in clear text.
func (t OptionalTLS) Check() []Problem {
	return append(t.TLS.Check(), Require(t.Enabled || t == OptionalTLS{}, "enabled", "is false, but other keys of tls are set")...)
}

// Check returns every problem of t.
func (t TLS) Check() []Problem {
	return slices.Concat(
		Require((t.CertFile == "") == (t.KeyFile == ""), "cert_file", "cert_file and key_file must be set together"),
		File("ca_file", t.CAFile),
		File("cert_file", t.CertFile),
		File("key_file", t.KeyFile),
	)
}

// Load reads the files that t names. An error is a Problem with the key of the file.
func (t TLS) Load() (*tls.Config, error) {
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify,
	}
	if t.CAFile != "" {
		pem, err := ReadRegular(t.CAFile)
		if err != nil {
			return nil, Problem{Key: "ca_file", Err: err}
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, Problem{Key: "ca_file", Err: fmt.Errorf("%s holds no certificate in PEM", t.CAFile)}
		}
	}
	if t.CertFile != "" {
		pair, err := t.readKeyPair()
		if err != nil {
			return nil, Problem{Key: "cert_file", Err: err}
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// readKeyPair reads the certificate and the private key of a client.
func (t TLS) readKeyPair() (tls.Certificate, error) {
	certificate, err := ReadRegular(t.CertFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := ReadRegular(t.KeyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certificate, key)
}
