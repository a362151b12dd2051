// Package all is the list of the protocols that the collector reads.
package all

import (
	"tidegate/protocols"
	"tidegate/protocols/dns"
	"tidegate/protocols/http"
	"tidegate/protocols/mysql"
	"tidegate/protocols/redis"
	"tidegate/protocols/tls"
)

// Protocols are asked in this order what the bytes of a connection are, the more specific first.
var Protocols = []protocols.Protocol{
	tls.Protocol,
	http.Protocol,
	mysql.Protocol,
	redis.Protocol,
	dns.Protocol,
}
