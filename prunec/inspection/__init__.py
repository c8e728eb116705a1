"""Inspection of networks and of compilations: layers, channel groups, reasons."""
