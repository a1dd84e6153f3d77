"""The domain logic, independent of HTTP."""
