package feeds

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"tidegate/pipeline/authority"
)

const maxRedirects = 5

// request requests the feed and follows redirects. A redirect leads to http or https, and not from https to http. It leads to
// the Internet, or to addresses of the kind that the configured host has: a server outside must not choose a request within
// the network of the engine. Only the configured host gets the user and the key of the URL and the client certificate, and no
// host a Referer, which may hold a key.
func (d *download) request(ctx context.Context, header http.Header) (*http.Response, error) {
	first, err := url.Parse(d.cfg.URL)
	if err != nil {
		return nil, errors.New("its url is not valid")
	}
	hop := hop{url: first, header: header, isConfigured: true}
	home := "" // the network of the configured host
	for redirects := 0; ; redirects++ {
		if redirects > 0 {
			hop.home = &home
		}
		response, network, err := d.requestHop(ctx, hop)
		if err != nil {
			return nil, err
		}
		if redirects == 0 {
			home = network
		}
		switch response.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			return response, nil
		}

		next, err := response.Location()
		_ = response.Body.Close()
		switch {
		case err != nil:
			return nil, errors.New("a redirect without a valid location")
		case redirects == maxRedirects:
			return nil, fmt.Errorf("more than %d redirects", maxRedirects)
		case next.Scheme != "http" && next.Scheme != "https":
			return nil, errors.New("a redirect to another scheme than http and https")
		case hop.url.Scheme == "https" && next.Scheme == "http":
			return nil, errors.New("a redirect from https to http")
		}

		// A host that is not the configured one may have chosen all that follows.
		hop.isConfigured = hop.isConfigured && strings.EqualFold(next.Host, first.Host)
		next.User = nil
		if hop.isConfigured {
			next.User = first.User
		}
		hop.url = next
	}
}

// A hop is one request of a chain of redirects.
type hop struct {
	url          *url.URL
	header       http.Header
	isConfigured bool    // it and all before it are at the configured host
	home         *string // the network that it may lead to beside the Internet; nil: any
}

// requestHop makes one request and follows no redirect. network is the kind of network of the server if it is not on the Internet.
func (d *download) requestHop(ctx context.Context, hop hop) (response *http.Response, network string, err error) {
	networkOf := d.networkOf
	if networkOf == nil {
		networkOf = specialNetwork
	}
	check := func(addr netip.Addr) error {
		if network := networkOf(addr); hop.home != nil && network != "" && network != *hop.home {
			return fmt.Errorf("a redirect to %s, which is not on the Internet: %s", addr, network)
		}
		return nil
	}
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if addr, ok := addrOf(info.Conn.RemoteAddr().String()); ok {
			network = networkOf(addr)
		}
	}}
	request, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), http.MethodGet, hop.url.String(), http.NoBody)
	if err != nil {
		return nil, "", errors.New("its url is not valid")
	}
	request.Header = hop.header.Clone()
	if user := hop.url.User; user != nil {
		password, _ := user.Password()
		request.SetBasicAuth(user.Username(), password)
	}
	settings, err := d.cfg.TLS.Load()
	if err != nil {
		return nil, "", err
	}
	if !hop.isConfigured {
		settings.Certificates, settings.ServerName = nil, ""
	}
	proxy, err := http.ProxyFromEnvironment(request)
	if err != nil {
		return nil, "", errors.New("the proxy of the environment is not valid")
	}

	dialer := &net.Dialer{Timeout: 30 * time.Second}
	if proxy == nil {
		// The address is checked when it is connected to: a name may resolve to another one each time.
		dialer.Control = func(_, address string, _ syscall.RawConn) error {
			addr, ok := addrOf(address)
			if !ok {
				return fmt.Errorf("%q is not an address", address)
			}
			return check(addr)
		}
	} else {
		// The proxy resolves names, and decides where it connects to.
		trace.GotConn = nil
		addr, ok := authority.Addr(hop.url.Hostname())
		if !ok {
			addr, ok = authority.NumericIPv4([]byte(hop.url.Hostname()))
		}
		if ok {
			network = networkOf(addr)
			err = check(addr)
		}
		if err != nil {
			return nil, "", err
		}
	}
	transport := &http.Transport{
		Proxy: http.ProxyURL(proxy), DialContext: dialer.DialContext, TLSClientConfig: settings, ForceAttemptHTTP2: true,
		MaxResponseHeaderBytes: 64 << 10, DisableKeepAlives: true,
	}
	response, err = transport.RoundTrip(request)
	return response, network, withoutURL(err)
}

// addrOf returns the address of a host and port.
func addrOf(text string) (netip.Addr, bool) {
	at, err := netip.ParseAddrPort(text)
	return at.Addr(), err == nil
}

// alsoSpecial are networks that are not reached over the Internet, beside those in notForeign, which no indicator names.
var alsoSpecial = []netip.Prefix{
	netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("fec0::/10"),
}

// specialNetwork returns what an address is that is not one of the Internet (RFC 6890), or "". Of an IPv6 address that stands
// for one of IPv4, that decides: NAT64 (RFC 6052) and 6to4 (RFC 3056).
func specialNetwork(addr netip.Addr) string {
	addr = addr.Unmap().WithZone("")
	bytes := addr.As16()
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(addr):
		addr = netip.AddrFrom4([4]byte(bytes[12:]))
	case netip.MustParsePrefix("2002::/16").Contains(addr):
		addr = netip.AddrFrom4([4]byte(bytes[2:6]))
	}
	for _, near := range notForeign {
		if near.Contains(addr) {
			return near.meaning
		}
	}
	for _, special := range alsoSpecial {
		if special.Contains(addr) {
			return "reserved"
		}
	}
	return ""
}

// withoutURL returns the cause of an error of an HTTP client. A URL may hold a key, which must not be logged.
func withoutURL(err error) error {
	if withURL, ok := errors.AsType[*url.Error](err); ok {
		return withURL.Err
	}
	return err
}
