"""What the tests of several files share: events, strategies, a client, servers."""
