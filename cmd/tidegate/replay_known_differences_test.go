package main

// A countedMeasure is a capture and one of its measures.
type countedMeasure struct{ file, measure string }

// An explanation is the reason why the count of tidegate differs from the count of tshark.
type explanation struct {
	difference int // count of tidegate minus count of tshark
	reason     string
}

// knownDifferences holds the measures that tidegate counts otherwise than tshark. Each was examined by hand,
// packet by packet. A line is removed when its difference is gone, and added only with a reason. All other
// counts are equal.
var knownDifferences = map[countedMeasure]explanation{
	{"ark__arkime_synthetic.pcap", "dns_queries"}:                              {-2, "two are empty payloads of VXLAN-GPE, which tshark dissects as DNS"},
	{"ark__arkime_synthetic.pcap", "dns_responses"}:                            {-1, "inside Geneve whose answer is sent to the client's port, by which it is not a tunnel"},
	{"ark__arkime_synthetic.pcap", "tls_client_hello"}:                         {-1, "QUIC"},
	{"ark__http-100-continue.pcap", "http_responses"}:                          {-1, "tshark counts 100 Continue, which is no response of its own"},
	{"ark__http-tcp-seq-issue.pcap", "http_responses"}:                         {1, "the capture ends in the body: tshark waits for the end, ours is marked partial"},
	{"ark__twovlan.pcap", "http_responses"}:                                    {1, "the capture ends in the body: tshark waits for the end, ours is marked partial"},
	{"ja4__pcap_tls-handshake.pcapng", "tls_client_hello"}:                     {-25, "QUIC"},
	{"ja4__pcap_tls-sni.pcapng", "tls_client_hello"}:                           {-25, "QUIC"},
	{"ndpi__http-manipulated.pcap", "http_responses"}:                          {1, "the capture ends in the body: tshark waits for the end, ours is marked partial"},
	{"ndpi__tls_1.2_unidirectional_server_no_cert.pcapng", "tls_client_hello"}: {1, "only the server was captured: its hello is a handshake, marked partial"},
	{"ndpi__tls_1.3_unidirectional_server.pcapng", "tls_client_hello"}:         {1, "only the server was captured: its hello is a handshake, marked partial"},
	{"ndpi__tls_port_80.pcapng", "tls_client_hello"}:                           {1, "TLS on the port of HTTP, which tshark dissects as HTTP"},
	{"pb__http_100_continue.pcap", "http_responses"}:                           {-1, "tshark counts 100 Continue, which is no response of its own"},
	{"pb__mysql_int_string_operations.pcap", "mysql_queries"}:                  {157, "port 13001: tshark counts 157 too if it dissects the port as MySQL"},
	{"sv__bug-4953_file76.pcap", "http_responses"}:                             {1, "bytes of the body are missing: tshark waits for them, ours is marked partial"},
	{"sv__bug-5486_154.pcap", "http_responses"}:                                {1, "the capture ends in the body: tshark waits for the end, ours is marked partial"},
	{"sv__bug-5758_input.pcap", "tls_client_hello"}:                            {-1, "a second hello after HelloRetryRequest belongs to the same handshake"},
	{"sv__bug-76_input.pcap", "http_requests"}:                                 {1, "the last byte of the request is missing: tshark waits for it, ours is marked partial"},
	{"sv__bug-78-uricontent_input.pcap", "http_responses"}:                     {1, "the capture ends in the body: tshark waits for the end, ours is marked partial"},
	{"sv__dns-over-http2-limit_input.pcap", "dns_queries"}:                     {-1, "DNS over HTTP/2, which is another protocol"},
	{"sv__dns-over-http2_dns_over_https.pcap", "dns_responses"}:                {-4, "DNS over HTTP/2, which is another protocol"},
	{"sv__dns-tcp-ts-gap_input.pcap", "dns_queries"}:                           {1, "the query behind a gap, which tshark does not find"},
	{"sv__dns-udp-junkrequest-first_input.pcap", "dns_queries"}:                {-1, "SNMP sent to port 53; the refusal of the server is counted"},
	{"sv__http-body-inspect_http-aptget-ids-02-s2.pcap", "http_responses"}:     {1, "the capture ends in the body: tshark waits for the end, ours is marked partial"},
	{"sv__http-connect_http-connect-fragmented_input.pcap", "http_requests"}:   {1, "the request inside the tunnel"},
	{"sv__http-connect_http-connect-fragmented_input.pcap", "http_responses"}:  {1, "the response inside the tunnel"},
	{"sv__http-evader_http-evader-028_input.pcap", "http_responses"}:           {1, "a response that is broken on purpose: tshark drops it, ours has the part that can be read"},
	{"sv__http-evader_http-evader-428_input.pcap", "http_responses"}:           {1, "a response that is broken on purpose: tshark drops it, ours has the part that can be read"},
	{"sv__http-evader_http-evader-480_input.pcap", "http_responses"}:           {1, "a response that is broken on purpose: tshark drops it, ours has the part that can be read"},
	{"sv__http-evader_http-evader-488_input.pcap", "http_responses"}:           {1, "a response that is broken on purpose: tshark drops it, ours has the part that can be read"},
	{"sv__http-evader_http-evader-492_input.pcap", "http_responses"}:           {1, "a response that is broken on purpose: tshark drops it, ours has the part that can be read"},
	{"sv__ja4-rules-disabled_input.pcap", "tls_client_hello"}:                  {-1, "QUIC"},
	{"sv__tcp-urgp-04-2byte-XY_tcp-urgent-2byte-XY.pcap", "http_requests"}:     {1, "a request with urgent data, which tshark does not count"},
	{"zeek__http_content-range-gap-skip.pcap", "http_responses"}:               {1, "bytes of the body are missing: tshark waits for them, ours is marked partial"},
	{"zeek__http_content-range-gap.pcap", "http_responses"}:                    {1, "bytes of the body are missing: tshark waits for them, ours is marked partial"},
	{"zeek__http_http-bad-request-with-version.pcap", "http_requests"}:         {1, "junk before a request that was answered: ours is marked partial"},
	{"zeek__http_http-body-match.pcap", "http_responses"}:                      {-3, "tshark counts 100 Continue, which is no response of its own"},
	{"zeek__http_query-method-non-standard-port.pcap", "http_requests"}:        {1, "QUERY, a method that tshark 4.0 does not have"},
	{"zeek__http_query-method.pcap", "http_requests"}:                          {1, "QUERY, a method that tshark 4.0 does not have"},
	{"zeek__http_zeek-image-post-1080-8000-x.pcap", "http_requests"}:           {1, "the client's port is that of SOCKS, as which tshark dissects it"},
	{"zeek__http_zeek-image-post-1080-8000-x.pcap", "http_responses"}:          {1, "the client's port is that of SOCKS, as which tshark dissects it"},
	{"zeek__redis_array-element-object-exhaustion.pcap", "redis_cmds"}:         {1, "inline commands, which tshark does not count"},
	{"zeek__redis_attr.pcap", "redis_cmds"}:                                    {2, "inline commands, which tshark does not count"},
	{"zeek__redis_client-skip-while-off.pcap", "redis_cmds"}:                   {7, "inline commands, which tshark does not count"},
	{"zeek__redis_django-cloud.pcapng", "redis_cmds"}:                          {158, "port 10625: tshark counts 158 too if it dissects the port as Redis"},
	{"zeek__redis_pipeline-quotes.pcap", "redis_cmds"}:                         {8, "inline commands, which tshark does not count"},
	{"zeek__redis_pipeline-with-commands.pcap", "redis_cmds"}:                  {4, "inline commands, which tshark does not count"},
	{"zeek__tcp-http-with-padding.pcap", "http_requests"}:                      {1, "segments of one byte, with padding, on port 27272: tshark does not detect HTTP"},
	{"zeek__tls_hrr.pcap", "tls_client_hello"}:                                 {-1, "a second hello after HelloRetryRequest belongs to the same handshake"},
	{"zeek__tunnels_ayiya3.pcap", "http_requests"}:                             {-3, "AYIYA, a tunnel that ended in 2017"},
	{"zeek__tunnels_ayiya3.pcap", "http_responses"}:                            {-3, "AYIYA, a tunnel that ended in 2017"},
	{"zeek__tcp_reassembly.pcap", "http_requests"}:                             {2, "an overflow in the target of SEARCH, of which segments are missing: tshark waits for them, ours is marked partial, and so is its last line, which ends as a request does"},
	{"zeek__http_http_09.pcap", "http_requests"}:                               {2, "requests of HTTP/0.9, which tshark does not count"},
	{"zeek__http_http-inner-transfer-encoding-ossfuzz.pcap", "http_requests"}:  {1, "a line of an unknown method, ETA, which tshark does not count"},
}
