"""Readers of speech: audio files, transcripts, lists of utterances, and the speech synthesizer."""
