"""What answers are worth: measures, intervals that respect products, tests of differences, and their report."""
