"""Figures as SVG, drawn by hand: pieces, scales and marks of axes, curves, cells, ridges, bars."""
