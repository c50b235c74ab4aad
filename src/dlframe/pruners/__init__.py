"""Pruners: what ends a trial early."""
