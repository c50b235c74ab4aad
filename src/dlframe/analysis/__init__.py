"""What finished runs say together: read from their folders, paired by test samples, without torch."""
