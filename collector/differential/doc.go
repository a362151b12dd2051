// Package differential has one test: real servers are the oracle of the collector.
//
// Generators write odd but accepted input on real connections to nginx, a Go HTTP server, Python's http.server (with
// handlers that read bodies and with some that do not), Redis (on its own port, on one of no protocol and on that of
// DNS), memcached, MariaDB, dnsmasq and OpenSSL. The packets are captured and run through the same code as live traffic.
// Whatever a server's own log says it executed must be an event with that text, or an event that says what was cut;
// and no event may have a text that the server did not execute.
//
// The servers, the clients and the capture share a network namespace of their own. The number of connections and
// the seed are set by TIDEGATE_DIFFERENTIAL ("20000" or "20000,7"); the failing cases of a run are printed with the
// bytes that were sent, and the capture is kept in the folder TIDEGATE_KEEP. TIDEGATE_SERVERS ("redis,mariadb") leaves
// out the other servers.
package differential
