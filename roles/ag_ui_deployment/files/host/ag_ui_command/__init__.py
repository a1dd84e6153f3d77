"""The command ag-ui, with which an operator works on a host. It needs Python 3.10 and nothing else."""
