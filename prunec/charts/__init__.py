"""Charts as SVG, without a plotting library: elements, scales, curves, heat maps, ridges, bars."""
