"""What is shown of a comparison: words, tables, a page."""
