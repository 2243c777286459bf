"""Flower as the carrier between machines; nothing outside this folder touches it."""
