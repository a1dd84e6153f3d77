"""Tests that run tasks of the roles on folders in place of hosts.

They take as long as all other fast tests together.
"""
