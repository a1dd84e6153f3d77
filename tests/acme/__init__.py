"""Tests of certificates by ACME, with certbot, Pebble and nginx."""
