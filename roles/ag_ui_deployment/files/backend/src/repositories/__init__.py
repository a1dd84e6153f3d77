"""Database queries, one module per domain. The caller owns the transaction."""
