package pipeline

import (
	"net/netip"
	"strings"
)

// Fields is the list, in the order of the columns and of docs/FIELDS.md.
var Fields = []Field{
	{
		Name: "@timestamp", Column: instant.named("@timestamp"),
		Doc:  "When it happened: the packet, the log line.",
		Time: func(e *Event) int64 { return e.Timestamp },
	},
	{
		Name: "event.ingested", Column: instant.named("event.ingested"),
		Doc:  "When the engine took it up: the time of its block.",
		Time: func(e *Event) int64 { return e.Ingested },
	},
	{
		Name: "event.id", Column: Column{Name: "event.id", Type: "UUID"},
		Doc: "Deterministic identity, 16 bytes: reading the same bytes twice gives it twice.",
		Raw: func(e *Event) []byte { return e.Id },
	},
	{
		Name: "event.dataset", Column: word.named("event.dataset"),
		Doc: "What kind of fact it is: session, dns, http, mysql, redis, tls, file, log or container.",
		Str: func(e *Event) string { return e.Dataset.Name() },
	},
	{
		Name: "event.duration", Column: u64.named("event.duration"),
		Doc: "From its first byte to its last, ns.",
		Num: func(e *Event) int64 { return int64(e.Duration) },
	},
	{
		Name: "event.outcome", Column: word.named("event.outcome"),
		Doc: "success or failure, where the protocol says.",
		Str: func(e *Event) string { return e.Outcome.Name() },
	},
	{
		Name: "event.partial", Column: flag.named("event.partial"),
		Doc:  "Bytes of it were never seen, or it began before the capture.",
		Flag: func(e *Event) bool { return e.Partial },
	},
	{
		Name: "network.transport", Column: word.named("network.transport"),
		Doc: "tcp or udp.",
		Str: func(e *Event) string { return e.Transport.Name() },
	},
	{
		Name: "network.type", Column: word.named("network.type"),
		Doc: "ipv4 or ipv6.",
		Str: func(e *Event) string { return networkType(e) },
	},
	{
		Name: "network.vlan.id", Column: u16.named("network.vlan.id"),
		Doc: "VLAN, the inner one of two.",
		Num: func(e *Event) int64 { return int64(e.Vlan) },
	},
	{
		Name: "network.community_id", Column: Column{Name: "community_id", Type: "FixedString(20)", Alias: "if(community_id = toFixedString('', 20), '', concat('1:', base64Encode(community_id)))"},
		Doc: "Community ID, version 1, seed 0: the same at every tool that sees the connection.",
		Raw: func(e *Event) []byte { return e.CommunityId },
	},
	{
		Name: "observer.interfaces", Column: words.named("observer_interfaces"),
		Doc:  "Interfaces on which it was seen.",
		Strs: func(e *Event, buf []string) []string { return append(buf, e.Interfaces...) },
	},
	{
		Name: "source.ip", Column: text.named("source.ip"),
		Doc: "Address of the client, inside a NAT.",
		IP:  func(e *Event) netip.Addr { return addr(e.GetSource().GetIp()) },
	},
	{
		Name: "source.port", Column: u16.named("source.port"),
		Doc: "Port of the client.",
		Num: func(e *Event) int64 { return int64(e.GetSource().GetPort()) },
	},
	{
		Name: "source.bytes", Column: u64.named("source.bytes"),
		Doc: "Payload that the client sent for this event, bytes.",
		Num: func(e *Event) int64 { return int64(e.GetSource().GetBytes()) },
	},
	{
		Name: "source.packets", Column: u64.named("source.packets"),
		Doc: "Packets that the client sent in the session.",
		Num: func(e *Event) int64 { return int64(e.GetSource().GetPackets()) },
	},
	{
		Name: "source.nat.ip", Column: text.named("source.nat.ip"),
		Doc: "Address of the client outside the NAT, where there is one.",
		IP:  func(e *Event) netip.Addr { return addr(e.GetSource().GetNatIp()) },
	},
	{
		Name: "source.nat.port", Column: u16.named("source.nat.port"),
		Doc: "Port of the client outside the NAT.",
		Num: func(e *Event) int64 { return int64(e.GetSource().GetNatPort()) },
	},
	{
		Name: "source.container.id", Column: word.named("source.container.id"),
		Doc: "Container of the client, where it runs on this host.",
		Str: func(e *Event) string { return e.GetSource().GetContainer().GetId() },
	},
	{
		Name: "source.container.name", Column: word.named("source.container.name"),
		Doc: "Name of the container of the client.",
		Str: func(e *Event) string { return e.GetSource().GetContainer().GetName() },
	},
	{
		Name: "source.container.image.name", Column: word.named("source.container.image.name"),
		Doc: "Image of the container of the client.",
		Str: func(e *Event) string { return e.GetSource().GetContainer().GetImage() },
	},
	{
		Name: "destination.ip", Column: text.named("destination.ip"),
		Doc: "Address of the server, inside a NAT.",
		IP:  func(e *Event) netip.Addr { return addr(e.GetDestination().GetIp()) },
	},
	{
		Name: "destination.port", Column: u16.named("destination.port"),
		Doc: "Port of the server.",
		Num: func(e *Event) int64 { return int64(e.GetDestination().GetPort()) },
	},
	{
		Name: "destination.bytes", Column: u64.named("destination.bytes"),
		Doc: "Payload that the server sent for this event, bytes.",
		Num: func(e *Event) int64 { return int64(e.GetDestination().GetBytes()) },
	},
	{
		Name: "destination.packets", Column: u64.named("destination.packets"),
		Doc: "Packets that the server sent in the session.",
		Num: func(e *Event) int64 { return int64(e.GetDestination().GetPackets()) },
	},
	{
		Name: "destination.nat.ip", Column: text.named("destination.nat.ip"),
		Doc: "Address of the server outside the NAT, where there is one.",
		IP:  func(e *Event) netip.Addr { return addr(e.GetDestination().GetNatIp()) },
	},
	{
		Name: "destination.nat.port", Column: u16.named("destination.nat.port"),
		Doc: "Port of the server outside the NAT.",
		Num: func(e *Event) int64 { return int64(e.GetDestination().GetNatPort()) },
	},
	{
		Name: "destination.container.id", Column: word.named("destination.container.id"),
		Doc: "Container of the server, where it runs on this host.",
		Str: func(e *Event) string { return e.GetDestination().GetContainer().GetId() },
	},
	{
		Name: "destination.container.name", Column: word.named("destination.container.name"),
		Doc: "Name of the container of the server.",
		Str: func(e *Event) string { return e.GetDestination().GetContainer().GetName() },
	},
	{
		Name: "destination.container.image.name", Column: word.named("destination.container.image.name"),
		Doc: "Image of the container of the server.",
		Str: func(e *Event) string { return e.GetDestination().GetContainer().GetImage() },
	},
	{
		Name: "container.id", Column: word.named("container.id"),
		Doc: "The container that the event belongs to: the server-side one of this host, else the client-side one; of a log line, its own.",
		Str: func(e *Event) string { return e.GetContainer().GetId() },
	},
	{
		Name: "container.name", Column: word.named("container.name"),
		Doc: "Its name.",
		Str: func(e *Event) string { return e.GetContainer().GetName() },
	},
	{
		Name: "container.image.name", Column: word.named("container.image.name"),
		Doc: "Its image, as it was asked for.",
		Str: func(e *Event) string { return e.GetContainer().GetImage() },
	},
	{
		Name: "container.image.hash", Column: word.named("container.image.hash"),
		Doc: "Its image id, as the runtime says it (sha256:…).",
		Str: func(e *Event) string { return e.GetContainer().GetImageId() },
	},
	{
		Name: "container.labels", Column: Column{Name: "container_labels", Type: "Map(LowCardinality(String), String)", Codec: "ZSTD(1)"},
		Doc:    "Its labels; in rules label(\"app\").",
		Labels: func(e *Event) []*Label { return e.GetContainer().GetLabels() },
	},
	{
		Name: "event.demo", Column: flag.named("event.demo"),
		Doc: "It comes from the bundled scenario, not from this host.",
		Flag: func(e *Event) bool {
			return e.GetContainer().GetDemo() || e.GetSource().GetContainer().GetDemo() || e.GetDestination().GetContainer().GetDemo()
		},
	},
	{
		Name: "host.name", Column: word.named("host.name"),
		Doc: "The host of the collector.",
		Str: func(e *Event) string { return e.GetHost().GetName() },
	},
	{
		Name: "host.id", Column: word.named("host.id"),
		Doc: "The identity of the collector: 32 hex digits, drawn once per state folder.",
		Str: func(e *Event) string { return e.GetHost().GetId() },
	},
	{
		Name: "orchestrator.cluster.name", Column: word.named("orchestrator.cluster.name"),
		Doc: "The cluster that the host belongs to, as configured.",
		Str: func(e *Event) string { return e.GetHost().GetCluster() },
	},
	{
		Name: "network.protocol", Column: word.named("network.protocol"),
		Doc:  "What the bytes of the session were, where they were recognised.",
		Body: Dataset_SESSION,
		Str:  func(e *Event) string { return e.GetSession().GetProtocol() },
	},
	{
		Name: "session.history", Column: word.named("session.history"),
		Doc:  "TCP in Zeek's letters, upper case the client's: S SYN, H SYN-ACK, A ACK, D data, F FIN, R RST, T retransmission, W zero window, G gap, ^ flipped.",
		Body: Dataset_SESSION,
		Str:  func(e *Event) string { return e.GetSession().GetHistory() },
	},
	{
		Name: "session.state", Column: word.named("session.state"),
		Doc:  "How it ended: fin, reset_client, reset_server, refused, no_answer, timeout, evicted or shutdown.",
		Body: Dataset_SESSION,
		Str:  func(e *Event) string { return e.GetSession().GetState() },
	},
	{
		Name: "session.rtt.client", Column: u64.named("session.rtt.client"),
		Doc:  "Round trip to the client: SYN-ACK to ACK, ns.",
		Body: Dataset_SESSION,
		Num:  func(e *Event) int64 { return int64(e.GetSession().GetRttClient()) },
	},
	{
		Name: "session.rtt.server", Column: u64.named("session.rtt.server"),
		Doc:  "Round trip to the server: SYN to SYN-ACK, ns.",
		Body: Dataset_SESSION,
		Num:  func(e *Event) int64 { return int64(e.GetSession().GetRttServer()) },
	},
	{
		Name: "session.response_time", Column: u64.named("session.response_time"),
		Doc:  "First byte of the client to the first byte of the server, ns.",
		Body: Dataset_SESSION,
		Num:  func(e *Event) int64 { return int64(e.GetSession().GetResponseTime()) },
	},
	{
		Name: "session.syn_retransmissions", Column: u32.named("session.syn_retransmissions"),
		Doc:  "SYNs sent again.",
		Body: Dataset_SESSION,
		Num:  func(e *Event) int64 { return int64(e.GetSession().GetSynRetransmissions()) },
	},
	{
		Name: "session.synack_retransmissions", Column: u32.named("session.synack_retransmissions"),
		Doc:  "SYN-ACKs sent again.",
		Body: Dataset_SESSION,
		Num:  func(e *Event) int64 { return int64(e.GetSession().GetSynackRetransmissions()) },
	},
	{
		Name: "session.client_retransmissions", Column: u32.named("session.client_retransmissions"),
		Doc:  "Segments of the client sent again.",
		Body: Dataset_SESSION,
		Num:  func(e *Event) int64 { return int64(e.GetSession().GetClientRetransmissions()) },
	},
	{
		Name: "session.server_retransmissions", Column: u32.named("session.server_retransmissions"),
		Doc:  "Segments of the server sent again.",
		Body: Dataset_SESSION,
		Num:  func(e *Event) int64 { return int64(e.GetSession().GetServerRetransmissions()) },
	},
	{
		Name: "session.zero_windows", Column: u32.named("session.zero_windows"),
		Doc:  "Times that a side had no room.",
		Body: Dataset_SESSION,
		Num:  func(e *Event) int64 { return int64(e.GetSession().GetZeroWindows()) },
	},
	{
		Name: "session.out_of_order", Column: u32.named("session.out_of_order"),
		Doc:  "Segments that came before their turn.",
		Body: Dataset_SESSION,
		Num:  func(e *Event) int64 { return int64(e.GetSession().GetOutOfOrder()) },
	},
	{
		Name: "session.overlap_conflicts", Column: u32.named("session.overlap_conflicts"),
		Doc:  "Retransmissions whose bytes differ from the first: an attack or a broken middlebox.",
		Body: Dataset_SESSION,
		Num:  func(e *Event) int64 { return int64(e.GetSession().GetOverlapConflicts()) },
	},
	{
		Name: "session.client_missing_bytes", Column: u64.named("session.client_missing_bytes"),
		Doc:  "Bytes of the client that were never seen.",
		Body: Dataset_SESSION,
		Num:  func(e *Event) int64 { return int64(e.GetSession().GetClientMissingBytes()) },
	},
	{
		Name: "session.server_missing_bytes", Column: u64.named("session.server_missing_bytes"),
		Doc:  "Bytes of the server that were never seen.",
		Body: Dataset_SESSION,
		Num:  func(e *Event) int64 { return int64(e.GetSession().GetServerMissingBytes()) },
	},
	{
		Name: "session.direction_confidence", Column: u16.named("session.direction_confidence"),
		Doc:  "How sure it is who is the client, 0 to 100.",
		Body: Dataset_SESSION,
		Num:  func(e *Event) int64 { return int64(e.GetSession().GetDirectionConfidence()) },
	},
	{
		Name: "dns.type", Column: word.named("dns.type"),
		Doc:  "answer, or query where none was seen.",
		Body: Dataset_DNS,
		Str:  func(e *Event) string { return e.GetDns().GetType() },
	},
	{
		Name: "dns.id", Column: u16.named("dns.id"),
		Doc:  "Message ID.",
		Body: Dataset_DNS,
		Num:  func(e *Event) int64 { return int64(e.GetDns().GetId()) },
	},
	{
		Name: "dns.op_code", Column: word.named("dns.op_code"),
		Doc:  "QUERY, NOTIFY, UPDATE, …",
		Body: Dataset_DNS,
		Str:  func(e *Event) string { return e.GetDns().GetOpCode() },
	},
	{
		Name: "dns.question.name", Column: text.named("dns.question.name"),
		Doc:  "QNAME, lower case, without the last dot.",
		Body: Dataset_DNS,
		Str:  func(e *Event) string { return e.GetDns().GetQuestionName() },
	},
	{
		Name: "dns.question.registered_domain", Column: text.named("dns.question.registered_domain"),
		Doc:  "Its registered domain by the public suffix list.",
		Body: Dataset_DNS,
		Str:  func(e *Event) string { return e.GetDns().GetRegisteredDomain() },
	},
	{
		Name: "dns.question.type", Column: word.named("dns.question.type"),
		Doc:  "QTYPE: A, AAAA, TXT, … or TYPE65280.",
		Body: Dataset_DNS,
		Str:  func(e *Event) string { return e.GetDns().GetQuestionType() },
	},
	{
		Name: "dns.question.class", Column: word.named("dns.question.class"),
		Doc:  "QCLASS: IN.",
		Body: Dataset_DNS,
		Str:  func(e *Event) string { return e.GetDns().GetQuestionClass() },
	},
	{
		Name: "dns.response_code", Column: word.named("dns.response_code"),
		Doc:  "RCODE: NOERROR, NXDOMAIN, …; empty without an answer.",
		Body: Dataset_DNS,
		Str:  func(e *Event) string { return e.GetDns().GetResponseCode() },
	},
	{
		Name: "dns.header_flags", Column: words.named("dns_header_flags"),
		Doc:  "Flags of the answer (of the query without one): AA, TC, RD, RA, AD, CD.",
		Body: Dataset_DNS,
		Strs: func(e *Event, buf []string) []string { return append(buf, e.GetDns().GetHeaderFlags()...) },
	},
	{
		Name: "dns.answers_count", Column: u16.named("dns.answers_count"),
		Doc:  "ANCOUNT.",
		Body: Dataset_DNS,
		Num:  func(e *Event) int64 { return int64(e.GetDns().GetAnswersCount()) },
	},
	{
		Name: "dns.answers.name", Column: texts.named("dns_answers_name"),
		Doc:  "Owner names of the answers.",
		Body: Dataset_DNS,
		Strs: func(e *Event, buf []string) []string { return append(buf, e.GetDns().GetAnswersName()...) },
	},
	{
		Name: "dns.answers.type", Column: words.named("dns_answers_type"),
		Doc:  "Types of the answers.",
		Body: Dataset_DNS,
		Strs: func(e *Event, buf []string) []string { return append(buf, e.GetDns().GetAnswersType()...) },
	},
	{
		Name: "dns.answers.data", Column: texts.named("dns_answers_data"),
		Doc:  "Data of the answers, in the form of a zone file.",
		Body: Dataset_DNS,
		Strs: func(e *Event, buf []string) []string { return append(buf, e.GetDns().GetAnswersData()...) },
	},
	{
		Name: "dns.answers.ttl", Column: Column{Name: "dns_answers_ttl", Type: "Array(UInt32)", Codec: "ZSTD(1)"},
		Doc:  "Their time to live, s.",
		Body: Dataset_DNS,
		Nums: func(e *Event, buf []int64) []int64 { return appendNums(buf, e.GetDns().GetAnswersTtl()) },
	},
	{
		Name: "dns.resolved_ip", Column: texts.named("dns_resolved_ip"),
		Doc:  "Every address among the answers.",
		Body: Dataset_DNS,
		Strs: func(e *Event, buf []string) []string { return append(buf, e.GetDns().GetResolvedIp()...) },
	},
	{
		Name: "http.version", Column: word.named("http.version"),
		Doc:  "Version: 1.0, 1.1.",
		Body: Dataset_HTTP,
		Str:  func(e *Event) string { return e.GetHttp().GetVersion() },
	},
	{
		Name: "http.request.method", Column: word.named("http.request.method"),
		Doc:  "Method, as sent; empty where only the response was seen.",
		Body: Dataset_HTTP,
		Str:  func(e *Event) string { return e.GetHttp().GetMethod() },
	},
	{
		Name: "url.original", Column: text.named("url.original"),
		Doc:  "The request target as sent, secrets redacted.",
		Body: Dataset_HTTP,
		Str:  func(e *Event) string { return e.GetHttp().GetUrlOriginal() },
	},
	{
		Name: "url.path", Column: text.named("url.path"),
		Doc:  "Its path.",
		Body: Dataset_HTTP,
		Str:  func(e *Event) string { return e.GetHttp().GetUrlPath() },
	},
	{
		Name: "url.query", Column: text.named("url.query"),
		Doc:  "Its query, without the question mark, secrets redacted.",
		Body: Dataset_HTTP,
		Str:  func(e *Event) string { return e.GetHttp().GetUrlQuery() },
	},
	{
		Name: "url.domain", Column: text.named("url.domain"),
		Doc:  "Host, without the port.",
		Body: Dataset_HTTP,
		Str:  func(e *Event) string { return e.GetHttp().GetUrlDomain() },
	},
	{
		Name: "user_agent.original", Column: text.named("user_agent.original"),
		Doc:  "User-Agent.",
		Body: Dataset_HTTP,
		Str:  func(e *Event) string { return e.GetHttp().GetUserAgent() },
	},
	{
		Name: "http.request.referrer", Column: text.named("http.request.referrer"),
		Doc:  "Referer.",
		Body: Dataset_HTTP,
		Str:  func(e *Event) string { return e.GetHttp().GetReferrer() },
	},
	{
		Name: "http.request.mime_type", Column: word.named("http.request.mime_type"),
		Doc:  "Content-Type of the request, without parameters.",
		Body: Dataset_HTTP,
		Str:  func(e *Event) string { return e.GetHttp().GetRequestMimeType() },
	},
	{
		Name: "http.response.mime_type", Column: word.named("http.response.mime_type"),
		Doc:  "Content-Type of the response, without parameters.",
		Body: Dataset_HTTP,
		Str:  func(e *Event) string { return e.GetHttp().GetResponseMimeType() },
	},
	{
		Name: "http.response.status_phrase", Column: word.named("http.response.status_phrase"),
		Doc:  "Reason phrase.",
		Body: Dataset_HTTP,
		Str:  func(e *Event) string { return e.GetHttp().GetStatusPhrase() },
	},
	{
		Name: "http.response.server", Column: word.named("http.response.server"),
		Doc:  "Server.",
		Body: Dataset_HTTP,
		Str:  func(e *Event) string { return e.GetHttp().GetServer() },
	},
	{
		Name: "http.response.location", Column: text.named("http.response.location"),
		Doc:  "Location, secrets redacted.",
		Body: Dataset_HTTP,
		Str:  func(e *Event) string { return e.GetHttp().GetLocation() },
	},
	{
		Name: "http.response.status_code", Column: u16.named("http.response.status_code"),
		Doc:  "Status; 0 while there was no response.",
		Body: Dataset_HTTP,
		Num:  func(e *Event) int64 { return int64(e.GetHttp().GetStatusCode()) },
	},
	{
		Name: "http.request.body.bytes", Column: u64.named("http.request.body.bytes"),
		Doc:  "Body of the request as it crossed the wire, without chunk framing, bytes.",
		Body: Dataset_HTTP,
		Num:  func(e *Event) int64 { return int64(e.GetHttp().GetRequestBodyBytes()) },
	},
	{
		Name: "http.response.body.bytes", Column: u64.named("http.response.body.bytes"),
		Doc:  "Body of the response as it crossed the wire, without chunk framing, bytes.",
		Body: Dataset_HTTP,
		Num:  func(e *Event) int64 { return int64(e.GetHttp().GetResponseBodyBytes()) },
	},
	{
		Name: "http.request.header.bytes", Column: u64.named("http.request.header.bytes"),
		Doc:  "Request line and header, bytes.",
		Body: Dataset_HTTP,
		Num:  func(e *Event) int64 { return int64(e.GetHttp().GetRequestHeaderBytes()) },
	},
	{
		Name: "http.response.header.bytes", Column: u64.named("http.response.header.bytes"),
		Doc:  "Status line and header, bytes.",
		Body: Dataset_HTTP,
		Num:  func(e *Event) int64 { return int64(e.GetHttp().GetResponseHeaderBytes()) },
	},
	{
		Name: "http.request.x_forwarded_for", Column: texts.named("http_request_x_forwarded_for"),
		Doc:  "X-Forwarded-For, split.",
		Body: Dataset_HTTP,
		Strs: func(e *Event, buf []string) []string { return append(buf, e.GetHttp().GetXForwardedFor()...) },
	},
	{
		Name: "http.request.authorization", Column: words.named("http_request_authorization"),
		Doc:  "Schemes of Authorization, without what follows.",
		Body: Dataset_HTTP,
		Strs: func(e *Event, buf []string) []string { return append(buf, e.GetHttp().GetAuthorization()...) },
	},
	{
		Name: "user.name", Column: text.named("user.name"),
		Doc: "Who: of HTTP Basic, of the MySQL login.",
		Str: func(e *Event) string { return userName(e) },
	},
	{
		Name: "mysql.command", Column: word.named("mysql.command"),
		Doc:  "Command: COM_QUERY, COM_STMT_EXECUTE, …; COM_CONNECT for the login.",
		Body: Dataset_MYSQL,
		Str:  func(e *Event) string { return e.GetMysql().GetCommand() },
	},
	{
		Name: "mysql.query", Column: text.named("mysql.query"),
		Doc:  "SQL of the command, of a prepared statement its text; secrets redacted, capped.",
		Body: Dataset_MYSQL,
		Str:  func(e *Event) string { return e.GetMysql().GetQuery() },
	},
	{
		Name: "mysql.method", Column: word.named("mysql.method"),
		Doc:  "First word of the SQL, upper case.",
		Body: Dataset_MYSQL,
		Str:  func(e *Event) string { return e.GetMysql().GetMethod() },
	},
	{
		Name: "mysql.database", Column: word.named("mysql.database"),
		Doc:  "Default database.",
		Body: Dataset_MYSQL,
		Str:  func(e *Event) string { return e.GetMysql().GetDatabase() },
	},
	{
		Name: "mysql.sql_state", Column: word.named("mysql.sql_state"),
		Doc:  "SQLSTATE of an error.",
		Body: Dataset_MYSQL,
		Str:  func(e *Event) string { return e.GetMysql().GetSqlState() },
	},
	{
		Name: "mysql.error_message", Column: text.named("mysql.error_message"),
		Doc:  "Text of an error.",
		Body: Dataset_MYSQL,
		Str:  func(e *Event) string { return e.GetMysql().GetErrorMessage() },
	},
	{
		Name: "mysql.server_version", Column: word.named("mysql.server_version"),
		Doc:  "Version that the server greeted with.",
		Body: Dataset_MYSQL,
		Str:  func(e *Event) string { return e.GetMysql().GetServerVersion() },
	},
	{
		Name: "mysql.affected_rows", Column: u64.named("mysql.affected_rows"),
		Doc:  "Rows changed.",
		Body: Dataset_MYSQL,
		Num:  func(e *Event) int64 { return int64(e.GetMysql().GetAffectedRows()) },
	},
	{
		Name: "mysql.rows", Column: u64.named("mysql.rows"),
		Doc:  "Rows of the result sets.",
		Body: Dataset_MYSQL,
		Num:  func(e *Event) int64 { return int64(e.GetMysql().GetRows()) },
	},
	{
		Name: "mysql.columns", Column: u16.named("mysql.columns"),
		Doc:  "Columns of the first result set.",
		Body: Dataset_MYSQL,
		Num:  func(e *Event) int64 { return int64(e.GetMysql().GetColumns()) },
	},
	{
		Name: "mysql.error_code", Column: u16.named("mysql.error_code"),
		Doc:  "Code of an error; 0: none.",
		Body: Dataset_MYSQL,
		Num:  func(e *Event) int64 { return int64(e.GetMysql().GetErrorCode()) },
	},
	{
		Name: "mysql.statement_id", Column: u32.named("mysql.statement_id"),
		Doc:  "Number of the prepared statement.",
		Body: Dataset_MYSQL,
		Num:  func(e *Event) int64 { return int64(e.GetMysql().GetStatementId()) },
	},
	{
		Name: "mysql.insert_id", Column: u64.named("mysql.insert_id"),
		Doc:  "Last AUTO_INCREMENT.",
		Body: Dataset_MYSQL,
		Num:  func(e *Event) int64 { return int64(e.GetMysql().GetInsertId()) },
	},
	{
		Name: "mysql.warnings", Column: u16.named("mysql.warnings"),
		Doc:  "Warnings.",
		Body: Dataset_MYSQL,
		Num:  func(e *Event) int64 { return int64(e.GetMysql().GetWarnings()) },
	},
	{
		Name: "redis.command", Column: word.named("redis.command"),
		Doc:  "Command, upper case, with its sub-command: GET, CONFIG SET; empty for a pushed message.",
		Body: Dataset_REDIS,
		Str:  func(e *Event) string { return e.GetRedis().GetCommand() },
	},
	{
		Name: "redis.key", Column: text.named("redis.key"),
		Doc:  "First key.",
		Body: Dataset_REDIS,
		Str:  func(e *Event) string { return e.GetRedis().GetKey() },
	},
	{
		Name: "redis.reply_type", Column: word.named("redis.reply_type"),
		Doc:  "RESP type of the reply; empty where none was seen.",
		Body: Dataset_REDIS,
		Str:  func(e *Event) string { return e.GetRedis().GetReplyType() },
	},
	{
		Name: "redis.reply", Column: text.named("redis.reply"),
		Doc:  "A simple string, an integer or an error; data is only counted.",
		Body: Dataset_REDIS,
		Str:  func(e *Event) string { return e.GetRedis().GetReply() },
	},
	{
		Name: "redis.error", Column: text.named("redis.error"),
		Doc:  "Text of an error.",
		Body: Dataset_REDIS,
		Str:  func(e *Event) string { return e.GetRedis().GetError() },
	},
	{
		Name: "redis.args", Column: texts.named("redis_args"),
		Doc:  "Arguments behind the command, capped, secrets redacted.",
		Body: Dataset_REDIS,
		Strs: func(e *Event, buf []string) []string { return append(buf, e.GetRedis().GetArgs()...) },
	},
	{
		Name: "redis.args_count", Column: u32.named("redis.args_count"),
		Doc:  "How many arguments.",
		Body: Dataset_REDIS,
		Num:  func(e *Event) int64 { return int64(e.GetRedis().GetArgsCount()) },
	},
	{
		Name: "redis.args_bytes", Column: u64.named("redis.args_bytes"),
		Doc:  "Their length before the cap, bytes.",
		Body: Dataset_REDIS,
		Num:  func(e *Event) int64 { return int64(e.GetRedis().GetArgsBytes()) },
	},
	{
		Name: "redis.reply_bytes", Column: u64.named("redis.reply_bytes"),
		Doc:  "Reply as it crossed the wire, bytes.",
		Body: Dataset_REDIS,
		Num:  func(e *Event) int64 { return int64(e.GetRedis().GetReplyBytes()) },
	},
	{
		Name: "tls.version", Column: word.named("tls.version"),
		Doc:  "Version agreed on: 1.0 … 1.3.",
		Body: Dataset_TLS,
		Str:  func(e *Event) string { return e.GetTls().GetVersion() },
	},
	{
		Name: "tls.client.version", Column: word.named("tls.client.version"),
		Doc:  "Highest version offered.",
		Body: Dataset_TLS,
		Str:  func(e *Event) string { return e.GetTls().GetClientVersion() },
	},
	{
		Name: "tls.client.server_name", Column: text.named("tls.client.server_name"),
		Doc:  "SNI.",
		Body: Dataset_TLS,
		Str:  func(e *Event) string { return e.GetTls().GetServerName() },
	},
	{
		Name: "tls.client.ja3", Column: word.named("tls.client.ja3"),
		Doc:  "JA3 of the ClientHello, MD5 in hex.",
		Body: Dataset_TLS,
		Str:  func(e *Event) string { return e.GetTls().GetJa3() },
	},
	{
		Name: "tls.server.ja3s", Column: word.named("tls.server.ja3s"),
		Doc:  "JA3S of the ServerHello, MD5 in hex.",
		Body: Dataset_TLS,
		Str:  func(e *Event) string { return e.GetTls().GetJa3S() },
	},
	{
		Name: "tls.cipher", Column: word.named("tls.cipher"),
		Doc:  "Cipher suite by IANA's name.",
		Body: Dataset_TLS,
		Str:  func(e *Event) string { return e.GetTls().GetCipher() },
	},
	{
		Name: "tls.next_protocol", Column: word.named("tls.next_protocol"),
		Doc:  "ALPN that the server chose.",
		Body: Dataset_TLS,
		Str:  func(e *Event) string { return e.GetTls().GetNextProtocol() },
	},
	{
		Name: "tls.server.subject", Column: text.named("tls.server.subject"),
		Doc:  "Subject of the server's certificate, where it is sent in clear.",
		Body: Dataset_TLS,
		Str:  func(e *Event) string { return e.GetTls().GetServerSubject() },
	},
	{
		Name: "tls.server.issuer", Column: text.named("tls.server.issuer"),
		Doc:  "Its issuer.",
		Body: Dataset_TLS,
		Str:  func(e *Event) string { return e.GetTls().GetServerIssuer() },
	},
	{
		Name: "tls.alert", Column: word.named("tls.alert"),
		Doc:  "Description of an alert that ended the handshake.",
		Body: Dataset_TLS,
		Str:  func(e *Event) string { return e.GetTls().GetAlert() },
	},
	{
		Name: "tls.client.alpn", Column: words.named("tls_client_alpn"),
		Doc:  "ALPN that the client offered.",
		Body: Dataset_TLS,
		Strs: func(e *Event, buf []string) []string { return append(buf, e.GetTls().GetClientAlpn()...) },
	},
	{
		Name: "tls.server.names", Column: texts.named("tls_server_names"),
		Doc:  "Subject alternative names of its certificate.",
		Body: Dataset_TLS,
		Strs: func(e *Event, buf []string) []string { return append(buf, e.GetTls().GetServerNames()...) },
	},
	{
		Name: "tls.server.not_after", Column: instant.named("tls.server.not_after"),
		Doc:  "When its certificate ends.",
		Body: Dataset_TLS,
		Time: func(e *Event) int64 { return e.GetTls().GetServerNotAfter() },
	},
	{
		Name: "tls.established", Column: flag.named("tls.established"),
		Doc:  "The handshake was completed, as far as it can be seen.",
		Body: Dataset_TLS,
		Flag: func(e *Event) bool { return e.GetTls().GetEstablished() },
	},
	{
		Name: "tls.resumed", Column: flag.named("tls.resumed"),
		Doc:  "By a session id or ticket.",
		Body: Dataset_TLS,
		Flag: func(e *Event) bool { return e.GetTls().GetResumed() },
	},
	{
		Name: "message", Column: text.named("message"),
		Doc:  "The line, without its newline.",
		Body: Dataset_LOG,
		Str:  func(e *Event) string { return e.GetLog().GetMessage() },
	},
	{
		Name: "log.stream", Column: word.named("log.stream"),
		Doc:  "stdout or stderr.",
		Body: Dataset_LOG,
		Str:  func(e *Event) string { return e.GetLog().GetStream() },
	},
	{
		Name: "log.file.path", Column: word.named("log.file.path"),
		Doc:  "File that it was read from.",
		Body: Dataset_LOG,
		Str:  func(e *Event) string { return e.GetLog().GetPath() },
	},
	{
		Name: "log.offset", Column: u64.named("log.offset"),
		Doc:  "Where its first record begins in that file, bytes.",
		Body: Dataset_LOG,
		Num:  func(e *Event) int64 { return int64(e.GetLog().GetOffset()) },
	},
	{
		Name: "log.level", Column: word.named("log.level"),
		Doc:  "Level, lower case, where the line says one.",
		Body: Dataset_LOG,
		Str:  func(e *Event) string { return e.GetLog().GetLevel() },
	},
	{
		Name: "log.bytes", Column: u64.named("log.bytes"),
		Doc:  "Length of the whole line, bytes.",
		Body: Dataset_LOG,
		Num:  func(e *Event) int64 { return int64(e.GetLog().GetBytes()) },
	},
	{
		Name: "log.truncated", Column: flag.named("log.truncated"),
		Doc:  "It was longer than the cap.",
		Body: Dataset_LOG,
		Flag: func(e *Event) bool { return e.GetLog().GetTruncated() },
	},
	{
		Name: "event.action", Column: word.named("event.action"),
		Doc:  "What happened to the container: start, die, oom, health_status, …",
		Body: Dataset_CONTAINER,
		Str:  func(e *Event) string { return e.GetChange().GetAction() },
	},
	{
		Name: "process.exit_code", Column: i32.named("process.exit_code"),
		Doc:  "Exit code of a container that died.",
		Body: Dataset_CONTAINER,
		Num:  func(e *Event) int64 { return int64(e.GetChange().GetExitCode()) },
		has:  func(e *Event) bool { return e.GetChange().GetAction() == "die" },
	},
	{
		Name: "verdict.detector", Column: Column{Name: "verdict.detector", Type: "Array(LowCardinality(String))"},
		Doc: "Detectors that spoke: rules, feeds, classifier. The verdict lists are parallel.",
		Strs: func(e *Event, buf []string) []string {
			for _, v := range e.Verdicts {
				buf = append(buf, v.Detector)
			}
			return buf
		},
	},
	{
		Name: "verdict.rule", Column: Column{Name: "verdict.rule", Type: "Array(LowCardinality(String))"},
		Doc: "Their rules, indicators or models.",
		Strs: func(e *Event, buf []string) []string {
			for _, v := range e.Verdicts {
				buf = append(buf, v.Rule)
			}
			return buf
		},
	},
	{
		Name: "verdict.version", Column: Column{Name: "verdict.version", Type: "Array(LowCardinality(String))"},
		Doc: "Versions of these.",
		Strs: func(e *Event, buf []string) []string {
			for _, v := range e.Verdicts {
				buf = append(buf, v.Version)
			}
			return buf
		},
	},
	{
		Name: "verdict.severity", Column: Column{Name: "verdict.severity", Type: "Array(LowCardinality(String))"},
		Doc: "info, low, medium, high or critical.",
		Strs: func(e *Event, buf []string) []string {
			for _, v := range e.Verdicts {
				buf = append(buf, v.Severity.Name())
			}
			return buf
		},
	},
	{
		Name: "verdict.score", Column: Column{Name: "verdict.score", Type: "Array(UInt8)", Codec: "ZSTD(1)"},
		Doc: "How sure, 0 to 100.",
		Nums: func(e *Event, buf []int64) []int64 {
			for _, v := range e.Verdicts {
				buf = append(buf, int64(v.Score))
			}
			return buf
		},
	},
	{
		Name: "verdict.evidence", Column: Column{Name: "verdict.evidence", Type: "Array(String)", Codec: "ZSTD(1)"},
		Doc: "What was seen.",
		Strs: func(e *Event, buf []string) []string {
			for _, v := range e.Verdicts {
				buf = append(buf, v.Evidence)
			}
			return buf
		},
	},
	{
		Name: "verdict.group", Column: Column{Name: "verdict.group", Type: "Array(String)", Codec: "ZSTD(1)"},
		Doc: "What the alert is folded by.",
		Strs: func(e *Event, buf []string) []string {
			for _, v := range e.Verdicts {
				buf = append(buf, v.Group)
			}
			return buf
		},
	},
	{
		Name: "verdict.title", Column: Column{Name: "verdict.title", Type: "Array(LowCardinality(String))"},
		Doc: "Titles of the rules, as they read at the time.",
		Strs: func(e *Event, buf []string) []string {
			for _, v := range e.Verdicts {
				buf = append(buf, v.Title)
			}
			return buf
		},
	},
	{
		Name: "verdict.tags", Column: Column{Name: "verdict.tags", Type: "Array(LowCardinality(String))"},
		Doc: "Tags of the rules, of one rule in one text with commas between them.",
		Strs: func(e *Event, buf []string) []string {
			for _, v := range e.Verdicts {
				buf = append(buf, strings.Join(v.Tags, ","))
			}
			return buf
		},
	},
}

func networkType(e *Event) string {
	switch len(e.GetSource().GetIp()) {
	case 4:
		return "ipv4"
	case 16:
		return "ipv6"
	}
	return ""
}

func userName(e *Event) string {
	if e.Mysql != nil {
		return e.Mysql.UserName
	}
	return e.GetHttp().GetUserName()
}

func appendNums(buf []int64, ns []uint32) []int64 {
	for _, n := range ns {
		buf = append(buf, int64(n))
	}
	return buf
}
