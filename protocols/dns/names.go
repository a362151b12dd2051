package dns

import "strconv"

// Record types, and a class.
const (
	typeA     = 1
	typeSOA   = 6
	typeAAAA  = 28
	typeOPT   = 41
	typeIXFR  = 251
	typeAXFR  = 252
	classNone = 254
)

// typeNames are the names of IANA's registry "Resource Record (RR) TYPEs".
var typeNames = [...]string{
	1: "A", 2: "NS", 3: "MD", 4: "MF", 5: "CNAME", 6: "SOA", 7: "MB", 8: "MG", 9: "MR", 10: "NULL", 11: "WKS",
	12: "PTR", 13: "HINFO", 14: "MINFO", 15: "MX", 16: "TXT", 17: "RP", 18: "AFSDB", 19: "X25", 20: "ISDN",
	21: "RT", 22: "NSAP", 23: "NSAP-PTR", 24: "SIG", 25: "KEY", 26: "PX", 27: "GPOS", 28: "AAAA", 29: "LOC",
	30: "NXT", 31: "EID", 32: "NIMLOC", 33: "SRV", 34: "ATMA", 35: "NAPTR", 36: "KX", 37: "CERT", 38: "A6",
	39: "DNAME", 40: "SINK", 41: "OPT", 42: "APL", 43: "DS", 44: "SSHFP", 45: "IPSECKEY", 46: "RRSIG",
	47: "NSEC", 48: "DNSKEY", 49: "DHCID", 50: "NSEC3", 51: "NSEC3PARAM", 52: "TLSA", 53: "SMIMEA", 55: "HIP",
	56: "NINFO", 57: "RKEY", 58: "TALINK", 59: "CDS", 60: "CDNSKEY", 61: "OPENPGPKEY", 62: "CSYNC",
	63: "ZONEMD", 64: "SVCB", 65: "HTTPS", 66: "DSYNC", 99: "SPF", 100: "UINFO", 101: "UID", 102: "GID",
	103: "UNSPEC", 104: "NID", 105: "L32", 106: "L64", 107: "LP", 108: "EUI48", 109: "EUI64", 128: "NXNAME",
	249: "TKEY", 250: "TSIG", 251: "IXFR", 252: "AXFR", 253: "MAILB", 254: "MAILA", 255: "ANY", 256: "URI",
	257: "CAA", 258: "AVC", 259: "DOA", 260: "AMTRELAY", 261: "RESINFO", 262: "WALLET",
}

// typeName returns the name of a record type, or TYPE and its number (RFC 3597 section 5).
func typeName(typ uint16) string {
	switch {
	case int(typ) < len(typeNames) && typeNames[typ] != "":
		return typeNames[typ]
	case typ == 32768:
		return "TA"
	case typ == 32769:
		return "DLV"
	}
	return "TYPE" + strconv.Itoa(int(typ))
}

// className returns the name of a class, or "" if it is not in use.
func className(c uint16) string {
	switch c {
	case 1:
		return "IN"
	case 3:
		return "CH"
	case 4:
		return "HS"
	case classNone:
		return "NONE"
	case 255:
		return "ANY"
	}
	return ""
}

// classText returns the name of a class, or CLASS and its number.
func classText(c uint16) string {
	if name := className(c); name != "" {
		return name
	}
	return "CLASS" + strconv.Itoa(int(c))
}

var opCodes = [16]string{
	"QUERY", "IQUERY", "STATUS", "OPCODE3", "NOTIFY", "UPDATE", "DSO", "OPCODE7",
	"OPCODE8", "OPCODE9", "OPCODE10", "OPCODE11", "OPCODE12", "OPCODE13", "OPCODE14", "OPCODE15",
}

var responseCodes = [...]string{
	0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 6: "YXDOMAIN",
	7: "YXRRSET", 8: "NXRRSET", 9: "NOTAUTH", 10: "NOTZONE", 11: "DSOTYPENI", 16: "BADVERS", 17: "BADKEY",
	18: "BADTIME", 19: "BADMODE", 20: "BADNAME", 21: "BADALG", 22: "BADTRUNC", 23: "BADCOOKIE",
}

// responseCode returns the name of a response code, or RCODE and its number.
func responseCode(r uint16) string {
	if int(r) < len(responseCodes) && responseCodes[r] != "" {
		return responseCodes[r]
	}
	return "RCODE" + strconv.Itoa(int(r))
}

// headerFlags appends the names of the bits that are set in flags.
func headerFlags(dst []string, flags uint16) []string {
	for _, flag := range [...]struct {
		bit  uint16
		name string
	}{{flagAA, "AA"}, {flagTC, "TC"}, {flagRD, "RD"}, {flagRA, "RA"}, {flagAD, "AD"}, {flagCD, "CD"}} {
		if flags&flag.bit != 0 {
			dst = append(dst, flag.name)
		}
	}
	return dst
}
