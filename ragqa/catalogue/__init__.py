"""Rows of any format -> cleaned products -> a memory-mapped store."""
