"""Tests of the playbooks that operators run beside deployments."""
