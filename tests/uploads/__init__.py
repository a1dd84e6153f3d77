"""Uploads by the official client through nginx."""
