// Package all is the list of the protocols that the collector reads.
package all

import (
	"tidegate/protocols"
	"tidegate/protocols/dns"
	"tidegate/protocols/http"
	"tidegate/protocols/memcached"
	"tidegate/protocols/mysql"
	"tidegate/protocols/redis"
	"tidegate/protocols/tls"
)

// Protocols is the list of protocols. A connection is matched against them in this order, so the more
// specific ones come first.
var Protocols = []protocols.Protocol{
	tls.Protocol,
	http.Protocol,
	mysql.Protocol,
	redis.Protocol,
	memcached.Protocol,
	memcached.Datagrams,
	dns.Protocol,
}
