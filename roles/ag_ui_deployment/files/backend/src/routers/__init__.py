"""HTTP routes: convert requests and responses, without business logic."""
