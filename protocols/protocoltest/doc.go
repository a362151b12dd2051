// Package protocoltest is the test kit of parsers.
//
// A Conversation is a connection as a list of steps. It is written in Go or read from a transcript in
// protocols/testdata. Play returns its events as text, Events as pipeline events.
//
// CheckProperties checks the properties of every parser with a conversation. The events do not depend on how
// the bytes are cut. An event is correct or marked partial, whatever bytes are lost. Fuzz checks arbitrary
// bytes. CheckNegative checks that a conversation of another protocol is not recognised. CheckGoldens compares
// every field of the events of the transcripts with goldens. Capture plays a capture file.
//
// The tests of protocols/all and of each parser call the kit. docs/ADDING-A-PROTOCOL.md lists which function
// to call when.
package protocoltest
