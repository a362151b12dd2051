package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"tidegate/pipeline"
)

// mixedEvents returns count events as a collector ships them: 35 % HTTP, 15 % DNS, 15 % sessions, 15 % log
// lines, 10 % MySQL, 10 % Redis. The random numbers are drawn in a fixed order, so that the events are the
// same in every run except for their timestamps.
func mixedEvents(count int) []*pipeline.Event {
	rng := rand.New(rand.NewPCG(5, 5))
	now := time.Now().UnixNano()
	events := make([]*pipeline.Event, count)
	for i := range events {
		client := addrPort(172, 18, byte(rng.IntN(4)), byte(2+rng.IntN(250)), uint16(32768+rng.IntN(28000)))
		server := addrPort(172, 17, 0, byte(2+rng.IntN(20)), 80)
		id := binary.BigEndian.AppendUint64(nil, rng.Uint64())
		event := &pipeline.Event{
			Id:             binary.BigEndian.AppendUint64(id, uint64(i)),
			Timestamp:      now - rng.Int64N(1e9),
			Duration:       rng.Uint64N(5e7),
			Outcome:        pipeline.Outcome_SUCCESS,
			Interfaces:     []string{"docker0"},
			ContainerIndex: 1 + rng.Uint32N(20), // into the containers of the batch, from 1
		}
		fillBody(event, rng)
		if event.Dataset != pipeline.Dataset_LOG {
			setEndpoints(event, rng, client, server)
		}
		events[i] = event
	}
	return events
}

// addrPort returns the IPv4 address a.b.c.d with a port.
func addrPort(a, b, c, d byte, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{a, b, c, d}), port)
}

// setEndpoints sets transport, community ID, source and destination of an event from the network.
func setEndpoints(event *pipeline.Event, rng *rand.Rand, client, server netip.AddrPort) {
	event.Transport = pipeline.Transport_TCP
	if event.Dataset == pipeline.Dataset_DNS {
		event.Transport = pipeline.Transport_UDP
	}
	id := pipeline.CommunityID(event.Transport, client, server)
	event.CommunityId = id[:]
	event.Source = &pipeline.Endpoint{
		Ip: client.Addr().AsSlice(), Port: uint32(client.Port()), Bytes: rng.Uint64N(2000),
	}
	event.Destination = &pipeline.Endpoint{
		Ip: server.Addr().AsSlice(), Port: uint32(server.Port()), Bytes: rng.Uint64N(60000),
		ContainerIndex: event.ContainerIndex,
	}
}

// fillBody draws the dataset of event and sets the fields of the dataset.
func fillBody(event *pipeline.Event, rng *rand.Rand) {
	switch draw := rng.IntN(20); {
	case draw < 7:
		event.Dataset, event.Http = pipeline.Dataset_HTTP, httpExchange(rng)
	case draw < 10:
		event.Dataset, event.Dns = pipeline.Dataset_DNS, dnsMessage(rng)
	case draw < 13:
		event.Dataset = pipeline.Dataset_SESSION
		event.Session = &pipeline.Session{
			History: "ShADadFf", State: "fin",
			RttClient: rng.Uint64N(1e6), RttServer: rng.Uint64N(1e6), ResponseTime: rng.Uint64N(1e7),
			DirectionConfidence: 100, Protocol: "http",
		}
	case draw < 16:
		event.Dataset, event.Log = pipeline.Dataset_LOG, logLine(rng)
	case draw < 18:
		event.Dataset, event.Mysql = pipeline.Dataset_MYSQL, mysqlCommand(rng)
	default:
		event.Dataset = pipeline.Dataset_REDIS
		key := fmt.Sprintf("cart:%d", rng.IntN(5000))
		event.Redis = &pipeline.RedisCommand{
			Command: "GET", Key: key, Args: []string{key}, ArgsCount: 1, ArgsBytes: 9,
			ReplyType: "bulk_string", ReplyBytes: rng.Uint64N(500),
		}
	}
}

// httpExchange returns a request of a browser for one page of a catalog.
func httpExchange(rng *rand.Rand) *pipeline.HTTPExchange {
	path := fmt.Sprintf("/catalog/items/%d", rng.IntN(5000))
	query := fmt.Sprintf("page=%d&sort=price&session=%08x", rng.IntN(20), rng.Uint32())
	return &pipeline.HTTPExchange{
		Version: "1.1", Method: "GET",
		UrlOriginal: path + "?" + query, UrlPath: path, UrlQuery: query, UrlDomain: "shop.example.com",
		UserAgent:  "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0",
		StatusCode: 200, StatusPhrase: "OK", Server: "nginx",
		ResponseMimeType: "text/html", ResponseBodyBytes: rng.Uint64N(60000),
		RequestHeaderBytes: 400, ResponseHeaderBytes: 200,
	}
}

// dnsMessage returns the answer to an address query, one of 900 names.
func dnsMessage(rng *rand.Rand) *pipeline.DNSMessage {
	name := fmt.Sprintf("cdn%d.images.example.net", rng.IntN(900))
	return &pipeline.DNSMessage{
		Type: "answer", Id: rng.Uint32N(65536), OpCode: "QUERY", ResponseCode: "NOERROR",
		HeaderFlags:  []string{"RD", "RA"},
		QuestionName: name, QuestionType: "A", QuestionClass: "IN", RegisteredDomain: "example.net",
		AnswersCount: 1, AnswersName: []string{name}, AnswersType: []string{"A"}, AnswersTtl: []uint32{60},
		AnswersData: []string{"203.0.113.9"}, ResolvedIp: []string{"203.0.113.9"},
	}
}

// logLine returns a line of a service that logs to standard error.
func logLine(rng *rand.Rand) *pipeline.LogLine {
	return &pipeline.LogLine{
		Message: fmt.Sprintf("2026-03-01T12:%02d:%02d.123Z INFO order %d accepted from customer %d in %d ms",
			rng.IntN(60), rng.IntN(60), rng.IntN(99999), rng.IntN(9999), rng.IntN(300)),
		Stream: "stderr", Path: "/var/lib/docker/containers/ab/ab-json.log",
		Offset: rng.Uint64N(1e9), Bytes: 90, Level: "info",
	}
}

// mysqlCommand returns a query of the items of one category.
func mysqlCommand(rng *rand.Rand) *pipeline.MySQLCommand {
	return &pipeline.MySQLCommand{
		Command: "COM_QUERY", Method: "SELECT", Rows: rng.Uint64N(40), Columns: 4,
		Database: "shop", UserName: "shop",
		Query: fmt.Sprintf("SELECT id, name, price, stock FROM items"+
			" WHERE category = %d AND price < %d ORDER BY price LIMIT 40", rng.IntN(90), rng.IntN(900)),
	}
}

// encodeBatches encodes events as batches of one producer epoch, perBatch events in each. The batches go to
// the partitions in turn. encoded holds the batches of each partition in the order of their sequence numbers.
func encodeBatches(events []*pipeline.Event, perBatch int) (encoded [partitions][][]byte, err error) {
	var sequences [partitions]uint64 // of the last batch of each partition
	for first := 0; first < len(events); first += perBatch {
		partition := first / perBatch % partitions
		sequences[partition]++
		batch := &pipeline.Batch{
			Schema:     pipeline.Schema,
			Collector:  make([]byte, 16),
			Epoch:      1,
			Partition:  uint32(partition),
			Sequence:   sequences[partition],
			Shipped:    time.Now().UnixNano(),
			Host:       &pipeline.Host{Name: "bench", Id: "00112233445566778899aabbccddeeff"},
			Containers: containers[:20],
			Events:     events[first:min(first+perBatch, len(events))],
		}
		data, err := batch.MarshalVT()
		if err != nil {
			return encoded, err
		}
		encoded[partition] = append(encoded[partition], data)
	}
	return encoded, nil
}
