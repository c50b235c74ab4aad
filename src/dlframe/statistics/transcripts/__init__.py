"""Edits of transcripts and decoding of letters."""
