"""Bytes on disk: atomic writes, JSON lines, untrusted text."""
