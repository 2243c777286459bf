"""Sums of uploads of which the server sees no single one."""
