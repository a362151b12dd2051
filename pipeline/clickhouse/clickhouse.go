// Package clickhouse stores events and alerts in ClickHouse: it creates the tables from pipeline.Fields,
// encodes events as columns, inserts them so that a repeated insert changes nothing, and answers the queries
// of an engine that takes over a partition.
//
// In: evaluated events and revisions of alerts, from the engine, whose Store interface *Store implements.
// Out: rows; for the engine the rows, batches and alerts that exist. Query runs SQL for people: `tidegate
// query` and the embedded store use it.
//
// A ColumnBlock holds events in ClickHouse's own columnar encoding from the first Append on: clickhouse-go's
// typed columns box every value, and its LowCardinality looks each one up in a map[any]int. The driver sends
// the encoded bytes as they are over HTTP (FORMAT Native). Over the native protocol it decodes them into its
// own columns, which is a copy. The embedded store is reached by HTTP (docs/adr/0007).
//
// The files: config.go, clickhouse.go (connection) and access.go (rights); schema.go, alert_tables.go, existing_table.go and
// migrate.go (tables); column_block.go, field_columns.go and columns.go (encoding); insert.go and running_inserts.go;
// dedup_queries.go and stored_verdicts.go (the start of an engine); alerts.go and alert_fields.go; query.go (SQL over HTTP);
// docs.go (docs/FIELDS.md), errors.go.
package clickhouse

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	driver "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/config"
	"tidegate/pipeline/metrics"
)

// Store is a connection to ClickHouse, safe for concurrent use.
type Store struct {
	cfg     Config
	useHTTP bool
	driver  driver.Conn
	log     *slog.Logger
	metrics storeMetrics

	warnProcesses sync.Once // that the user may not read the running queries
}

type storeMetrics struct {
	rows, bytes prometheus.Counter
	inserts     *prometheus.CounterVec
	seconds     prometheus.Histogram
}

func newStoreMetrics(reg prometheus.Registerer) storeMetrics {
	factory := metrics.With(reg)
	return storeMetrics{
		rows: factory.Counter("tidegate_clickhouse_rows_total",
			"Rows of events that ClickHouse acknowledged, including those that it dropped because their token was already stored."),
		bytes: factory.Counter("tidegate_clickhouse_bytes_total",
			"Bytes of the blocks of events that ClickHouse acknowledged, before compression."),
		inserts: factory.LabelledCounters("tidegate_clickhouse_inserts_total",
			"Inserts of events by result: ok, retriable (failed, is repeated) or rejected (ClickHouse does not accept the rows).",
			"result", "ok", "rejected", "retriable"),
		seconds: factory.Histogram("tidegate_clickhouse_insert_seconds",
			"Seconds that a successful insert of events took.", prometheus.ExponentialBuckets(0.005, 2, 14)),
	}
}

// Open connects and logs in. Its error is one sentence that names the address. Open does not create the
// database; Migrate does.
func Open(ctx context.Context, cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Store, error) {
	if err := config.Join("clickhouse", cfg.Check()); err != nil {
		return nil, err
	}
	password, err := config.Secret(cfg.Password, cfg.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("clickhouse.password_file: %w", err)
	}
	opt, err := driverOptions(cfg, password)
	if err != nil {
		return nil, err
	}
	conn, err := driver.Open(opt)
	if err != nil {
		return nil, describeError(err, cfg)
	}
	store := &Store{cfg: cfg, useHTTP: cfg.Protocol == "http", driver: conn, log: log}
	if err := conn.Ping(ctx); err != nil {
		conn.Close()
		return nil, describeError(err, cfg)
	}
	store.metrics = newStoreMetrics(reg)
	return store, nil
}

// Close closes the connections.
func (s *Store) Close() error { return s.driver.Close() }

// Ping checks that the server answers.
func (s *Store) Ping(ctx context.Context) error { return describeError(s.driver.Ping(ctx), s.cfg) }

// Config returns the configuration with which the store was opened.
func (s *Store) Config() Config { return s.cfg }

// driverOptions returns the options for the configured protocol. The native protocol is compressed unless the
// server is on this host.
func driverOptions(cfg Config, password string) (*driver.Options, error) {
	options := &driver.Options{
		Addr: cfg.Addr, Auth: driver.Auth{Username: cfg.Username, Password: password},
		DialTimeout: cfg.Timeout, ReadTimeout: 5 * time.Minute,
		MaxOpenConns: 16, MaxIdleConns: 8,
		FreeBufOnConnRelease: true, // an idle connection keeps no buffer of the size of its largest column
		ClientInfo:           driver.ClientInfo{Products: []struct{ Name, Version string }{{Name: "tidegate"}}},
	}
	if cfg.Protocol == "http" {
		options.Protocol, options.Addr = driver.HTTP, []string{cfg.HTTPAddr}
	} else if !allLoopback(cfg.Addr) {
		options.Compression = &driver.Compression{Method: driver.CompressionLZ4}
	}
	if cfg.TLS.Enabled {
		var err error
		if options.TLS, err = loadTLS(cfg.TLS); err != nil {
			return nil, err
		}
	}
	return options, nil
}

// allLoopback reports whether every address is one of this host.
func allLoopback(addrs []string) bool {
	for _, a := range addrs {
		host, _, _ := net.SplitHostPort(a)
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}

// loadTLS returns the TLS configuration of a client.
func loadTLS(t config.OptionalTLS) (*tls.Config, error) {
	cfg, err := t.Load()
	if err != nil {
		return nil, config.WithPrefix("clickhouse.tls", err)
	}
	return cfg, nil
}

// selectRows runs a query, scans each of its rows into targets, and calls add behind each. add copies what it keeps.
func (s *Store) selectRows(ctx context.Context, query string, args, targets []any, add func()) error {
	rows, err := s.driver.Query(ctx, query, args...)
	if err != nil {
		return describeError(err, s.cfg)
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return describeError(err, s.cfg)
		}
		add()
	}
	return describeError(rows.Err(), s.cfg)
}
