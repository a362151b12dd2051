package reassembly

// markUrgent records the urgent byte of a segment of dir at the offset off. Linux passes over it when the
// application reads the stream, unless that has set SO_OOBINLINE, which few do. The rules are those of Linux's
// tcp_check_urg: the pointer is that of the byte behind the urgent one, there is one urgent byte at a time, and
// a later one replaces one that was not read. Older pointers and those before the next byte are ignored.
func (c *Conn) markUrgent(dir Dir, segment *Segment, off int64) {
	half := &c.half[dir]
	at := off + max(int64(segment.Urgent)-1, 0)
	if at < half.next || half.isUrgent && at <= half.urgent {
		return
	}
	half.urgent, half.isUrgent = at, true
}

// deliverAroundUrgent delivers data, the next bytes of dir, without the urgent byte among them.
func (c *Conn) deliverAroundUrgent(dir Dir, data []byte, at int64) {
	half := &c.half[dir]
	index := half.urgent - half.next
	if index < 0 || index >= int64(len(data)) {
		half.isUrgent = index >= 0 // else it was given up with the bytes around it
		c.handler.Data(dir, data, at)
		return
	}
	half.isUrgent = false
	if index > 0 {
		c.handler.Data(dir, data[:index], at)
	}
	c.handler.Observe(dir, UrgentByte, at)
	if rest := data[index+1:]; len(rest) > 0 {
		half.next += index + 1 // NextSeq is the number of the first byte of rest
		c.handler.Data(dir, rest, at)
		half.next -= index + 1
	}
}
