"""Readers of file formats: each returns arrays, and refuses a damaged or dangerous file."""
