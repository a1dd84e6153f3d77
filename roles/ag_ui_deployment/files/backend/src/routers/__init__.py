"""HTTP routes: they translate requests and responses, and hold no rules."""
