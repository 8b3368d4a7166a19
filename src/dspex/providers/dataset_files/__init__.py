"""Files of examples: JSON lines, JSON, CSV, Parquet."""
