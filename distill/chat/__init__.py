"""Talking to a student in a terminal."""
