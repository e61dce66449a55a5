"""Data sets as ordered, endless, resumable prompt streams. Knows tokenizers; knows no engine and no reward."""
