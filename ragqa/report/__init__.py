"""The report of a comparison: words, tables, pictures and answers side by side, as HTML, Markdown and JSON."""
