"""Replies that can't be read quickly are read in processes apart, which can be killed."""
