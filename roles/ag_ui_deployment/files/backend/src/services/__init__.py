"""Rules of the application, free of HTTP."""
