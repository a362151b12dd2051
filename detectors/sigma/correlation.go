package sigma

import "tidegate/pipeline/config"

type correlation struct{}

func (d *document) parseCorrelation(node config.Node) {
	d.refuse(node, "correlations are not supported yet")
}
func (d *document) resolveCorrelation(known map[string]*document) {}
func (d *document) writeCorrelation(c *Conversion)                {}
