"""Measures of answers, with intervals that respect products and tests of differences."""
