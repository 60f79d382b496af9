"""Candidates -> prompt -> answer: one prompt template, used by answering and by training."""
