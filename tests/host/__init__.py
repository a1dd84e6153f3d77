"""The command ag-ui, on a folder in place of a host."""
