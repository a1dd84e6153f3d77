"""Code that the tests of several files share: events, strategies, clients and servers."""
