package sigma

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A fieldMapping says which field of our events holds the value of a Sigma field, and how the two are
// compared.
type fieldMapping struct {
	kind  mappingKind
	field string // of our events
	key   string // keyMapping: the key of the record; conditionMapping: the condition
	scale int64  // numberMapping: our unit in theirs; 0 is 1
}

type mappingKind int

const (
	textMapping      mappingKind = iota
	numberMapping                // a number
	addressMapping               // an address
	listMapping                  // a list of texts, of which one must match
	flagMapping                  // true or false
	keyMapping                   // the value of a key in the message of a log line
	urlMapping                   // url.original, with http:// or https:// and the host in front of it
	targetMapping                // url.query, or a part of url.original
	extensionMapping             // what follows the last dot of url.path
	stemMapping                  // url.path; a text with a parameter in url.original, as authors write one there
	decisionMapping              // whether a firewall let a session pass
	conditionMapping             // true or false: whether a condition of ours holds
	signatureMapping             // the signature in a line of ClamAV, "path: signature FOUND"
	scannedMapping               // the path in such a line
)

func text(field string) fieldMapping    { return fieldMapping{kind: textMapping, field: field} }
func number(field string) fieldMapping  { return fieldMapping{kind: numberMapping, field: field} }
func address(field string) fieldMapping { return fieldMapping{kind: addressMapping, field: field} }
func list(field string) fieldMapping    { return fieldMapping{kind: listMapping, field: field} }
func flag(field string) fieldMapping    { return fieldMapping{kind: flagMapping, field: field} }

// holdsIf returns the mapping of a flag that is a condition of ours, which reads field.
func holdsIf(field, condition string) fieldMapping {
	return fieldMapping{kind: conditionMapping, field: field, key: condition}
}

func key(name string) fieldMapping {
	return fieldMapping{kind: keyMapping, field: "message", key: name}
}

// expr returns the expression of the value of m.
func (m fieldMapping) expr() string {
	if m.kind == keyMapping {
		return "value(message, " + quote(m.key) + ")"
	}
	return m.field
}

// isText reports whether m holds a text, which is empty where an event has none.
func (m fieldMapping) isText() bool {
	switch m.kind {
	case numberMapping, addressMapping, listMapping, flagMapping, conditionMapping:
		return false
	}
	return true
}

// A source is what events of ours a log source of Sigma stands for.
type source struct {
	title    string // for people
	sources  []logsource
	datasets []string
	guard    string // a condition that every event of the source fulfils
	fields   map[string][]fieldMapping
	keywords []fieldMapping // where keywords are looked for
	open     bool           // other fields are keys of the record in message
	form     recordForm
	prefix   string            // of example messages
	constant map[string]string // keys that every example record has
}

// recordForm is the form of the messages of a source, for examples.
type recordForm int

const (
	plainForm recordForm = iota
	jsonForm
	auditForm
	sysmonForm
	pairForm
)

// Fields of W3C extended logs, of web servers and proxies.
var httpFields = map[string][]fieldMapping{
	"cs-method":           {text("http.request.method")},
	"c-uri":               {{kind: urlMapping, field: "url.original"}},
	"cs-uri":              {{kind: urlMapping, field: "url.original"}},
	"c-uri-query":         {{kind: targetMapping, field: "url.query"}},
	"cs-uri-query":        {{kind: targetMapping, field: "url.query"}},
	"c-uri-stem":          {{kind: stemMapping, field: "url.path"}},
	"cs-uri-stem":         {{kind: stemMapping, field: "url.path"}},
	"c-uri-path":          {{kind: stemMapping, field: "url.path"}},
	"c-uri-extension":     {{kind: extensionMapping, field: "url.path"}},
	"cs-uri-extension":    {{kind: extensionMapping, field: "url.path"}},
	"cs-host":             {text("url.domain"), text("tls.client.server_name")},
	"r-dns":               {text("url.domain"), text("tls.client.server_name")},
	"c-useragent":         {text("user_agent.original")},
	"cs-user-agent":       {text("user_agent.original")},
	"cs-useragent":        {text("user_agent.original")},
	"cs(user-agent)":      {text("user_agent.original")},
	"c-referer":           {text("http.request.referrer")},
	"cs-referer":          {text("http.request.referrer")},
	"cs-referrer":         {text("http.request.referrer")},
	"cs(referer)":         {text("http.request.referrer")},
	"cs-username":         {text("user.name")},
	"cs-version":          {text("http.version")},
	"cs-bytes":            {number("source.bytes")},
	"sc-bytes":            {number("destination.bytes")},
	"cs-content-type":     {text("http.request.mime_type")},
	"sc-content-type":     {text("http.response.mime_type")},
	"rs-content-type":     {text("http.response.mime_type")},
	"sc-status":           {number("http.response.status_code")},
	"c-ip":                {address("source.ip"), list("http.request.x_forwarded_for")},
	"clientip":            {address("source.ip"), list("http.request.x_forwarded_for")},
	"cs-x-forwarded-for":  {list("http.request.x_forwarded_for")},
	"src_ip":              {address("source.ip")},
	"c-port":              {number("source.port")},
	"src_port":            {number("source.port")},
	"s-ip":                {address("destination.ip")},
	"r-ip":                {address("destination.ip")},
	"dst_ip":              {address("destination.ip")},
	"s-port":              {number("destination.port")},
	"r-port":              {number("destination.port")},
	"dst_port":            {number("destination.port")},
	"s-computername":      {text("host.name")},
	"sc-location":         {text("http.response.location")},
	"sc-server":           {text("http.response.server")},
	"time-taken":          {{kind: numberMapping, field: "event.duration", scale: 1e6}},
	"container.name":      {text("container.name")},
	"container.image":     {text("container.image.name")},
	"cs-authorization":    {list("http.request.authorization")},
	"http.request.method": {text("http.request.method")},
}

var dnsFields = map[string][]fieldMapping{
	"query": {text("dns.question.name")}, "queryname": {text("dns.question.name")}, "question": {text("dns.question.name")},
	"answer": {list("dns.answers.data")}, "answers": {list("dns.answers.data")},
	"record_type": {text("dns.question.type")}, "qtype_name": {text("dns.question.type")}, "querytype": {text("dns.question.type")},
	"record_class": {text("dns.question.class")}, "qclass_name": {text("dns.question.class")},
	"rcode_name": {text("dns.response_code")}, "rcode": {text("dns.response_code")}, "response_code": {text("dns.response_code")},
	"parent_domain": {text("dns.question.registered_domain")}, "trans_id": {number("dns.id")},
	"src_ip": {address("source.ip")}, "dst_ip": {address("destination.ip")}, "dst_port": {number("destination.port")},
	"src_port": {number("source.port")}, "ttl": nil,
}

var sessionFields = map[string][]fieldMapping{
	"action": {{kind: decisionMapping, field: "session.state"}}, "blocked": {{kind: decisionMapping, field: "session.state"}},
	"src_ip": {address("source.ip")}, "dst_ip": {address("destination.ip")},
	"src_port": {number("source.port")}, "dst_port": {number("destination.port")},
	"source.ip": {address("source.ip")}, "destination.ip": {address("destination.ip")},
	"source.port": {number("source.port")}, "destination.port": {number("destination.port")},
	"protocol": {text("network.transport")}, "proto": {text("network.transport")}, "app": {text("network.protocol")},
	"service": {text("network.protocol")}, "in_bytes": {number("destination.bytes")}, "out_bytes": {number("source.bytes")},
	"bytes_sent": {number("source.bytes")}, "bytes_received": {number("destination.bytes")},
}

// Fields of Zeek's logs: those of every log, and those of each.
var zeekFields = map[string][]fieldMapping{
	"id.orig_h": {address("source.ip")}, "id.orig_p": {number("source.port")},
	"id.resp_h": {address("destination.ip")}, "id.resp_p": {number("destination.port")}, "proto": {text("network.transport")},
	"src_ip": {address("source.ip")}, "src_port": {number("source.port")},
	"dst_ip": {address("destination.ip")}, "dst_port": {number("destination.port")},
}

var zeekHTTP = map[string][]fieldMapping{
	"host": {text("url.domain")}, "uri": {text("url.original")}, "method": {text("http.request.method")},
	"user_agent": {text("user_agent.original")}, "referrer": {text("http.request.referrer")}, "version": {text("http.version")},
	"status_code": {number("http.response.status_code")}, "status_msg": {text("http.response.status_phrase")},
	"request_body_len": {number("http.request.body.bytes")}, "response_body_len": {number("http.response.body.bytes")},
	"resp_mime_types": {text("http.response.mime_type")}, "orig_mime_types": {text("http.request.mime_type")},
	"username": {text("user.name")}, "proxied": {list("http.request.x_forwarded_for")},
}

var zeekTLS = map[string][]fieldMapping{
	"server_name": {text("tls.client.server_name")}, "cipher": {text("tls.cipher")}, "ja3": {text("tls.client.ja3")},
	"ja3s": {text("tls.server.ja3s")}, "established": {flag("tls.established")}, "resumed": {flag("tls.resumed")},
	"subject": {text("tls.server.subject")}, "issuer": {text("tls.server.issuer")}, "next_protocol": {text("tls.next_protocol")},
	"last_alert": {text("tls.alert")},
}

// Fields of Zeek's dns.log beside dnsFields. Zeek calls an answer without any record rejected; of the response codes those
// are it that no server gives with a record of its zone.
var zeekDNS = map[string][]fieldMapping{
	"AA": {headerFlag("AA")}, "TC": {headerFlag("TC")}, "RD": {headerFlag("RD")}, "RA": {headerFlag("RA")},
	"rejected": {holdsIf("dns.response_code", `dns.response_code in ["FORMERR", "SERVFAIL", "NOTIMP", "REFUSED"]`)},
}

func headerFlag(name string) fieldMapping {
	return holdsIf("dns.header_flags", `any(dns.header_flags, # == "`+name+`")`)
}

var zeekX509 = map[string][]fieldMapping{
	"certificate.subject": {text("tls.server.subject")}, "certificate.issuer": {text("tls.server.issuer")}, "san.dns": {list("tls.server.names")},
}

var zeekConn = map[string][]fieldMapping{
	"service": {text("network.protocol")}, "history": {text("session.history")},
	"orig_bytes": {number("source.bytes")}, "resp_bytes": {number("destination.bytes")},
	"orig_pkts": {number("source.packets")}, "resp_pkts": {number("destination.packets")},
	"duration": {{kind: numberMapping, field: "event.duration", scale: 1e9}}, "vlan": {number("network.vlan.id")},
}

var zeekMySQL = map[string][]fieldMapping{
	"arg": {text("mysql.query")}, "rows": {number("mysql.rows")}, "response": {text("mysql.error_message")},
}

// Fields of the events of Sysmon for Linux (Sysmon schema 4.8).
var sysmonFields = keysOf(`RuleName UtcTime ProcessGuid ProcessId Image FileVersion Description Product Company OriginalFileName CommandLine
	CurrentDirectory User LogonGuid LogonId TerminalSessionId IntegrityLevel Hashes ParentProcessGuid ParentProcessId ParentImage
	ParentCommandLine ParentUser Protocol Initiated SourceIsIpv6 SourceIp SourceHostname SourcePort SourcePortName DestinationIsIpv6
	DestinationIp DestinationHostname DestinationPort DestinationPortName TargetFilename CreationUtcTime EventID Computer`)

func keysOf(names string) map[string][]fieldMapping {
	out := map[string][]fieldMapping{}
	for name := range strings.FieldsSeq(names) {
		out[name] = []fieldMapping{key(name)}
	}
	return out
}

var kubernetesFields = map[string][]fieldMapping{
	"apiGroup": {key("objectRef.apiGroup")}, "resource": {key("objectRef.resource")}, "subresource": {key("objectRef.subresource")},
	"namespace": {key("objectRef.namespace")}, "username": {key("user.username")}, "hostPath": {key("requestObject.spec.volumes.hostPath")},
	"privileged":   {key("requestObject.spec.containers.securityContext.privileged")},
	"capabilities": {key("requestObject.spec.containers.securityContext.capabilities.add")},
}

var dockerFields = map[string][]fieldMapping{
	"Action": {text("event.action")}, "action": {text("event.action")}, "status": {text("event.action")},
	"image": {text("container.image.name")}, "from": {text("container.image.name")}, "name": {text("container.name")},
	"id": {text("container.id")}, "exitCode": {number("process.exit_code")}, "host": {text("host.name")},
}

var (
	messageOnly  = []fieldMapping{text("message")}
	httpKeywords = []fieldMapping{text("url.original"), text("user_agent.original"), text("http.request.referrer"), text("message")}
)

// syslog returns the source of lines of a program, whose name is in the line or in the name of its file.
func syslog(service string, names ...string) *source {
	guards := make([]string, len(names))
	for i, name := range names {
		guards[i] = quote(name)
	}
	any := "[" + strings.Join(guards, ", ") + "]"
	if len(guards) == 1 {
		any = guards[0]
	}
	return &source{
		title:    "log lines with the name " + strings.Join(names, " or ") + " in them or in the name of their file",
		sources:  []logsource{{product: "linux", service: service}},
		datasets: []string{"log"}, guard: "(lower(message) contains " + any + " or lower(log.file.path) contains " + any + ")",
		keywords: messageOnly, open: true, form: pairForm, prefix: names[0] + ": ",
	}
}

// sysmon returns the source of one kind of events of Sysmon for Linux.
func sysmon(category, eventID string) *source {
	return &source{
		title:    "log lines of Sysmon for Linux with EventID " + eventID,
		sources:  []logsource{{category: category, product: "linux"}},
		datasets: []string{"log"}, guard: `lower(value(message, "EventID")) == "` + eventID + `"`, fields: sysmonFields, keywords: messageOnly,
		form: sysmonForm, constant: map[string]string{"EventID": eventID},
	}
}

// mergeFields returns the fields of several tables; of equal names the last one counts.
func mergeFields(tables ...map[string][]fieldMapping) map[string][]fieldMapping {
	merged := map[string][]fieldMapping{}
	for _, table := range tables {
		maps.Copy(merged, table)
	}
	return merged
}

// zeek returns the source of one of Zeek's logs.
func zeek(service, dataset string, fields map[string][]fieldMapping, keywords ...fieldMapping) *source {
	merged := mergeFields(zeekFields, fields)
	return &source{
		title: "events of the dataset " + dataset, sources: []logsource{{product: "zeek", service: service}},
		datasets: []string{dataset}, fields: merged, keywords: keywords,
	}
}

// sources is the table of log sources. The first entry that fits counts: a part that an entry leaves out may
// have any value.
var sources = []*source{
	{
		title: "events of http; keywords also in log lines", sources: []logsource{
			{category: "webserver"}, {product: "apache"}, {service: "apache"}, {product: "nginx"}, {service: "nginx"}, {product: "modsecurity"}, {service: "modsecurity"},
		},
		datasets: []string{"http", "log"}, fields: httpFields, keywords: httpKeywords,
	},
	{
		title: "events of http; of hosts also tls", sources: []logsource{{category: "proxy"}},
		datasets: []string{"http", "tls"}, fields: httpFields, keywords: httpKeywords[:3],
	},
	zeek("dns", "dns", mergeFields(dnsFields, zeekDNS), text("dns.question.name"), list("dns.answers.data")),
	zeek("http", "http", mergeFields(httpFields, zeekHTTP), httpKeywords[:3]...), // some rules have the names of proxies
	zeek("ssl", "tls", zeekTLS, text("tls.client.server_name"), text("tls.server.subject"), text("tls.server.issuer")),
	zeek("x509", "tls", zeekX509, text("tls.server.subject"), text("tls.server.issuer"), list("tls.server.names")),
	zeek("conn", "session", zeekConn),
	zeek("mysql", "mysql", zeekMySQL, text("mysql.query")),
	{
		title: "events of dns", sources: []logsource{{category: "dns", product: "linux"}, {category: "dns"}, {category: "dns_query", product: "linux"}},
		datasets: []string{"dns"}, fields: dnsFields, keywords: []fieldMapping{text("dns.question.name"), list("dns.answers.data")},
	},
	{
		title: "events of session", sources: []logsource{{category: "firewall"}, {service: "netflow"}, {category: "netflow"}, {category: "network_flow"}},
		datasets: []string{"session"}, fields: sessionFields,
	},
	{
		title: "statements of MySQL; keywords also in log lines", sources: []logsource{{category: "database"}, {product: "mysql"}, {product: "mariadb"}},
		datasets: []string{"mysql", "log"}, keywords: []fieldMapping{text("mysql.query"), text("message")},
		fields: map[string][]fieldMapping{
			"query": {text("mysql.query")}, "statement": {text("mysql.query")}, "user": {text("user.name")}, "database": {text("mysql.database")},
			"src_ip": {address("source.ip")}, "error": {text("mysql.error_message")},
		},
	},
	{
		title: "log lines in JSON of Kubernetes' audit log", sources: []logsource{{product: "kubernetes"}, {service: "kubernetes"}},
		datasets: []string{"log"}, guard: `message contains "audit.k8s.io/"`, fields: kubernetesFields, keywords: messageOnly, open: true, form: jsonForm,
		constant: map[string]string{"kind": "Event", "apiVersion": "audit.k8s.io/v1"},
	},
	{
		title: "events of container", sources: []logsource{{product: "docker"}, {category: "docker"}}, datasets: []string{"container"},
		fields: dockerFields, keywords: []fieldMapping{text("event.action"), text("container.image.name"), text("container.name")},
	},
	{
		title: "log lines of auditd; one line is one event", sources: []logsource{{product: "linux", service: "auditd"}, {service: "auditd"}},
		datasets: []string{"log"}, guard: `message contains "msg=audit("`, keywords: messageOnly, open: true, form: auditForm,
	},
	{
		title: "log lines of ClamAV, and those in JSON or key=value", sources: []logsource{{category: "antivirus"}}, datasets: []string{"log"},
		fields: map[string][]fieldMapping{
			"Signature": {key("Signature"), {kind: signatureMapping, field: "message"}},
			"Filename":  {key("Filename"), {kind: scannedMapping, field: "message"}},
		},
		keywords: messageOnly, open: true, form: jsonForm,
	},
	sysmon("process_creation", "1"), sysmon("network_connection", "3"), sysmon("process_termination", "5"),
	sysmon("raw_access_thread", "9"), sysmon("process_access", "10"), sysmon("file_event", "11"), sysmon("file_delete", "23"),
	syslog("sshd", "sshd"), syslog("sudo", "sudo"), syslog("cron", "cron"), syslog("vsftpd", "vsftpd", "ftpd"), syslog("clamav", "clam"), syslog("guacamole", "guac"),
	syslog("auth", "auth", "pam", "sshd", "sudo", "su:", "su[", "login", "secure", "useradd", "usermod", "groupadd", "passwd"),
	syslog("pam", "pam"), syslog("su", "su:", "su["), syslog("named", "named"), syslog("nginx", "nginx"),
	{
		title: "log lines", sources: []logsource{{product: "linux", service: "syslog"}, {product: "linux", service: "messages"}, {product: "linux", service: "systemd"}, {service: "syslog"}},
		datasets: []string{"log"}, keywords: messageOnly, open: true, form: pairForm,
	},
}

// anyLinux is the source of product linux alone, applications the one of all applications that write log
// lines.
var (
	anyLinux     = &source{title: "log lines", datasets: []string{"log"}, keywords: messageOnly, open: true, form: pairForm}
	applications = &source{title: "log lines; fields are keys of lines in JSON or key=value", datasets: []string{"log"}, keywords: messageOnly, open: true, form: jsonForm}
)

// applicationProducts are the applications that run in containers and write log lines.
var applicationProducts = []string{
	"", "django", "java", "jvm", "log4j", "nodejs", "opencanary", "php", "python", "ruby_on_rails", "ruby", "rails", "spring", "sql", "tomcat", "velocity", "wordpress",
	"redis", "postgresql", "mongodb", "elasticsearch", "grafana", "jenkins", "gitlab", "gitea", "haproxy", "traefik", "vault", "nextcloud", "keycloak",
}

// findSource returns the source of a log source, or why there is none.
func findSource(l logsource) (found *source, reason string) {
	if l == (logsource{}) {
		return nil, "logsource names no category, product or service"
	}
	for _, s := range sources {
		for _, of := range s.sources {
			if (of.category == "" || of.category == l.category) && (of.product == "" || of.product == l.product) &&
				(of.service == "" || of.service == l.service) && !isForeign(l.product) {
				return s, ""
			}
		}
	}
	switch {
	case l.product == "linux" && l.category == "" && l.service == "":
		return anyLinux, ""
	case l.category == "application" && slices.Contains(applicationProducts, l.product):
		return applications, ""
	}
	return nil, fmt.Sprintf("there are no events of the log source %s%s", l, missingReason(l))
}

// isForeign reports whether a product never runs on a container host.
func isForeign(product string) bool {
	return slices.Contains([]string{"windows", "macos", "cisco", "juniper", "fortios", "fortigate", "paloalto", "huawei", "esxi"}, product)
}

// missingReason returns what tidegate lacks for a log source.
func missingReason(l logsource) string {
	switch {
	case l.product == "zeek":
		return ": tidegate does not parse this protocol"
	case isForeign(l.product):
		return ""
	case l.product == "linux":
		return ": no log lines of it are known"
	}
	return ""
}

// mappings returns which fields of ours hold the values of a Sigma field. The case of the first letters
// matters only where the table has it.
func (s *source) mappings(field string) []fieldMapping {
	if found, ok := s.fields[field]; ok {
		return found
	}
	if found, ok := s.fields[strings.ToLower(field)]; ok {
		return found
	}
	if s.open && len(field) <= 200 {
		return []fieldMapping{key(field)}
	}
	return nil
}
