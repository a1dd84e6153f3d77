"""Shared code of the scenario tests: the site under test, clients, waiting, and figures."""
