package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA is a certificate authority of a test.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes an authority that nobody knows yet.
func NewCA(t testing.TB) *CA {
	t.Helper()
	c, key := certify(t, nil, func(c *x509.Certificate) {
		c.Subject.CommonName = rand.Text() // or all authorities look alike to each other
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	})
	return &CA{c, key}
}

// Pool returns a pool with the authority alone.
func (ca *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.cert)
	return p
}

// Issue makes a certificate for this machine, for servers and clients, good for
// an hour unless edit says otherwise.
func (ca *CA) Issue(t testing.TB, edit ...func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	c, key := certify(t, ca, edit...)
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
}

func certify(t testing.TB, ca *CA, edit ...func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	draft := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "redistest"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.ParseIP(host)},
	}
	for _, f := range edit {
		f(draft)
	}
	parent, signer := draft, key
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, draft, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// SingleTLS is Single with a second port, at the address it returns, that speaks
// TLS as cert and, of clients, trusts those of ca.
func SingleTLS(t testing.TB, ca *CA, cert tls.Certificate, conf ...string) (server *Server, addr string) {
	t.Helper()
	requireRedis(t)
	port := freePort()
	certFile, keyFile := WriteCertificate(t, cert)
	return Single(t, append([]string{
		fmt.Sprintf("tls-port %d", port),
		fmt.Sprintf("tls-cert-file %q", certFile),
		fmt.Sprintf("tls-key-file %q", keyFile),
		fmt.Sprintf("tls-ca-cert-file %q", writePEM(t, "CERTIFICATE", ca.cert.Raw)),
	}, conf...)...), fmt.Sprintf("%s:%d", host, port)
}

// WriteCertificate puts a certificate and its key into files, as redis-server
// wants them.
func WriteCertificate(t testing.TB, cert tls.Certificate) (certFile, keyFile string) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return writePEM(t, "CERTIFICATE", cert.Certificate[0]), writePEM(t, "PRIVATE KEY", key)
}

func writePEM(t testing.TB, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
