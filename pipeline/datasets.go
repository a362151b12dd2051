package pipeline

// A DatasetInfo describes a dataset, except for its fields.
type DatasetInfo struct {
	Name string // its value of event.dataset, in rules, metrics and JSON
	Doc  string // one sentence for docs/FIELDS.md

	// HasBody reports whether e carries the body of this dataset. It is nil for a dataset without a body.
	HasBody func(e *Event) bool

	// NewBody gives e an empty body of this dataset. It is nil for datasets that no protocol has.
	NewBody func(e *Event)

	// ShedAt is the fill level of the shipper's packet memory, in percent, from which events of this dataset
	// are dropped. It applies to events from packets only: log lines wait in their files.
	ShedAt int64
}

// The values of DatasetInfo.ShedAt, in the order in which datasets are dropped when packet memory runs out.
const (
	ShedFirst     = 50  // file bodies, unknown datasets, and every event with missing bytes
	ShedProtocols = 75  // requests and responses
	ShedSessions  = 90  // sessions
	ShedLast      = 100 // container changes
)

// Datasets has a row for each value of the enum Dataset in event.proto, indexed by that value. It is the only
// list of datasets: arrays by dataset have NumDatasets elements, and loops over datasets range over Datasets.
// A new protocol needs a value and a body in event.proto, a row in Datasets, and rows for its fields in
// Fields.
var Datasets = [...]DatasetInfo{
	Dataset_DATASET_NONE: {ShedAt: ShedFirst},
	Dataset_SESSION: {
		Name: "session", Doc: "One TCP connection or UDP exchange, reported when it ends.",
		HasBody: func(e *Event) bool { return e.Session != nil }, ShedAt: ShedSessions,
	},
	Dataset_DNS: {
		Name: "dns", Doc: "One DNS query and its answer.",
		HasBody: func(e *Event) bool { return e.Dns != nil }, ShedAt: ShedProtocols,
		NewBody: func(e *Event) { e.Dns = DNSMessageFromVTPool() },
	},
	Dataset_HTTP: {
		Name: "http", Doc: "One HTTP/1 request and its response.",
		HasBody: func(e *Event) bool { return e.Http != nil }, ShedAt: ShedProtocols,
		NewBody: func(e *Event) { e.Http = HTTPExchangeFromVTPool() },
	},
	Dataset_MYSQL: {
		Name: "mysql", Doc: "One MySQL command and its response.",
		HasBody: func(e *Event) bool { return e.Mysql != nil }, ShedAt: ShedProtocols,
		NewBody: func(e *Event) { e.Mysql = MySQLCommandFromVTPool() },
	},
	Dataset_REDIS: {
		Name: "redis", Doc: "One Redis command and its reply, or one pushed message.",
		HasBody: func(e *Event) bool { return e.Redis != nil }, ShedAt: ShedProtocols,
		NewBody: func(e *Event) { e.Redis = RedisCommandFromVTPool() },
	},
	Dataset_TLS: {
		Name: "tls", Doc: "One TLS handshake.",
		HasBody: func(e *Event) bool { return e.Tls != nil }, ShedAt: ShedProtocols,
		NewBody: func(e *Event) { e.Tls = TLSHandshakeFromVTPool() },
	},
	Dataset_FILE: {
		Name: "file", Doc: "Reserved for files extracted from traffic; no event has it yet.",
		ShedAt: ShedFirst,
	},
	Dataset_LOG: {
		Name: "log", Doc: "One line of a container's log, or of a text file.",
		HasBody: func(e *Event) bool { return e.Log != nil }, ShedAt: ShedLast,
	},
	Dataset_CONTAINER: {
		Name: "container", Doc: "One change in the life cycle of a container: start, die, oom, …",
		HasBody: func(e *Event) bool { return e.Change != nil }, ShedAt: ShedLast,
	},
	Dataset_MEMCACHED: {
		Name: "memcached", Doc: "One memcached command and its reply.",
		HasBody: func(e *Event) bool { return e.Memcached != nil }, ShedAt: ShedProtocols,
		NewBody: func(e *Event) { e.Memcached = MemcachedCommandFromVTPool() },
	},
}

// NumDatasets is the number of values of Dataset, including DATASET_NONE.
const NumDatasets = len(Datasets)

// Index returns the row of d in Datasets, or 0 for an unknown value, which a newer collector may send.
func (d Dataset) Index() int {
	if d < 0 || int(d) >= NumDatasets {
		return 0
	}
	return int(d)
}

// Name returns the value of event.dataset for d, "" for DATASET_NONE and unknown values.
func (d Dataset) Name() string { return Datasets[d.Index()].Name }

// DatasetByName returns the dataset of that name, or DATASET_NONE if there is none.
func DatasetByName(name string) Dataset {
	for d := range Datasets {
		if Datasets[d].Name == name {
			return Dataset(d)
		}
	}
	return Dataset_DATASET_NONE
}

// DatasetNames returns the names of all datasets in the order of event.proto.
func DatasetNames() []string {
	names := make([]string, 0, NumDatasets-1)
	for d := range Datasets {
		if name := Datasets[d].Name; name != "" {
			names = append(names, name)
		}
	}
	return names
}
