"""What the scenarios' tests stand on: the site under test, clients, deadlines, and figures."""
