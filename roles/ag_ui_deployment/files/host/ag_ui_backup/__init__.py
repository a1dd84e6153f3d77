"""Backup and restore of the site. Runs on the hosts, and on the controller to read archives.

Python 3.10 and its standard library only.
"""
