"""Everything that tests the bundle as a whole; the backend's own tests stand beside its source."""
