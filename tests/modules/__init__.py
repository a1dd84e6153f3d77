"""Tests of the modules of the collection, run as Ansible runs them on a host."""
