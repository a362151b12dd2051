package pipeline

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
)

// TLS is how a connection is made safe: who is believed, and how we say who we are. Kafka, ClickHouse and every destination of
// alerts have one.
type TLS struct {
	CAFile             string `yaml:"ca_file"`   // PEM; "": the system's roots
	CertFile           string `yaml:"cert_file"` // PEM, with key_file: our own certificate, for mTLS
	KeyFile            string `yaml:"key_file"`
	ServerName         string `yaml:"server_name"` // "": the host that is dialled
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
}

// Check reports what is wrong with t; the errors begin with its keys.
func (t TLS) Check() []error {
	if (t.CertFile == "") != (t.KeyFile == "") {
		return []error{errors.New("cert_file: cert_file and key_file are only of use together")}
	}
	return nil
}

// Config reads the files that t names. Its errors begin with t's keys.
func (t TLS) Config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: %s holds no certificate in PEM", t.CAFile)
		}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("cert_file: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// Secret is the value, or the first line of the file, whichever is given.
func Secret(value, file string) (string, error) {
	if value != "" || file == "" {
		return value, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if line = strings.TrimRight(line, "\r"); line == "" {
		return "", errors.New(file + " begins with an empty line")
	}
	return line, nil
}
