"""Conversations as rows: canonical transcripts, other data formats, hold-out sets."""
