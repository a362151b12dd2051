package clickhouse

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"

	"tidegate/pipeline"
)

// Held is the set of rows, by (_offset, _index), that the table holds of the messages [from, to) of a partition, as a block of the time
// at (event.ingested) stored them: a topic that was made anew has other messages at the same offsets. The server is asked for them after a
// pause, when it may have forgotten the token of an unfinished block.
func (s *Store) Held(ctx context.Context, topic string, partition int32, from, to, at int64) (map[[2]int64]struct{}, error) {
	held := map[[2]int64]struct{}{}
	rows, err := s.driver.Query(ctx, "SELECT _offset, _index FROM "+s.cfg.table("events")+
		" WHERE _topic = ? AND _partition = ? AND _offset >= ? AND _offset < ? AND `event.ingested` = fromUnixTimestamp64Nano(?)", topic, partition, from, to, at)
	if err != nil {
		return nil, explain(err, s.cfg)
	}
	defer rows.Close()
	for rows.Next() {
		var offset int64
		var index uint32
		if err := rows.Scan(&offset, &index); err != nil {
			return nil, explain(err, s.cfg)
		}
		held[[2]int64{offset, int64(index)}] = struct{}{}
	}
	return held, explain(rows.Err(), s.cfg)
}

// HighestOffset is the newest message of a partition of which a row is there; ok is false where there is none. The last days are
// asked first, since a look at all of them reads the column of offsets whole.
func (s *Store) HighestOffset(ctx context.Context, topic string, partition int32) (offset int64, ok bool, err error) {
	for _, where := range []string{" AND `event.ingested` >= now() - toIntervalDay(2)", ""} {
		var n uint64
		err := s.driver.QueryRow(ctx, "SELECT max(_offset), count() FROM "+s.cfg.table("events")+
			" WHERE _topic = ? AND _partition = ?"+where, topic, partition).Scan(&offset, &n)
		if err != nil {
			return 0, false, explain(err, s.cfg)
		}
		if n > 0 {
			return offset, true, nil
		}
	}
	return 0, false, nil
}

// A BatchStamp is what a reader remembers of one life of a collector on one partition: the highest sequence that was stored, and
// which of the 64 up to it: bit i stands for Highest−i.
type BatchStamp struct {
	Collector [16]byte
	Boot      uint64
	Highest   uint64
	Seen      uint64
}

// Stamps is the reader's memory of repeats as it was before the message at offset before, of what was stored since then.
func (s *Store) Stamps(ctx context.Context, topic string, partition int32, before int64, since time.Time) ([]BatchStamp, error) {
	rows, err := s.driver.Query(ctx, `
		SELECT UUIDStringToNum(toString(c)), b, arrayReverseSort(groupArraySorted(64)(18446744073709551615 - q))
		FROM (
			SELECT _collector AS c, _boot AS b, _sequence AS q
			FROM `+s.cfg.table("events")+`
			WHERE _topic = ? AND _partition = ? AND _offset < ? AND `+"`event.ingested`"+` >= fromUnixTimestamp64Nano(?)
			GROUP BY c, b, q
		)
		GROUP BY c, b`, topic, partition, before, since.UnixNano())
	if err != nil {
		return nil, explain(err, s.cfg)
	}
	defer rows.Close()
	var out []BatchStamp
	for rows.Next() {
		var collector string
		var sequences []uint64 // as their complements, so that the 64 smallest are the 64 highest
		var st BatchStamp
		if err := rows.Scan(&collector, &st.Boot, &sequences); err != nil {
			return nil, explain(err, s.cfg)
		}
		copy(st.Collector[:], collector)
		st.see(sequences)
		out = append(out, st)
	}
	return out, explain(rows.Err(), s.cfg)
}

// see takes up the complements of sequences.
func (st *BatchStamp) see(complements []uint64) {
	for _, q := range complements {
		st.Highest = max(st.Highest, ^q)
	}
	for _, q := range complements {
		if d := st.Highest - ^q; d < 64 {
			st.Seen |= 1 << d
		}
	}
}

// StampsOf is the same of one life, however long ago it was; ok is false where nothing of it was stored. It may read much.
func (s *Store) StampsOf(ctx context.Context, topic string, partition int32, collector [16]byte, boot uint64, before int64) (st BatchStamp, ok bool, err error) {
	st = BatchStamp{Collector: collector, Boot: boot}
	var sequences []uint64
	err = s.driver.QueryRow(ctx, `
		SELECT groupArraySorted(64)(18446744073709551615 - q) FROM (
			SELECT _sequence AS q FROM `+s.cfg.table("events")+`
			WHERE _topic = ? AND _partition = ? AND _offset < ? AND _boot = ? AND _collector = toUUID(?)
			GROUP BY q
		)`, topic, partition, before, boot, uuid.UUID(collector).String()).Scan(&sequences)
	st.see(sequences)
	return st, len(sequences) > 0, explain(err, s.cfg)
}

// VerdictsBefore hands over, in the order in which they were judged, the events that carry verdicts and lie before the message at
// offset before, of what was taken up since then: the fold replays them to stand where it stood. An event has what an alert tells
// of it: identity, time, dataset, host, containers, addresses and verdicts. It belongs to yield; an error of yield ends the walk.
func (s *Store) VerdictsBefore(ctx context.Context, topic string, partition int32, before int64, since time.Time,
	yield func(e *pipeline.Event, p pipeline.Position) error,
) error {
	rows, err := s.driver.Query(ctx, verdictQuery+s.cfg.table("events")+`
		WHERE _topic = ? AND _partition = ? AND _offset < ? AND `+"`event.ingested`"+` >= fromUnixTimestamp64Nano(?) AND notEmpty(`+"`verdict.rule`"+`)
		ORDER BY _offset, _index`, topic, partition, before, since.UnixNano())
	if err != nil {
		return explain(err, s.cfg)
	}
	defer rows.Close()
	for rows.Next() {
		var r verdictRow
		if err := rows.Scan(r.targets()...); err != nil {
			return explain(err, s.cfg)
		}
		p := pipeline.Position{Partition: partition, Offset: r.offset, Index: r.index, Stamp: pipeline.Stamp{Boot: r.boot, Sequence: r.sequence}}
		copy(p.Collector[:], r.collector)
		e, err := r.event()
		if err != nil {
			return err
		}
		if err := yield(e, p); err != nil {
			return err
		}
	}
	return explain(rows.Err(), s.cfg)
}

const verdictQuery = "SELECT _offset, _index, UUIDStringToNum(toString(_collector)), _boot, _sequence," +
	" UUIDStringToNum(toString(`event.id`)), toUnixTimestamp64Nano(`@timestamp`), toUnixTimestamp64Nano(`event.ingested`), `event.dataset`, `network.transport`, `event.demo`," +
	" `host.name`, `host.id`, `orchestrator.cluster.name`," +
	" `container.id`, `container.name`, `container.image.name`," +
	" `source.ip`, `source.port`, `source.container.id`, `source.container.name`, `source.container.image.name`," +
	" `destination.ip`, `destination.port`, `destination.container.id`, `destination.container.name`, `destination.container.image.name`," +
	" `verdict.detector`, `verdict.rule`, `verdict.version`, `verdict.severity`, `verdict.score`, `verdict.evidence`, `verdict.group`, `verdict.title`, `verdict.tags`" +
	" FROM "

type verdictRow struct {
	offset                    int64
	index                     uint32
	collector                 string
	boot, sequence            uint64
	id                        string
	at, ingested              int64
	dataset, transport        string
	demo                      bool
	host                      pipeline.Host
	container                 pipeline.Container
	source, destination       endpointRow
	detector, rule, version   []string
	severity, evidence, group []string
	title, tags               []string
	score                     []uint8
}

type endpointRow struct {
	ip        string
	port      uint16
	container pipeline.Container
}

func (r *verdictRow) targets() []any {
	container := func(c *pipeline.Container) []any { return []any{&c.Id, &c.Name, &c.Image} }
	t := []any{
		&r.offset, &r.index, &r.collector, &r.boot, &r.sequence,
		&r.id, &r.at, &r.ingested, &r.dataset, &r.transport, &r.demo,
		&r.host.Name, &r.host.Id, &r.host.Cluster,
	}
	t = append(t, container(&r.container)...)
	for _, p := range []*endpointRow{&r.source, &r.destination} {
		t = append(append(t, &p.ip, &p.port), container(&p.container)...)
	}
	return append(t, &r.detector, &r.rule, &r.version, &r.severity, &r.score, &r.evidence, &r.group, &r.title, &r.tags)
}

func (r *verdictRow) event() (*pipeline.Event, error) {
	e := &pipeline.Event{
		Id: []byte(r.id), Timestamp: r.at, Ingested: r.ingested, Dataset: pipeline.DatasetByName(r.dataset), Host: &r.host,
		Source: r.source.endpoint(), Destination: r.destination.endpoint(),
	}
	switch r.transport {
	case "tcp":
		e.Transport = pipeline.Transport_TCP
	case "udp":
		e.Transport = pipeline.Transport_UDP
	}
	if r.container.Id != "" || r.demo {
		r.container.Demo = r.demo
		e.Container = &r.container
	}
	n := len(r.rule)
	for _, l := range [][]string{r.detector, r.version, r.severity, r.evidence, r.group, r.title, r.tags} {
		if len(l) != n {
			return nil, fmt.Errorf("row (%d, %d): its verdict lists are not of one length", r.offset, r.index)
		}
	}
	for i := range n {
		e.Verdicts = append(e.Verdicts, &pipeline.Verdict{
			Detector: r.detector[i], Rule: r.rule[i], Version: r.version[i], Severity: pipeline.SeverityByName(r.severity[i]),
			Score: uint32(r.score[i]), Evidence: r.evidence[i], Group: r.group[i], Title: r.title[i], Tags: splitTags(r.tags[i]),
		})
	}
	return e, nil
}

func splitTags(joined string) []string {
	if joined == "" {
		return nil
	}
	return strings.Split(joined, ",")
}

func (r *endpointRow) endpoint() *pipeline.Endpoint {
	if r.ip == "" && r.port == 0 && r.container.Id == "" {
		return nil
	}
	p := &pipeline.Endpoint{Port: uint32(r.port)}
	if a, err := netip.ParseAddr(r.ip); err == nil {
		p.Ip = a.AsSlice()
	}
	if r.container.Id != "" {
		p.Container = &r.container
	}
	return p
}
