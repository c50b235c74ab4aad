"""Reader of tables: CSV, TSV, JSON lines and Parquet."""
